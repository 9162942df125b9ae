//! Taking a CertRep apart (RFC 8894 §3.3.2). DER only: the servers meant here write it.

use chancery_protocol::scep::{CERT_REP, FailInfo, PkiStatus, oid};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Tag, Tagged};
use x509_cert::AlgorithmIdentifier;

use crate::algorithm::{DigestAlgorithm, Unverified};
use crate::asn1;
use crate::certificate::{Certificate, CertificateError, read_degenerate};
use crate::envelope;
use crate::key::ClientKey;

/// A reply that is no CertRep, or not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertRepError {
    /// Not DER, or not the structure of RFC 5652.
    #[error("the reply is no CMS message in DER: {0}")]
    Malformed(#[from] der::Error),
    /// CMS, but not as RFC 8894 has it.
    #[error("the reply is no CertRep: {0}")]
    NotScep(&'static str),
    /// A signed attribute is missing, doubled or of the wrong type.
    #[error("the reply's attribute {0} is missing, doubled or malformed")]
    Attribute(&'static str),
    /// An algorithm that this client does not accept.
    #[error("the reply uses a {0} that this client does not accept, expected RSA, AES and SHA-2")]
    Algorithm(&'static str),
    /// messageDigest is not that of the content.
    #[error("the reply's content was changed after it was signed: its digest is another")]
    Digest,
    /// The signature is not the signer's.
    #[error("the reply's signature is not that of the server's certificate")]
    Signature,
    /// None of the trusted certificates signed.
    #[error(
        "the reply is signed by none of the certificates that the server serves for signing, ask its operator whether GetCACert and the RA agree"
    )]
    UnknownSigner,
    /// The envelope names another recipient.
    #[error("the reply's envelope is for another recipient")]
    NotForUs,
    /// The envelope does not open.
    #[error("the reply's envelope does not open with the key that signed the request")]
    Decrypt,
    /// What the envelope holds is not a degenerate SignedData of certificates.
    #[error("the reply's envelope holds something else than certificates: {0}")]
    Contents(#[from] CertificateError),
}

/// A reply, read but not verified until [`CertRep::verify`].
#[derive(Clone, Debug)]
pub struct CertRep {
    /// The text of messageType; "3" in every CertRep.
    pub message_type: String,
    /// transactionID; the request's.
    pub transaction_id: String,
    /// pkiStatus.
    pub status: PkiStatus,
    /// failInfo; present exactly with FAILURE.
    pub fail_info: Option<FailInfo>,
    /// failInfoText: words for a person, from outside.
    pub fail_info_text: Option<String>,
    /// recipientNonce: the request's senderNonce.
    pub recipient_nonce: Vec<u8>,
    /// senderNonce; older servers leave it out (§3.3.2).
    pub sender_nonce: Option<Vec<u8>>,
    /// The digest that SignerInfo names.
    pub digest: DigestAlgorithm,
    /// The signature algorithm that SignerInfo names.
    pub signature_algorithm: ObjectIdentifier,
    /// The certificates that came along, outside of the envelope.
    pub certificates: Vec<Certificate>,
    /// ContentInfo of the EnvelopedData; absent unless SUCCESS.
    pub envelope: Option<Vec<u8>>,
    signed_attributes: Vec<u8>,
    message_digest: Vec<u8>,
    signer_identifier: Vec<u8>,
    signature: Vec<u8>,
}

impl CertRep {
    /// Reads a reply. Which of status, failInfo and envelope go together (§3.3.2.1 to §3.3.2.3)
    /// is checked; that anybody signed it is not.
    ///
    /// # Errors
    /// [`CertRepError`].
    pub fn read(der: &[u8]) -> Result<Self, CertRepError> {
        let outer = SignedDataParts::read(der)?;
        let signer = SignerInfoParts::read(outer.signer_info)?;
        let attributes = SignedAttributes::read(signer.attributes)?;
        let content_type: ObjectIdentifier = attributes.one("contentType", CONTENT_TYPE)?;
        if content_type != rfc5911::ID_DATA || outer.content_type != rfc5911::ID_DATA {
            return Err(CertRepError::NotScep("its content type is not data"));
        }
        let message_type = attributes.text("messageType", oid::MESSAGE_TYPE)?;
        if message_type.as_deref() != Some(CERT_REP) {
            return Err(CertRepError::NotScep("its messageType is not CertRep (3)"));
        }
        let status = attributes.text("pkiStatus", oid::PKI_STATUS)?;
        let status = status.as_deref().and_then(status_from_text);
        let status = status.ok_or(CertRepError::Attribute("pkiStatus"))?;
        let fail_info = match (status, attributes.text("failInfo", oid::FAIL_INFO)?) {
            (PkiStatus::Failure, Some(text)) => {
                Some(fail_info_from_text(&text).ok_or(CertRepError::Attribute("failInfo"))?)
            }
            (PkiStatus::Failure, None) => return Err(CertRepError::Attribute("failInfo")),
            (PkiStatus::Success | PkiStatus::Pending, _) => None,
        };
        if (status == PkiStatus::Success) != outer.content.is_some() {
            return Err(CertRepError::NotScep(
                "its envelope does not fit its pkiStatus",
            ));
        }
        let transaction_id = attributes.text("transactionID", oid::TRANSACTION_ID)?;
        let recipient_nonce = attributes.octets("recipientNonce", oid::RECIPIENT_NONCE)?;
        let message_digest = attributes.octets("messageDigest", rfc5911::ID_MESSAGE_DIGEST)?;
        Ok(Self {
            message_type: CERT_REP.into(),
            transaction_id: transaction_id.ok_or(CertRepError::Attribute("transactionID"))?,
            status,
            fail_info,
            fail_info_text: attributes.text("failInfoText", oid::FAIL_INFO_TEXT)?,
            recipient_nonce: recipient_nonce.ok_or(CertRepError::Attribute("recipientNonce"))?,
            sender_nonce: attributes.octets("senderNonce", oid::SENDER_NONCE)?,
            digest: signer.digest,
            signature_algorithm: signer.signature_algorithm,
            certificates: outer.certificates,
            envelope: outer.content,
            signed_attributes: signer.signed_octets,
            message_digest: message_digest.ok_or(CertRepError::Attribute("messageDigest"))?,
            signer_identifier: signer.identifier,
            signature: signer.signature,
        })
    }

    /// Which of `candidates` SignerInfo names.
    #[must_use]
    pub fn signer<'a>(
        &self,
        candidates: impl IntoIterator<Item = &'a Certificate>,
    ) -> Option<&'a Certificate> {
        candidates.into_iter().find(|candidate| {
            candidate.issuer_and_serial() == self.signer_identifier
                || candidate.subject_key_identifier().is_some_and(|id| {
                    AnyRef::new(der::TagNumber(0).context_specific(false), &id)
                        .and_then(|any| any.to_der())
                        .is_ok_and(|der| der == self.signer_identifier)
                })
        })
    }

    /// Verifies digest and signature under `signer`'s key (RFC 5652 §5.4, §5.6).
    ///
    /// # Errors
    /// [`CertRepError::Digest`], [`CertRepError::Signature`] and [`CertRepError::Algorithm`].
    pub fn verify(&self, signer: &Certificate) -> Result<(), CertRepError> {
        // A CertRep without envelope digests zero octets.
        let content = self.envelope.as_deref().unwrap_or_default();
        if self.digest.digest(content).as_ref() != self.message_digest {
            return Err(CertRepError::Digest);
        }
        signer
            .verify(
                &self.signature_algorithm,
                Some(self.digest),
                &self.signed_attributes,
                &self.signature,
            )
            .map_err(|unverified| match unverified {
                Unverified::Algorithm => CertRepError::Algorithm("signature algorithm"),
                Unverified::Signature => CertRepError::Signature,
            })
    }

    /// Opens the envelope, which is addressed to the certificate that signed the request, and
    /// reads the certificates in it. Empty where there is no envelope.
    ///
    /// # Errors
    /// [`CertRepError`].
    pub fn open(
        &self,
        recipient: &Certificate,
        key: &ClientKey,
    ) -> Result<Vec<Certificate>, CertRepError> {
        match &self.envelope {
            Some(envelope) => Ok(read_degenerate(&envelope::open(envelope, recipient, key)?)?),
            None => Ok(Vec::new()),
        }
    }
}

const CONTENT_TYPE: ObjectIdentifier = rfc5911::ID_CONTENT_TYPE;

fn status_from_text(text: &str) -> Option<PkiStatus> {
    let all = [PkiStatus::Success, PkiStatus::Failure, PkiStatus::Pending];
    all.into_iter().find(|status| status.text() == text)
}

fn fail_info_from_text(text: &str) -> Option<FailInfo> {
    let all = [
        FailInfo::BadAlg,
        FailInfo::BadMessageCheck,
        FailInfo::BadRequest,
        FailInfo::BadTime,
        FailInfo::BadCertId,
    ];
    all.into_iter().find(|info| info.text() == text)
}

/// SignedData (RFC 5652 §5.1) with exactly one SignerInfo.
struct SignedDataParts<'a> {
    content_type: ObjectIdentifier,
    content: Option<Vec<u8>>,
    certificates: Vec<Certificate>,
    signer_info: AnyRef<'a>,
}

impl<'a> SignedDataParts<'a> {
    fn read(der: &'a [u8]) -> Result<Self, CertRepError> {
        let fields = crate::certificate::signed_data(der)?
            .ok_or(CertRepError::NotScep("it is no SignedData"))?;
        let encapsulated = fields.get(2).copied().ok_or(INCOMPLETE)?;
        let encapsulated = asn1::inside(encapsulated, Tag::Sequence)?;
        let content = match encapsulated.get(1) {
            Some(explicit) => {
                let inner = asn1::inside(*explicit, asn1::explicit(0))?;
                let octets: &OctetStringRef = inner.first().ok_or(INCOMPLETE)?.decode_as()?;
                Some(octets.as_bytes().to_vec())
            }
            None => None,
        };
        let certificates = fields.iter().find(|field| field.tag() == asn1::explicit(0));
        let signer_infos = fields.last().copied().ok_or(INCOMPLETE)?;
        let signer_info = match asn1::inside(signer_infos, Tag::Set)?.as_slice() {
            [one] => *one,
            _ => return Err(CertRepError::NotScep("it has not exactly one signer")),
        };
        Ok(Self {
            content_type: encapsulated.first().ok_or(INCOMPLETE)?.decode_as()?,
            content,
            certificates: match certificates {
                Some(set) => crate::certificate::read_set(*set)?,
                None => Vec::new(),
            },
            signer_info,
        })
    }
}

const INCOMPLETE: CertRepError = CertRepError::NotScep("a part is missing");

/// SignerInfo (RFC 5652 §5.3) with signed attributes.
struct SignerInfoParts<'a> {
    identifier: Vec<u8>,
    digest: DigestAlgorithm,
    attributes: AnyRef<'a>,
    signed_octets: Vec<u8>,
    signature_algorithm: ObjectIdentifier,
    signature: Vec<u8>,
}

impl<'a> SignerInfoParts<'a> {
    fn read(signer_info: AnyRef<'a>) -> Result<Self, CertRepError> {
        let fields = asn1::inside(signer_info, Tag::Sequence)?;
        let [_, identifier, digest, attributes, algorithm, signature, ..] = fields.as_slice()
        else {
            return Err(CertRepError::NotScep("its signer signed no attributes"));
        };
        if attributes.tag() != asn1::explicit(0) {
            return Err(CertRepError::NotScep("its signer signed no attributes"));
        }
        let digest = AlgorithmIdentifier::from_der(&digest.to_der()?)?;
        let algorithm = AlgorithmIdentifier::from_der(&algorithm.to_der()?)?;
        let signature: &OctetStringRef = signature.decode_as()?;
        Ok(Self {
            identifier: identifier.to_der()?,
            digest: DigestAlgorithm::by_oid(&digest.oid)
                .ok_or(CertRepError::Algorithm("digest"))?,
            attributes: *attributes,
            // RFC 5652 §5.4: signed is the SET OF, over the octets as received.
            signed_octets: AnyRef::new(Tag::Set, attributes.value())?.to_der()?,
            signature_algorithm: algorithm.oid,
            signature: signature.as_bytes().to_vec(),
        })
    }
}

/// The signed attributes: type and values.
struct SignedAttributes<'a>(Vec<(ObjectIdentifier, Vec<AnyRef<'a>>)>);

impl<'a> SignedAttributes<'a> {
    fn read(set: AnyRef<'a>) -> Result<Self, CertRepError> {
        let mut attributes = Vec::new();
        for attribute in asn1::children(set.value())? {
            let fields = asn1::inside(attribute, Tag::Sequence)?;
            let [oid, values] = fields.as_slice() else {
                return Err(CertRepError::NotScep("a signed attribute is malformed"));
            };
            attributes.push((oid.decode_as()?, asn1::inside(*values, Tag::Set)?));
        }
        Ok(Self(attributes))
    }

    /// The one value of an attribute that stands once, or `None` where it does not stand.
    fn find(
        &self,
        name: &'static str,
        oid: ObjectIdentifier,
    ) -> Result<Option<AnyRef<'a>>, CertRepError> {
        let mut found = self.0.iter().filter(|(kind, _)| *kind == oid);
        match (
            found.next().map(|(_, values)| values.as_slice()),
            found.next(),
        ) {
            (None, _) => Ok(None),
            (Some([value]), None) => Ok(Some(*value)),
            _ => Err(CertRepError::Attribute(name)),
        }
    }

    fn one<T>(&self, name: &'static str, oid: ObjectIdentifier) -> Result<T, CertRepError>
    where
        T: for<'b> der::DecodeValue<'b, Error = der::Error> + der::FixedTag,
    {
        let value = self.find(name, oid)?.ok_or(CertRepError::Attribute(name))?;
        value.decode_as().map_err(|_| CertRepError::Attribute(name))
    }

    fn text(
        &self,
        name: &'static str,
        oid: ObjectIdentifier,
    ) -> Result<Option<String>, CertRepError> {
        let Some(value) = self.find(name, oid)? else {
            return Ok(None);
        };
        let text = match value.tag() {
            Tag::PrintableString | Tag::Utf8String => core::str::from_utf8(value.value()).ok(),
            _ => None,
        };
        text.map(|text| Some(text.into()))
            .ok_or(CertRepError::Attribute(name))
    }

    fn octets(
        &self,
        name: &'static str,
        oid: ObjectIdentifier,
    ) -> Result<Option<Vec<u8>>, CertRepError> {
        match self.find(name, oid)? {
            Some(value) if value.tag() == Tag::OctetString => Ok(Some(value.value().to_vec())),
            Some(_) => Err(CertRepError::Attribute(name)),
            None => Ok(None),
        }
    }
}
