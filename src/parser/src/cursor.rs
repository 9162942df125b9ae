//! A bounded cursor over tag-length-value octets, and what can be wrong with them.
//!
//! Stricter than BER (X.690): one tag octet, minimal definite lengths, `80` on constructed
//! elements only. Looser than DER: indefinite lengths are let through, each by name.

/// Why octets are not what they should be, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (at offset {at})")]
pub struct Malformed {
    /// Offset, in its buffer, of the octet or element at fault.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The buffer or the element is empty or ends too early.
    #[error("octets are missing")]
    Truncated,
    /// A tag number above 30.
    #[error("a tag number above 30")]
    HighTag,
    /// A length in more octets than needed, above 24 bits, or reserved; `80` on a primitive.
    #[error("a length that is not minimal or not allowed")]
    Length,
    /// The tag of end-of-contents where no indefinite length is open.
    #[error("an end of contents that closes nothing")]
    EndOfContents,
    /// Octets after the one element that should fill the place.
    #[error("octets after the end")]
    Trailing,
    /// A string to be opened that is no OCTET STRING and no BIT STRING of whole octets.
    #[error("a string without whole octets")]
    NotOctets,
    /// More octets than a message may have.
    #[error("more octets than a message may have")]
    TooLarge,
    /// Nested more deeply than a node table may describe.
    #[error("nested too deeply")]
    TooDeep,
    /// More elements than a node table may describe.
    #[error("too many elements")]
    TooMany,
    /// Another element than the grammar wants here; the text names what it wants.
    #[error("expected {0}")]
    Expected(&'static str),
}

impl Fault {
    pub(crate) const fn at(self, at: usize) -> Malformed {
        Malformed { at, fault: self }
    }
}

/// Where the content of an element ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After so many octets, which the cursor has seen to be there.
    Definite(usize),
    /// Before a `00 00` yet to be found.
    Indefinite,
}

/// Tag and length of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tag octet: class, constructed bit, number.
    pub tag: u8,
    /// Octets of tag and length, 2 to 5.
    pub octets: u8,
    /// Where the content ends.
    pub extent: Extent,
}

impl Header {
    /// Whether the content consists of elements.
    #[must_use]
    pub fn is_constructed(&self) -> bool {
        self.tag & CONSTRUCTED != 0
    }
}

const CONSTRUCTED: u8 = 0x20;
const TAG_NUMBER: u8 = 0x1f;

/// A place in a buffer, and the end beyond which it never reads.
///
/// Offsets count from the start of the whole buffer, also in a cursor over an element's content.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    buffer: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Stands at the start of `buffer` and ends with it.
    #[must_use]
    pub fn new(buffer: &'a [u8]) -> Self {
        Self {
            buffer,
            position: 0,
            end: buffer.len(),
        }
    }

    /// The offset of the next octet.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether everything up to the end is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.position >= self.end
    }

    /// Reads the header of an element; a definite content is then known to lie before the end.
    ///
    /// # Errors
    /// [`Malformed`] for anything but a low tag number with a minimal length, or `80` on a
    /// constructed element. The cursor is then of no further use.
    pub fn header(&mut self) -> Result<Header, Malformed> {
        let start = self.position;
        let malformed = |fault: Fault| Err(fault.at(start));
        let tag = self.octet()?;
        if tag & TAG_NUMBER == TAG_NUMBER {
            return malformed(Fault::HighTag);
        }
        // X.690 §8.1.5: universal 0 is end-of-contents and nothing else.
        if tag & !CONSTRUCTED == 0 {
            return malformed(Fault::EndOfContents);
        }
        let first = self.octet()?;
        let (length, least) = match first {
            0x00..=0x7f => (usize::from(first), 0),
            0x80 if tag & CONSTRUCTED != 0 => {
                return Ok(Header {
                    tag,
                    octets: 2,
                    extent: Extent::Indefinite,
                });
            }
            0x81 => (self.number(1)?, 0x80),
            0x82 => (self.number(2)?, 0x100),
            0x83 => (self.number(3)?, 0x1_0000),
            _ => return malformed(Fault::Length),
        };
        if length < least {
            return malformed(Fault::Length);
        }
        if length > self.end.saturating_sub(self.position) {
            return malformed(Fault::Truncated);
        }
        let octets = if first < 0x80 { 2 } else { 2 + (first & 0x7f) };
        Ok(Header {
            tag,
            octets,
            extent: Extent::Definite(length),
        })
    }

    /// Reads a whole element of definite length that has this tag octet; returns a cursor over
    /// its content.
    ///
    /// # Errors
    /// [`Malformed`] for another tag, an indefinite length, or no element at all.
    pub fn element(&mut self, tag: u8, what: &'static str) -> Result<Self, Malformed> {
        let start = self.position;
        let header = self.header()?;
        match header.extent {
            Extent::Definite(length) if header.tag == tag => Ok(self.advance(length)),
            _ => Err(Fault::Expected(what).at(start)),
        }
    }

    /// The octets between here and the end.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.buffer.get(self.position..self.end).unwrap_or_default()
    }

    /// Passes an end of contents (`00 00`) if one is next.
    pub fn end_of_contents(&mut self) -> bool {
        let next = self.rest().starts_with(&[0, 0]);
        if next {
            self.position += 2;
        }
        next
    }

    /// Passes `length` octets, or what is left if that is less; returns a cursor over them.
    pub fn advance(&mut self, length: usize) -> Self {
        let end = self.position.saturating_add(length).min(self.end);
        let passed = Self {
            buffer: self.buffer,
            position: self.position,
            end,
        };
        self.position = end;
        passed
    }

    /// Moves the end, never beyond the buffer.
    pub(crate) fn set_end(&mut self, end: usize) {
        self.end = end.min(self.buffer.len());
    }

    fn octet(&mut self) -> Result<u8, Malformed> {
        let (Some(&octet), false) = (self.buffer.get(self.position), self.is_empty()) else {
            return Err(Fault::Truncated.at(self.position));
        };
        self.position += 1;
        Ok(octet)
    }

    fn number(&mut self, octets: u8) -> Result<usize, Malformed> {
        let mut number = 0;
        for _ in 0..octets {
            number = number << 8 | usize::from(self.octet()?);
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(octets: &[u8]) -> Result<Header, Fault> {
        Cursor::new(octets).header().map_err(|m| m.fault)
    }

    #[test]
    fn minimal_definite_lengths_are_read() {
        let long = |prefix: &[u8], content: usize| {
            let mut octets = prefix.to_vec();
            octets.resize(prefix.len() + content, 0);
            header(&octets)
        };
        for (prefix, content) in [
            (&[0x04, 0x00][..], 0),
            (&[0x04, 0x7f], 0x7f),
            (&[0x04, 0x81, 0x80], 0x80),
            (&[0x04, 0x81, 0xff], 0xff),
            (&[0x04, 0x82, 0x01, 0x00], 0x100),
            (&[0x04, 0x82, 0xff, 0xff], 0xffff),
            (&[0x04, 0x83, 0x01, 0x00, 0x00], 0x1_0000),
        ] {
            let expected = Header {
                tag: 4,
                octets: prefix.len() as u8,
                extent: Extent::Definite(content),
            };
            assert_eq!(long(prefix, content), Ok(expected));
            if content > 0 {
                assert_eq!(long(prefix, content - 1), Err(Fault::Truncated));
            }
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for octets in [
            &[0x04, 0x80, 0, 0][..],
            &[0x04, 0x81, 0x01, 0],
            &[0x04, 0x81, 0x7f],
            &[0x04, 0x82, 0x00, 0xff],
            &[0x04, 0x83, 0x00, 0xff, 0xff],
            &[0x04, 0x84, 0x00, 0x00, 0x00, 0x01, 0],
            &[0x30, 0xff],
        ] {
            assert_eq!(header(octets), Err(Fault::Length), "{octets:02x?}");
        }
    }

    #[test]
    fn headers_are_not_cut_short() {
        for octets in [&[][..], &[0x30], &[0x30, 0x81], &[0x30, 0x82, 0x01]] {
            assert_eq!(header(octets), Err(Fault::Truncated), "{octets:02x?}");
        }
    }

    #[test]
    fn high_and_reserved_tags_are_refused() {
        for tag in [0x1f, 0x3f, 0x9f, 0xbf, 0xdf, 0xff] {
            assert_eq!(header(&[tag, 0]), Err(Fault::HighTag));
        }
        for tag in [0x00, 0x20] {
            assert_eq!(header(&[tag, 0]), Err(Fault::EndOfContents));
        }
    }

    #[test]
    fn only_constructed_elements_are_indefinite() {
        let expected = Header {
            tag: 0xa0,
            octets: 2,
            extent: Extent::Indefinite,
        };
        assert_eq!(header(&[0xa0, 0x80]), Ok(expected));
        assert_eq!(header(&[0x80, 0x80]), Err(Fault::Length));
    }

    #[test]
    fn a_cursor_over_content_stops_at_its_end() {
        let octets = [0x30, 0x03, 0x02, 0x01, 0x07, 0x05, 0x00];
        let mut outer = Cursor::new(&octets);
        let mut inner = outer.element(0x30, "SEQUENCE").unwrap();
        assert_eq!(inner.element(0x02, "INTEGER").unwrap().rest(), [7]);
        assert!(inner.is_empty());
        assert_eq!(
            inner.header().unwrap_err(),
            Malformed {
                at: 5,
                fault: Fault::Truncated
            }
        );
        assert_eq!(outer.position(), 5);
        assert_eq!(
            outer.element(0x30, "SEQUENCE").unwrap_err().to_string(),
            "expected SEQUENCE (at offset 5)"
        );
    }

    #[test]
    fn end_of_contents_is_not_read_beyond_the_end() {
        let mut cursor = Cursor::new(&[0, 0]);
        let mut first = cursor.clone().advance(1);
        assert!(!first.end_of_contents());
        assert!(cursor.end_of_contents());
        assert!(cursor.is_empty());
    }
}
