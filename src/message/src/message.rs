//! The outer SignedData of a pkiMessage (RFC 8894 §3.2, RFC 5652 §5): its fields, all of them
//! found, none of them believed.

use std::borrow::Cow;

use chancery_protocol::node::MAX_RECORDS;
use chancery_protocol::refusal::Refusal;
use chancery_protocol::scep::{self, MessageType, Nonce, TransactionId};

use crate::algorithm::{AlgorithmIdentifier, ContentCipher, DigestAlgorithm, SignatureAlgorithm};
use crate::certificate::Certificate;
use crate::element::{Element, Missing};
use crate::envelope::{Envelope, RecipientId, signer_or_recipient};
use crate::key::{KeyError, PublicKey};
use crate::prove::{Unproved, prove};
use crate::tag::{self, oid};

/// A pkiMessage as it was read. Nothing about it is verified.
pub struct SignedMessage<'m> {
    pub(crate) header: Box<Header<'m>>,
    pub(crate) signed: Signed<'m>,
    /// `None` if the eContent is absent.
    pub(crate) envelope: Option<Envelope<'m>>,
}

/// Why octets and tables are no message: there is nobody whom a CertRep could be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A table does not describe its buffer.
    #[error("a parser child answered with a table that is not true: {0}")]
    Unproved(#[from] Unproved),
    /// Not a pkiMessage that can be answered; the text names what was looked for.
    #[error("not a pkiMessage: expected {0}")]
    Malformed(&'static str),
}

/// Whom a reply is for, and in which algorithms: proved slices of the message for splicing into
/// it. Claims, until the message is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester<'m> {
    /// The issuer of the signer's certificate: a Name in DER, tag and length included.
    pub issuer: &'m [u8],
    /// Its serial number: an INTEGER in DER, tag and length included.
    pub serial: &'m [u8],
    /// Its SubjectPublicKeyInfo in DER, tag and length included; of an accepted kind only once the
    /// message is verified.
    pub public_key: &'m [u8],
    /// The digest algorithm of the message, if it is supported.
    pub digest: Option<DigestAlgorithm>,
    /// The content encryption algorithm of the message, if it is supported.
    pub cipher: Option<ContentCipher>,
}

/// What a reply needs, whatever becomes of the message.
#[derive(Debug)]
pub(crate) struct Header<'m> {
    pub(crate) transaction_id: TransactionId,
    pub(crate) sender_nonce: Nonce,
    pub(crate) requester: Requester<'m>,
}

/// What the signature is judged by.
pub(crate) struct Signed<'m> {
    pub(crate) message_type: Single<Option<MessageType>>,
    /// Content octets of the eContentType.
    pub(crate) content_type: &'m [u8],
    /// signatureAlgorithm, where digestAlgorithm is supported and fits it.
    pub(crate) algorithm: Option<SignatureAlgorithm>,
    /// signedAttrs as received, with the tag `[0]`.
    pub(crate) attributes: &'m [u8],
    pub(crate) attributes_definite: bool,
    /// Content octets of the contentType attribute.
    pub(crate) content_type_attribute: Single<&'m [u8]>,
    /// Content octets of the messageDigest attribute.
    pub(crate) message_digest: Single<&'m [u8]>,
    pub(crate) signature: &'m [u8],
    /// `None` if the key is of no accepted kind and form.
    pub(crate) key: Option<PublicKey>,
    /// Whether issuer and subject of the signer's certificate are the same octets.
    pub(crate) self_signed: bool,
}

/// An attribute that has to be there once, with one value of the right type.
pub(crate) type Single<T> = Result<T, Refusal>;

impl From<Missing> for ReadError {
    fn from(Missing(what): Missing) -> Self {
        Self::Malformed(what)
    }
}

impl<'m> SignedMessage<'m> {
    /// Proves the table of `message` and, where there is an eContent, that of its joined octets;
    /// finds the fields of the one SignerInfo and the certificate that it names.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        message: &'m [u8],
        table_m: &[u8],
        table_e: Option<&[u8]>,
    ) -> Result<Self, ReadError> {
        let nodes = prove(message, table_m)?;
        let root = nodes.root(message).ok_or(Missing("a ContentInfo"))?;
        let signed_data = SignedData::read(root)?;
        let envelope = match (signed_data.content, table_e) {
            (Some(content), Some(table)) => {
                let inner = prove(&content, table)?;
                if nodes.count() + inner.count() > MAX_RECORDS {
                    return Err(Unproved::Table.into());
                }
                Some(Envelope::read(content, inner)?)
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Unproved::Count.into()),
        };
        let info = SignerInfo::read(signed_data.signer_info)?;
        let certificate = find_signer(signed_data.certificates, &info.id)?;
        let key = match certificate.public_key() {
            Ok(key) => Some(key),
            Err(KeyError::Unaccepted) => None,
            Err(KeyError::Unproved(unproved)) => return Err(unproved.into()),
        };
        let header = Header {
            transaction_id: info.attributes.transaction_id()?,
            sender_nonce: info.attributes.sender_nonce()?,
            requester: Requester {
                issuer: certificate.issuer,
                serial: certificate.serial,
                public_key: certificate.spki(),
                digest: info.digest,
                cipher: envelope
                    .as_ref()
                    .and_then(|e| e.cipher)
                    .map(|(cipher, _)| cipher),
            },
        };
        Ok(Self {
            header: Box::new(header),
            signed: Signed {
                message_type: info.attributes.message_type(),
                content_type: signed_data.content_type,
                algorithm: info.algorithm,
                attributes: info.attributes.set.octets(),
                attributes_definite: info.attributes.set.is_definite(),
                content_type_attribute: info
                    .attributes
                    .octets(oid::CONTENT_TYPE, tag::OBJECT_IDENTIFIER),
                message_digest: info
                    .attributes
                    .octets(oid::MESSAGE_DIGEST, tag::OCTET_STRING),
                signature: info.signature,
                key,
                self_signed: certificate.issuer == certificate.subject,
            },
            envelope,
        })
    }

    /// The transactionID, a claim.
    #[must_use]
    pub fn transaction_id(&self) -> &TransactionId {
        &self.header.transaction_id
    }

    /// The senderNonce, a claim.
    #[must_use]
    pub fn sender_nonce(&self) -> &Nonce {
        &self.header.sender_nonce
    }

    /// The messageType, a claim; `None` if it is absent, doubled, unreadable or unassigned.
    #[must_use]
    pub fn message_type(&self) -> Option<MessageType> {
        self.signed.message_type.ok().flatten()
    }

    /// The digest algorithm; `None` if it is not supported.
    #[must_use]
    pub fn digest(&self) -> Option<DigestAlgorithm> {
        self.header.requester.digest
    }

    /// Whom a reply is for.
    #[must_use]
    pub fn requester(&self) -> Requester<'m> {
        self.header.requester
    }
}

/// ```asn1
/// SignedData ::= SEQUENCE {
///     version              INTEGER,
///     digestAlgorithms     SET OF AlgorithmIdentifier,
///     encapContentInfo     SEQUENCE {
///         eContentType         OBJECT IDENTIFIER,
///         eContent         [0] EXPLICIT OCTET STRING OPTIONAL },
///     certificates     [0] IMPLICIT CertificateSet OPTIONAL,
///     crls             [1] IMPLICIT RevocationInfoChoices OPTIONAL,
///     signerInfos          SET OF SignerInfo }
/// ```
struct SignedData<'b, 'n> {
    content_type: &'b [u8],
    content: Option<Cow<'b, [u8]>>,
    certificates: Element<'b, 'n>,
    signer_info: Element<'b, 'n>,
}

impl<'b, 'n> SignedData<'b, 'n> {
    fn read(root: Element<'b, 'n>) -> Result<Self, Missing> {
        let mut fields = content_info(root, oid::SIGNED_DATA, "id-signedData")?.fields();
        let version = fields.take(tag::INTEGER, "the version of a SignedData")?;
        // RFC 5652 §5.1: 3 with a subjectKeyIdentifier, 4 and 5 with certificates and revocation
        // information that SCEP does not know.
        if !matches!(version.content(), [1 | 3]) {
            return Err(Missing("the version of a SignedData"));
        }
        fields.take(tag::SET, "digestAlgorithms")?;
        let mut encapsulated = fields.take(tag::SEQUENCE, "an encapContentInfo")?.fields();
        let content_type = encapsulated.take(tag::OBJECT_IDENTIFIER, "an eContentType")?;
        let content = match encapsulated.maybe(tag::context(0)) {
            Some(wrapped) => {
                let mut wrapped = wrapped.fields();
                let string = wrapped.any("an eContent")?;
                wrapped.end("the end of an eContent")?;
                Some(string.string(tag::OCTET_STRING, tag::CHUNKED_OCTET_STRING, "an eContent")?)
            }
            None => None,
        };
        encapsulated.end("the end of an encapContentInfo")?;
        let certificates = fields.take(tag::context(0), "certificates")?;
        fields.maybe(tag::context(1));
        let mut infos = fields.take(tag::SET, "signerInfos")?.fields();
        fields.end("the end of a SignedData")?;
        let signer_info = infos.take(tag::SEQUENCE, "a SignerInfo")?;
        infos.end("one SignerInfo only")?;
        Ok(Self {
            content_type: content_type.content(),
            content,
            certificates,
            signer_info,
        })
    }
}

/// ```asn1
/// SignerInfo ::= SEQUENCE {
///     version            INTEGER,
///     sid                SignerIdentifier,
///     digestAlgorithm    AlgorithmIdentifier,
///     signedAttrs    [0] IMPLICIT SET OF Attribute OPTIONAL,
///     signatureAlgorithm AlgorithmIdentifier,
///     signature          OCTET STRING,
///     unsignedAttrs  [1] IMPLICIT SET OF Attribute OPTIONAL }
/// ```
/// A SignerInfo without signedAttrs cannot say whose transaction it belongs to.
struct SignerInfo<'b, 'n> {
    id: RecipientId<'b>,
    digest: Option<DigestAlgorithm>,
    algorithm: Option<SignatureAlgorithm>,
    attributes: Attributes<'b, 'n>,
    signature: &'b [u8],
}

impl<'b, 'n> SignerInfo<'b, 'n> {
    fn read(element: Element<'b, 'n>) -> Result<Self, Missing> {
        let mut fields = element.fields();
        let version = fields.take(tag::INTEGER, "the version of a SignerInfo")?;
        if !matches!(version.content(), [1 | 3]) {
            return Err(Missing("the version of a SignerInfo"));
        }
        let id = signer_or_recipient(fields.any("a sid")?)?;
        let digest = fields.any("a digestAlgorithm")?;
        let digest = AlgorithmIdentifier::read(digest, "a digestAlgorithm")?.digest();
        let attributes = Attributes::read(fields.take(tag::context(0), "signedAttrs")?)?;
        let algorithm = fields.any("a signatureAlgorithm")?;
        let algorithm = AlgorithmIdentifier::read(algorithm, "a signatureAlgorithm")?;
        let signature = fields.take(tag::OCTET_STRING, "a signature")?;
        fields.maybe(tag::context(1));
        fields.end("the end of a SignerInfo")?;
        Ok(Self {
            id,
            digest,
            algorithm: digest.and_then(|digest| algorithm.signer_signature(digest)),
            attributes,
            signature: signature.content(),
        })
    }
}

/// `SET OF SEQUENCE { attrType OBJECT IDENTIFIER, attrValues SET OF ANY }`: the signed ones, and
/// no other attribute is ever looked at.
struct Attributes<'b, 'n> {
    set: Element<'b, 'n>,
}

impl<'b, 'n> Attributes<'b, 'n> {
    fn read(set: Element<'b, 'n>) -> Result<Self, Missing> {
        for attribute in set.children() {
            split_attribute(attribute)?;
        }
        Ok(Self { set })
    }

    /// RFC 5652 §11, RFC 8894 §3.2.1: an attribute stands once, with one value.
    fn value(&self, kind: &[u8]) -> Single<Element<'b, 'n>> {
        let mut found = self
            .set
            .children()
            .filter_map(|attribute| split_attribute(attribute).ok())
            .filter(|(found, _)| *found == kind);
        let (Some((_, values)), None) = (found.next(), found.next()) else {
            return Err(Refusal::SignedAttributes);
        };
        let mut values = values.children();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(Refusal::SignedAttributes),
        }
    }

    fn octets(&self, kind: &[u8], tag: u8) -> Single<&'b [u8]> {
        let value = self.value(kind)?;
        if value.tag() == tag {
            Ok(value.content())
        } else {
            Err(Refusal::SignedAttributes)
        }
    }

    fn transaction_id(&self) -> Result<TransactionId, Missing> {
        self.value(scep::oid::TRANSACTION_ID.as_bytes())
            .ok()
            .and_then(text)
            .and_then(TransactionId::new)
            .ok_or(Missing(
                "one transactionID of 1 to 256 printable characters",
            ))
    }

    fn sender_nonce(&self) -> Result<Nonce, Missing> {
        self.octets(scep::oid::SENDER_NONCE.as_bytes(), tag::OCTET_STRING)
            .ok()
            .and_then(Nonce::new)
            .ok_or(Missing("one senderNonce of 1 to 64 octets"))
    }

    fn message_type(&self) -> Single<Option<MessageType>> {
        let value = self.value(scep::oid::MESSAGE_TYPE.as_bytes())?;
        Ok(text(value).and_then(MessageType::from_text))
    }
}

/// RFC 8894 §3.2.1 says PrintableString. Encoders that choose the type by the characters write
/// UTF8String for a `_`; the octets are the same.
fn text<'b>(value: Element<'b, '_>) -> Option<&'b [u8]> {
    matches!(
        value.tag(),
        tag::PRINTABLE_STRING | tag::UTF8_STRING | tag::IA5_STRING
    )
    .then(|| value.content())
}

/// The type of an attribute, by its content octets, and the SET of its values.
pub(crate) fn split_attribute<'b, 'n>(
    attribute: Element<'b, 'n>,
) -> Result<(&'b [u8], Element<'b, 'n>), Missing> {
    let mut fields = attribute.is(tag::SEQUENCE, "an Attribute")?.fields();
    let kind = fields.take(tag::OBJECT_IDENTIFIER, "an attribute type")?;
    let values = fields.take(tag::SET, "attribute values")?;
    fields.end("the end of an Attribute")?;
    Ok((kind.content(), values))
}

/// RFC 5652 §3: `ContentInfo ::= SEQUENCE { contentType OBJECT IDENTIFIER, content [0] EXPLICIT
/// ANY }`; returns the content, a SEQUENCE.
pub(crate) fn content_info<'b, 'n>(
    root: Element<'b, 'n>,
    kind: &[u8],
    what: &'static str,
) -> Result<Element<'b, 'n>, Missing> {
    let mut fields = root.is(tag::SEQUENCE, "a ContentInfo")?.fields();
    if fields.take(tag::OBJECT_IDENTIFIER, what)?.content() != kind {
        return Err(Missing(what));
    }
    let mut wrapped = fields
        .take(tag::context(0), "the content of a ContentInfo")?
        .fields();
    fields.end("the end of a ContentInfo")?;
    let content = wrapped.take(tag::SEQUENCE, "a SEQUENCE as content")?;
    wrapped.end("the end of the content")?;
    Ok(content)
}

/// RFC 8894 §2.3: the signer's certificate is inside. Repeated it may be; two that the sid fits
/// alike leave open whose key counts.
fn find_signer<'b, 'n>(
    certificates: Element<'b, 'n>,
    id: &RecipientId<'_>,
) -> Result<Certificate<'b, 'n>, Missing> {
    let mut signer: Option<Certificate<'b, 'n>> = None;
    for element in certificates.children() {
        // RFC 5652 §10.2.2: a SEQUENCE is an X.509 certificate, [0] to [3] are something else.
        if (0xa0..=0xa3).contains(&element.tag()) {
            continue;
        }
        let certificate = Certificate::read(element)?;
        let named = match id {
            RecipientId::IssuerAndSerialNumber { issuer, serial } => {
                certificate.issuer == *issuer && certificate.serial == *serial
            }
            RecipientId::SubjectKeyIdentifier(identifier) => {
                certificate.has_key_identifier(identifier)
            }
        };
        match &signer {
            _ if !named => {}
            None => signer = Some(certificate),
            Some(first) if first.octets == certificate.octets => {}
            Some(_) => return Err(Missing("one certificate of the signer only")),
        }
    }
    signer.ok_or(Missing("the certificate of the signer"))
}
