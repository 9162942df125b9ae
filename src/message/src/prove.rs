//! The proof of a node table: a child may point, but never make something up.

use chancery_protocol::node::{Form, MAX_BUFFER, MAX_DEPTH, MAX_RECORDS, Record, decode_table};

use crate::element::Element;

/// A table that describes its buffer: offsets only. Of one buffer there is one such table, but for
/// the choice which OCTET STRINGs and BIT STRINGs are opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Nodes {
    nodes: Vec<Node>,
}

/// A proved record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) start: u32,
    pub(crate) header: u8,
    pub(crate) content: u32,
    pub(crate) form: Form,
    /// Index of the first record behind this one and everything inside it: the next sibling, if
    /// there is one.
    pub(crate) end: u16,
}

/// A node table that does not describe its buffer. A child of the parser that follows its program
/// never answers so: it is broken or taken over, which is a security event. The numbers are
/// indices of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// Not between 1 and [`MAX_RECORDS`] whole records of known forms, over all tables together.
    #[error("the node table is not 1 to {MAX_RECORDS} whole records of known forms")]
    Table,
    /// The buffer is larger than a table can describe.
    #[error("the buffer has more than {MAX_BUFFER} octets")]
    Buffer,
    /// There is a table without its buffer, or a buffer without its table.
    #[error("a node table is missing, or describes a buffer that does not exist")]
    Count,
    /// Record 0 is not its own parent, or another parent is not open at this place of the pre-order.
    #[error("record {0}: the parent is no open record before it")]
    Parent(usize),
    /// The element does not start where its elder sibling ends, or where its parent's content starts.
    #[error("record {0}: a gap or an overlap before the element")]
    Start(usize),
    /// The element or the content of its parent would end elsewhere than the table says.
    #[error("record {0}: the element reaches beyond its parent")]
    Beyond(usize),
    /// The octets at the start are not the encoding of a low tag number and this length.
    #[error("record {0}: the header is not the encoding of tag and length")]
    Header(usize),
    /// The form contradicts the tag octet, or an opened element is not an OCTET STRING, nor a BIT
    /// STRING of whole octets.
    #[error("record {0}: the form does not fit the tag")]
    Form(usize),
    /// The children leave octets of the content over, or an opened element has not exactly one.
    #[error("record {0}: the children do not fill the content")]
    Unfilled(usize),
    /// No `00 00` stands behind the content of an element of indefinite length.
    #[error("record {0}: the indefinite length is not closed")]
    Unclosed(usize),
    /// Nested more deeply than [`MAX_DEPTH`].
    #[error("record {0}: nested more deeply than {MAX_DEPTH}")]
    Depth(usize),
    /// A key or a name stands in a string that the table leaves closed.
    #[error("a string that the grammar opens is left closed")]
    Unopened,
}

/// Proves that `table` (encoded records, see [`chancery_protocol::node`]) describes `buffer`, in
/// one pass over the records.
///
/// Proved is: record 0 fills the buffer; every element starts where the one before it ends; every
/// header is the one encoding of its tag and its length, or an indefinite one that is closed; every
/// constructed element is expanded and exactly filled; nothing is nested beyond [`MAX_DEPTH`].
///
/// # Errors
/// [`Unproved`], with the first rule that is broken.
pub fn prove(buffer: &[u8], table: &[u8]) -> Result<Nodes, Unproved> {
    if buffer.len() > MAX_BUFFER {
        return Err(Unproved::Buffer);
    }
    let records = decode_table(table).ok_or(Unproved::Table)?;
    let mut proof = Proof {
        buffer,
        nodes: Vec::with_capacity(records.len()),
        open: Vec::with_capacity(MAX_DEPTH),
    };
    for (index, record) in records.iter().enumerate() {
        proof.record(index, record)?;
    }
    while let Some(frame) = proof.open.pop() {
        proof.close(frame)?;
    }
    Ok(Nodes { nodes: proof.nodes })
}

impl Nodes {
    /// The element that fills the buffer, which must be the one that was proved.
    pub(crate) fn root<'b, 'n>(&'n self, buffer: &'b [u8]) -> Option<Element<'b, 'n>> {
        Element::at(buffer, &self.nodes, 0)
    }

    /// The element of a record.
    pub(crate) fn element<'b, 'n>(
        &'n self,
        buffer: &'b [u8],
        index: usize,
    ) -> Option<Element<'b, 'n>> {
        Element::at(buffer, &self.nodes, index)
    }

    /// How many records the table has.
    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }
}

/// A record whose children are being proved.
struct Frame {
    index: usize,
    /// Where the next child starts.
    cursor: usize,
    /// Where the content ends.
    end: usize,
    form: Form,
    /// Whether an opened element has had its child.
    filled: bool,
}

struct Proof<'b> {
    buffer: &'b [u8],
    nodes: Vec<Node>,
    /// The records that enclose the current place, outermost first.
    open: Vec<Frame>,
}

impl Proof<'_> {
    fn record(&mut self, index: usize, record: &Record) -> Result<(), Unproved> {
        let start = record.start as usize;
        let content_start = start + usize::from(record.header);
        let content_end = content_start + record.content as usize;
        let end = match record.form {
            Form::Indefinite => content_end + END_OF_CONTENTS.len(),
            Form::Primitive | Form::Definite | Form::Opened => content_end,
        };
        self.place(index, record, end)?;
        let first_child = self.encoding(index, record, content_start..content_end)?;
        self.nodes.push(Node {
            start: record.start,
            header: record.header,
            content: record.content,
            form: record.form,
            // Of a record with children, set when it closes.
            end: u16::try_from(index + 1).map_err(|_| Unproved::Table)?,
        });
        if let Some(cursor) = first_child {
            self.open.push(Frame {
                index,
                cursor,
                end: content_end,
                form: record.form,
                filled: false,
            });
        }
        Ok(())
    }

    /// Proves where the element stands: inside an open parent, behind its elder sibling.
    fn place(&mut self, index: usize, record: &Record, end: usize) -> Result<(), Unproved> {
        let parent = usize::from(record.parent);
        if index == 0 {
            return match record {
                _ if parent != 0 => Err(Unproved::Parent(index)),
                _ if record.start != 0 => Err(Unproved::Start(index)),
                _ if end != self.buffer.len() => Err(Unproved::Beyond(index)),
                _ => Ok(()),
            };
        }
        // At most MAX_DEPTH records are open.
        if !self.open.iter().any(|frame| frame.index == parent) {
            return Err(Unproved::Parent(index));
        }
        // Those inside the parent end here, and never open again.
        while let Some(frame) = self.open.pop_if(|frame| frame.index != parent) {
            self.close(frame)?;
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Unproved::Depth(index));
        }
        let frame = self.open.last_mut().ok_or(Unproved::Parent(index))?;
        if record.start as usize != frame.cursor {
            return Err(Unproved::Start(index));
        }
        if end > frame.end {
            return Err(Unproved::Beyond(index));
        }
        if frame.form == Form::Opened && frame.filled {
            return Err(Unproved::Unfilled(frame.index));
        }
        frame.cursor = end;
        frame.filled = true;
        Ok(())
    }

    /// Proves that the octets encode what the record says; returns where the children start, if
    /// the form has any.
    fn encoding(
        &self,
        index: usize,
        record: &Record,
        content: core::ops::Range<usize>,
    ) -> Result<Option<usize>, Unproved> {
        let header = self
            .buffer
            .get(record.start as usize..content.start)
            .ok_or(Unproved::Beyond(index))?;
        let (tag, length) = header.split_first().ok_or(Unproved::Header(index))?;
        // X.690 §8.1.2.4: number 31 announces a tag of more octets. §8.1.5: universal 0 is
        // end-of-contents and nothing else; so an indefinite content ends at the first place for
        // an element that holds 00 00, and at no other.
        let high = tag & TAG_NUMBER == TAG_NUMBER;
        let end_of_contents = tag & !CONSTRUCTED == 0;
        if high || end_of_contents || !encodes_length(length, record) {
            return Err(Unproved::Header(index));
        }
        let constructed = tag & CONSTRUCTED != 0;
        match record.form {
            Form::Primitive if !constructed => Ok(None),
            Form::Definite | Form::Indefinite if constructed => Ok(Some(content.start)),
            Form::Opened if *tag == OCTET_STRING => Ok(Some(content.start)),
            // X.690 §8.6.2.2: the first octet counts the unused bits.
            Form::Opened
                if *tag == BIT_STRING
                    && record.content > 0
                    && self.buffer.get(content.start) == Some(&0) =>
            {
                Ok(Some(content.start + 1))
            }
            Form::Primitive | Form::Definite | Form::Indefinite | Form::Opened => {
                Err(Unproved::Form(index))
            }
        }
    }

    /// Proves that the children fill a record to which no further child can come.
    fn close(&mut self, frame: Frame) -> Result<(), Unproved> {
        let childless = frame.form == Form::Opened && !frame.filled;
        if frame.cursor != frame.end || childless {
            return Err(Unproved::Unfilled(frame.index));
        }
        if frame.form == Form::Indefinite {
            let closing = self
                .buffer
                .get(frame.end..frame.end + END_OF_CONTENTS.len());
            if closing != Some(END_OF_CONTENTS) {
                return Err(Unproved::Unclosed(frame.index));
            }
        }
        let end = u16::try_from(self.nodes.len()).map_err(|_| Unproved::Table)?;
        if let Some(node) = self.nodes.get_mut(frame.index) {
            node.end = end;
        }
        Ok(())
    }
}

/// Whether `octets` are the one encoding of the record's length: minimal (X.690 §10.1), or
/// indefinite.
fn encodes_length(octets: &[u8], record: &Record) -> bool {
    if record.form == Form::Indefinite {
        return octets == [0x80];
    }
    let [_, high, middle, low] = record.content.to_be_bytes();
    match record.content {
        0..=0x7f => octets == [low],
        0x80..=0xff => octets == [0x81, low],
        0x100..=0xffff => octets == [0x82, middle, low],
        _ => octets == [0x83, high, middle, low],
    }
}

const END_OF_CONTENTS: &[u8] = &[0, 0];
const CONSTRUCTED: u8 = 0x20;
const TAG_NUMBER: u8 = 0x1f;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
