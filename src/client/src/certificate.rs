//! An X.509 certificate with the octets in which it came (RFC 5280 §4.1).

use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5280, rfc5911, rfc5912};
use der::asn1::AnyRef;
use der::{Decode, Encode, Tag};
use std::time::SystemTime;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier};

use crate::algorithm::{DigestAlgorithm, Unverified, verify};
use crate::asn1;
use chancery_protocol::wire::Digest;

/// Octets that are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate in DER.
    #[error("not an X.509 certificate: {0}")]
    Malformed(#[from] der::Error),
    /// The text holds no PEM block of this kind.
    #[error("not a certificate in PEM, expected BEGIN CERTIFICATE")]
    Pem,
    /// More certificates than this client takes.
    #[error("more than {MAX_CERTIFICATES} certificates in one message")]
    TooMany,
}

/// A certificate. What was signed and hashed is kept as received, never encoded again.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    tbs: Vec<u8>,
    issuer_and_serial: Vec<u8>,
    public_key_info: Vec<u8>,
    x509: x509_cert::Certificate,
}

impl Certificate {
    /// Reads one certificate, whole.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let x509 = x509_cert::Certificate::from_der(der)?;
        let outer = asn1::sequence(der)?;
        let tbs = outer.first().ok_or_else(missing)?.to_der()?;
        let fields = asn1::sequence(&tbs)?;
        // version is DEFAULT v1 and may be absent.
        let versioned = fields
            .first()
            .is_some_and(|f| der::Tagged::tag(f) == asn1::explicit(0));
        let field = |index: usize| {
            fields
                .get(index + usize::from(versioned))
                .ok_or_else(missing)
        };
        let issuer_and_serial = vec![*field(2)?, *field(0)?].to_der()?;
        let public_key_info = field(5)?.to_der()?;
        Ok(Self {
            der: der.to_vec(),
            tbs,
            issuer_and_serial,
            public_key_info,
            x509,
        })
    }

    /// Reads the first certificate of a PEM text (RFC 7468 §5).
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let (label, der) =
            der::pem::decode_vec(pem.as_bytes()).map_err(|_| CertificateError::Pem)?;
        if label != PEM_LABEL {
            return Err(CertificateError::Pem);
        }
        Self::from_der(&der)
    }

    /// The certificate in PEM, with a closing newline.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] if it does not fit into memory.
    pub fn to_pem(&self) -> Result<String, CertificateError> {
        der::pem::encode_string(PEM_LABEL, der::pem::LineEnding::LF, &self.der)
            .map_err(|_| CertificateError::Pem)
    }

    /// The octets as received.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 over the octets, as pins and fingerprints give it.
    #[must_use]
    pub fn sha256(&self) -> Digest {
        let digest = DigestAlgorithm::Sha256.digest(&self.der);
        let mut octets = [0; 32];
        octets.copy_from_slice(digest.as_ref());
        chancery_protocol::wire::Octets(octets)
    }

    /// SubjectPublicKeyInfo as received.
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// The fields.
    #[must_use]
    pub fn x509(&self) -> &x509_cert::Certificate {
        &self.x509
    }

    /// The subject as RFC 4514 text, for messages to people.
    #[must_use]
    pub fn subject_text(&self) -> String {
        self.x509.tbs_certificate().subject().to_string()
    }

    /// Whether basicConstraints make it a CA (RFC 5280 §4.2.1.9).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        let constraints = self
            .x509
            .tbs_certificate()
            .get_extension::<BasicConstraints>();
        matches!(constraints, Ok(Some((_, constraints))) if constraints.ca)
    }

    /// Whether its signature verifies under its own key.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.is_issued_by(self)
    }

    /// Whether `issuer` has the name that this certificate gives, and its key made the signature.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let names_match =
            self.x509.tbs_certificate().issuer() == issuer.x509.tbs_certificate().subject();
        let tbs_algorithm = self.x509.tbs_certificate().signature();
        let one_algorithm = tbs_algorithm == self.x509.signature_algorithm();
        names_match
            && one_algorithm
            && issuer
                .verify(
                    &tbs_algorithm.oid,
                    None,
                    &self.tbs,
                    self.x509.signature().raw_bytes(),
                )
                .is_ok()
    }

    /// DER of IssuerAndSerialNumber (RFC 5652 §10.2.4), from the octets as received.
    pub(crate) fn issuer_and_serial(&self) -> &[u8] {
        &self.issuer_and_serial
    }

    pub(crate) fn subject_key_identifier(&self) -> Option<Vec<u8>> {
        let found = self
            .x509
            .tbs_certificate()
            .get_extension::<SubjectKeyIdentifier>();
        found.ok().flatten().map(|(_, id)| id.0.as_bytes().to_vec())
    }

    /// `None` where there is no keyUsage, and all uses are open.
    pub(crate) fn key_usage(&self) -> Option<KeyUsage> {
        let usage = self.x509.tbs_certificate().get_extension::<KeyUsage>();
        match usage {
            Ok(None) => None,
            Ok(Some((_, usage))) => Some(usage),
            // Unreadable or doubled: open to nothing.
            Err(_) => Some(KeyUsage(Default::default())),
        }
    }

    /// Whether extendedKeyUsage makes it the certificate of a device, a server or a person.
    pub(crate) fn is_end_entity_by_purpose(&self) -> bool {
        let purposes = self
            .x509
            .tbs_certificate()
            .get_extension::<ExtendedKeyUsage>();
        match purposes {
            Ok(None) => false,
            Ok(Some((_, purposes))) => purposes.0.iter().any(|purpose| {
                [
                    rfc5280::ID_KP_CLIENT_AUTH,
                    rfc5280::ID_KP_SERVER_AUTH,
                    rfc5280::ID_KP_EMAIL_PROTECTION,
                ]
                .contains(purpose)
            }),
            Err(_) => true,
        }
    }

    pub(crate) fn has_rsa_key(&self) -> bool {
        let key = self.x509.tbs_certificate().subject_public_key_info();
        key.algorithm.oid == rfc5912::RSA_ENCRYPTION
    }

    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        let validity = self.x509.tbs_certificate().validity();
        validity.not_before.to_system_time() <= now && now <= validity.not_after.to_system_time()
    }

    pub(crate) fn verify(
        &self,
        signature_algorithm: &const_oid::ObjectIdentifier,
        beside: Option<DigestAlgorithm>,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<(), Unverified> {
        let key = self.x509.tbs_certificate().subject_public_key_info();
        verify(key, signature_algorithm, beside, octets, signature)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

const PEM_LABEL: &str = "CERTIFICATE";

fn missing() -> der::Error {
    der::ErrorKind::Failed.into()
}

/// Most certificates that a reply may carry.
const MAX_CERTIFICATES: usize = 32;

/// The certificates of a degenerate SignedData (RFC 8894 §3.4), each once.
pub(crate) fn read_degenerate(der: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
    let fields = signed_data(der)?.ok_or_else(missing)?;
    let set = fields
        .iter()
        .find(|field| der::Tagged::tag(*field) == asn1::explicit(0));
    set.map_or(Ok(Vec::new()), |set| read_set(*set))
}

/// The certificates of a CertificateSet (RFC 5652 §10.2.3), each once; other choices are skipped.
pub(crate) fn read_set(set: AnyRef<'_>) -> Result<Vec<Certificate>, CertificateError> {
    let mut certificates = Vec::new();
    for choice in asn1::children(set.value())? {
        if der::Tagged::tag(&choice) != Tag::Sequence {
            continue;
        }
        let certificate = Certificate::from_der(&choice.to_der()?)?;
        if !certificates.contains(&certificate) {
            certificates.push(certificate);
        }
        if certificates.len() > MAX_CERTIFICATES {
            return Err(CertificateError::TooMany);
        }
    }
    Ok(certificates)
}

/// The fields of the SignedData in a ContentInfo; `None` for another content type.
pub(crate) fn signed_data(der: &[u8]) -> der::Result<Option<Vec<AnyRef<'_>>>> {
    let outer = asn1::sequence(der)?;
    let [content_type, content] = outer.as_slice() else {
        return Err(missing());
    };
    if content_type.decode_as::<ObjectIdentifier>()? != rfc5911::ID_SIGNED_DATA {
        return Ok(None);
    }
    let content = asn1::inside(*content, asn1::explicit(0))?;
    let signed_data = content.first().ok_or_else(missing)?;
    asn1::inside(*signed_data, Tag::Sequence).map(Some)
}
