//! Requested names and strings, decoded to the values that this product carries. What it does not
//! carry is refused, never left out.

use chancery_protocol::name::{
    ATTRIBUTE_KINDS, Attribute, DistinguishedName, GeneralName, MAX_NAMES,
};
use chancery_protocol::refusal::Refusal;
use zeroize::Zeroizing;

use crate::element::Element;
use crate::tag;

/// Reads `Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }`. Attributes
/// of one RelativeDistinguishedName become attributes of their own.
pub(crate) fn subject(name: Element<'_, '_>) -> Result<DistinguishedName, Refusal> {
    let mut attributes = Vec::new();
    for set in name.children() {
        let set = set
            .is(tag::SET, "a RelativeDistinguishedName")
            .map_err(|_| Refusal::Names)?;
        // RFC 5280 §4.1.2.4: SET SIZE (1..MAX).
        if set.children().next().is_none() {
            return Err(Refusal::Names);
        }
        for pair in set.children() {
            attributes.push(attribute(pair).ok_or(Refusal::Names)?);
        }
    }
    DistinguishedName::new(attributes).map_err(|_| Refusal::Names)
}

fn attribute(pair: Element<'_, '_>) -> Option<Attribute> {
    let mut fields = pair
        .is(tag::SEQUENCE, "an AttributeTypeAndValue")
        .ok()?
        .fields();
    let kind = fields
        .take(tag::OBJECT_IDENTIFIER, "an attribute type")
        .ok()?
        .content();
    let value = string(fields.any("an attribute value").ok()?)?;
    fields.end("the end of an attribute").ok()?;
    let kind = ATTRIBUTE_KINDS
        .iter()
        .find(|known| known.oid.as_bytes() == kind)?;
    Attribute::new(kind.oid, &value).ok()
}

/// Reads `GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName` (RFC 5280 §4.2.1.6).
pub(crate) fn general_names(names: Element<'_, '_>) -> Result<Vec<GeneralName>, Refusal> {
    let names = names
        .is(tag::SEQUENCE, "GeneralNames")
        .map_err(|_| Refusal::Names)?;
    let mut found = Vec::new();
    for name in names.children() {
        if found.len() >= MAX_NAMES {
            return Err(Refusal::Names);
        }
        found.push(general_name(name).ok_or(Refusal::Names)?);
    }
    if found.is_empty() {
        return Err(Refusal::Names);
    }
    Ok(found)
}

fn general_name(name: Element<'_, '_>) -> Option<GeneralName> {
    const RFC822_NAME: u8 = tag::context_primitive(1);
    const DNS_NAME: u8 = tag::context_primitive(2);
    const URI: u8 = tag::context_primitive(6);
    const IP_ADDRESS: u8 = tag::context_primitive(7);
    let text = || core::str::from_utf8(name.content()).ok();
    match name.tag() {
        RFC822_NAME => GeneralName::email(text()?).ok(),
        DNS_NAME => GeneralName::dns(text()?).ok(),
        URI => GeneralName::uri(text()?).ok(),
        IP_ADDRESS => GeneralName::ip(name.content()).ok(),
        _ => None,
    }
}

/// Decodes a DirectoryString or IA5String (RFC 5280 appendix A.1). PrintableString is taken with
/// any ASCII in it, since clients write `@` and `_` there; TeletexString with nothing but ASCII,
/// since encoders differ on the rest.
pub(crate) fn string(element: Element<'_, '_>) -> Option<Zeroizing<String>> {
    decode(element.tag(), element.content())
}

fn decode(tag: u8, octets: &[u8]) -> Option<Zeroizing<String>> {
    // As large as it can get, so that growing leaves no copies: two octets of BMP become three.
    let mut text = Zeroizing::new(String::with_capacity(octets.len().div_ceil(2) * 3));
    match tag {
        tag::UTF8_STRING => text.push_str(core::str::from_utf8(octets).ok()?),
        tag::PRINTABLE_STRING | tag::IA5_STRING | tag::TELETEX_STRING => {
            if !octets.is_ascii() {
                return None;
            }
            text.push_str(core::str::from_utf8(octets).ok()?);
        }
        tag::BMP_STRING => {
            let (units, rest) = octets.as_chunks::<2>();
            if !rest.is_empty() {
                return None;
            }
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            for character in char::decode_utf16(units) {
                text.push(character.ok()?);
            }
        }
        tag::UNIVERSAL_STRING => {
            let (units, rest) = octets.as_chunks::<4>();
            if !rest.is_empty() {
                return None;
            }
            for unit in units {
                text.push(char::from_u32(u32::from_be_bytes(*unit))?);
            }
        }
        _ => return None,
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(tag: u8, octets: &[u8]) -> Option<String> {
        decode(tag, octets).map(|text| text.as_str().into())
    }

    #[test]
    fn strings_of_every_kind() {
        let cases: [(u8, &[u8]); 6] = [
            (tag::UTF8_STRING, b"abc"),
            (tag::PRINTABLE_STRING, b"abc"),
            (tag::IA5_STRING, b"abc"),
            (tag::TELETEX_STRING, b"abc"),
            (tag::BMP_STRING, b"\0a\0b\0c"),
            (tag::UNIVERSAL_STRING, b"\0\0\0a\0\0\0b\0\0\0c"),
        ];
        for (tag, octets) in cases {
            assert_eq!(decoded(tag, octets).as_deref(), Some("abc"), "{tag:#x}");
        }
        assert_eq!(
            decoded(tag::UTF8_STRING, "ü€".as_bytes()).as_deref(),
            Some("ü€")
        );
        assert_eq!(
            decoded(tag::BMP_STRING, b"\0\xfc\x20\xac").as_deref(),
            Some("ü€")
        );
    }

    #[test]
    fn strings_that_are_none() {
        for (tag, octets) in [
            (tag::UTF8_STRING, b"\xff".as_slice()),
            (tag::PRINTABLE_STRING, "ü".as_bytes()),
            (tag::IA5_STRING, "ü".as_bytes()),
            (tag::TELETEX_STRING, "ü".as_bytes()),
            (tag::BMP_STRING, b"\0a\0"),
            (tag::BMP_STRING, b"\xd8\0"),
            (tag::UNIVERSAL_STRING, b"\0\0\0"),
            (tag::UNIVERSAL_STRING, b"\0\x11\0\0"),
            (tag::OCTET_STRING, b"abc"),
            (tag::BIT_STRING, b"\0abc"),
        ] {
            assert_eq!(decoded(tag, octets), None, "{tag:#x} {octets:x?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_outgrows_its_buffer(text: String, tag in proptest::sample::select(vec![tag::UTF8_STRING, tag::BMP_STRING, tag::UNIVERSAL_STRING])) {
            let octets: Vec<u8> = match tag {
                tag::UTF8_STRING => text.clone().into_bytes(),
                tag::BMP_STRING => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
                _ => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
            };
            let decoded = decode(tag, &octets).unwrap();
            prop_assert_eq!(decoded.as_str(), text);
            prop_assert_eq!(decoded.capacity(), octets.len().div_ceil(2) * 3);
        }
    }
}
