//! The few fields of a certificate that the RA looks at: who issued it, under which number, for
//! which key.
//!
//! What is read here comes from the CA. It is read defensively all the same, and nothing in it is
//! decoded that is not needed.

use const_oid::db::rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence};

/// A certificate, kept as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    public_key: Vec<u8>,
    subject_key_identifier: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`der::Error`] if the octets are no certificate, or more than one.
    pub(crate) fn read(octets: &[u8]) -> der::Result<Self> {
        let certificate = Parts::from_der(octets)?;
        let tbs = certificate.tbs_certificate;
        let subject_key_identifier = tbs
            .extensions
            .iter()
            .flatten()
            .find(|extension| extension.id == ID_CE_SUBJECT_KEY_IDENTIFIER)
            .map(|extension| <&OctetStringRef>::from_der(extension.value.as_bytes()))
            .transpose()?
            .map(|identifier| identifier.as_bytes().to_vec());
        Ok(Self {
            der: octets.to_vec(),
            issuer: tbs.issuer.to_der()?,
            serial: tbs.serial_number.to_der()?,
            public_key: tbs.subject_public_key_info.to_der()?,
            subject_key_identifier,
        })
    }

    /// The whole certificate in DER.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's Name in DER.
    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The serial number, an INTEGER in DER.
    pub(crate) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The SubjectPublicKeyInfo in DER.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The content of the subjectKeyIdentifier extension.
    pub(crate) fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.subject_key_identifier.as_deref()
    }
}

/// RFC 5280 §4.1:
/// ```text
/// Certificate ::= SEQUENCE {
///     tbsCertificate TBSCertificate, signatureAlgorithm AlgorithmIdentifier,
///     signatureValue BIT STRING }
/// ```
#[derive(Sequence)]
struct Parts<'a> {
    tbs_certificate: TbsCertificate<'a>,
    _signature_algorithm: AnyRef<'a>,
    _signature_value: BitStringRef<'a>,
}

/// RFC 5280 §4.1:
/// ```text
/// TBSCertificate ::= SEQUENCE {
///     version [0] EXPLICIT Version DEFAULT v1, serialNumber CertificateSerialNumber,
///     signature AlgorithmIdentifier, issuer Name, validity Validity, subject Name,
///     subjectPublicKeyInfo SubjectPublicKeyInfo,
///     issuerUniqueID [1] IMPLICIT UniqueIdentifier OPTIONAL,
///     subjectUniqueID [2] IMPLICIT UniqueIdentifier OPTIONAL,
///     extensions [3] EXPLICIT Extensions OPTIONAL }
/// ```
#[derive(Sequence)]
struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    _version: Option<u8>,
    serial_number: AnyRef<'a>,
    _signature: AnyRef<'a>,
    issuer: AnyRef<'a>,
    _validity: AnyRef<'a>,
    _subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    _issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    _subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension<'a>>>,
}

/// RFC 5280 §4.1:
/// ```text
/// Extension ::= SEQUENCE {
///     extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }
/// ```
#[derive(Sequence)]
struct Extension<'a> {
    id: ObjectIdentifier,
    #[asn1(default = "Default::default")]
    _critical: bool,
    value: &'a OctetStringRef,
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use x509_cert::ext::pkix::SubjectKeyIdentifier;

    use super::*;

    fn made_by_openssl() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("openssl")
            .args(
                "req -x509 -newkey rsa:2048 -nodes -keyout k -outform DER -subj /O=a/CN=b"
                    .split(' '),
            )
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn fields_are_those_that_x509_cert_finds() {
        let octets = made_by_openssl();
        let read = Certificate::read(&octets).unwrap();
        let other = x509_cert::Certificate::from_der(&octets).unwrap();
        let tbs = other.tbs_certificate();
        assert_eq!(read.der(), octets);
        assert_eq!(read.issuer(), tbs.issuer().to_der().unwrap());
        assert_eq!(read.serial(), tbs.serial_number().to_der().unwrap());
        assert_eq!(
            read.public_key(),
            tbs.subject_public_key_info().to_der().unwrap()
        );
        let (_, identifier) = tbs
            .get_extension::<SubjectKeyIdentifier>()
            .unwrap()
            .unwrap();
        assert_eq!(read.subject_key_identifier(), Some(identifier.0.as_bytes()));
    }

    #[test]
    fn one_certificate_and_nothing_else_is_read() {
        let octets = made_by_openssl();
        for length in 0..octets.len() {
            assert!(Certificate::read(&octets[..length]).is_err());
        }
        assert!(Certificate::read(&[&octets[..], b"\0"].concat()).is_err());
    }

    proptest! {
        /// Whatever is read points at parts of what was given.
        #[test]
        fn no_octets_break_it(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            static OCTETS: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(made_by_openssl);
            let mut octets = OCTETS.clone();
            for (index, octet) in changes {
                octets[index.index(OCTETS.len())] = octet;
            }
            if let Ok(read) = Certificate::read(&octets) {
                for part in [read.issuer(), read.serial(), read.public_key()] {
                    prop_assert!(octets.windows(part.len()).any(|window| window == part));
                }
            }
        }
    }
}
