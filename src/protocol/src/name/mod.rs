//! Names as typed values: subjects (RFC 5280 §4.1.2.6) and subject alternative names (§4.2.1.6).
//!
//! Names are compared as sets of (type, value); text is RFC 4514.

mod text;

use core::fmt;
use std::collections::BTreeSet;
use std::net::IpAddr;

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Choice, Sequence};

use text::{escape, split_unescaped, unescape};

/// Most attributes in a subject, and most subject alternative names.
pub const MAX_NAMES: usize = 64;

/// An attribute type that a subject may carry.
#[derive(Debug, PartialEq, Eq)]
pub struct AttributeKind {
    /// The attribute type.
    pub oid: ObjectIdentifier,
    /// The short name in RFC 4514 text.
    pub short: &'static str,
    /// Upper bound of the value in characters (RFC 5280 appendix A.1).
    pub limit: usize,
    /// How a certificate encodes the value.
    pub syntax: Syntax,
}

/// The string type that a certificate uses for an attribute value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// PrintableString where the characters allow it, else UTF8String.
    Directory,
    /// PrintableString only (countryName, serialNumber).
    Printable,
    /// IA5String only (emailAddress, domainComponent).
    Ia5,
}

macro_rules! kind {
    ($short:literal, $oid:literal, $limit:literal, $syntax:ident) => {
        AttributeKind {
            oid: ObjectIdentifier::new_unwrap($oid),
            short: $short,
            limit: $limit,
            syntax: Syntax::$syntax,
        }
    };
}

/// Every attribute type that this product reads and writes.
pub const ATTRIBUTE_KINDS: &[AttributeKind] = &[
    kind!("CN", "2.5.4.3", 64, Directory),
    kind!("SN", "2.5.4.4", 40, Directory),
    kind!("serialNumber", "2.5.4.5", 64, Printable),
    kind!("C", "2.5.4.6", 2, Printable),
    kind!("L", "2.5.4.7", 128, Directory),
    kind!("ST", "2.5.4.8", 128, Directory),
    kind!("STREET", "2.5.4.9", 128, Directory),
    kind!("O", "2.5.4.10", 64, Directory),
    kind!("OU", "2.5.4.11", 64, Directory),
    kind!("title", "2.5.4.12", 64, Directory),
    kind!("GN", "2.5.4.42", 40, Directory),
    kind!("DC", "0.9.2342.19200300.100.1.25", 63, Ia5),
    kind!("UID", "0.9.2342.19200300.100.1.1", 256, Directory),
    kind!("emailAddress", "1.2.840.113549.1.9.1", 255, Ia5),
];

impl AttributeKind {
    /// Finds a kind by its type.
    #[must_use]
    pub fn by_oid(oid: &ObjectIdentifier) -> Option<&'static Self> {
        ATTRIBUTE_KINDS.iter().find(|kind| kind.oid == *oid)
    }

    /// Finds a kind by its short name, in any case.
    #[must_use]
    pub fn by_short(short: &str) -> Option<&'static Self> {
        ATTRIBUTE_KINDS
            .iter()
            .find(|kind| kind.short.eq_ignore_ascii_case(short))
    }

    fn admits(&self, value: &str) -> bool {
        let length = value.chars().count();
        let in_syntax = match self.syntax {
            Syntax::Directory => true,
            Syntax::Printable => value.chars().all(is_printable),
            Syntax::Ia5 => value.is_ascii(),
        };
        let country = self.short != "C" || length == 2;
        in_syntax
            && country
            && (1..=self.limit).contains(&length)
            && value.trim() == value
            && !value.chars().any(char::is_control)
    }
}

/// Whether `character` may stand in a PrintableString (X.680 §41.4).
#[must_use]
pub fn is_printable(character: char) -> bool {
    character.is_ascii_alphanumeric() || " '()+,-./:=?".contains(character)
}

/// A name that this product does not carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An attribute type outside [`ATTRIBUTE_KINDS`].
    #[error("attribute type {0} is not supported")]
    Kind(String),
    /// A value that is empty, too long, padded by blanks, or outside the attribute's characters.
    #[error(
        "the value of {0} is empty, too long, or has characters that the attribute cannot carry"
    )]
    Value(String),
    /// Text that is not RFC 4514.
    #[error("not a distinguished name (RFC 4514), expected text like CN=laptop-1,O=Example")]
    Text,
    /// A subject alternative name without a known kind.
    #[error(
        "not a subject alternative name, expected dns:NAME, email:ADDRESS, uri:URI or ip:ADDRESS"
    )]
    San,
    /// A subject alternative name whose value does not fit its kind (RFC 5280 §4.2.1.6).
    #[error("the value of the subject alternative name does not fit its kind {0}")]
    SanValue(&'static str),
    /// More than [`MAX_NAMES`].
    #[error("more than {MAX_NAMES} names")]
    TooMany,
}

/// One attribute of a subject. Checked: the type is known and the value fits it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Sequence)]
pub struct Attribute {
    kind: ObjectIdentifier,
    value: String,
}

impl Attribute {
    /// Checks type and value.
    ///
    /// # Errors
    /// [`NameError::Kind`] and [`NameError::Value`].
    pub fn new(oid: ObjectIdentifier, value: &str) -> Result<Self, NameError> {
        let kind = AttributeKind::by_oid(&oid).ok_or_else(|| NameError::Kind(oid.to_string()))?;
        if !kind.admits(value) {
            return Err(NameError::Value(kind.short.into()));
        }
        Ok(Self {
            kind: oid,
            value: value.into(),
        })
    }

    /// The attribute type.
    #[must_use]
    pub fn oid(&self) -> ObjectIdentifier {
        self.kind
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// A subject: attributes in the order of the certificate (most significant first).
#[derive(Clone, Debug, Default, PartialEq, Eq, Sequence)]
pub struct DistinguishedName {
    attributes: Vec<Attribute>,
}

impl DistinguishedName {
    /// Takes attributes in the order of the certificate.
    ///
    /// # Errors
    /// [`NameError::TooMany`].
    pub fn new(attributes: Vec<Attribute>) -> Result<Self, NameError> {
        if attributes.len() > MAX_NAMES {
            return Err(NameError::TooMany);
        }
        Ok(Self { attributes })
    }

    /// Reads RFC 4514 text (`CN=laptop-1,O=Example`; the certificate's order is the reverse).
    /// Multi-valued RDNs become attributes of their own; `#hex` values are refused.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut attributes = Vec::new();
        for part in split_unescaped(text)? {
            let (short, value) = part.split_once('=').ok_or(NameError::Text)?;
            let kind = AttributeKind::by_short(short.trim())
                .ok_or_else(|| NameError::Kind(short.trim().into()))?;
            attributes.push(Attribute::new(kind.oid, &unescape(value)?)?);
        }
        attributes.reverse();
        Self::new(attributes)
    }

    /// The attributes in the order of the certificate.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// Whether there is no attribute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// The attributes as a set, for comparison.
    #[must_use]
    pub fn as_set(&self) -> BTreeSet<&Attribute> {
        self.attributes.iter().collect()
    }

    /// Whether the values decoded from a packet satisfy what [`Attribute::new`] checks.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.attributes.len() <= MAX_NAMES
            && self
                .attributes
                .iter()
                .all(|a| Attribute::new(a.kind, &a.value).is_ok())
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attribute) in self.attributes.iter().rev().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let short = AttributeKind::by_oid(&attribute.kind).map_or("?", |kind| kind.short);
            write!(f, "{short}={}", escape(&attribute.value))?;
        }
        Ok(())
    }
}

/// A subject alternative name. Construct by the checking functions; the values of a decoded
/// packet are checked by [`GeneralName::is_valid`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum GeneralName {
    /// dNSName in lower case.
    #[asn1(context_specific = "0", constructed = "true")]
    Dns(String),
    /// rfc822Name.
    #[asn1(context_specific = "1", constructed = "true")]
    Email(String),
    /// uniformResourceIdentifier, absolute.
    #[asn1(context_specific = "2", constructed = "true")]
    Uri(String),
    /// iPAddress: 4 or 16 octets.
    #[asn1(context_specific = "3", constructed = "true")]
    Ip(OctetString),
}

/// The kinds of [`GeneralName`], as configuration and command line spell them.
pub const SAN_KINDS: &[&str] = &["dns", "email", "uri", "ip"];

impl GeneralName {
    /// A dNSName in preferred syntax; a leading `*` label is refused. Lower-cased.
    ///
    /// # Errors
    /// [`NameError::SanValue`].
    pub fn dns(name: &str) -> Result<Self, NameError> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() <= 253 && !name.is_empty() && name.split('.').all(label) {
            Ok(Self::Dns(name.to_ascii_lowercase()))
        } else {
            Err(NameError::SanValue("dns"))
        }
    }

    /// An rfc822Name.
    ///
    /// # Errors
    /// [`NameError::SanValue`].
    pub fn email(address: &str) -> Result<Self, NameError> {
        let fits = address.len() <= 254
            && address.bytes().all(|b| b.is_ascii_graphic())
            && address
                .split_once('@')
                .is_some_and(|(local, host)| !local.is_empty() && Self::dns(host).is_ok());
        if fits {
            Ok(Self::Email(address.into()))
        } else {
            Err(NameError::SanValue("email"))
        }
    }

    /// An absolute URI.
    ///
    /// # Errors
    /// [`NameError::SanValue`].
    pub fn uri(uri: &str) -> Result<Self, NameError> {
        let fits = uri.len() <= 1024
            && uri.bytes().all(|b| b.is_ascii_graphic())
            && uri.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                    && !rest.is_empty()
            });
        if fits {
            Ok(Self::Uri(uri.into()))
        } else {
            Err(NameError::SanValue("uri"))
        }
    }

    /// An iPAddress from its 4 or 16 octets.
    ///
    /// # Errors
    /// [`NameError::SanValue`].
    pub fn ip(octets: &[u8]) -> Result<Self, NameError> {
        match octets.len() {
            4 | 16 => OctetString::new(octets)
                .map(Self::Ip)
                .map_err(|_| NameError::SanValue("ip")),
            _ => Err(NameError::SanValue("ip")),
        }
    }

    /// Reads `KIND:VALUE`, for example `dns:laptop-1.example`.
    ///
    /// # Errors
    /// [`NameError::San`] and [`NameError::SanValue`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (kind, value) = text.split_once(':').ok_or(NameError::San)?;
        match kind {
            "dns" => Self::dns(value),
            "email" => Self::email(value),
            "uri" => Self::uri(value),
            "ip" => match value.parse().map_err(|_| NameError::SanValue("ip"))? {
                IpAddr::V4(address) => Self::ip(&address.octets()),
                IpAddr::V6(address) => Self::ip(&address.octets()),
            },
            _ => Err(NameError::San),
        }
    }

    /// One of [`SAN_KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Email(_) => "email",
            Self::Uri(_) => "uri",
            Self::Ip(_) => "ip",
        }
    }

    /// Whether a decoded value satisfies what the constructors check.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let checked = match self {
            Self::Dns(name) => Self::dns(name),
            Self::Email(address) => Self::email(address),
            Self::Uri(uri) => Self::uri(uri),
            Self::Ip(octets) => Self::ip(octets.as_bytes()),
        };
        checked.as_ref() == Ok(self)
    }
}

impl fmt::Display for GeneralName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(value) | Self::Email(value) | Self::Uri(value) => {
                write!(f, "{}:{value}", self.kind())
            }
            Self::Ip(octets) => {
                let address = <[u8; 4]>::try_from(octets.as_bytes())
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(octets.as_bytes()).map(IpAddr::from));
                match address {
                    Ok(address) => write!(f, "ip:{address}"),
                    Err(_) => f.write_str("ip:?"),
                }
            }
        }
    }
}

/// The names of one request or certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Sequence)]
pub struct Names {
    /// The subject; may be empty if there is a subject alternative name.
    pub subject: DistinguishedName,
    /// The subject alternative names.
    pub sans: Vec<GeneralName>,
}

impl Names {
    /// Whether there is no name at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subject.is_empty() && self.sans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn text_is_reversed_and_escaped() {
        let name = DistinguishedName::parse("CN=Doe\\, Jane,O=Example + OU=A\\2bB,C=DE").unwrap();
        assert_eq!(name.attributes().first().unwrap().value(), "DE");
        assert_eq!(name.attributes().last().unwrap().value(), "Doe, Jane");
        assert_eq!(name.to_string(), "CN=Doe\\, Jane,O=Example,OU=A\\+B,C=DE");
        assert_eq!(DistinguishedName::parse(&name.to_string()).unwrap(), name);
    }

    #[test]
    fn text_that_is_no_name_is_refused() {
        for text in [
            "CN",
            "CN=",
            "X=1",
            "CN=#0c0161",
            "C=DEU",
            "CN=a\\",
            "CN=a\\4",
            "CN=a\u{7}",
            ",",
        ] {
            assert!(DistinguishedName::parse(text).is_err(), "{text}");
        }
        assert!(DistinguishedName::parse("").unwrap().is_empty());
        assert!(DistinguishedName::parse(&format!("CN={}", "a".repeat(65))).is_err());
    }

    #[test]
    fn order_does_not_matter_in_comparison() {
        let one = DistinguishedName::parse("CN=a,O=b").unwrap();
        let other = DistinguishedName::parse("O=b,CN=a").unwrap();
        assert_ne!(one, other);
        assert_eq!(one.as_set(), other.as_set());
    }

    #[test]
    fn subject_alternative_names() {
        for text in [
            "dns:laptop-1.example",
            "email:a@b.example",
            "uri:urn:x",
            "ip:192.0.2.1",
            "ip:2001:db8::1",
        ] {
            let name = GeneralName::parse(text).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(
                wire::decode::<GeneralName>(&wire::encode(&name).unwrap()).unwrap(),
                name
            );
        }
        assert_eq!(
            GeneralName::parse("dns:A.Example").unwrap().to_string(),
            "dns:a.example"
        );
        for text in [
            "a.example",
            "dns:",
            "dns:a..b",
            "dns:*.a",
            "dns:a b",
            "email:a",
            "uri:x",
            "ip:1.2.3",
            "x:y",
        ] {
            assert!(GeneralName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_packet_can_carry_values_that_no_constructor_made() {
        let name = GeneralName::Dns("a b".into());
        assert!(
            !wire::decode::<GeneralName>(&wire::encode(&name).unwrap())
                .unwrap()
                .is_valid()
        );
    }
}
