//! CertRep, the one message that the RA signs (RFC 8894 §3.2, RFC 5652).
//!
//! The order is in the types: a [`Draft`] holds the octets to be signed, and becomes the message
//! once a signature over exactly these is there. All of it is assembled here; of the requester's
//! octets only its transactionID and senderNonce come back, and the issuer and serial number of
//! its own certificate, copied whole.

mod cms;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use chancery_message::{ContentCipher, DigestAlgorithm};
use chancery_protocol::scep::{CERT_REP, FailInfo, Nonce, PkiStatus, TransactionId, oid};
use const_oid::db::rfc5911::{
    ID_AES_128_CBC, ID_AES_192_CBC, ID_AES_256_CBC, ID_CONTENT_TYPE, ID_DATA, ID_MESSAGE_DIGEST,
};
use const_oid::db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512, RSA_ENCRYPTION};
use der::asn1::{Any, AnyRef, ObjectIdentifier, OctetStringRef, SetOfVec};
use der::{Encode, Tag};
use zeroize::Zeroizing;

use crate::x509::Certificate;
use cms::{
    AlgorithmIdentifier, Attribute, ContentInfo, EncryptedContentInfo, EnvelopedData,
    IssuerAndSerialNumber, KeyTransRecipientInfo, SignedData, SignerInfo,
};

/// Octets of our senderNonce (RFC 8894 §3.2.1.5).
const NONCE_LENGTH: usize = 16;

/// The request that is answered.
#[derive(Clone, Copy)]
pub(crate) struct Transaction<'a> {
    /// transactionID, echoed.
    pub(crate) id: &'a TransactionId,
    /// The request's senderNonce: our recipientNonce.
    pub(crate) nonce: &'a Nonce,
    /// The request's digest algorithm where it is one of ours, else SHA-256 (RFC 8894 §3.5.2).
    pub(crate) digest: DigestAlgorithm,
}

/// What the requester is told.
pub(crate) enum Outcome<'a> {
    /// SUCCESS with a certificate in DER.
    Success {
        certificate: &'a [u8],
        recipient: &'a Recipient<'a>,
        cipher: ContentCipher,
    },
    /// FAILURE, without an envelope.
    Failure(FailInfo),
}

/// For whom the envelope of a SUCCESS is: the holder of the key that signed the request
/// (RFC 8894 §2.3).
pub(crate) struct Recipient<'a> {
    rid: IssuerAndSerialNumber<'a>,
    key: Pkcs1PublicEncryptingKey,
}

impl<'a> Recipient<'a> {
    /// Takes issuer, serial number and SubjectPublicKeyInfo of the certificate that signed the
    /// request, each a whole element in DER.
    ///
    /// # Errors
    /// [`CertRepError`] if no envelope can be made for this key: then nothing must be issued.
    pub(crate) fn new(
        issuer: &'a [u8],
        serial_number: &'a [u8],
        public_key: &[u8],
    ) -> Result<Self, CertRepError> {
        Ok(Self {
            rid: IssuerAndSerialNumber::new(issuer, serial_number)?,
            key: Pkcs1PublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key)?)?,
        })
    }
}

/// A CertRep that lacks its signature.
pub(crate) struct Draft {
    content: Option<Vec<u8>>,
    digest: DigestAlgorithm,
    attributes: SetOfVec<Attribute>,
    to_be_signed: Vec<u8>,
}

impl Draft {
    /// Assembles an answer.
    ///
    /// # Errors
    /// [`CertRepError`] if it cannot be encoded, encrypted, or there is no randomness.
    pub(crate) fn new(
        transaction: Transaction<'_>,
        outcome: &Outcome<'_>,
    ) -> Result<Self, CertRepError> {
        let (status, fail_info, content) = match outcome {
            Outcome::Success {
                certificate,
                recipient,
                cipher,
            } => (
                PkiStatus::Success,
                None,
                Some(envelope(certificate, recipient, *cipher)?),
            ),
            Outcome::Failure(fail_info) => (PkiStatus::Failure, Some(*fail_info), None),
        };
        let mut nonce = [0; NONCE_LENGTH];
        rand::fill(&mut nonce)?;
        // Without eContent the digest is over no octets at all (RFC 5652 §5.4).
        let message_digest = hash(transaction.digest, content.as_deref().unwrap_or_default());
        let mut attributes = vec![
            Attribute::new(ID_CONTENT_TYPE, Any::encode_from(&ID_DATA)?)?,
            Attribute::new(ID_MESSAGE_DIGEST, octets(&message_digest)?)?,
            Attribute::new(oid::MESSAGE_TYPE, printable(CERT_REP)?)?,
            Attribute::new(oid::PKI_STATUS, printable(status.text())?)?,
            Attribute::new(oid::TRANSACTION_ID, printable(transaction.id.as_str())?)?,
            Attribute::new(oid::RECIPIENT_NONCE, octets(transaction.nonce.as_bytes())?)?,
            Attribute::new(oid::SENDER_NONCE, octets(&nonce)?)?,
        ];
        if let Some(fail_info) = fail_info {
            let text = Any::new(Tag::Utf8String, fail_info_text(fail_info).as_bytes())?;
            attributes.push(Attribute::new(
                oid::FAIL_INFO,
                printable(fail_info.text())?,
            )?);
            attributes.push(Attribute::new(oid::FAIL_INFO_TEXT, text)?);
        }
        let attributes = SetOfVec::try_from(attributes)?;
        // RFC 5652 §5.4: signed as a SET OF, though it stands in the message under [0].
        let to_be_signed = attributes.to_der()?;
        Ok(Self {
            content,
            digest: transaction.digest,
            attributes,
            to_be_signed,
        })
    }

    /// The signedAttrs, the octets that the signature must cover.
    pub(crate) fn to_be_signed(&self) -> &[u8] {
        &self.to_be_signed
    }

    /// The whole CertRep in DER, with the certificate of the key that made `signature`.
    ///
    /// # Errors
    /// [`CertRepError`] if it cannot be encoded.
    pub(crate) fn signed(
        self,
        signer: &Certificate,
        signature: &[u8],
    ) -> Result<Vec<u8>, CertRepError> {
        let signer_info = SignerInfo {
            version: 1,
            sid: IssuerAndSerialNumber::new(signer.issuer(), signer.serial())?,
            // RFC 5754 §2: parameters absent.
            digest_algorithm: AlgorithmIdentifier {
                algorithm: oid_of(self.digest),
                parameters: None,
            },
            signed_attrs: self.attributes,
            // Not shaNWithRSAEncryption: strongSwan 5.9.8 refuses replies that say so.
            signature_algorithm: rsa_encryption(),
            signature: OctetStringRef::new(signature)?,
        };
        let content = self.content.as_deref();
        let signed_data = SignedData::signed(content, signer.der(), signer_info)?;
        Ok(ContentInfo::signed_data(&signed_data)?)
    }
}

/// pkcsPKIEnvelope (RFC 8894 §3.2.2) around a degenerate SignedData (§3.4).
fn envelope(
    certificate: &[u8],
    recipient: &Recipient<'_>,
    cipher: ContentCipher,
) -> Result<Vec<u8>, CertRepError> {
    let mut content = ContentInfo::signed_data(&SignedData::degenerate(certificate)?)?;
    let (oid, algorithm) = match cipher {
        ContentCipher::Aes128Cbc => (ID_AES_128_CBC, &AES_128),
        ContentCipher::Aes192Cbc => (ID_AES_192_CBC, &AES_192),
        ContentCipher::Aes256Cbc => (ID_AES_256_CBC, &AES_256),
    };
    let mut key = Zeroizing::new(vec![0; cipher.key_len()]);
    rand::fill(&mut key)?;
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, &key)?)?;
    // Draws a fresh initialisation vector.
    let DecryptionContext::Iv128(iv) = cipher.encrypt(&mut content)? else {
        return Err(CertRepError::Cryptography);
    };
    let mut encrypted_key = vec![0; recipient.key.ciphertext_size()];
    let encrypted_key = recipient.key.encrypt(&key, &mut encrypted_key)?;
    let enveloped_data = EnvelopedData::new(
        KeyTransRecipientInfo {
            version: 0,
            rid: recipient.rid,
            key_encryption_algorithm: rsa_encryption(),
            encrypted_key: OctetStringRef::new(encrypted_key)?,
        },
        EncryptedContentInfo {
            content_type: ID_DATA,
            content_encryption_algorithm: AlgorithmIdentifier {
                algorithm: oid,
                parameters: Some(AnyRef::new(Tag::OctetString, iv.as_ref())?),
            },
            encrypted_content: OctetStringRef::new(&content)?,
        },
    )?;
    Ok(ContentInfo::enveloped_data(&enveloped_data)?)
}

/// A text for the person at the device, the same whatever the cause: it must tell no more than
/// failInfo does (RFC 8894 §3.2.1.4).
fn fail_info_text(fail_info: FailInfo) -> &'static str {
    match fail_info {
        FailInfo::BadAlg => {
            "algorithm or key not accepted; use RSA keys of at least 2048 bits, SHA-256 and AES"
        }
        FailInfo::BadMessageCheck => "the message's signature or digest is not valid",
        FailInfo::BadRequest => {
            "request refused; ask the administrator, who finds the reason in the log"
        }
        FailInfo::BadTime => "the message's signing time is not acceptable",
        FailInfo::BadCertId => "no such certificate",
    }
}

fn hash(algorithm: DigestAlgorithm, content: &[u8]) -> digest::Digest {
    let algorithm = match algorithm {
        DigestAlgorithm::Sha256 => &SHA256,
        DigestAlgorithm::Sha384 => &SHA384,
        DigestAlgorithm::Sha512 => &SHA512,
    };
    digest::digest(algorithm, content)
}

fn oid_of(algorithm: DigestAlgorithm) -> ObjectIdentifier {
    match algorithm {
        DigestAlgorithm::Sha256 => ID_SHA_256,
        DigestAlgorithm::Sha384 => ID_SHA_384,
        DigestAlgorithm::Sha512 => ID_SHA_512,
    }
}

fn rsa_encryption() -> AlgorithmIdentifier<'static> {
    AlgorithmIdentifier {
        algorithm: RSA_ENCRYPTION,
        parameters: Some(AnyRef::NULL),
    }
}

fn octets(value: &(impl AsRef<[u8]> + ?Sized)) -> der::Result<Any> {
    Any::new(Tag::OctetString, value.as_ref())
}

/// A PrintableString of any printable ASCII: a transactionID must come back as it was, and some
/// clients' go beyond the alphabet of the type.
fn printable(text: &str) -> der::Result<Any> {
    Any::new(Tag::PrintableString, text.as_bytes())
}

/// A CertRep cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertRepError {
    /// A part of it is no DER.
    #[error("cannot encode a CertRep: {0}")]
    Encoding(#[from] der::Error),
    /// The requester's key cannot encrypt, or the random number generator failed.
    #[error("cannot encrypt a CertRep, or no random octets for it")]
    Cryptography,
}

impl From<Unspecified> for CertRepError {
    fn from(_: Unspecified) -> Self {
        Self::Cryptography
    }
}

impl From<aws_lc_rs::error::KeyRejected> for CertRepError {
    fn from(_: aws_lc_rs::error::KeyRejected) -> Self {
        Self::Cryptography
    }
}

#[cfg(test)]
mod tests;
