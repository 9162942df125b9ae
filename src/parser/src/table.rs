//! From octets to a node table: every element of a buffer, in pre-order.

use crate::cursor::{Cursor, Extent, Fault, Header, Malformed};
use crate::tag;
use chancery_protocol::node::{Form, MAX_DEPTH, Record};
use chancery_protocol::wire::MAX_MESSAGE;

/// Describes every element of `buffer`, which one element must fill.
///
/// Constructed elements are expanded down to primitives. A primitive OCTET STRING or BIT STRING
/// whose tag stands at one of the offsets in `open` (ascending) is opened as well: its content,
/// of a BIT STRING what follows its first octet 00, must be exactly one element.
///
/// # Errors
/// [`Malformed`] if the octets are not elements as [`Cursor`] reads them, do not fit each other,
/// or exceed `budget` records, [`MAX_DEPTH`] or [`MAX_MESSAGE`].
pub fn expand(buffer: &[u8], open: &[usize], budget: usize) -> Result<Vec<Record>, Malformed> {
    if buffer.len() > MAX_MESSAGE {
        return Err(Fault::TooLarge.at(MAX_MESSAGE));
    }
    let mut walk = Walk {
        cursor: Cursor::new(buffer),
        open: open.iter().copied().peekable(),
        budget,
        records: Vec::new(),
        frames: vec![Frame {
            record: 0,
            end: buffer.len(),
            due: Due::OneElement,
        }],
    };
    while let Some(frame) = walk.frames.last() {
        let frame = *frame;
        walk.cursor.set_end(frame.end);
        if walk.close(frame)? {
            walk.frames.pop();
        } else {
            walk.element(frame)?;
        }
    }
    Ok(walk.records)
}

/// An element whose content is being read; the outermost one is the buffer itself.
#[derive(Clone, Copy)]
struct Frame {
    /// Its record; for the buffer 0, since record 0 is its own parent.
    record: u16,
    /// Where its content ends, of an indefinite one that of the nearest definite one around it.
    end: usize,
    /// What its content still wants.
    due: Due,
}

#[derive(Clone, Copy)]
enum Due {
    /// Elements up to the end.
    Elements,
    /// Elements up to an end of contents.
    EndOfContents,
    /// Exactly one element, up to the end.
    OneElement,
    /// Nothing: the one element was read.
    Nothing,
}

struct Walk<'a, O: Iterator<Item = usize>> {
    cursor: Cursor<'a>,
    open: core::iter::Peekable<O>,
    budget: usize,
    records: Vec<Record>,
    frames: Vec<Frame>,
}

impl<O: Iterator<Item = usize>> Walk<'_, O> {
    /// Whether the innermost frame is complete here.
    fn close(&mut self, frame: Frame) -> Result<bool, Malformed> {
        let at = self.cursor.position();
        match frame.due {
            Due::Elements => Ok(self.cursor.is_empty()),
            Due::EndOfContents => {
                let closed = self.cursor.end_of_contents();
                if closed && let Some(record) = self.records.get_mut(usize::from(frame.record)) {
                    let start = record.start as usize + usize::from(record.header);
                    record.content = number(at.saturating_sub(start))?;
                }
                Ok(closed)
            }
            Due::OneElement if self.cursor.is_empty() => Err(Fault::Truncated.at(at)),
            Due::OneElement => Ok(false),
            Due::Nothing if self.cursor.is_empty() => Ok(true),
            Due::Nothing => Err(Fault::Trailing.at(at)),
        }
    }

    /// Reads the next element of the innermost frame, of a constructed one only the header.
    fn element(&mut self, parent: Frame) -> Result<(), Malformed> {
        let start = self.cursor.position();
        let header = self.cursor.header()?;
        // The buffer's own frame makes the depth of record 0 one.
        if self.frames.len() > MAX_DEPTH {
            return Err(Fault::TooDeep.at(start));
        }
        if self.records.len() >= self.budget {
            return Err(Fault::TooMany.at(start));
        }
        let index: u16 = number(self.records.len())?;
        let (form, content, end) = self.content(start, header)?;
        self.records.push(Record {
            parent: parent.record,
            start: number(start)?,
            header: header.octets,
            content: number(content)?,
            form,
        });
        if let (Some(frame), Due::OneElement) = (self.frames.last_mut(), parent.due) {
            frame.due = Due::Nothing;
        }
        let due = match form {
            Form::Primitive => return Ok(()),
            Form::Definite => Due::Elements,
            Form::Indefinite => Due::EndOfContents,
            Form::Opened => Due::OneElement,
        };
        self.frames.push(Frame {
            record: index,
            end: end.unwrap_or(parent.end),
            due,
        });
        Ok(())
    }

    /// The form of an element, the octets of its content (0 while unknown), and where that ends
    /// if it is known. The cursor passes a content that is not to be read.
    fn content(
        &mut self,
        start: usize,
        header: Header,
    ) -> Result<(Form, usize, Option<usize>), Malformed> {
        let Extent::Definite(length) = header.extent else {
            return Ok((Form::Indefinite, 0, None));
        };
        let end = Some(self.cursor.position() + length);
        if header.is_constructed() {
            return Ok((Form::Definite, length, end));
        }
        if self.open.next_if_eq(&start).is_none() {
            self.cursor.advance(length);
            return Ok((Form::Primitive, length, end));
        }
        match header.tag {
            tag::OCTET_STRING => Ok((Form::Opened, length, end)),
            tag::BIT_STRING if length > 0 && self.cursor.advance(1).rest() == [0] => {
                Ok((Form::Opened, length, end))
            }
            _ => Err(Fault::NotOctets.at(start)),
        }
    }
}

/// Offsets and counts are small, since the buffer and the budget are; this says so to the types.
fn number<T: TryFrom<usize>>(value: usize) -> Result<T, Malformed> {
    T::try_from(value).map_err(|_| Fault::TooLarge.at(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chancery_protocol::node::MAX_RECORDS;

    fn faults(buffer: &[u8], open: &[usize]) -> Fault {
        expand(buffer, open, MAX_RECORDS).unwrap_err().fault
    }

    fn record(parent: u16, start: u32, header: u8, content: u32, form: Form) -> Record {
        Record {
            parent,
            start,
            header,
            content,
            form,
        }
    }

    #[test]
    fn records_stand_in_pre_order() {
        // SEQUENCE { SET { NULL }, [0] indefinite { INTEGER 5 }, BOOLEAN }
        let buffer = [
            0x30, 0x0e, 0x31, 0x02, 0x05, 0x00, 0xa0, 0x80, 0x02, 0x01, 0x05, 0, 0, 0x01, 0x01,
            0xff,
        ];
        assert_eq!(
            expand(&buffer, &[], MAX_RECORDS).unwrap(),
            [
                record(0, 0, 2, 14, Form::Definite),
                record(0, 2, 2, 2, Form::Definite),
                record(1, 4, 2, 0, Form::Primitive),
                record(0, 6, 2, 3, Form::Indefinite),
                record(3, 8, 2, 1, Form::Primitive),
                record(0, 13, 2, 1, Form::Primitive),
            ]
        );
    }

    #[test]
    fn an_indefinite_buffer_ends_with_its_end_of_contents() {
        let buffer = [0x30, 0x80, 0x30, 0x80, 0, 0, 0, 0];
        assert_eq!(
            expand(&buffer, &[], MAX_RECORDS).unwrap(),
            [
                record(0, 0, 2, 4, Form::Indefinite),
                record(0, 2, 2, 0, Form::Indefinite)
            ]
        );
        assert_eq!(faults(&[0x30, 0x80, 0, 0, 5, 0], &[]), Fault::Trailing);
        assert_eq!(faults(&[0x30, 0x80, 0x05, 0x00], &[]), Fault::Truncated);
        assert_eq!(
            faults(&[0x30, 0x80, 0x05, 0x00, 0], &[]),
            Fault::EndOfContents
        );
    }

    #[test]
    fn an_indefinite_element_stays_inside_a_definite_one() {
        // The end of contents stands outside the SEQUENCE of two octets.
        assert_eq!(
            faults(&[0x31, 0x06, 0x30, 0x02, 0x30, 0x80, 0, 0], &[]),
            Fault::Truncated
        );
    }

    #[test]
    fn siblings_fit_their_parent() {
        assert_eq!(
            faults(&[0x30, 0x03, 0x05, 0x00, 0x05], &[]),
            Fault::Truncated
        );
        assert_eq!(
            faults(&[0x30, 0x03, 0x04, 0x02, 0x05, 0x05], &[]),
            Fault::Truncated
        );
        assert_eq!(faults(&[0x30, 0x00, 0x05, 0x00], &[]), Fault::Trailing);
        assert_eq!(faults(&[0x30, 0x02, 0x00, 0x00], &[]), Fault::EndOfContents);
        assert_eq!(faults(&[], &[]), Fault::Truncated);
    }

    #[test]
    fn strings_are_opened_where_asked() {
        let octets = [0x04, 0x04, 0x30, 0x02, 0x05, 0x00];
        assert_eq!(
            expand(&octets, &[0], MAX_RECORDS).unwrap(),
            [
                record(0, 0, 2, 4, Form::Opened),
                record(0, 2, 2, 2, Form::Definite),
                record(1, 4, 2, 0, Form::Primitive),
            ]
        );
        let bits = [0x30, 0x05, 0x03, 0x03, 0x00, 0x05, 0x00];
        assert_eq!(
            expand(&bits, &[2], MAX_RECORDS).unwrap(),
            [
                record(0, 0, 2, 5, Form::Definite),
                record(0, 2, 2, 3, Form::Opened),
                record(1, 5, 2, 0, Form::Primitive),
            ]
        );
        assert_eq!(expand(&octets, &[], MAX_RECORDS).unwrap().len(), 1);
    }

    #[test]
    fn an_opened_string_holds_exactly_one_element() {
        assert_eq!(faults(&[0x04, 0x00], &[0]), Fault::Truncated);
        assert_eq!(faults(&[0x04, 0x01, 0x05], &[0]), Fault::Truncated);
        assert_eq!(
            faults(&[0x04, 0x04, 0x05, 0x00, 0x05, 0x00], &[0]),
            Fault::Trailing
        );
        assert_eq!(faults(&[0x03, 0x01, 0x00], &[0]), Fault::Truncated);
        assert_eq!(faults(&[0x03, 0x00], &[0]), Fault::NotOctets);
        assert_eq!(
            faults(&[0x03, 0x03, 0x04, 0x05, 0x00], &[0]),
            Fault::NotOctets
        );
        assert_eq!(faults(&[0x0c, 0x02, 0x05, 0x00], &[0]), Fault::NotOctets);
    }

    #[test]
    fn depth_and_count_are_bounded() {
        let nested = |depth: usize| {
            let mut buffer = [0x30, 0x80].repeat(depth);
            buffer.extend([0, 0].repeat(depth));
            expand(&buffer, &[], MAX_RECORDS)
                .map(|t| t.len())
                .map_err(|m| m.fault)
        };
        assert_eq!(nested(MAX_DEPTH), Ok(MAX_DEPTH));
        assert_eq!(nested(MAX_DEPTH + 1), Err(Fault::TooDeep));

        let wide = |count: usize| {
            let mut buffer = vec![0x30, 0x80];
            buffer.extend([0x05, 0].repeat(count - 1));
            buffer.extend([0, 0]);
            expand(&buffer, &[], MAX_RECORDS)
                .map(|t| t.len())
                .map_err(|m| m.fault)
        };
        assert_eq!(wide(MAX_RECORDS), Ok(MAX_RECORDS));
        assert_eq!(wide(MAX_RECORDS + 1), Err(Fault::TooMany));
    }

    #[test]
    fn a_buffer_is_bounded() {
        let primitive = |length: usize| {
            let [_, _, high, low] = (length as u32 - 4).to_be_bytes();
            let mut buffer = vec![0x04, 0x82, high, low];
            buffer.resize(length, 0);
            expand(&buffer, &[], MAX_RECORDS)
                .map(|t| t.len())
                .map_err(|m| m.fault)
        };
        assert_eq!(primitive(MAX_MESSAGE), Ok(1));
        assert_eq!(primitive(MAX_MESSAGE + 1), Err(Fault::TooLarge));
    }
}
