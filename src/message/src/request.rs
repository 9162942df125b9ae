//! The PKCS#10 CertificationRequest inside the envelope (RFC 2986). Every field is found by going
//! down from the CertificationRequestInfo, so it lies in what the request's signature covers.

use chancery_protocol::name::Names;
use chancery_protocol::refusal::Refusal;
use chancery_protocol::wire::Secret;

use crate::algorithm::{AlgorithmIdentifier, SignatureAlgorithm};
use crate::element::{Element, Missing};
use crate::key::{KeyError, PublicKey};
use crate::message::split_attribute;
use crate::name;
use crate::prove::Unproved;
use crate::tag::{self, oid};

/// What a device asks for. Its own signature is verified; that it may have this is not.
pub struct CertificationRequest {
    /// The key to certify; the request is signed with it.
    pub public_key: PublicKey,
    /// The subject, and the subject alternative names of the requested extensions. All other
    /// requested extensions are wishes that nobody reads.
    pub names: Names,
    /// The challengePassword as UTF-8; `None` if there is none or it is empty.
    pub challenge: Option<Secret>,
}

/// Most octets of an encoded challengePassword.
const MAX_CHALLENGE: usize = 16 * 1024;

/// The fields of a CertificationRequest, each as far as it could be read.
pub(crate) struct Fields<'p> {
    /// The CertificationRequestInfo as received: what is signed.
    pub(crate) info: &'p [u8],
    /// `None` if the algorithm is not supported.
    pub(crate) algorithm: Option<SignatureAlgorithm>,
    pub(crate) signature: &'p [u8],
    pub(crate) public_key: Result<PublicKey, Refusal>,
    pub(crate) names: Result<Names, Refusal>,
    pub(crate) challenge: Result<Option<Secret>, Refusal>,
}

/// Why there are no fields, or not this one.
#[derive(Debug)]
pub(crate) enum Fault {
    Unproved(Unproved),
    Refused(Refusal),
}

impl From<Unproved> for Fault {
    fn from(unproved: Unproved) -> Self {
        Self::Unproved(unproved)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Missing> for Fault {
    fn from(_: Missing) -> Self {
        Self::Refused(Refusal::Plaintext)
    }
}

impl<'p> Fields<'p> {
    /// ```asn1
    /// CertificationRequest ::= SEQUENCE {
    ///     certificationRequestInfo CertificationRequestInfo,
    ///     signatureAlgorithm       AlgorithmIdentifier,
    ///     signature                BIT STRING }
    /// CertificationRequestInfo ::= SEQUENCE {
    ///     version       INTEGER { v1(0) },
    ///     subject       Name,
    ///     subjectPKInfo SubjectPublicKeyInfo,
    ///     attributes    [0] IMPLICIT SET OF Attribute }
    /// ```
    /// Some clients leave empty attributes out altogether.
    pub(crate) fn read(root: Element<'p, '_>) -> Result<Self, Fault> {
        if !root.is_definite() {
            return Err(Refusal::Plaintext.into());
        }
        let mut outer = root.is(tag::SEQUENCE, "a CertificationRequest")?.fields();
        let info = outer.take(tag::SEQUENCE, "a CertificationRequestInfo")?;
        let algorithm = outer.any("a signatureAlgorithm")?;
        let algorithm = AlgorithmIdentifier::read(algorithm, "a signatureAlgorithm")?;
        let signature = outer.take(tag::BIT_STRING, "a signature")?;
        outer.end("the end of a CertificationRequest")?;
        // X.690 §8.6.2.2: no unused bits.
        let signature = signature
            .content()
            .strip_prefix(&[0])
            .ok_or(Missing("a signature of whole octets"))?;

        let mut fields = info.fields();
        let version = fields.take(tag::INTEGER, "a version")?;
        if version.content() != [0] {
            return Err(Refusal::Plaintext.into());
        }
        let subject = fields.take(tag::SEQUENCE, "a subject")?;
        let public_key = fields.take(tag::SEQUENCE, "a subjectPKInfo")?;
        let attributes = Attributes::read(fields.maybe(tag::context(0)))?;
        fields.end("the end of a CertificationRequestInfo")?;
        Ok(Self {
            info: info.octets(),
            algorithm: algorithm.signature(),
            signature,
            public_key: match PublicKey::read(public_key) {
                Ok(key) => Ok(key),
                Err(KeyError::Unaccepted) => Err(Refusal::KeyQuality),
                Err(KeyError::Unproved(unproved)) => return Err(unproved.into()),
            },
            names: names(subject, &attributes)?,
            challenge: attributes.challenge(),
        })
    }
}

/// The names, or why they are refused; the outer error is a lie of the child.
fn names(
    subject: Element<'_, '_>,
    attributes: &Attributes<'_, '_>,
) -> Result<Result<Names, Refusal>, Unproved> {
    let sans = match attributes.subject_alt_name() {
        // The child opens the value: what is inside is its one element.
        Ok(Some(value)) => name::general_names(value.opened()?),
        Ok(None) => Ok(Vec::new()),
        Err(refusal) => Err(refusal),
    };
    Ok(name::subject(subject).and_then(|subject| {
        Ok(Names {
            subject,
            sans: sans?,
        })
    }))
}

/// The attributes of a request, each type at most once.
struct Attributes<'p, 'n> {
    set: Option<Element<'p, 'n>>,
}

impl<'p, 'n> Attributes<'p, 'n> {
    fn read(set: Option<Element<'p, 'n>>) -> Result<Self, Missing> {
        let mut kinds = Vec::new();
        for attribute in set.into_iter().flat_map(Element::children) {
            kinds.push(split_attribute(attribute)?.0);
        }
        // Those that are read have a refusal of their own.
        let read = [
            oid::CHALLENGE_PASSWORD,
            oid::EXTENSION_REQUEST,
            oid::CERT_EXTENSIONS,
        ];
        kinds.retain(|kind| !read.contains(kind));
        kinds.sort_unstable();
        if kinds.is_sorted_by(|left, right| left < right) {
            Ok(Self { set })
        } else {
            Err(Missing("attributes of different types"))
        }
    }

    /// The values of all attributes of one of these types.
    fn of(&self, kinds: &[&[u8]]) -> impl Iterator<Item = Element<'p, 'n>> {
        self.set
            .into_iter()
            .flat_map(Element::children)
            .filter_map(|attribute| split_attribute(attribute).ok())
            .filter(|(kind, _)| kinds.contains(kind))
            .map(|(_, values)| values)
    }

    /// The one value of the one attribute of these types; `None` if there is no such attribute.
    fn single(
        &self,
        kinds: &[&[u8]],
        otherwise: Refusal,
    ) -> Result<Option<Element<'p, 'n>>, Refusal> {
        let mut found = self.of(kinds);
        let Some(values) = found.next() else {
            return Ok(None);
        };
        let mut values = values.children();
        match (values.next(), values.next(), found.next()) {
            (Some(value), None, None) => Ok(Some(value)),
            _ => Err(otherwise),
        }
    }

    /// challengePassword (RFC 2985 §5.4.1): a DirectoryString. One that cannot be read is none.
    fn challenge(&self) -> Result<Option<Secret>, Refusal> {
        let unusable = Refusal::ChallengeMissing;
        let Some(value) = self.single(&[oid::CHALLENGE_PASSWORD], unusable)? else {
            return Ok(None);
        };
        if value.content().len() > MAX_CHALLENGE {
            return Err(unusable);
        }
        let text = name::string(value).ok_or(unusable)?;
        Ok((!text.is_empty()).then(|| Secret::new(text.as_bytes().to_vec())))
    }

    /// The extnValue of the one subjectAltName in the one extensionRequest.
    fn subject_alt_name(&self) -> Result<Option<Element<'p, 'n>>, Refusal> {
        let kinds = [oid::EXTENSION_REQUEST, oid::CERT_EXTENSIONS];
        let Some(extensions) = self.single(&kinds, Refusal::Names)? else {
            return Ok(None);
        };
        let extensions = extensions
            .is(tag::SEQUENCE, "Extensions")
            .map_err(|_| Refusal::Names)?;
        let mut found = None;
        for extension in extensions.children() {
            let (kind, value) = split_extension(extension).map_err(|_| Refusal::Names)?;
            if kind == oid::SUBJECT_ALT_NAME && found.replace(value).is_some() {
                return Err(Refusal::Names);
            }
        }
        Ok(found)
    }
}

/// `SEQUENCE { extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }`;
/// returns extnID and extnValue.
fn split_extension<'b, 'n>(
    extension: Element<'b, 'n>,
) -> Result<(&'b [u8], Element<'b, 'n>), Missing> {
    let mut fields = extension.is(tag::SEQUENCE, "an Extension")?.fields();
    let kind = fields.take(tag::OBJECT_IDENTIFIER, "an extnID")?;
    fields.maybe(tag::BOOLEAN);
    let value = fields.take(tag::OCTET_STRING, "an extnValue")?;
    fields.end("the end of an Extension")?;
    Ok((kind.content(), value))
}
