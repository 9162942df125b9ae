//! Against the `cms` and `x509-cert` crates: whatever they accept as a SCEP message in DER is
//! accepted here, and a PKCS#10 that is accepted here differs from theirs in listed ways only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_parser::{Fault, Malformed, table_of_certification_request, table_of_message};
use cms::content_info::ContentInfo;
use cms::enveloped_data::EnvelopedData;
use cms::signed_data::SignedData;
use common::element::{Element, change, primitive};
use common::scep::{
    CERT_EXTENSIONS, E_CONTENT, ENVELOPED_DATA, SIGNED_DATA, certification_request,
    enveloping_message,
};
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::oid::AssociatedOid;
use der::{Decode, ErrorKind, Tag};
use proptest::prelude::*;
use x509_cert::request::{CertReq, ExtensionReq};

fn content(octets: &[u8], content_type: ObjectIdentifier) -> der::Result<Any> {
    let info = ContentInfo::from_der(octets)?;
    if info.content_type == content_type {
        Ok(info.content)
    } else {
        Err(ErrorKind::OidUnknown {
            oid: info.content_type,
        }
        .into())
    }
}

/// Whether the crate `cms` reads this as SignedData with, if anything, EnvelopedData in it.
fn cms_accepts(octets: &[u8]) -> der::Result<()> {
    let signed: SignedData = content(octets, SIGNED_DATA)?.decode_as()?;
    if let Some(inner) = signed.encap_content_info.econtent {
        let inner: OctetString = inner.decode_as()?;
        content(inner.as_bytes(), ENVELOPED_DATA)?.decode_as::<EnvelopedData>()?;
    }
    Ok(())
}

/// Whether the crate `x509-cert` reads this as a PKCS#10, and every extensionRequest in it.
fn x509_cert_accepts(octets: &[u8]) -> der::Result<()> {
    let request = CertReq::from_der(octets)?;
    let attributes = request.info.attributes.iter();
    attributes
        .filter(|attribute| [ExtensionReq::OID, CERT_EXTENSIONS].contains(&attribute.oid))
        .flat_map(|attribute| attribute.values.iter())
        .try_for_each(|value| value.decode_as::<ExtensionReq>().map(drop))
}

/// Why this parser may refuse what the crates accept. They never look into a value of type ANY,
/// a subjectAltName or an RSA key; here every one is expanded. A structure is never the reason.
fn is_stricter(malformed: Malformed) -> bool {
    match malformed.fault {
        Fault::Expected(_) => false,
        Fault::Truncated
        | Fault::HighTag
        | Fault::Length
        | Fault::EndOfContents
        | Fault::Trailing
        | Fault::NotOctets
        | Fault::TooLarge
        | Fault::TooDeep
        | Fault::TooMany => true,
    }
}

/// Why `x509-cert` may refuse a PKCS#10 that is accepted here.
#[derive(Debug, PartialEq, Eq)]
enum Leniency {
    /// RFC 2986 has attributes always; some clients leave `[0]` out where it would be empty.
    NoAttributes,
    /// What a primitive contains is not looked at: arcs of an OID, sign and minimality of an
    /// INTEGER, the octet of a BOOLEAN, unused bits, which version it is.
    PrimitiveContent,
    /// Universal tag numbers which that crate has no type for, in a value of type ANY.
    UnknownUniversalTag,
}

fn leniency(octets: &[u8], error: &der::Error) -> Option<Leniency> {
    let mut request = Element::from_der(octets);
    match error.kind() {
        _ if request.at(&[0]).children().len() == 3 => Some(Leniency::NoAttributes),
        // An overflow is what that crate makes of a BIT STRING without its first octet.
        ErrorKind::OidMalformed | ErrorKind::Overflow => Some(Leniency::PrimitiveContent),
        ErrorKind::Value { tag } | ErrorKind::Noncanonical { tag } | ErrorKind::Length { tag } => {
            matches!(
                tag,
                Tag::Boolean | Tag::Integer | Tag::BitString | Tag::ObjectIdentifier
            )
            .then_some(Leniency::PrimitiveContent)
        }
        ErrorKind::TagUnknown { .. } => Some(Leniency::UnknownUniversalTag),
        _ => None,
    }
}

proptest! {
    // Most changes make both sides refuse, so many are tried; a failure prints its input.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1500)
    })]

    #[test]
    fn what_cms_accepts_is_accepted(
        (octets, enveloped) in enveloping_message(),
        outer in prop::collection::vec(change(), 0..3),
        inner in prop::collection::vec(change(), 0..3),
    ) {
        let mut content = Element::from_der(&enveloped);
        for change in &inner {
            content.change(change);
        }
        let mut message = Element::from_der(&octets);
        *message.at(&E_CONTENT) = primitive(0x04, content.to_der());
        for change in &outer {
            message.change(change);
        }
        let octets = message.to_der();
        if let (Ok(()), Err(malformed)) = (cms_accepts(&octets), table_of_message(&octets)) {
            prop_assert!(is_stricter(malformed), "{malformed}");
        }
    }

    #[test]
    fn what_x509_cert_accepts_is_accepted(
        octets in certification_request(),
        changes in prop::collection::vec(change(), 0..3),
    ) {
        let mut request = Element::from_der(&octets);
        for change in &changes {
            request.change(change);
        }
        let octets = request.to_der();
        match (x509_cert_accepts(&octets), table_of_certification_request(&octets)) {
            (Ok(()), Err(malformed)) => prop_assert!(is_stricter(malformed), "{malformed}"),
            (Err(error), Ok(_)) => {
                prop_assert!(leniency(&octets, &error).is_some(), "{error:?}: {octets:02x?}");
            }
            (Ok(()), Ok(_)) | (Err(_), Err(_)) => {}
        }
    }
}
