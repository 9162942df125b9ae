//! The CMS around a pkiMessage (RFC 8894 §3, RFC 5652): structure alone.

use crate::certificate::{Open, algorithm_identifier, certificate};
use crate::cursor::Malformed;
use crate::node::Node;
use crate::tag;
use std::borrow::Cow;

/// RFC 5652 §5.1:
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
/// Returns the joined eContent, and appends to `open` the strings to open in certificates.
pub(crate) fn signed_data<'t>(
    node: Node<'t>,
    open: &mut Open,
) -> Result<Option<Cow<'t, [u8]>>, Malformed> {
    let signed_data = content_info(node, tag::ID_SIGNED_DATA, "id-signedData")?;
    let mut fields = signed_data.fields();
    fields.take(tag::INTEGER, "the version of a SignedData")?;
    fields.take(tag::SET, "digestAlgorithms")?;
    let content = fields.take(tag::SEQUENCE, "an encapContentInfo")?;
    let content = encapsulated_content(content)?;
    if let Some(certificates) = fields.maybe(tag::context(0)) {
        certificates
            .children()
            .try_for_each(|choice| certificate_choice(choice, open))?;
    }
    fields.maybe(tag::context(1));
    fields.take(tag::SET, "signerInfos")?;
    fields.end("the end of a SignedData")?;
    Ok(content)
}

/// RFC 5652 §6.1:
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
pub(crate) fn enveloped_data(node: Node<'_>) -> Result<(), Malformed> {
    let enveloped_data = content_info(node, tag::ID_ENVELOPED_DATA, "id-envelopedData")?;
    let mut fields = enveloped_data.fields();
    fields.take(tag::INTEGER, "the version of an EnvelopedData")?;
    fields.maybe(tag::context(0));
    fields.take(tag::SET, "recipientInfos")?;
    let content = fields.take(tag::SEQUENCE, "an encryptedContentInfo")?;
    encrypted_content(content)?;
    fields.maybe(tag::context(1));
    fields.end("the end of an EnvelopedData")
}

/// RFC 5652 §3: `SEQUENCE { contentType OBJECT IDENTIFIER, content [0] EXPLICIT ANY }`; returns
/// the content, which is a SEQUENCE for every type that SCEP uses here.
fn content_info<'t>(
    node: Node<'t>,
    kind: &[u8],
    what: &'static str,
) -> Result<Node<'t>, Malformed> {
    let mut fields = node.is(tag::SEQUENCE, "a ContentInfo")?.fields();
    let content_type = fields.take(tag::OBJECT_IDENTIFIER, what)?;
    if content_type.content() != kind {
        return Err(content_type.expected(what));
    }
    let mut wrapped = fields
        .take(tag::context(0), "the content of a ContentInfo")?
        .fields();
    fields.end("the end of a ContentInfo")?;
    let content = wrapped.take(tag::SEQUENCE, "a SEQUENCE as content")?;
    wrapped.end("the end of the content")?;
    Ok(content)
}

fn encapsulated_content(node: Node<'_>) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let mut fields = node.fields();
    fields.take(tag::OBJECT_IDENTIFIER, "an eContentType")?;
    let wrapped = fields.maybe(tag::context(0));
    fields.end("the end of an encapContentInfo")?;
    let Some(wrapped) = wrapped else {
        return Ok(None);
    };
    let mut wrapped = wrapped.fields();
    let content = wrapped.any("an eContent")?;
    wrapped.end("the end of an eContent")?;
    content
        .octets(
            (tag::OCTET_STRING, tag::CHUNKED_OCTET_STRING),
            "an eContent",
        )
        .map(Some)
}

fn encrypted_content(node: Node<'_>) -> Result<(), Malformed> {
    let mut fields = node.fields();
    fields.take(tag::OBJECT_IDENTIFIER, "a contentType")?;
    algorithm_identifier(fields.any("a contentEncryptionAlgorithm")?)?;
    if let Ok(content) = fields.any("an encryptedContent") {
        content.octets(
            (tag::context_primitive(0), tag::context(0)),
            "an encryptedContent",
        )?;
    }
    fields.end("the end of an encryptedContentInfo")
}

/// RFC 5652 §10.2.2. A SEQUENCE is a certificate; the other choices are tagged [0] to [3], and
/// are let through unread.
fn certificate_choice(node: Node<'_>, open: &mut Open) -> Result<(), Malformed> {
    let tagged = tag::context(0)..=tag::context(3);
    if tagged.contains(&node.tag()) {
        Ok(())
    } else {
        certificate(node, open)
    }
}
