//! Who signs a message: a key with the certificate that goes along (RFC 8894 §2.3).

use core::str::FromStr;
use core::time::Duration;
use std::time::SystemTime;

use const_oid::AssociatedOid;
use const_oid::db::rfc5912;
use der::asn1::{BitString, OctetString};
use der::{Decode, Encode, Sequence};
use x509_cert::ext::pkix::{KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};
use x509_cert::{AlgorithmIdentifier, SubjectPublicKeyInfo, Version};

use crate::algorithm::{DigestAlgorithm, SignatureForm};
use crate::certificate::Certificate;
use crate::csr::{name, random};
use crate::key::ClientKey;
use crate::message::BuildError;
use chancery_protocol::name::DistinguishedName;

/// A key and the certificate under which it signs messages and receives replies.
pub struct Signer<'a> {
    /// The key.
    pub key: &'a ClientKey,
    /// Its certificate: self-signed for a first enrolment, an issued one for a renewal.
    pub certificate: Certificate,
}

/// How far a self-signed certificate reaches to both sides of now. Device clocks are wrong by
/// hours; an approval may take days.
const BEFORE: Duration = Duration::from_secs(24 * 3600);
const AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

impl<'a> Signer<'a> {
    /// Makes the self-signed certificate of a first enrolment: the request's subject and key, and
    /// keyUsage digitalSignature and keyEncipherment (RFC 8894 §2.3). Valid from a day before
    /// `now` until 30 days after.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn self_signed(
        key: &'a ClientKey,
        subject: &DistinguishedName,
        now: SystemTime,
    ) -> Result<Self, BuildError> {
        let subject = match subject.is_empty() {
            false => name(subject)?,
            // An issuer may not be empty (RFC 5280 §4.1.2.4), and here the subject is the issuer.
            true => Name::from_str("CN=SCEP client")?,
        };
        let digest = DigestAlgorithm::Sha256;
        let algorithm = key.signature_algorithm(digest, SignatureForm::DigestWithRsa);
        let mut serial = random::<16>()?;
        // Never zero and never led by a zero octet, so that the encoding has one length.
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        let validity = Validity::new(
            Time::try_from(now.checked_sub(BEFORE).ok_or(BuildError::Time)?)?,
            Time::try_from(now.checked_add(AFTER).ok_or(BuildError::Time)?)?,
        );
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial)?,
            signature: algorithm.clone(),
            issuer: subject.clone(),
            validity,
            subject,
            subject_public_key_info: SubjectPublicKeyInfo::from_der(key.public_key_info())?,
            extensions: extensions(key)?,
        };
        let signature = BitString::from_bytes(&key.sign(digest, &tbs.to_der()?)?)?;
        let certificate = SignedCertificate {
            tbs,
            algorithm,
            signature,
        }
        .to_der()?;
        Ok(Self {
            key,
            certificate: Certificate::from_der(&certificate)?,
        })
    }
}

fn extensions(key: &ClientKey) -> der::Result<Extensions> {
    let usage = KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment);
    // RFC 7093 §2 method 4: the leftmost 160 bits of a SHA-256 over the key.
    let digest = DigestAlgorithm::Sha256.digest(key.public_key_info());
    let identifier: Vec<u8> = digest.as_ref().iter().copied().take(20).collect();
    let identifier = SubjectKeyIdentifier(OctetString::new(identifier)?);
    Ok(vec![
        Extension {
            extn_id: rfc5912::ID_CE_KEY_USAGE,
            critical: true,
            extn_value: OctetString::new(usage.to_der()?)?,
        },
        Extension {
            extn_id: SubjectKeyIdentifier::OID,
            critical: false,
            extn_value: OctetString::new(identifier.to_der()?)?,
        },
    ])
}

/// TBSCertificate as this client writes it (RFC 5280 §4.1.2); x509-cert's own can only be read.
#[derive(Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifier,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfo,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Extensions,
}

#[derive(Sequence)]
struct SignedCertificate {
    tbs: TbsCertificate,
    algorithm: AlgorithmIdentifier,
    signature: BitString,
}
