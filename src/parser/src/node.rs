//! Elements of a table together with their octets, as the grammars look at them.

use crate::cursor::{Fault, Malformed};
use crate::tag;
use chancery_protocol::node::Record;
use core::iter::Peekable;
use std::borrow::Cow;

/// One element of an expanded buffer.
#[derive(Clone, Copy)]
pub(crate) struct Node<'t> {
    buffer: &'t [u8],
    records: &'t [Record],
    index: usize,
    record: Record,
}

impl<'t> Node<'t> {
    /// The element that fills `buffer`; `None` for a table without records.
    pub(crate) fn root(buffer: &'t [u8], records: &'t [Record]) -> Option<Self> {
        let record = *records.first()?;
        Some(Self {
            buffer,
            records,
            index: 0,
            record,
        })
    }

    /// The offset of the tag.
    pub(crate) fn start(self) -> usize {
        self.record.start as usize
    }

    /// The tag octet. It tells a constructed element from a primitive one, and the walk has
    /// expanded every constructed one.
    pub(crate) fn tag(self) -> u8 {
        self.buffer.get(self.start()).copied().unwrap_or_default()
    }

    /// The content octets.
    pub(crate) fn content(self) -> &'t [u8] {
        let from = self.start() + usize::from(self.record.header);
        self.buffer
            .get(from..from + self.record.content as usize)
            .unwrap_or_default()
    }

    /// The elements directly inside.
    pub(crate) fn children(self) -> impl Iterator<Item = Self> {
        let own = self.index;
        (own + 1..)
            .map_while(move |index| {
                let record = *self.records.get(index)?;
                // Pre-order: the first record with an earlier parent is no longer inside.
                let inside = usize::from(record.parent) >= own;
                inside.then_some(Self {
                    index,
                    record,
                    ..self
                })
            })
            .filter(move |node| usize::from(node.record.parent) == own)
    }

    /// The children, to be taken in order.
    pub(crate) fn fields(self) -> Fields<'t, impl Iterator<Item = Self>> {
        Fields {
            of: self,
            children: self.children().peekable(),
        }
    }

    /// Checks the tag octet.
    pub(crate) fn is(self, tag: u8, what: &'static str) -> Result<Self, Malformed> {
        if self.tag() == tag {
            Ok(self)
        } else {
            Err(self.expected(what))
        }
    }

    /// The octets of an OCTET STRING under the tag `primitive`, or under `chunked` in primitive
    /// pieces, which are joined (X.690 §8.7.3; one level).
    pub(crate) fn octets(
        self,
        (primitive, chunked): (u8, u8),
        what: &'static str,
    ) -> Result<Cow<'t, [u8]>, Malformed> {
        if self.tag() == primitive {
            return Ok(Cow::Borrowed(self.content()));
        }
        let mut joined = Vec::new();
        for piece in self.is(chunked, what)?.children() {
            let piece = piece.is(tag::OCTET_STRING, "a primitive piece of an OCTET STRING")?;
            joined.extend_from_slice(piece.content());
        }
        Ok(Cow::Owned(joined))
    }

    pub(crate) fn expected(self, what: &'static str) -> Malformed {
        Fault::Expected(what).at(self.start())
    }
}

/// The children of an element, taken in order.
pub(crate) struct Fields<'t, I: Iterator<Item = Node<'t>>> {
    of: Node<'t>,
    children: Peekable<I>,
}

impl<'t, I: Iterator<Item = Node<'t>>> Fields<'t, I> {
    /// The next child, whatever it is.
    pub(crate) fn any(&mut self, what: &'static str) -> Result<Node<'t>, Malformed> {
        self.children.next().ok_or_else(|| self.of.expected(what))
    }

    /// The next child, which must have this tag octet.
    pub(crate) fn take(&mut self, tag: u8, what: &'static str) -> Result<Node<'t>, Malformed> {
        self.any(what)?.is(tag, what)
    }

    /// The next child if it has this tag octet.
    pub(crate) fn maybe(&mut self, tag: u8) -> Option<Node<'t>> {
        self.children.next_if(|node| node.tag() == tag)
    }

    /// No child may be left.
    pub(crate) fn end(mut self, what: &'static str) -> Result<(), Malformed> {
        self.children
            .next()
            .map_or(Ok(()), |node| Err(node.expected(what)))
    }
}
