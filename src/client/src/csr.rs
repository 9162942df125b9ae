//! The certification request (RFC 2986), and names in their certificate encoding.

use aws_lc_rs::rand;
use chancery_protocol::name::{
    AttributeKind, DistinguishedName, GeneralName, Syntax, is_printable,
};
use chancery_protocol::wire::Secret;
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc2985, rfc5912};
use der::asn1::{Any, BitString, Ia5String, OctetString};
use der::{Decode, Encode, Tag};
use x509_cert::attr::{Attribute, AttributeTypeAndValue};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name as pkix;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::request::{ExtensionReq, Version};
use zeroize::Zeroizing;

use crate::algorithm::{DigestAlgorithm, SignatureForm};
use crate::asn1;
use crate::key::ClientKey;
use crate::message::BuildError;

/// The string type of a challengePassword (RFC 2985 §5.4.1 allows any DirectoryString; IA5String
/// occurs in the field).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringType {
    /// PrintableString.
    Printable,
    /// UTF8String.
    Utf8,
    /// IA5String.
    Ia5,
    /// TeletexString.
    Teletex,
    /// BMPString; the challenge has to be ASCII.
    Bmp,
}

/// Makes a PKCS#10.
pub struct CsrBuilder<'a> {
    key: &'a ClientKey,
    subject: &'a DistinguishedName,
    sans: &'a [GeneralName],
    challenges: Vec<(&'a Secret, StringType)>,
    digest: DigestAlgorithm,
    extensions: Vec<Extension>,
    attributes: Vec<Attribute>,
    public_key_info: Option<&'a [u8]>,
}

impl<'a> CsrBuilder<'a> {
    /// A request for `subject`, signed by `key` with SHA-256.
    #[must_use]
    pub fn new(key: &'a ClientKey, subject: &'a DistinguishedName) -> Self {
        Self {
            key,
            subject,
            sans: &[],
            challenges: Vec::new(),
            digest: DigestAlgorithm::Sha256,
            extensions: Vec::new(),
            attributes: Vec::new(),
            public_key_info: None,
        }
    }

    /// The subjectAltName to ask for; none leaves the extension out.
    #[must_use]
    pub fn sans(mut self, sans: &'a [GeneralName]) -> Self {
        self.sans = sans;
        self
    }

    /// Adds a challengePassword: a PrintableString where its characters allow it, else UTF8String.
    #[must_use]
    pub fn challenge(self, challenge: &'a Secret) -> Self {
        let printable = challenge
            .expose()
            .iter()
            .all(|b| is_printable(char::from(*b)));
        let string = if printable {
            StringType::Printable
        } else {
            StringType::Utf8
        };
        self.challenge_as(challenge, string)
    }

    /// Adds a challengePassword of a chosen string type, unchecked. A second call adds a second
    /// attribute.
    #[must_use]
    pub fn challenge_as(mut self, challenge: &'a Secret, string: StringType) -> Self {
        self.challenges.push((challenge, string));
        self
    }

    /// The digest of the request's signature.
    #[must_use]
    pub fn digest(mut self, digest: DigestAlgorithm) -> Self {
        self.digest = digest;
        self
    }

    /// Adds an extension to the request, after subjectAltName.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Adds an attribute from the DER of its values.
    ///
    /// # Errors
    /// [`BuildError::Encoding`] if a value is not one DER value.
    pub fn attribute(
        mut self,
        oid: ObjectIdentifier,
        values: &[Vec<u8>],
    ) -> Result<Self, BuildError> {
        self.attributes.push(asn1::attribute(oid, values)?);
        Ok(self)
    }

    /// Asks for another public key than the one that signs: no proof of possession.
    #[must_use]
    pub fn public_key_info(mut self, public_key_info: &'a [u8]) -> Self {
        self.public_key_info = Some(public_key_info);
        self
    }

    /// The request in DER. Wiped when dropped, like every part of it that holds the challenge.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Zeroizing<Vec<u8>>, BuildError> {
        let public_key_info = self.public_key_info.unwrap_or(self.key.public_key_info());
        let algorithm = self
            .key
            .signature_algorithm(self.digest, SignatureForm::DigestWithRsa);
        let mut attributes = Vec::new();
        for (challenge, string) in &self.challenges {
            attributes.push(challenge_password(challenge, *string)?);
        }
        let mut extensions = Vec::new();
        if !self.sans.is_empty() {
            extensions.push(subject_alt_name(self.sans, self.subject.is_empty())?);
        }
        extensions.extend(self.extensions);
        if !extensions.is_empty() {
            let request = Attribute::try_from(ExtensionReq(extensions))?;
            attributes.push(Zeroizing::new(request.to_der()?));
        }
        for attribute in &self.attributes {
            attributes.push(Zeroizing::new(attribute.to_der()?));
        }
        let mut attributes: Vec<&[u8]> =
            attributes.iter().map(|octets| octets.as_slice()).collect();
        attributes.sort_unstable();
        // CertificationRequestInfo and CertificationRequest (RFC 2986 §4.1, §4.2).
        let info = asn1::value(
            Tag::Sequence,
            &[
                &Version::V1.to_der()?,
                &name(self.subject)?.to_der()?,
                public_key_info,
                &asn1::value(asn1::explicit(0), &attributes)?,
            ],
        )?;
        let signature = BitString::from_bytes(&self.key.sign(self.digest, &info)?)?;
        let (algorithm, signature) = (algorithm.to_der()?, signature.to_der()?);
        Ok(asn1::value(
            Tag::Sequence,
            &[&info, &algorithm, &signature],
        )?)
    }
}

fn challenge_password(
    challenge: &Secret,
    string: StringType,
) -> Result<Zeroizing<Vec<u8>>, BuildError> {
    let octets = challenge.expose();
    let tag = match string {
        StringType::Printable => Tag::PrintableString,
        StringType::Utf8 => Tag::Utf8String,
        StringType::Ia5 => Tag::Ia5String,
        StringType::Teletex => Tag::TeletexString,
        StringType::Bmp => Tag::BmpString,
    };
    let wide: Zeroizing<Vec<u8>>;
    let octets = match string {
        StringType::Bmp if !octets.is_ascii() => return Err(BuildError::BmpChallenge),
        StringType::Bmp => {
            let mut units = Zeroizing::new(Vec::with_capacity(2 * octets.len()));
            octets.iter().for_each(|octet| units.extend([0, *octet]));
            wide = units;
            &wide
        }
        _ => octets,
    };
    let value = asn1::value(tag, &[octets])?;
    let values = asn1::value(Tag::Set, &[&value])?;
    let kind = rfc2985::PKCS_9_AT_CHALLENGE_PASSWORD.to_der()?;
    Ok(asn1::value(Tag::Sequence, &[&kind, &values])?)
}

/// A Name whose attributes each are an RDN of their own, in the encoding that certificates use.
pub(crate) fn name(subject: &DistinguishedName) -> der::Result<Name> {
    let rdns = subject.attributes().iter().map(|attribute| {
        let syntax = AttributeKind::by_oid(&attribute.oid()).map(|kind| kind.syntax);
        let printable = attribute.value().chars().all(is_printable);
        let tag = match syntax {
            Some(Syntax::Ia5) => Tag::Ia5String,
            Some(Syntax::Printable) => Tag::PrintableString,
            Some(Syntax::Directory) if printable => Tag::PrintableString,
            _ => Tag::Utf8String,
        };
        let value = Any::new(tag, attribute.value().as_bytes())?;
        RelativeDistinguishedName::try_from(vec![AttributeTypeAndValue {
            oid: attribute.oid(),
            value,
        }])
    });
    let sequence = RdnSequence::from(rdns.collect::<der::Result<Vec<_>>>()?);
    Name::from_der(&sequence.to_der()?)
}

/// The subjectAltName extension; critical where there is no subject (RFC 5280 §4.2.1.6).
pub(crate) fn subject_alt_name(sans: &[GeneralName], critical: bool) -> der::Result<Extension> {
    let names = sans.iter().map(|san| {
        Ok(match san {
            GeneralName::Dns(value) => pkix::GeneralName::DnsName(Ia5String::new(value)?),
            GeneralName::Email(value) => pkix::GeneralName::Rfc822Name(Ia5String::new(value)?),
            GeneralName::Uri(value) => {
                pkix::GeneralName::UniformResourceIdentifier(Ia5String::new(value)?)
            }
            GeneralName::Ip(octets) => pkix::GeneralName::IpAddress(octets.clone()),
        })
    });
    let names = names.collect::<der::Result<Vec<_>>>()?;
    Ok(Extension {
        extn_id: rfc5912::ID_CE_SUBJECT_ALT_NAME,
        critical,
        extn_value: OctetString::new(names.to_der()?)?,
    })
}

/// Fresh octets of the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], BuildError> {
    let mut octets = [0; N];
    rand::fill(&mut octets).map_err(|_| BuildError::Random)?;
    Ok(octets)
}
