//! Certificates, certification requests and what they share (RFC 5280, RFC 2986): structure
//! alone, and the offsets of the strings that hold elements of their own.
//!
//! Values are not looked at, except the object identifiers that tell which strings to open: the
//! holder of the octets proves and judges everything that matters again.

use crate::cursor::Malformed;
use crate::node::Node;
use crate::tag;

/// Offsets of strings to open, ascending as long as a grammar is followed front to back.
pub(crate) type Open = Vec<usize>;

/// RFC 2986 §4.2:
/// ```asn1
/// CertificationRequest ::= SEQUENCE {
///     certificationRequestInfo CertificationRequestInfo,
///     signatureAlgorithm       AlgorithmIdentifier,
///     signature                BIT STRING }
/// CertificationRequestInfo ::= SEQUENCE {
///     version       INTEGER,
///     subject       Name,
///     subjectPKInfo SubjectPublicKeyInfo,
///     attributes    [0] Attributes }
/// ```
/// Some clients leave empty attributes out altogether.
pub(crate) fn certification_request(node: Node<'_>, open: &mut Open) -> Result<(), Malformed> {
    let info = signed(node, "a CertificationRequest")?;
    let mut fields = info.fields();
    fields.take(tag::INTEGER, "the version of a CertificationRequestInfo")?;
    name(fields.any("a subject")?)?;
    subject_public_key_info(fields.any("a SubjectPublicKeyInfo")?, open)?;
    let attributes = fields.maybe(tag::context(0));
    fields.end("the end of a CertificationRequestInfo")?;
    attributes
        .into_iter()
        .flat_map(Node::children)
        .try_for_each(|node| attribute(node, open))
}

/// RFC 5280 §4.1:
/// ```asn1
/// Certificate ::= SEQUENCE {
///     tbsCertificate     TBSCertificate,
///     signatureAlgorithm AlgorithmIdentifier,
///     signatureValue     BIT STRING }
/// TBSCertificate ::= SEQUENCE {
///     version          [0] EXPLICIT INTEGER OPTIONAL,
///     serialNumber         INTEGER,
///     signature            AlgorithmIdentifier,
///     issuer               Name,
///     validity             Validity,
///     subject              Name,
///     subjectPublicKeyInfo SubjectPublicKeyInfo,
///     issuerUniqueID   [1] IMPLICIT BIT STRING OPTIONAL,
///     subjectUniqueID  [2] IMPLICIT BIT STRING OPTIONAL,
///     extensions       [3] EXPLICIT Extensions OPTIONAL }
/// ```
pub(crate) fn certificate(node: Node<'_>, open: &mut Open) -> Result<(), Malformed> {
    let tbs = signed(node, "a Certificate")?;
    let mut fields = tbs.fields();
    if let Some(version) = fields.maybe(tag::context(0)) {
        let mut version = version.fields();
        version.take(tag::INTEGER, "a version")?;
        version.end("the end of a version")?;
    }
    fields.take(tag::INTEGER, "a serialNumber")?;
    algorithm_identifier(fields.any("a signature algorithm")?)?;
    name(fields.any("an issuer")?)?;
    validity(fields.any("a Validity")?)?;
    name(fields.any("a subject")?)?;
    subject_public_key_info(fields.any("a SubjectPublicKeyInfo")?, open)?;
    fields.maybe(tag::context_primitive(1));
    fields.maybe(tag::context_primitive(2));
    if let Some(wrapped) = fields.maybe(tag::context(3)) {
        let mut wrapped = wrapped.fields();
        extensions(wrapped.any("Extensions")?, open)?;
        wrapped.end("the end of the extensions")?;
    }
    fields.end("the end of a TBSCertificate")
}

/// What is signed, of `SEQUENCE { SEQUENCE, AlgorithmIdentifier, BIT STRING }`.
fn signed<'t>(node: Node<'t>, what: &'static str) -> Result<Node<'t>, Malformed> {
    let mut fields = node.is(tag::SEQUENCE, what)?.fields();
    let signed = fields.take(tag::SEQUENCE, what)?;
    algorithm_identifier(fields.any("a signature algorithm")?)?;
    fields.take(tag::BIT_STRING, "a signature")?;
    fields.end("the end after a signature")?;
    Ok(signed)
}

/// `Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }`. The values of an
/// extensionRequest, by either of its names, are Extensions.
fn attribute(node: Node<'_>, open: &mut Open) -> Result<(), Malformed> {
    let mut fields = node.is(tag::SEQUENCE, "an Attribute")?.fields();
    let kind = fields.take(tag::OBJECT_IDENTIFIER, "an attribute type")?;
    let values = fields.take(tag::SET, "attribute values")?;
    fields.end("the end of an Attribute")?;
    if [tag::EXTENSION_REQUEST, tag::CERT_EXTENSIONS].contains(&kind.content()) {
        values
            .children()
            .try_for_each(|value| extensions(value, open))?;
    }
    Ok(())
}

/// ```asn1
/// Extensions ::= SEQUENCE OF SEQUENCE {
///     extnID    OBJECT IDENTIFIER,
///     critical  BOOLEAN DEFAULT FALSE,
///     extnValue OCTET STRING }
/// ```
fn extensions(node: Node<'_>, open: &mut Open) -> Result<(), Malformed> {
    for extension in node.is(tag::SEQUENCE, "Extensions")?.children() {
        let mut fields = extension.is(tag::SEQUENCE, "an Extension")?.fields();
        let kind = fields.take(tag::OBJECT_IDENTIFIER, "an extnID")?;
        fields.maybe(tag::BOOLEAN);
        let value = fields.take(tag::OCTET_STRING, "an extnValue")?;
        fields.end("the end of an Extension")?;
        if kind.content() == tag::SUBJECT_ALT_NAME {
            open.push(value.start());
        }
    }
    Ok(())
}

/// `SEQUENCE { algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING }`. The key of
/// rsaEncryption is a structure (RFC 3279 §2.3.1); those of the curves are octets.
fn subject_public_key_info(node: Node<'_>, open: &mut Open) -> Result<(), Malformed> {
    let mut fields = node.is(tag::SEQUENCE, "a SubjectPublicKeyInfo")?.fields();
    let algorithm = algorithm_identifier(fields.any("a public key algorithm")?)?;
    let key = fields.take(tag::BIT_STRING, "a subjectPublicKey")?;
    fields.end("the end of a SubjectPublicKeyInfo")?;
    if algorithm.content() == tag::RSA_ENCRYPTION {
        open.push(key.start());
    }
    Ok(())
}

/// `SEQUENCE { algorithm OBJECT IDENTIFIER, parameters ANY OPTIONAL }`; returns the algorithm.
pub(crate) fn algorithm_identifier(node: Node<'_>) -> Result<Node<'_>, Malformed> {
    let mut fields = node.is(tag::SEQUENCE, "an AlgorithmIdentifier")?.fields();
    let algorithm = fields.take(tag::OBJECT_IDENTIFIER, "an algorithm")?;
    if fields.any("parameters").is_ok() {
        fields.end("the end of an AlgorithmIdentifier")?;
    }
    Ok(algorithm)
}

/// `Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }`
fn name(node: Node<'_>) -> Result<(), Malformed> {
    for set in node.is(tag::SEQUENCE, "a Name")?.children() {
        for pair in set.is(tag::SET, "a RelativeDistinguishedName")?.children() {
            let mut fields = pair.is(tag::SEQUENCE, "an AttributeTypeAndValue")?.fields();
            fields.take(tag::OBJECT_IDENTIFIER, "an attribute type")?;
            fields.any("an attribute value")?;
            fields.end("the end of an AttributeTypeAndValue")?;
        }
    }
    Ok(())
}

/// `Validity ::= SEQUENCE { notBefore Time, notAfter Time }`
fn validity(node: Node<'_>) -> Result<(), Malformed> {
    let mut fields = node.is(tag::SEQUENCE, "a Validity")?.fields();
    for _ in 0..2 {
        let time = fields.any("a Time")?;
        if ![tag::UTC_TIME, tag::GENERALIZED_TIME].contains(&time.tag()) {
            return Err(time.expected("a Time"));
        }
    }
    fields.end("the end of a Validity")
}
