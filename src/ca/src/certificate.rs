//! TBSCertificates from typed fields, and certificates from a TBSCertificate and its signature
//! (RFC 5280 §4.1). Ceremonies build root and issuing CA certificates with the same code.

use chancery_protocol::name::{
    AttributeKind, DistinguishedName, GeneralName, Syntax, is_printable,
};
use chancery_token::{Session, SignatureAlgorithm, TokenError};
use const_oid::AssociatedOid;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use const_oid::db::rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, SHA_256_WITH_RSA_ENCRYPTION};
use core::time::Duration;
use der::asn1::{
    Any, AnyRef, BitStringRef, GeneralizedTime, Ia5String, Null, ObjectIdentifier, OctetString,
    PrintableString, UintRef, UtcTime,
};
use der::{DateTime, Decode, Encode, Sequence};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::Certificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name as pkix_name;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage as PkixExtendedKeyUsage, KeyUsage,
    KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};
use x509_cert::time::{Time, Validity};

use crate::digest::sha256;
use chancery_config::ExtendedKeyUsage;

/// A certificate cannot be built from these fields.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A value does not fit its ASN.1 type.
    #[error("a field cannot be encoded: {0}")]
    Encode(#[from] der::Error),
    /// A time beyond the year 9999.
    #[error("a time is out of range")]
    Time,
}

/// What a certificate is for. Decides every extension but the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A self-signed root: keyCertSign, cRLSign.
    Root,
    /// An issuing CA below a root: pathLenConstraint 0.
    Issuing,
    /// The RA's decryption key: keyEncipherment.
    RaDecryption,
    /// The RA's signing key: digitalSignature.
    RaSigning,
    /// A device.
    EndEntity(Vec<ExtendedKeyUsage>),
}

/// Who issues: the fields that go into a certificate from its issuer's.
#[derive(Clone, Debug)]
pub struct Issuer<'a> {
    /// The issuer's subject, DER, copied octet for octet.
    pub subject: &'a [u8],
    /// The issuer's subjectKeyIdentifier; none in a self-signed certificate.
    pub key_identifier: Option<&'a [u8]>,
    /// How the issuer's key signs.
    pub algorithm: SignatureAlgorithm,
}

/// The typed fields of a certificate.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// Positive, big-endian, at most 20 octets.
    pub serial: &'a [u8],
    /// The issuer.
    pub issuer: Issuer<'a>,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// The subject.
    pub subject: &'a DistinguishedName,
    /// The subject alternative names.
    pub sans: &'a [GeneralName],
    /// SubjectPublicKeyInfo, DER.
    pub public_key: &'a [u8],
    /// What it is for.
    pub kind: &'a Kind,
}

/// Encodes the TBSCertificate.
///
/// # Errors
/// [`BuildError`] if a field does not fit.
pub fn tbs_certificate(fields: &Fields<'_>) -> Result<Vec<u8>, BuildError> {
    let subject = encode_subject(fields.subject)?.to_der()?;
    let tbs = TbsCertificate {
        version: 2,
        serial_number: UintRef::new(fields.serial)?,
        signature: AlgorithmIdentifier::of(fields.issuer.algorithm),
        issuer: AnyRef::from_der(fields.issuer.subject)?,
        validity: Validity::new(time(fields.not_before)?, time(fields.not_after)?),
        subject: AnyRef::from_der(&subject)?,
        subject_public_key_info: AnyRef::from_der(fields.public_key)?,
        extensions: extensions(fields)?,
    };
    Ok(tbs.to_der()?)
}

/// Joins a TBSCertificate and its signature.
///
/// # Errors
/// [`BuildError`] if `tbs` is no DER value.
pub fn assemble(
    tbs: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Result<Vec<u8>, BuildError> {
    let certificate = SignedCertificate {
        tbs_certificate: AnyRef::from_der(tbs)?,
        signature_algorithm: AlgorithmIdentifier::of(algorithm),
        signature: BitStringRef::from_bytes(signature)?,
    };
    Ok(certificate.to_der()?)
}

/// Encodes a subject, one attribute an RDN.
///
/// # Errors
/// [`BuildError`] if a value does not fit its type; checked names always do.
pub fn encode_subject(subject: &DistinguishedName) -> Result<RdnSequence, BuildError> {
    let mut sequence = RdnSequence::default();
    for attribute in subject.attributes() {
        let syntax =
            AttributeKind::by_oid(&attribute.oid()).map_or(Syntax::Directory, |kind| kind.syntax);
        let value = attribute.value();
        let value = match syntax {
            Syntax::Ia5 => Any::encode_from(&Ia5String::new(value)?)?,
            Syntax::Printable => Any::encode_from(&PrintableString::new(value)?)?,
            Syntax::Directory if value.chars().all(is_printable) => {
                Any::encode_from(&PrintableString::new(value)?)?
            }
            Syntax::Directory => Any::encode_from(&value.to_owned())?,
        };
        let attribute = AttributeTypeAndValue {
            oid: attribute.oid(),
            value,
        };
        let mut name = RelativeDistinguishedName::default();
        name.insert(attribute)?;
        sequence.push(name);
    }
    Ok(sequence)
}

/// The subjectKeyIdentifier of a key: the leftmost 160 bits of SHA-256 of its bits (RFC 7093 §2,
/// method 1).
///
/// # Errors
/// [`BuildError`] if `public_key` is no SubjectPublicKeyInfo.
pub fn key_identifier(public_key: &[u8]) -> Result<[u8; 20], BuildError> {
    let info = PublicKeyInfo::from_der(public_key)?;
    let mut identifier = [0; 20];
    for (to, from) in identifier
        .iter_mut()
        .zip(sha256(&[info.subject_public_key.raw_bytes()]))
    {
        *to = from;
    }
    Ok(identifier)
}

/// The TBSCertificate of a certificate as it stands in it, octet for octet.
///
/// # Errors
/// [`BuildError`] if `certificate` is none.
pub fn split(certificate: &[u8]) -> Result<(&[u8], &[u8]), BuildError> {
    let parts = CertificateParts::from_der(certificate)?;
    let tbs = tbs_octets(certificate)?;
    Ok((tbs, parts.signature.raw_bytes()))
}

/// A new serial number: 126 random bits after two fixed ones, so that it is positive and always has
/// 16 octets.
///
/// # Errors
/// [`TokenError`] if there are no random numbers.
pub fn new_serial(session: &mut Session) -> Result<Vec<u8>, TokenError> {
    let mut serial = session.random(16)?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(serial)
}

/// Serial number and issuer (DER) of a TBSCertificate; `None` if it is none.
pub(crate) fn identity_of(tbs: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let tbs = x509_cert::certificate::TbsCertificate::from_der(tbs).ok()?;
    let issuer = tbs.issuer().to_der().ok()?;
    Some((tbs.serial_number().as_bytes().to_vec(), issuer))
}

/// A certificate of ours, decoded.
///
/// # Errors
/// [`BuildError`] if it is none.
pub fn decode(certificate: &[u8]) -> Result<Certificate, BuildError> {
    Ok(Certificate::from_der(certificate)?)
}

/// A token's signature algorithm in the terms of software verification.
#[must_use]
pub fn message_algorithm(algorithm: SignatureAlgorithm) -> chancery_message::SignatureAlgorithm {
    use chancery_message::{DigestAlgorithm, SignatureAlgorithm as Message};
    match algorithm {
        SignatureAlgorithm::Sha256WithRsaEncryption => Message::RsaPkcs1(DigestAlgorithm::Sha256),
        SignatureAlgorithm::EcdsaWithSha256 => Message::Ecdsa(DigestAlgorithm::Sha256),
        SignatureAlgorithm::EcdsaWithSha384 => Message::Ecdsa(DigestAlgorithm::Sha384),
    }
}

/// A certificate's signatureAlgorithm in the terms of software verification; `None` for one that
/// our authorities do not use.
pub(crate) fn message_algorithm_of(
    oid: &ObjectIdentifier,
) -> Option<chancery_message::SignatureAlgorithm> {
    [
        SignatureAlgorithm::Sha256WithRsaEncryption,
        SignatureAlgorithm::EcdsaWithSha256,
        SignatureAlgorithm::EcdsaWithSha384,
    ]
    .into_iter()
    .find(|algorithm| AlgorithmIdentifier::of(*algorithm).algorithm == *oid)
    .map(message_algorithm)
}

fn tbs_octets(certificate: &[u8]) -> Result<&[u8], BuildError> {
    use der::{Header, Reader, SliceReader};
    let mut reader = SliceReader::new(certificate)?;
    Header::decode(&mut reader)?;
    Ok(reader.tlv_bytes()?)
}

fn extensions(fields: &Fields<'_>) -> Result<Vec<Extension>, BuildError> {
    let rsa = is_rsa(fields.public_key)?;
    let mut list = Vec::new();
    if let Some(identifier) = fields.issuer.key_identifier {
        let value = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(identifier)?),
            authority_cert_issuer: None,
            authority_cert_serial_number: None,
        };
        list.push(extension(false, &value)?);
    }
    let identifier = key_identifier(fields.public_key)?;
    list.push(extension(
        false,
        &SubjectKeyIdentifier(OctetString::new(identifier)?),
    )?);
    let usage = match fields.kind {
        Kind::Root | Kind::Issuing => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
        Kind::RaDecryption => KeyUsages::KeyEncipherment.into(),
        Kind::RaSigning => KeyUsages::DigitalSignature.into(),
        Kind::EndEntity(_) if rsa => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
        Kind::EndEntity(_) => KeyUsages::DigitalSignature.into(),
    };
    list.push(extension(true, &KeyUsage(usage))?);
    match fields.kind {
        Kind::Root => list.push(extension(
            true,
            &BasicConstraints {
                ca: true,
                path_len_constraint: None,
            },
        )?),
        Kind::Issuing => {
            list.push(extension(
                true,
                &BasicConstraints {
                    ca: true,
                    path_len_constraint: Some(0),
                },
            )?);
        }
        Kind::RaDecryption | Kind::RaSigning => {}
        Kind::EndEntity(usages) => {
            let oids = usages.iter().map(|usage| match usage {
                ExtendedKeyUsage::ClientAuth => ID_KP_CLIENT_AUTH,
                ExtendedKeyUsage::ServerAuth => ID_KP_SERVER_AUTH,
            });
            list.push(extension(false, &PkixExtendedKeyUsage(oids.collect()))?);
        }
    }
    if !fields.sans.is_empty() {
        let names = fields
            .sans
            .iter()
            .map(encode_san)
            .collect::<Result<_, _>>()?;
        // RFC 5280 §4.2.1.6: critical exactly where the subject is empty.
        list.push(extension(
            fields.subject.is_empty(),
            &SubjectAltName(names),
        )?);
    }
    Ok(list)
}

fn extension<T: AssociatedOid + Encode>(
    critical: bool,
    value: &T,
) -> Result<Extension, BuildError> {
    Ok(Extension {
        extn_id: T::OID,
        critical,
        extn_value: OctetString::new(value.to_der()?)?,
    })
}

pub(crate) fn encode_san(name: &GeneralName) -> Result<pkix_name::GeneralName, BuildError> {
    Ok(match name {
        GeneralName::Dns(name) => pkix_name::GeneralName::DnsName(Ia5String::new(name)?),
        GeneralName::Email(address) => pkix_name::GeneralName::Rfc822Name(Ia5String::new(address)?),
        GeneralName::Uri(uri) => {
            pkix_name::GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?)
        }
        GeneralName::Ip(octets) => pkix_name::GeneralName::IpAddress(octets.clone()),
    })
}

/// RFC 5280 §4.1.2.5: UTCTime to 2049, GeneralizedTime from 2050.
fn time(seconds: u64) -> Result<Time, BuildError> {
    const YEAR_2050: u64 = 2_524_608_000;
    let since_epoch = Duration::from_secs(seconds);
    if seconds < YEAR_2050 {
        return Ok(Time::UtcTime(UtcTime::from_unix_duration(since_epoch)?));
    }
    let date = DateTime::from_unix_duration(since_epoch).map_err(|_| BuildError::Time)?;
    Ok(Time::GeneralTime(GeneralizedTime::from_date_time(date)))
}

fn is_rsa(public_key: &[u8]) -> Result<bool, BuildError> {
    let info = PublicKeyInfo::from_der(public_key)?;
    Ok(info.algorithm.algorithm == const_oid::db::rfc5912::RSA_ENCRYPTION)
}

/// TBSCertificate (RFC 5280 §4.1), without the obsolete unique identifiers.
#[derive(Sequence)]
struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", constructed = "true")]
    version: u8,
    serial_number: UintRef<'a>,
    signature: AlgorithmIdentifier,
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", constructed = "true")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct SignedCertificate<'a> {
    tbs_certificate: AnyRef<'a>,
    signature_algorithm: AlgorithmIdentifier,
    signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct CertificateParts<'a> {
    tbs_certificate: AnyRef<'a>,
    signature_algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct PublicKeyInfo<'a> {
    algorithm: KeyAlgorithmIdentifier<'a>,
    subject_public_key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct KeyAlgorithmIdentifier<'a> {
    algorithm: ObjectIdentifier,
    #[asn1(optional = "true")]
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct AlgorithmIdentifier {
    algorithm: ObjectIdentifier,
    #[asn1(optional = "true")]
    parameters: Option<Null>,
}

impl AlgorithmIdentifier {
    /// RFC 4055 §5 wants NULL parameters for RSA, RFC 5758 §3.2 none for ECDSA.
    fn of(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::Sha256WithRsaEncryption => Self {
                algorithm: SHA_256_WITH_RSA_ENCRYPTION,
                parameters: Some(Null),
            },
            SignatureAlgorithm::EcdsaWithSha256 => Self {
                algorithm: ECDSA_WITH_SHA_256,
                parameters: None,
            },
            SignatureAlgorithm::EcdsaWithSha384 => Self {
                algorithm: ECDSA_WITH_SHA_384,
                parameters: None,
            },
        }
    }
}
