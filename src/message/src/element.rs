//! Elements of a proved table together with their octets: how the grammars find their fields, by
//! tag and position.

use std::borrow::Cow;

use chancery_protocol::node::Form;

use crate::prove::{Node, Unproved};
use crate::tag;

/// An element of a proved buffer. `'b` is the buffer, `'n` the table.
#[derive(Clone, Copy)]
pub(crate) struct Element<'b, 'n> {
    buffer: &'b [u8],
    nodes: &'n [Node],
    index: usize,
    node: Node,
}

/// What was looked for, by position or by tag, and not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) &'static str);

impl<'b, 'n> Element<'b, 'n> {
    /// The element of record `index`.
    pub(crate) fn at(buffer: &'b [u8], nodes: &'n [Node], index: usize) -> Option<Self> {
        let node = *nodes.get(index)?;
        Some(Self {
            buffer,
            nodes,
            index,
            node,
        })
    }

    /// The index of its record.
    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// The tag octet: class, constructed bit, number.
    pub(crate) fn tag(self) -> u8 {
        self.octets().first().copied().unwrap_or_default()
    }

    /// The content octets, without the closing `00 00` of an indefinite length.
    pub(crate) fn content(self) -> &'b [u8] {
        let start = self.node.start as usize + usize::from(self.node.header);
        self.slice(start, start + self.node.content as usize)
    }

    /// The whole element as received, tag and length included.
    pub(crate) fn octets(self) -> &'b [u8] {
        let start = self.node.start as usize;
        let closing = if self.node.form == Form::Indefinite {
            2
        } else {
            0
        };
        let end = start + usize::from(self.node.header) + self.node.content as usize + closing;
        self.slice(start, end)
    }

    /// Whether neither this element nor any inside it has an indefinite length. All lengths are
    /// minimal anyhow.
    pub(crate) fn is_definite(self) -> bool {
        self.nodes
            .get(self.index..usize::from(self.node.end))
            .is_some_and(|nodes| nodes.iter().all(|node| node.form != Form::Indefinite))
    }

    /// The elements directly inside.
    pub(crate) fn children(self) -> Children<'b, 'n> {
        Children {
            buffer: self.buffer,
            nodes: self.nodes,
            next: self.index + 1,
            end: usize::from(self.node.end),
        }
    }

    /// The children, to be taken in order.
    pub(crate) fn fields(self) -> Fields<'b, 'n> {
        Fields {
            children: self.children(),
        }
    }

    /// The one element inside an OCTET STRING or BIT STRING that the grammar opens.
    pub(crate) fn opened(self) -> Result<Self, Unproved> {
        self.children().next().ok_or(Unproved::Unopened)
    }

    /// This element, if its tag octet is `tag`.
    pub(crate) fn is(self, tag: u8, what: &'static str) -> Result<Self, Missing> {
        if self.tag() == tag {
            Ok(self)
        } else {
            Err(Missing(what))
        }
    }

    /// The value of an OCTET STRING under the tag `primitive`, or in pieces under `chunked`, which
    /// are primitive and joined here (X.690 §8.7.3; one level).
    pub(crate) fn string(
        self,
        primitive: u8,
        chunked: u8,
        what: &'static str,
    ) -> Result<Cow<'b, [u8]>, Missing> {
        if self.tag() == primitive {
            return Ok(Cow::Borrowed(self.content()));
        }
        let element = self.is(chunked, what)?;
        // No more than the content: the pieces lie inside it.
        let mut joined = Vec::with_capacity(element.content().len());
        for piece in element.children() {
            joined.extend_from_slice(piece.is(tag::OCTET_STRING, what)?.content());
        }
        Ok(Cow::Owned(joined))
    }

    fn slice(self, start: usize, end: usize) -> &'b [u8] {
        // The proof says that the range exists.
        self.buffer.get(start..end).unwrap_or_default()
    }
}

/// The children of an element.
#[derive(Clone)]
pub(crate) struct Children<'b, 'n> {
    buffer: &'b [u8],
    nodes: &'n [Node],
    next: usize,
    end: usize,
}

impl<'b, 'n> Iterator for Children<'b, 'n> {
    type Item = Element<'b, 'n>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let element = Element::at(self.buffer, self.nodes, self.next)?;
        self.next = usize::from(element.node.end);
        Some(element)
    }
}

/// The children of an element, taken in order.
pub(crate) struct Fields<'b, 'n> {
    children: Children<'b, 'n>,
}

impl<'b, 'n> Fields<'b, 'n> {
    /// The next child, whatever it is.
    pub(crate) fn any(&mut self, what: &'static str) -> Result<Element<'b, 'n>, Missing> {
        self.children.next().ok_or(Missing(what))
    }

    /// The next child, which must have this tag octet.
    pub(crate) fn take(&mut self, tag: u8, what: &'static str) -> Result<Element<'b, 'n>, Missing> {
        self.any(what)?.is(tag, what)
    }

    /// The next child if it has this tag octet.
    pub(crate) fn maybe(&mut self, tag: u8) -> Option<Element<'b, 'n>> {
        let mut ahead = self.children.clone();
        let element = ahead.next().filter(|element| element.tag() == tag)?;
        self.children = ahead;
        Some(element)
    }

    /// No child may be left.
    pub(crate) fn end(mut self, what: &'static str) -> Result<(), Missing> {
        match self.children.next() {
            None => Ok(()),
            Some(_) => Err(Missing(what)),
        }
    }
}
