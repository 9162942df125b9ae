//! The EnvelopedData inside a pkiMessage (RFC 5652 §6), in the joined eContent.

use std::borrow::Cow;

use crate::algorithm::{AlgorithmIdentifier, ContentCipher, KeyTransport};
use crate::element::{Element, Missing};
use crate::message::content_info;
use crate::prove::Nodes;
use crate::tag::{self, oid};

/// An EnvelopedData whose structure is known, and its octets.
pub(crate) struct Envelope<'m> {
    content: Cow<'m, [u8]>,
    nodes: Nodes,
    recipient_infos: usize,
    encrypted_content: usize,
    /// Whether the contentType of the encrypted content is id-data.
    pub(crate) holds_data: bool,
    /// The content encryption and its initialisation vector; `None` if it is not supported.
    pub(crate) cipher: Option<(ContentCipher, [u8; 16])>,
}

/// A KeyTransRecipientInfo (RFC 5652 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// Whose certificate the key was encrypted for.
    pub id: RecipientId<'a>,
    /// How it was encrypted.
    pub transport: KeyTransport,
    /// The encrypted content-encryption key.
    pub encrypted_key: &'a [u8],
}

/// How a recipient's certificate is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientId<'a> {
    /// By its issuer and serial number: a Name and an INTEGER, tag and length included, as
    /// received.
    IssuerAndSerialNumber {
        /// The Name.
        issuer: &'a [u8],
        /// The INTEGER.
        serial: &'a [u8],
    },
    /// By the value of its subjectKeyIdentifier.
    SubjectKeyIdentifier(&'a [u8]),
}

impl<'m> Envelope<'m> {
    /// Finds the fields in a proved eContent.
    /// ```asn1
    /// EnvelopedData ::= SEQUENCE {
    ///     version                    INTEGER,
    ///     originatorInfo         [0] IMPLICIT OriginatorInfo OPTIONAL,
    ///     recipientInfos             SET OF RecipientInfo,
    ///     encryptedContentInfo       SEQUENCE {
    ///         contentType                OBJECT IDENTIFIER,
    ///         contentEncryptionAlgorithm AlgorithmIdentifier,
    ///         encryptedContent       [0] IMPLICIT OCTET STRING OPTIONAL },
    ///     unprotectedAttrs       [1] IMPLICIT SET OF Attribute OPTIONAL }
    /// ```
    pub(crate) fn read(content: Cow<'m, [u8]>, nodes: Nodes) -> Result<Self, Missing> {
        let root = nodes.root(&content).ok_or(Missing("an envelope"))?;
        let mut fields = content_info(root, oid::ENVELOPED_DATA, "id-envelopedData")?.fields();
        let version = fields.take(tag::INTEGER, "the version of an EnvelopedData")?;
        // RFC 5652 §6.1: 1 was never assigned, 4 is the highest.
        if !matches!(version.content(), [0 | 2 | 3 | 4]) {
            return Err(Missing("the version of an EnvelopedData"));
        }
        fields.maybe(tag::context(0));
        let recipients = fields.take(tag::SET, "recipientInfos")?;
        for info in recipients.children() {
            // RFC 5652 §6.2: the other choices are tagged [1] to [4].
            match info.tag() {
                tag::SEQUENCE => {
                    key_trans_recipient_info(info)?;
                }
                0xa1..=0xa4 => {}
                _ => return Err(Missing("a RecipientInfo")),
            }
        }
        let mut encrypted = fields
            .take(tag::SEQUENCE, "an encryptedContentInfo")?
            .fields();
        fields.maybe(tag::context(1));
        fields.end("the end of an EnvelopedData")?;
        let content_type = encrypted.take(tag::OBJECT_IDENTIFIER, "a contentType")?;
        let algorithm = encrypted.any("a contentEncryptionAlgorithm")?;
        let algorithm = AlgorithmIdentifier::read(algorithm, "a contentEncryptionAlgorithm")?;
        let ciphertext = encrypted.any("an encryptedContent")?;
        string(ciphertext)?;
        encrypted.end("the end of an encryptedContentInfo")?;
        let holds_data = content_type.content() == oid::DATA;
        let cipher = algorithm.content_cipher();
        let (recipient_infos, encrypted_content) = (recipients.index(), ciphertext.index());
        Ok(Self {
            holds_data,
            cipher,
            recipient_infos,
            encrypted_content,
            content,
            nodes,
        })
    }

    /// The octets that messageDigest covers: the value of the eContent (RFC 5652 §5.4).
    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    /// Whether there is a recipient that is no KeyTransRecipientInfo: one with a password, say.
    pub(crate) fn has_other_recipients(&self) -> bool {
        self.recipient_infos()
            .any(|info| info.tag() != tag::SEQUENCE)
    }

    pub(crate) fn recipients(&self) -> impl Iterator<Item = Recipient<'_>> {
        self.recipient_infos()
            .filter_map(|info| key_trans_recipient_info(info).ok())
    }

    /// The encrypted content, its pieces joined.
    pub(crate) fn encrypted_content(&self) -> Cow<'_, [u8]> {
        // Shown to be there when the envelope was read.
        self.nodes
            .element(&self.content, self.encrypted_content)
            .and_then(|element| string(element).ok())
            .unwrap_or_default()
    }

    fn recipient_infos(&self) -> impl Iterator<Item = Element<'_, '_>> {
        self.nodes
            .element(&self.content, self.recipient_infos)
            .into_iter()
            .flat_map(Element::children)
    }
}

/// `[0] IMPLICIT OCTET STRING`, whole or in pieces.
fn string<'b>(element: Element<'b, '_>) -> Result<Cow<'b, [u8]>, Missing> {
    element.string(
        tag::context_primitive(0),
        tag::context(0),
        "an encryptedContent",
    )
}

/// ```asn1
/// KeyTransRecipientInfo ::= SEQUENCE {
///     version                INTEGER,
///     rid                    CHOICE {
///         issuerAndSerialNumber    IssuerAndSerialNumber,
///         subjectKeyIdentifier [0] IMPLICIT OCTET STRING },
///     keyEncryptionAlgorithm AlgorithmIdentifier,
///     encryptedKey           OCTET STRING }
/// ```
fn key_trans_recipient_info<'b>(info: Element<'b, '_>) -> Result<Recipient<'b>, Missing> {
    let mut fields = info.is(tag::SEQUENCE, "a KeyTransRecipientInfo")?.fields();
    fields.take(tag::INTEGER, "the version of a KeyTransRecipientInfo")?;
    let id = signer_or_recipient(fields.any("a rid")?)?;
    let algorithm = fields.any("a keyEncryptionAlgorithm")?;
    let algorithm = AlgorithmIdentifier::read(algorithm, "a keyEncryptionAlgorithm")?;
    let encrypted_key = fields.take(tag::OCTET_STRING, "an encryptedKey")?;
    fields.end("the end of a KeyTransRecipientInfo")?;
    Ok(Recipient {
        id,
        transport: algorithm.key_transport(),
        encrypted_key: encrypted_key.content(),
    })
}

/// RecipientIdentifier and SignerIdentifier are the same choice (RFC 5652 §5.3, §6.2.1).
pub(crate) fn signer_or_recipient<'b>(id: Element<'b, '_>) -> Result<RecipientId<'b>, Missing> {
    if id.tag() == tag::context_primitive(0) {
        return Ok(RecipientId::SubjectKeyIdentifier(id.content()));
    }
    let mut fields = id.is(tag::SEQUENCE, "an issuerAndSerialNumber")?.fields();
    let issuer = fields.take(tag::SEQUENCE, "an issuer")?;
    let serial = fields.take(tag::INTEGER, "a serialNumber")?;
    fields.end("the end of an issuerAndSerialNumber")?;
    Ok(RecipientId::IssuerAndSerialNumber {
        issuer: issuer.octets(),
        serial: serial.octets(),
    })
}
