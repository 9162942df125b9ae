//! ASN.1 as trees: written in DER or in the BER that clients send, and read back from DER.

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    Primitive(u8, Vec<u8>),
    Constructed(u8, Vec<Tree>),
    /// A string that may come in pieces: its tag, its tag when it does, its value.
    String(u8, u8, Vec<u8>),
    /// Octets that stay as they are in every encoding: what somebody signed.
    Fixed(Vec<u8>),
}

use Tree::{Constructed, Fixed, Primitive};

/// How to write a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Encoding {
    /// Definite lengths, strings in one piece.
    Der,
    /// Indefinite lengths, strings in one piece.
    Indefinite,
    /// Definite lengths, strings in pieces of so many octets.
    Pieces(usize),
    /// Both.
    IndefinitePieces(usize),
}

impl Encoding {
    fn is_indefinite(self) -> bool {
        matches!(self, Self::Indefinite | Self::IndefinitePieces(_))
    }

    fn pieces(self) -> Option<usize> {
        match self {
            Self::Der | Self::Indefinite => None,
            Self::Pieces(length) | Self::IndefinitePieces(length) => Some(length),
        }
    }
}

impl Tree {
    pub(crate) fn encode(&self, encoding: Encoding) -> Vec<u8> {
        match self {
            Fixed(octets) => octets.clone(),
            Primitive(tag, content) => tlv(*tag, content),
            Constructed(tag, children) => {
                let content: Vec<u8> = children.iter().flat_map(|c| c.encode(encoding)).collect();
                if encoding.is_indefinite() {
                    [&[*tag, 0x80], content.as_slice(), &[0, 0]].concat()
                } else {
                    tlv(*tag, &content)
                }
            }
            Tree::String(tag, chunked, value) => match encoding.pieces() {
                None => tlv(*tag, value),
                Some(length) => {
                    let pieces = value.chunks(length).map(octet_string).collect();
                    Constructed(*chunked, pieces).encode(encoding)
                }
            },
        }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.encode(Encoding::Der)
    }

    /// Writes the tree once and for all.
    pub(crate) fn fixed(&self) -> Self {
        Fixed(self.der())
    }

    /// The children of a constructed tree, to be changed.
    pub(crate) fn children(&mut self) -> &mut Vec<Self> {
        match self {
            Constructed(_, children) => children,
            other => panic!("no children in {other:?}"),
        }
    }

    /// Reads one DER element that fills `octets`.
    pub(crate) fn parse(octets: &[u8]) -> Self {
        let (tree, rest) = Self::parse_one(octets);
        assert!(rest.is_empty());
        tree
    }

    fn parse_one(octets: &[u8]) -> (Self, &[u8]) {
        let (tag, first) = (octets[0], usize::from(octets[1]));
        let more = first.saturating_sub(0x80);
        let length = octets[2..2 + more]
            .iter()
            .fold(if more == 0 { first } else { 0 }, |n, o| {
                n << 8 | usize::from(*o)
            });
        let (content, rest) = octets[2 + more..].split_at(length);
        if tag & 0x20 == 0 {
            return (Primitive(tag, content.to_vec()), rest);
        }
        let (mut children, mut left) = (Vec::new(), content);
        while !left.is_empty() {
            let (child, behind) = Self::parse_one(left);
            children.push(child);
            left = behind;
        }
        (Constructed(tag, children), rest)
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let digits = length.to_be_bytes();
    let significant = &digits[digits.iter().take_while(|d| **d == 0).count()..];
    let header = if length < 0x80 {
        vec![tag, u8::try_from(length).unwrap()]
    } else {
        [
            &[tag, 0x80 | u8::try_from(significant.len()).unwrap()],
            significant,
        ]
        .concat()
    };
    [header.as_slice(), content].concat()
}

pub(crate) fn sequence<const N: usize>(children: [Tree; N]) -> Tree {
    Constructed(0x30, children.into())
}

pub(crate) fn set<const N: usize>(children: [Tree; N]) -> Tree {
    Constructed(0x31, children.into())
}

pub(crate) fn context(number: u8, children: Vec<Tree>) -> Tree {
    Constructed(0xa0 | number, children)
}

pub(crate) fn oid(text: &str) -> Tree {
    let oid = der::asn1::ObjectIdentifier::new_unwrap(text);
    Primitive(0x06, oid.as_bytes().to_vec())
}

pub(crate) fn integer(value: u8) -> Tree {
    Primitive(0x02, vec![value])
}

pub(crate) fn octet_string(value: impl AsRef<[u8]>) -> Tree {
    Primitive(0x04, value.as_ref().to_vec())
}

pub(crate) fn bit_string(value: &[u8]) -> Tree {
    Primitive(0x03, [&[0], value].concat())
}

pub(crate) fn utf8(text: &str) -> Tree {
    Primitive(0x0c, text.into())
}

pub(crate) fn printable(text: &str) -> Tree {
    Primitive(0x13, text.into())
}

pub(crate) fn null() -> Tree {
    Primitive(0x05, Vec::new())
}

pub(crate) fn attribute<const N: usize>(kind: &str, values: [Tree; N]) -> Tree {
    sequence([oid(kind), set(values)])
}
