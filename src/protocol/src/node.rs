//! The node table: what a parser child answers. Numbers only, no values, no labels.
//!
//! A table describes one buffer in pre-order. Record 0 fills its buffer and is its own parent.
//! The holder of the bytes proves a table before it believes it (crate `chancery-message`).

/// Octets of one encoded [`Record`].
pub const RECORD_LENGTH: usize = 10;

/// Most records in all the tables of one request together.
pub const MAX_RECORDS: usize = 4096;

/// Deepest nesting; record 0 has depth 1.
pub const MAX_DEPTH: usize = 32;

/// Largest buffer that a table can describe (24-bit offsets).
pub const MAX_BUFFER: usize = 0x00ff_ffff;

/// How the content of an element is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// A primitive element: a leaf.
    Primitive = 0,
    /// A constructed element of definite, minimal length, exactly filled by its children.
    Definite = 1,
    /// A constructed element of indefinite length: header `tag 80`, closed by `00 00`, which
    /// belong to no record and are not counted in the content.
    Indefinite = 2,
    /// A primitive OCTET STRING whose content, or a BIT STRING whose content after its first
    /// octet 00, is filled by exactly one child.
    Opened = 3,
}

impl Form {
    fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Self::Primitive),
            1 => Some(Self::Definite),
            2 => Some(Self::Indefinite),
            3 => Some(Self::Opened),
            _ => None,
        }
    }
}

/// One element of a buffer. On the wire: parent u16, start u24, header length u8, content
/// length u24, form u8, all big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index of the parent's record; record 0 names itself.
    pub parent: u16,
    /// Offset of the element's tag in its buffer.
    pub start: u32,
    /// Octets of tag and length.
    pub header: u8,
    /// Octets of the content, without the closing `00 00` of an indefinite length.
    pub content: u32,
    /// How the content is encoded.
    pub form: Form,
}

impl Record {
    /// The wire form. Offsets above [`MAX_BUFFER`] lose their top octet; a prover then refuses them.
    #[must_use]
    pub fn to_octets(self) -> [u8; RECORD_LENGTH] {
        let [p0, p1] = self.parent.to_be_bytes();
        let [_, s0, s1, s2] = self.start.to_be_bytes();
        let [_, c0, c1, c2] = self.content.to_be_bytes();
        [p0, p1, s0, s1, s2, self.header, c0, c1, c2, self.form as u8]
    }

    /// Reads the wire form; `None` for an unknown form.
    #[must_use]
    pub fn from_octets(octets: &[u8; RECORD_LENGTH]) -> Option<Self> {
        let [p0, p1, s0, s1, s2, header, c0, c1, c2, form] = *octets;
        Some(Self {
            parent: u16::from_be_bytes([p0, p1]),
            start: u32::from_be_bytes([0, s0, s1, s2]),
            header,
            content: u32::from_be_bytes([0, c0, c1, c2]),
            form: Form::from_octet(form)?,
        })
    }
}

/// Encodes a table.
#[must_use]
pub fn encode_table(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(|r| r.to_octets()).collect()
}

/// Decodes a table of 1 to [`MAX_RECORDS`] records; `None` for anything else.
#[must_use]
pub fn decode_table(octets: &[u8]) -> Option<Vec<Record>> {
    let (records, rest) = octets.as_chunks::<RECORD_LENGTH>();
    if records.is_empty() || records.len() > MAX_RECORDS || !rest.is_empty() {
        return None;
    }
    records.iter().map(Record::from_octets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_survives_its_wire_form(parent: u16, start in 0u32..1 << 24, header: u8, content in 0u32..1 << 24, form in 0u8..4) {
            let record = Record { parent, start, header, content, form: Form::from_octet(form).unwrap() };
            prop_assert_eq!(Record::from_octets(&record.to_octets()), Some(record));
        }

        #[test]
        fn any_octets_decode_or_are_refused(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(records) = decode_table(&octets) {
                prop_assert_eq!(encode_table(&records), octets);
            }
        }
    }

    #[test]
    fn a_table_has_limits() {
        let record = Record {
            parent: 0,
            start: 0,
            header: 2,
            content: 0,
            form: Form::Definite,
        };
        assert!(decode_table(&[]).is_none());
        assert!(decode_table(&encode_table(&vec![record; MAX_RECORDS])).is_some());
        assert!(decode_table(&encode_table(&vec![record; MAX_RECORDS + 1])).is_none());
    }
}
