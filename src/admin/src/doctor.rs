//! `chancery doctor`: looks at everything that can be looked at without a login, and says what to
//! do about what is wrong.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use chancery_config::{Config, Token};
use chancery_host::ipc::Channel;
use chancery_host::{clock, process, sandbox};
use chancery_protocol::ipc::{operator, query, socket};
use der::asn1::Null;
use der::{Decode, pem};
use serde::Serialize;
use x509_cert::certificate::Certificate;

use crate::cli::Output;
use crate::end::{End, no_answer};
use crate::{text, token};

/// How long one thing may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Remaining life of a CA certificate below which doctor warns, in seconds.
const SOON: u64 = 60 * 86_400;

/// The body of a PKIOperation that no parser takes for a message.
const JUNK: &str = "chancery doctor";

/// Free space in octets below which doctor warns of the ledger's disk.
const AMPLE: u64 = 1 << 30;

/// The same, below which it fails.
const LOW: u64 = 100 << 20;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    /// What was found; of a failure, cause and remedy.
    detail: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.0.push(Finding {
            what: what.into(),
            verdict,
            detail: detail.into(),
        });
    }
}

/// Looks, prints, and fails if anything is wrong.
pub(crate) fn doctor(path: &Path, output: Output) -> Result<(), End> {
    let mut findings = Findings::default();
    match Config::load(path) {
        Ok(config) => {
            findings.add(
                "configuration",
                Verdict::Ok,
                config.path.display().to_string(),
            );
            examine(&config, &mut findings);
        }
        Err(error) => findings.add("configuration", Verdict::Failure, error.to_string()),
    }
    print(&findings.0, output)?;
    let wrong = findings
        .0
        .iter()
        .filter(|finding| finding.verdict == Verdict::Failure)
        .count();
    match wrong {
        0 => Ok(()),
        1 => Err(End::Failed("1 thing is wrong".into())),
        _ => Err(End::Failed(format!("{wrong} things are wrong"))),
    }
}

fn examine(config: &Config, findings: &mut Findings) {
    sandbox(findings);
    for token in &config.tokens {
        token_files(config, token, findings);
    }
    for authority in &config.authorities {
        let what = format!("certificate of ca \"{}\"", authority.id);
        certificate(&what, &authority.certificate, findings);
    }
    disk(&config.ledger.database, findings);
    let time = ledger(config, findings);
    ca(config, findings);
    clock_against(time, findings);
    for address in &config.front.listen {
        front(*address, config, findings);
    }
}

fn sandbox(findings: &mut Findings) {
    match sandbox::landlock_abi() {
        Some(abi) if abi >= 2 => {
            findings.add("sandbox", Verdict::Ok, format!("Landlock ABI {abi}"));
        }
        _ => findings.add(
            "sandbox",
            Verdict::Failure,
            "this kernel has no Landlock of ABI 2 or newer, which every role needs; use Linux 5.19 \
             or newer with landlock in its lsm list",
        ),
    }
}

fn token_files(config: &Config, token: &Token, findings: &mut Findings) {
    let what = |part: &str| format!("token \"{}\": {part}", token.name);
    if token.module.is_file() {
        findings.add(
            what("module"),
            Verdict::Ok,
            token.module.display().to_string(),
        );
    } else {
        let detail = format!(
            "{}: is missing; install the token's PKCS#11 module, or correct the key module",
            token.module.display()
        );
        findings.add(what("module"), Verdict::Failure, detail);
    }
    for file in token.files.iter().filter(|file| !file.exists()) {
        let detail = format!(
            "{}: is missing; the module keeps its keys there",
            file.display()
        );
        findings.add(what("files"), Verdict::Failure, detail);
    }
    let state = token::state(config, &token.name);
    if token::refused_mark(&state).exists() {
        findings.add(
            what("PIN"),
            Verdict::Failure,
            format!(
                "the token refused the PIN, and it will not be tried again by itself; put the right \
                 one into {}, then run `chancery token clear-pin --token {}`",
                token.pin_file.display(),
                token.name
            ),
        );
    } else if token::pending_mark(&state).exists() {
        findings.add(
            what("PIN"),
            Verdict::Warning,
            "a login began and did not end; the next start looks at the token's PIN counter first",
        );
    } else {
        findings.add(what("PIN"), Verdict::Ok, "not refused");
    }
}

fn certificate(what: &str, file: &Path, findings: &mut Findings) {
    let decoded = fs::read(file)
        .map_err(|error| error.to_string())
        .and_then(|text| {
            pem::decode_vec(&text)
                .map(|(_, der)| der)
                .map_err(|e| e.to_string())
        })
        .and_then(|der| Certificate::from_der(&der).map_err(|error| error.to_string()));
    let certificate = match decoded {
        Ok(certificate) => certificate,
        Err(cause) => {
            return findings.add(
                what,
                Verdict::Failure,
                format!("{}: {cause}", file.display()),
            );
        }
    };
    let not_after = certificate
        .tbs_certificate()
        .validity()
        .not_after
        .to_unix_duration()
        .as_secs();
    let now = clock::now();
    let until = text::time(not_after);
    if not_after <= now {
        findings.add(
            what,
            Verdict::Failure,
            format!("expired on {until}; nothing can be issued"),
        );
    } else if not_after < now.saturating_add(SOON) {
        findings.add(
            what,
            Verdict::Warning,
            format!("expires on {until}; plan its rollover"),
        );
    } else {
        findings.add(what, Verdict::Ok, format!("valid until {until}"));
    }
}

/// The ledger grows with every certificate; when it cannot, nothing is signed.
fn disk(database: &Path, findings: &mut Findings) {
    let folder = database.parent().unwrap_or(Path::new("/"));
    let free = match process::free_space(folder) {
        Ok(free) => free,
        Err(error) => {
            let detail = format!("{}: {error}", folder.display());
            return findings.add("disk", Verdict::Failure, detail);
        }
    };
    let verdict = room(free);
    let remedy = match verdict {
        Verdict::Ok => "",
        Verdict::Warning => "; make room before the ledger cannot grow",
        Verdict::Failure => "; make room: nothing is signed when the ledger cannot grow",
    };
    let detail = format!("{} MiB free in {}{remedy}", free >> 20, folder.display());
    findings.add("disk", verdict, detail);
}

fn room(free: u64) -> Verdict {
    match free {
        ..LOW => Verdict::Failure,
        LOW..AMPLE => Verdict::Warning,
        AMPLE.. => Verdict::Ok,
    }
}

fn ledger(config: &Config, findings: &mut Findings) -> Option<u64> {
    let channel = Channel::new(config.socket(socket::LEDGER_QUERY), DEADLINE);
    match channel.call(&query::Request::Status(Null)) {
        Ok(query::Reply::Status(status)) => {
            let detail = format!(
                "{} certificates, {} audit records, {} under a checkpoint",
                status.certificates, status.records, status.checkpoint
            );
            findings.add("ledger", Verdict::Ok, detail);
            Some(status.time)
        }
        Ok(query::Reply::Unavailable(cause)) => {
            findings.add("ledger", Verdict::Failure, cause);
            None
        }
        Ok(_) => {
            findings.add(
                "ledger",
                Verdict::Failure,
                "it answered another question; are all programs of one version?",
            );
            None
        }
        Err(error) => {
            findings.add("ledger", Verdict::Failure, no_answer("ledger", &error));
            None
        }
    }
}

fn ca(config: &Config, findings: &mut Findings) {
    let channel = Channel::new(config.socket(socket::CA_OPERATOR), DEADLINE);
    match channel.call(&operator::Request::Status(Null)) {
        Ok(operator::Reply::Status(status)) => {
            let detail = format!(
                "token \"{}\" open, profiles {}",
                status.token,
                status.profiles.join(", ")
            );
            findings.add("ca", Verdict::Ok, detail);
        }
        Ok(
            operator::Reply::Unavailable(cause)
            | operator::Reply::Refused(cause)
            | operator::Reply::Failed(cause),
        ) => {
            findings.add("ca", Verdict::Failure, cause);
        }
        Ok(operator::Reply::Challenge(_)) => {
            findings.add(
                "ca",
                Verdict::Failure,
                "it answered another question; are all programs of one version?",
            );
        }
        Err(error) => {
            findings.add("ca", Verdict::Failure, no_answer("ca", &error));
        }
    }
}

fn clock_against(newest_record: Option<u64>, findings: &mut Findings) {
    let now = clock::now();
    match newest_record {
        Some(record) if record > now.saturating_add(60) => findings.add(
            "clock",
            Verdict::Failure,
            format!(
                "{} is before the newest audit record, {}; nothing is issued until the clock is right: \
                 check the time service",
                text::time(now),
                text::time(record)
            ),
        ),
        _ => findings.add("clock", Verdict::Ok, text::time(now)),
    }
}

/// Front by itself, then front with ra and parser behind it.
fn front(address: SocketAddr, config: &Config, findings: &mut Findings) {
    let Some(profile) = config.profiles.first() else {
        return;
    };
    let path = format!("/scep/{}", profile.name);
    let what = format!("http://{address}{path}");
    match status_line(address, &format!("GET {path}?operation=GetCACert"), "") {
        Ok(line) if line.ends_with("200 OK") => {
            findings.add(what, Verdict::Ok, "serves GetCACert");
        }
        Ok(line) => findings.add(
            what,
            Verdict::Failure,
            format!("answers \"{line}\" to GetCACert; the CA publishes it when it has started"),
        ),
        Err(error) => {
            let detail = format!("{error}; is front running?");
            // Nothing can be said of what stands behind it.
            return findings.add(what, Verdict::Failure, detail);
        }
    }
    let what = format!("ra and parser behind {address}");
    match status_line(
        address,
        &format!("POST {path}?operation=PKIOperation"),
        JUNK,
    ) {
        Ok(line) if line.contains(" 400 ") => {
            findings.add(what, Verdict::Ok, "refuse what is no message");
        }
        Ok(line) => findings.add(
            what,
            Verdict::Failure,
            format!(
                "\"{line}\" instead of 400 to a PKIOperation that is no message; ra or parser does \
                 not work, see their logs"
            ),
        ),
        Err(error) => findings.add(
            what,
            Verdict::Failure,
            format!(
                "{error} after a PKIOperation that is no message; ra or parser does not work, see \
                 their logs"
            ),
        ),
    }
}

/// Sends a request of one body, returns the status line.
fn status_line(address: SocketAddr, target: &str, body: &str) -> io::Result<String> {
    let request = format!(
        "{target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut head)?;
    let line = head
        .split(|octet| *octet == b'\r')
        .next()
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn print(findings: &[Finding], output: Output) -> Result<(), End> {
    if output == Output::Json {
        let text = serde_json::to_string_pretty(findings)
            .map_err(|error| End::Failed(format!("the result does not encode: {error}")))?;
        println!("{text}");
        return Ok(());
    }
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "WARNING",
            Verdict::Failure => "FAILURE",
        };
        println!("{mark}  {}: {}", finding.what, finding.detail);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{AMPLE, LOW, Verdict, room};

    #[test]
    fn little_room_is_a_warning_and_hardly_any_a_failure() {
        assert_eq!(room(0), Verdict::Failure);
        assert_eq!(room(LOW - 1), Verdict::Failure);
        assert_eq!(room(LOW), Verdict::Warning);
        assert_eq!(room(AMPLE - 1), Verdict::Warning);
        assert_eq!(room(AMPLE), Verdict::Ok);
    }
}
