//! What a device asks for, read from method, path and raw query. Pure: no I/O, no clock.
//!
//! The query is never form-decoded: a `+` is a digit of base64 here, and turning it into a blank
//! is what breaks enrolment behind other servers.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chancery_protocol::wire::MAX_MESSAGE;
use percent_encoding::percent_decode;

/// The folder under which every profile is served.
const PREFIX: &[u8] = b"/scep/";

/// One SCEP operation (RFC 8894 §4), with what the request line says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// §3.5.1. Its `message`, an identifier from old drafts, is ignored.
    GetCaCaps,
    /// §4.2. Its `message` is ignored too.
    GetCaCert,
    /// §4.1: a pkiMessage in the query of a GET; neither empty nor above [`MAX_MESSAGE`].
    PkiOperationGet(Vec<u8>),
    /// §4.3: a pkiMessage in the body of a POST.
    PkiOperationPost {
        /// The pkiMessage of the query, if it holds one. Old macOS posts an empty body and means
        /// this one.
        in_query: Option<Vec<u8>>,
    },
}

/// Why a request line is no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// SCEP knows GET and POST.
    #[error("method is neither GET nor POST")]
    Method,
    /// `operation` is missing or unknown.
    #[error("operation is missing, unknown or not for this method")]
    Operation,
    /// `message` is missing, empty or not base64.
    #[error("message is missing, empty or not base64")]
    Message,
    /// `message` holds more than [`MAX_MESSAGE`] octets.
    #[error("message exceeds {MAX_MESSAGE} octets")]
    TooLong,
}

/// The profile that a path names: `/scep/<profile>` and anything below it, since clients append
/// names of their own such as `/pkiclient.exe`. `None` for every other path; whether the profile
/// exists is the caller's to know.
#[must_use]
pub fn profile(path: &[u8]) -> Option<&str> {
    let name = path.strip_prefix(PREFIX)?.split(|&b| b == b'/').next()?;
    let fits = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    if name.is_empty() || !name.iter().all(fits) {
        return None;
    }
    std::str::from_utf8(name).ok()
}

/// Reads the operation out of method and raw query. Names compare without regard to case.
///
/// # Errors
/// [`Refusal`] for what SCEP does not know or this server does not serve.
pub fn operation(method: &[u8], query: &[u8]) -> Result<Operation, Refusal> {
    let name = parameter(query, "operation").map(|raw| percent_decode(raw).collect::<Vec<u8>>());
    let is = |wanted: &str| {
        name.as_ref()
            .is_some_and(|n| n.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let message = || parameter(query, "message").ok_or(Refusal::Message);
    match method {
        b"GET" if is("GetCACaps") => Ok(Operation::GetCaCaps),
        b"GET" if is("GetCACert") => Ok(Operation::GetCaCert),
        b"GET" if is("PKIOperation") => message().and_then(decode).map(Operation::PkiOperationGet),
        // §4.3 has one value only, so a client that leaves it out means that one.
        b"POST" if name.is_none() || is("PKIOperation") => Ok(Operation::PkiOperationPost {
            in_query: message().and_then(decode).ok(),
        }),
        b"GET" | b"POST" => Err(Refusal::Operation),
        _ => Err(Refusal::Method),
    }
}

/// The raw value of the first parameter of this name.
fn parameter<'q>(query: &'q [u8], name: &str) -> Option<&'q [u8]> {
    query.split(|&b| b == b'&').find_map(|pair| {
        let mut halves = pair.splitn(2, |&b| b == b'=');
        let key = halves.next()?;
        let value = halves.next().unwrap_or_default();
        key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    })
}

/// Decodes the `message` of a PKIOperation by GET: base64, percent-encoded as a whole (RFC 8894
/// §4.1), in part (macOS) or not at all. A blank stands for the `+` that somebody form-decoded;
/// line breaks are skipped; padding may be missing; the URL-safe alphabet is the second try.
fn decode(raw: &[u8]) -> Result<Vec<u8>, Refusal> {
    let digits: Vec<u8> = percent_decode(raw)
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .map(|b| if b == b' ' { b'+' } else { b })
        .collect();
    let message = STANDARD
        .decode(&digits)
        .or_else(|_| URL_SAFE.decode(&digits))
        .map_err(|_| Refusal::Message)?;
    match message.len() {
        0 => Err(Refusal::Message),
        1..=MAX_MESSAGE => Ok(message),
        _ => Err(Refusal::TooLong),
    }
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_names_its_profile_and_anything_may_follow() {
        for path in [
            "/scep/devices",
            "/scep/devices/",
            "/scep/devices/pkiclient.exe",
            "/scep/devices/cgi-bin/pkiclient.exe",
            "/scep/devices//%00/../x",
        ] {
            assert_eq!(profile(path.as_bytes()), Some("devices"), "{path}");
        }
        assert_eq!(profile(b"/scep/lab-2"), Some("lab-2"));
        for path in [
            "",
            "/",
            "/scep",
            "/scep/",
            "/scep//devices",
            "/SCEP/devices",
            "//scep/devices",
            "/scep/Devices",
            "/scep/dev%69ces",
            "/scep/devices;x=1",
            "/scep/devices.exe",
            "/scep/..",
            "scep/devices",
            "/crl/issuing.crl",
        ] {
            assert_eq!(profile(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn a_post_needs_no_operation_and_tolerates_no_other() {
        let post = |query: &str| operation(b"POST", query.as_bytes());
        let plain = Ok(Operation::PkiOperationPost { in_query: None });
        assert_eq!(post(""), plain);
        assert_eq!(post("operation=PKIOperation"), plain);
        assert_eq!(post("OPERATION=pkioperation&x"), plain);
        assert_eq!(post("message=%%%"), plain, "the body counts");
        assert_eq!(post("operation=GetCACaps"), Err(Refusal::Operation));
        assert_eq!(post("operation="), Err(Refusal::Operation));
        assert_eq!(
            post("operation=PKIOperation&message=MAA="),
            Ok(Operation::PkiOperationPost {
                in_query: Some(vec![0x30, 0])
            })
        );
    }

    #[test]
    fn other_methods_are_refused_before_their_query_is_read() {
        for method in ["HEAD", "PUT", "OPTIONS", "CONNECT", "get", ""] {
            assert_eq!(
                operation(method.as_bytes(), b"operation=GetCACaps"),
                Err(Refusal::Method)
            );
        }
    }

    #[test]
    fn a_message_has_a_limit() {
        let query = |octets: usize| {
            let text = STANDARD.encode(vec![0x30; octets]);
            operation(
                b"GET",
                format!("operation=PKIOperation&message={text}").as_bytes(),
            )
        };
        assert_eq!(
            query(MAX_MESSAGE),
            Ok(Operation::PkiOperationGet(vec![0x30; MAX_MESSAGE]))
        );
        assert_eq!(query(MAX_MESSAGE + 1), Err(Refusal::TooLong));
    }

    /// Breaks `text` into lines of 64 characters, as OpenSSL's encoder does.
    fn lines(text: &str) -> String {
        let chunks: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|c| std::str::from_utf8(c).unwrap())
            .collect();
        chunks.join("\n")
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(
            method in vec(any::<u8>(), 0..8),
            path in vec(any::<u8>(), 0..200),
            query in vec(any::<u8>(), 0..400),
        ) {
            if let Some(name) = profile(&path) {
                let below = path.strip_prefix(b"/scep/").unwrap();
                prop_assert!(below.starts_with(name.as_bytes()));
            }
            let _ = operation(&method, &query);
        }

        #[test]
        fn any_value_of_message_is_read_or_refused(value in vec(any::<u8>(), 0..300)) {
            let query = [b"operation=PKIOperation&message=", value.as_slice()].concat();
            if let Ok(Operation::PkiOperationGet(message)) = operation(b"GET", &query) {
                prop_assert!(!message.is_empty() && message.len() <= value.len());
            }
        }

        #[test]
        fn every_way_of_writing_a_message_reads_the_same(message in vec(any::<u8>(), 1..600)) {
            let padded = STANDARD.encode(&message);
            let url_safe = URL_SAFE.encode(&message);
            let escaped = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
            for form in [
                escaped(&padded),
                padded.replace('=', "%3D"),
                padded.replace('+', " "),
                padded.replace('+', "%20"),
                escaped(&lines(&padded)),
                escaped(&lines(&padded).replace('\n', "\r\n")),
                padded.trim_end_matches('=').to_owned(),
                url_safe.trim_end_matches('=').to_owned(),
                url_safe,
                padded,
            ] {
                let query = format!("operation=PKIOperation&message={form}");
                prop_assert_eq!(
                    operation(b"GET", query.as_bytes()),
                    Ok(Operation::PkiOperationGet(message.clone())),
                    "{}", form
                );
            }
        }
    }
}
