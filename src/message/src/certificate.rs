//! The certificate that a message names as its signer's (RFC 5280 §4.1): who it is, and its key.

use crate::element::{Element, Missing};
use crate::key::{KeyError, PublicKey};
use crate::tag::{self, oid};

/// What is read of a certificate. Its signature is not verified and none of its claims is
/// believed: the key counts, because the message is signed with it.
pub(crate) struct Certificate<'b, 'n> {
    /// All of it, as received.
    pub(crate) octets: &'b [u8],
    /// The serialNumber as INTEGER, tag and length included.
    pub(crate) serial: &'b [u8],
    /// The issuer Name, tag and length included.
    pub(crate) issuer: &'b [u8],
    /// The subject Name, tag and length included.
    pub(crate) subject: &'b [u8],
    subject_public_key_info: Element<'b, 'n>,
    extensions: Option<Element<'b, 'n>>,
}

impl<'b, 'n> Certificate<'b, 'n> {
    /// Finds the fields of a certificate with definite lengths throughout.
    /// ```asn1
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
    pub(crate) fn read(element: Element<'b, 'n>) -> Result<Self, Missing> {
        if !element.is_definite() {
            return Err(Missing("a certificate in DER"));
        }
        let mut outer = element.is(tag::SEQUENCE, "a certificate")?.fields();
        let mut fields = outer.take(tag::SEQUENCE, "a tbsCertificate")?.fields();
        outer.take(tag::SEQUENCE, "a signatureAlgorithm")?;
        outer.take(tag::BIT_STRING, "a signatureValue")?;
        outer.end("the end of a certificate")?;
        fields.maybe(tag::context(0));
        let serial = fields.take(tag::INTEGER, "a serialNumber")?;
        fields.take(tag::SEQUENCE, "a signature algorithm")?;
        let issuer = fields.take(tag::SEQUENCE, "an issuer")?;
        fields.take(tag::SEQUENCE, "a validity")?;
        let subject = fields.take(tag::SEQUENCE, "a subject")?;
        let subject_public_key_info = fields.take(tag::SEQUENCE, "a subjectPublicKeyInfo")?;
        fields.maybe(tag::context_primitive(1));
        fields.maybe(tag::context_primitive(2));
        let extensions = match fields.maybe(tag::context(3)) {
            Some(wrapped) => Some(wrapped.fields().take(tag::SEQUENCE, "extensions")?),
            None => None,
        };
        fields.end("the end of a tbsCertificate")?;
        Ok(Self {
            octets: element.octets(),
            serial: serial.octets(),
            issuer: issuer.octets(),
            subject: subject.octets(),
            subject_public_key_info,
            extensions,
        })
    }

    /// The SubjectPublicKeyInfo, tag and length included.
    pub(crate) fn spki(&self) -> &'b [u8] {
        self.subject_public_key_info.octets()
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::read(self.subject_public_key_info)
    }

    /// Whether a subjectKeyIdentifier extension (RFC 5280 §4.2.1.2) has this value.
    pub(crate) fn has_key_identifier(&self, identifier: &[u8]) -> bool {
        let Ok(length @ 0..=0x7f) = u8::try_from(identifier.len()) else {
            return false;
        };
        let matches = |extension: Element<'_, '_>| {
            let mut fields = extension.fields();
            let Ok(kind) = fields.take(tag::OBJECT_IDENTIFIER, "an extnID") else {
                return false;
            };
            fields.maybe(tag::BOOLEAN);
            // extnValue holds one OCTET STRING, which nobody opened.
            kind.content() == oid::SUBJECT_KEY_IDENTIFIER
                && fields
                    .take(tag::OCTET_STRING, "an extnValue")
                    .is_ok_and(|value| {
                        value
                            .content()
                            .strip_prefix(&[tag::OCTET_STRING, length])
                            .is_some_and(|found| found == identifier)
                    })
        };
        self.extensions
            .is_some_and(|extensions| extensions.children().any(matches))
    }
}
