//! Elements as trees, to be built by hand, changed, and encoded in DER or BER.

use proptest::prelude::*;
use proptest::sample::Index;

/// One element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The tag octet; its constructed bit agrees with `content`, unless a test wants otherwise.
    pub(crate) tag: u8,
    /// What is inside.
    pub(crate) content: Content,
}

/// The content of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Of a primitive one.
    Octets(Vec<u8>),
    /// Of a constructed one.
    Elements(Vec<Element>),
}

/// A primitive element.
pub(crate) fn primitive(tag: u8, octets: impl Into<Vec<u8>>) -> Element {
    Element {
        tag,
        content: Content::Octets(octets.into()),
    }
}

/// A constructed element.
pub(crate) fn constructed(tag: u8, elements: impl Into<Vec<Element>>) -> Element {
    Element {
        tag,
        content: Content::Elements(elements.into()),
    }
}

/// The minimal definite length.
pub(crate) fn length(length: usize) -> Vec<u8> {
    let octets = length.to_be_bytes();
    let used = &octets[octets
        .iter()
        .position(|o| *o != 0)
        .unwrap_or(octets.len() - 1)..];
    if length < 0x80 {
        used.to_vec()
    } else {
        [&[0x80 | used.len() as u8], used].concat()
    }
}

impl Element {
    /// Reads one element that fills `octets`, which a test knows to be valid DER.
    pub(crate) fn from_der(octets: &[u8]) -> Self {
        let (element, rest) = Self::read(octets);
        assert!(rest.is_empty());
        element
    }

    fn read(octets: &[u8]) -> (Self, &[u8]) {
        let mut cursor = chancery_parser::Cursor::new(octets);
        let header = cursor.header().expect("valid DER");
        let chancery_parser::Extent::Definite(length) = header.extent else {
            panic!("an indefinite length in DER")
        };
        let (mut content, rest) = octets[usize::from(header.octets)..].split_at(length);
        if !header.is_constructed() {
            return (primitive(header.tag, content), rest);
        }
        let mut elements = Vec::new();
        while !content.is_empty() {
            let (element, after) = Self::read(content);
            elements.push(element);
            content = after;
        }
        (constructed(header.tag, elements), rest)
    }

    /// With definite lengths.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        let content = match &self.content {
            Content::Octets(octets) => octets.clone(),
            Content::Elements(elements) => elements.iter().flat_map(Self::to_der).collect(),
        };
        [&[self.tag][..], &length(content.len()), &content].concat()
    }

    /// With indefinite lengths wherever BER allows one.
    pub(crate) fn to_ber(&self) -> Vec<u8> {
        let Content::Elements(elements) = &self.content else {
            return self.to_der();
        };
        let content: Vec<u8> = elements.iter().flat_map(Self::to_ber).collect();
        [&[self.tag, 0x80][..], &content, &[0, 0]].concat()
    }

    /// How many elements there are, this one and those inside.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.content {
            Content::Octets(_) => 0,
            Content::Elements(elements) => elements.iter().map(Self::count).sum(),
        }
    }

    /// The elements inside; of a primitive one none.
    pub(crate) fn children(&mut self) -> &mut [Element] {
        match &mut self.content {
            Content::Octets(_) => &mut [],
            Content::Elements(elements) => elements,
        }
    }

    /// Element number `index` in pre-order.
    pub(crate) fn nth(&mut self, index: usize) -> &mut Self {
        if index == 0 {
            return self;
        }
        let mut index = index - 1;
        for child in self.children() {
            let count = child.count();
            if index < count {
                return child.nth(index);
            }
            index -= count;
        }
        panic!("no element with this number")
    }

    /// The element reached by taking child after child by number.
    pub(crate) fn at(&mut self, path: &[usize]) -> &mut Self {
        path.iter()
            .fold(self, |element, index| &mut element.children()[*index])
    }

    /// Changes one element.
    pub(crate) fn change(&mut self, change: &Change) {
        let chosen = self.nth(change.place.index(self.count()));
        match (&change.kind, &mut chosen.content) {
            (ChangeKind::Tag(tag), _) => chosen.tag = *tag,
            (ChangeKind::Octets(octets), Content::Octets(content)) => content.clone_from(octets),
            (ChangeKind::Octets(octets), Content::Elements(elements)) => {
                elements.push(primitive(0x04, octets.clone()));
            }
            (ChangeKind::Remove(index), Content::Elements(elements)) if !elements.is_empty() => {
                elements.remove(index.index(elements.len()));
            }
            (ChangeKind::Repeat(index), Content::Elements(elements)) if !elements.is_empty() => {
                let place = index.index(elements.len());
                elements.insert(place, elements[place].clone());
            }
            (ChangeKind::Swap(a, b), Content::Elements(elements)) if !elements.is_empty() => {
                let count = elements.len();
                elements.swap(a.index(count), b.index(count));
            }
            (ChangeKind::Wrap(tag), _) => *chosen = constructed(*tag, [chosen.clone()]),
            _ => chosen.content = Content::Octets(Vec::new()),
        }
    }
}

/// A change of one element; lengths are made to fit again by encoding.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    place: Index,
    kind: ChangeKind,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Tag(u8),
    Octets(Vec<u8>),
    Remove(Index),
    Repeat(Index),
    Swap(Index, Index),
    Wrap(u8),
    Empty,
}

/// Any change.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let tag = prop::sample::select(vec![
        0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x13, 0x17, 0x18, 0x30, 0x31, 0x24, 0xa0, 0xa1,
        0xa2, 0xa3, 0x80, 0x81, 0x82,
    ]);
    let kind = prop_oneof![
        prop_oneof![tag.clone(), any::<u8>()].prop_map(ChangeKind::Tag),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(ChangeKind::Octets),
        any::<Index>().prop_map(ChangeKind::Remove),
        any::<Index>().prop_map(ChangeKind::Repeat),
        any::<(Index, Index)>().prop_map(|(a, b)| ChangeKind::Swap(a, b)),
        tag.prop_map(ChangeKind::Wrap),
        Just(ChangeKind::Empty),
    ];
    (any::<Index>(), kind).prop_map(|(place, kind)| Change { place, kind })
}
