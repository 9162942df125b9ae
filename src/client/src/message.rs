//! Building a pkiMessage (RFC 8894 §3.2, RFC 5652 §5).

use aws_lc_rs::digest::Digest;
use chancery_protocol::hex;
use chancery_protocol::scep::oid;
use cms::cert::IssuerAndSerialNumber;
use cms::content_info::CmsVersion;
use cms::signed_data::{
    EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911;
use der::asn1::{Any, OctetString, OctetStringRef, SetOfVec};
use der::{Decode, Encode};
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::ext::pkix::SubjectKeyIdentifier;

use crate::algorithm::{DigestAlgorithm, SignatureForm, bare};
use crate::asn1;
use crate::certificate::{Certificate, CertificateError};
use crate::csr::random;
use crate::envelope::{Envelope, certificate_set, content_info};
use crate::key::KeyError;
use crate::signer::Signer;

/// A message that could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A part has no DER encoding.
    #[error("the message cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
    /// The key does not do what is asked of it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The self-signed certificate does not read back.
    #[error("the signer's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The recipient's key cannot encrypt.
    #[error(
        "the recipient's certificate has no RSA key that could receive a message, ask the server's operator for an RSA RA certificate"
    )]
    Recipient,
    /// The cipher or the key transport refused its input.
    #[error("the content cannot be encrypted: it or its key has the wrong length")]
    Encrypt,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A BMPString from text outside ASCII.
    #[error("a challenge in BMPString has to be ASCII")]
    BmpChallenge,
    /// The signer's certificate has no subjectKeyIdentifier to name it by.
    #[error("the signer's certificate has no subjectKeyIdentifier, name it by issuer and serial")]
    NoKeyIdentifier,
    /// The time lies outside what a certificate can say.
    #[error("the clock is outside of the years that a certificate can name, set it")]
    Time,
}

/// How SignerInfo names the signer's certificate (RFC 5652 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerIdentification {
    /// By issuer and serial number.
    IssuerAndSerialNumber,
    /// By subjectKeyIdentifier.
    SubjectKeyIdentifier,
}

/// A finished pkiMessage and what its reply has to repeat.
#[derive(Clone, Debug)]
pub struct Message {
    /// ContentInfo of the SignedData, in DER.
    pub der: Vec<u8>,
    /// The transactionID (RFC 8894 §3.2.1.1).
    pub transaction_id: String,
    /// The senderNonce (§3.2.1.5).
    pub sender_nonce: Vec<u8>,
}

/// Builds and signs pkiMessages: a correct PKCSReq unless told otherwise. The settings are not
/// checked against the standard, since tests have to send what is wrong.
#[derive(Clone)]
pub struct MessageBuilder<'a> {
    signer: &'a Signer<'a>,
    message_type: String,
    transaction_id: Option<String>,
    sender_nonce: Option<Vec<u8>>,
    digest: DigestAlgorithm,
    declared_digest: Option<ObjectIdentifier>,
    form: SignatureForm,
    identification: SignerIdentification,
    content_type: ObjectIdentifier,
    certificates: Vec<Certificate>,
    set: Vec<Attribute>,
    extra: Vec<Attribute>,
    omitted: Vec<ObjectIdentifier>,
}

impl<'a> MessageBuilder<'a> {
    /// A PKCSReq (19) signed with SHA-256 as sha256WithRSAEncryption, with the signer's
    /// certificate, the SHA-256 of the signer's key as transactionID and a fresh nonce.
    #[must_use]
    pub fn new(signer: &'a Signer<'a>) -> Self {
        Self {
            signer,
            message_type: PKCS_REQ.into(),
            transaction_id: None,
            sender_nonce: None,
            digest: DigestAlgorithm::Sha256,
            declared_digest: None,
            form: SignatureForm::DigestWithRsa,
            identification: SignerIdentification::IssuerAndSerialNumber,
            content_type: rfc5911::ID_DATA,
            certificates: vec![signer.certificate.clone()],
            set: Vec::new(),
            extra: Vec::new(),
            omitted: Vec::new(),
        }
    }

    /// The text of messageType (RFC 8894 §3.2.1.2).
    #[must_use]
    pub fn message_type(mut self, text: &str) -> Self {
        self.message_type = text.into();
        self
    }

    /// The transactionID; a UTF8String where the characters need it.
    #[must_use]
    pub fn transaction_id(mut self, text: &str) -> Self {
        self.transaction_id = Some(text.into());
        self
    }

    /// The senderNonce; 16 octets by the standard.
    #[must_use]
    pub fn sender_nonce(mut self, octets: &[u8]) -> Self {
        self.sender_nonce = Some(octets.to_vec());
        self
    }

    /// The digest of content and signature.
    #[must_use]
    pub fn digest(mut self, digest: DigestAlgorithm) -> Self {
        self.digest = digest;
        self
    }

    /// Names another digest than the one in use.
    #[must_use]
    pub fn declared_digest(mut self, oid: ObjectIdentifier) -> Self {
        self.declared_digest = Some(oid);
        self
    }

    /// How an RSA signature is named.
    #[must_use]
    pub fn signature_form(mut self, form: SignatureForm) -> Self {
        self.form = form;
        self
    }

    /// How the signer is named.
    #[must_use]
    pub fn signer_identification(mut self, identification: SignerIdentification) -> Self {
        self.identification = identification;
        self
    }

    /// eContentType; data by the standard.
    #[must_use]
    pub fn content_type(mut self, oid: ObjectIdentifier) -> Self {
        self.content_type = oid;
        self
    }

    /// The certificates that go along, in place of the signer's; none leaves the field out.
    #[must_use]
    pub fn certificates(mut self, certificates: &[Certificate]) -> Self {
        self.certificates = certificates.to_vec();
        self
    }

    /// Sets a signed attribute from the DER of its values, in place of the builder's own.
    ///
    /// # Errors
    /// [`BuildError::Encoding`] if a value is not one DER value.
    pub fn attribute(
        mut self,
        oid: ObjectIdentifier,
        values: &[Vec<u8>],
    ) -> Result<Self, BuildError> {
        self.set.push(asn1::attribute(oid, values)?);
        Ok(self)
    }

    /// Adds a signed attribute, also where one of its type already stands.
    ///
    /// # Errors
    /// [`BuildError::Encoding`] if a value is not one DER value.
    pub fn extra_attribute(
        mut self,
        oid: ObjectIdentifier,
        values: &[Vec<u8>],
    ) -> Result<Self, BuildError> {
        self.extra.push(asn1::attribute(oid, values)?);
        Ok(self)
    }

    /// Leaves a signed attribute out. With all of them left out, signedAttrs is absent and the
    /// signature is over the content itself (RFC 5652 §5.4).
    #[must_use]
    pub fn omit(mut self, oid: ObjectIdentifier) -> Self {
        self.omitted.push(oid);
        self
    }

    /// Seals `message_data` (for a PKCSReq the PKCS#10) and signs the envelope.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(
        &self,
        envelope: &Envelope<'_>,
        message_data: &[u8],
    ) -> Result<Message, BuildError> {
        self.sign(Some(&envelope.seal(message_data)?))
    }

    /// Signs `content` as it is; `None` leaves the eContent out.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn sign(&self, content: Option<&[u8]>) -> Result<Message, BuildError> {
        let transaction_id = match &self.transaction_id {
            Some(text) => text.clone(),
            None => {
                let key = self.signer.key.public_key_info();
                hex::encode(DigestAlgorithm::Sha256.digest(key).as_ref())
            }
        };
        let sender_nonce = match &self.sender_nonce {
            Some(octets) => octets.clone(),
            None => random::<16>()?.to_vec(),
        };
        let digest = self.digest.digest(content.unwrap_or_default());
        let attributes = self.signed_attributes(&transaction_id, &sender_nonce, &digest)?;
        let signer_info = self.signer_info(attributes, content.unwrap_or_default())?;
        let digest_algorithm = signer_info.digest_alg.clone();
        let econtent = content.map(|octets| Any::new(der::Tag::OctetString, octets));
        let signed = SignedData {
            version: signer_info.version,
            digest_algorithms: SetOfVec::try_from(vec![digest_algorithm])?,
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: self.content_type,
                econtent: econtent.transpose()?,
            },
            certificates: match self.certificates.as_slice() {
                [] => None,
                certificates => Some(certificate_set(certificates)?),
            },
            crls: None,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![signer_info])?),
        };
        let der = content_info(rfc5911::ID_SIGNED_DATA, &signed)?;
        Ok(Message {
            der,
            transaction_id,
            sender_nonce,
        })
    }

    fn signed_attributes(
        &self,
        transaction_id: &str,
        sender_nonce: &[u8],
        digest: &Digest,
    ) -> Result<Vec<Attribute>, BuildError> {
        let octets = |octets| OctetStringRef::new(octets)?.to_der();
        let own = [
            (rfc5911::ID_CONTENT_TYPE, self.content_type.to_der()?),
            (rfc5911::ID_MESSAGE_DIGEST, octets(digest.as_ref())?),
            (oid::MESSAGE_TYPE, asn1::printable(&self.message_type)?),
            (oid::TRANSACTION_ID, asn1::printable(transaction_id)?),
            (oid::SENDER_NONCE, octets(sender_nonce)?),
        ];
        let is_set =
            |oid: &ObjectIdentifier| self.set.iter().any(|attribute| attribute.oid == *oid);
        let mut attributes = Vec::new();
        for (oid, value) in own {
            if !self.omitted.contains(&oid) && !is_set(&oid) {
                attributes.push(asn1::attribute(oid, &[value])?);
            }
        }
        attributes.extend(self.set.iter().cloned());
        attributes.extend(self.extra.iter().cloned());
        Ok(attributes)
    }

    fn signer_info(
        &self,
        attributes: Vec<Attribute>,
        content: &[u8],
    ) -> Result<SignerInfo, BuildError> {
        let key = self.signer.key;
        let signed_attrs: Option<Attributes> = match attributes.is_empty() {
            true => None,
            false => Some(SetOfVec::try_from(attributes)?),
        };
        // RFC 5652 §5.4: signed is the SET OF, not the [0] under which it travels.
        let signature = match &signed_attrs {
            Some(attributes) => key.sign(self.digest, &attributes.to_der()?)?,
            None => key.sign(self.digest, content)?,
        };
        let certificate = &self.signer.certificate;
        let (version, sid) = match self.identification {
            SignerIdentification::IssuerAndSerialNumber => {
                let id = IssuerAndSerialNumber::from_der(certificate.issuer_and_serial())?;
                (CmsVersion::V1, SignerIdentifier::IssuerAndSerialNumber(id))
            }
            SignerIdentification::SubjectKeyIdentifier => {
                let id = certificate
                    .subject_key_identifier()
                    .ok_or(BuildError::NoKeyIdentifier)?;
                let id = SubjectKeyIdentifier(OctetString::new(id)?);
                (CmsVersion::V3, SignerIdentifier::SubjectKeyIdentifier(id))
            }
        };
        Ok(SignerInfo {
            version,
            sid,
            // RFC 5754 §2: SHA-2 identifiers go without parameters.
            digest_alg: bare(self.declared_digest.unwrap_or_else(|| self.digest.oid())),
            signed_attrs,
            signature_algorithm: key.signature_algorithm(self.digest, self.form),
            signature: OctetString::new(signature)?,
            unsigned_attrs: None,
        })
    }
}

/// messageType PKCSReq (RFC 8894 §3.2.1.2).
const PKCS_REQ: &str = "19";
