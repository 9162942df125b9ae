//! The few DER steps that the typed structures leave out: octets as they were received.

use der::asn1::{AnyRef, ObjectIdentifier, PrintableStringRef, SetOfVec};
use der::{Any, Decode, Encode, Header, Length, Reader, SliceReader, Tag};
use x509_cert::attr::Attribute;
use zeroize::Zeroizing;

/// The values that fill `contents`, each with its header.
pub(crate) fn children(contents: &[u8]) -> der::Result<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(contents)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(AnyRef::decode(&mut reader)?);
    }
    Ok(found)
}

/// The values inside the one SEQUENCE that `der` is.
pub(crate) fn sequence(der: &[u8]) -> der::Result<Vec<AnyRef<'_>>> {
    inside(AnyRef::from_der(der)?, Tag::Sequence)
}

/// The values inside `any`, which has to have the tag `tag`.
pub(crate) fn inside(any: AnyRef<'_>, tag: Tag) -> der::Result<Vec<AnyRef<'_>>> {
    der::Tagged::tag(&any).assert_eq(tag)?;
    children(any.value())
}

/// The `[number]` constructed tag.
pub(crate) fn explicit(number: u32) -> Tag {
    der::TagNumber(number).context_specific(true)
}

/// An attribute from the DER of its values.
pub(crate) fn attribute(oid: ObjectIdentifier, values: &[Vec<u8>]) -> der::Result<Attribute> {
    let values = values.iter().map(|value| Any::from_der(value));
    Ok(Attribute {
        oid,
        values: SetOfVec::try_from(values.collect::<der::Result<Vec<_>>>()?)?,
    })
}

/// One value around `parts`. Wiped when dropped, and allocated once: some of them are secret.
pub(crate) fn value(tag: Tag, parts: &[&[u8]]) -> der::Result<Zeroizing<Vec<u8>>> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let header = Header::new(tag, Length::try_from(length)?).to_der()?;
    let mut octets = Zeroizing::new(Vec::with_capacity(header.len() + length));
    octets.extend_from_slice(&header);
    for part in parts {
        octets.extend_from_slice(part);
    }
    Ok(octets)
}

/// The DER of a PrintableString, or of a UTF8String where the characters do not fit.
pub(crate) fn printable(text: &str) -> der::Result<Vec<u8>> {
    match PrintableStringRef::new(text) {
        Ok(printable) => printable.to_der(),
        Err(_) => der::asn1::Utf8StringRef::new(text)?.to_der(),
    }
}
