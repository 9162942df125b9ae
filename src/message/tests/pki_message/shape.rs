//! The grammars, without the parser in front: every element that is too much or too little, in
//! tables of a child that lets everything through.

use crate::asn1::{Tree, null, octet_string, sequence, utf8};
use crate::builder::{Envelope, Message, Request};
use crate::keys::DEVICE;
use crate::run::{Outcome, run_grammarless, run_plaintext};

/// A place in a tree: the index of a child at each level.
type Place = Vec<usize>;

/// The places of all constructed elements.
fn places(tree: &Tree) -> Vec<Place> {
    let Tree::Constructed(_, children) = tree else {
        return Vec::new();
    };
    let mut found = vec![Vec::new()];
    for (index, child) in children.iter().enumerate() {
        for mut place in places(child) {
            place.insert(0, index);
            found.push(place);
        }
    }
    found
}

fn at<'t>(tree: &'t mut Tree, place: &[usize]) -> &'t mut Vec<Tree> {
    place
        .iter()
        .fold(tree, |tree, index| &mut tree.children()[*index])
        .children()
}

/// Adds a NULL to each constructed element in turn, and takes each last child away; returns the
/// places where the outcome was still an opened message.
fn tolerated(tree: &Tree, judge: impl Fn(&Tree) -> Outcome) -> (Vec<Place>, Vec<Place>) {
    let (mut more, mut less) = (Vec::new(), Vec::new());
    for place in places(tree) {
        let mut changed = tree.clone();
        at(&mut changed, &place).push(null());
        if matches!(judge(&changed), Outcome::Opened(_)) {
            more.push(place.clone());
        }
        let mut changed = tree.clone();
        if at(&mut changed, &place).pop().is_some() && matches!(judge(&changed), Outcome::Opened(_))
        {
            less.push(place);
        }
    }
    (more, less)
}

#[test]
fn elements_of_an_envelope() {
    let envelope = Envelope::new(Request::new(&DEVICE).encode());
    let tree = Tree::parse(&envelope.encode());
    let (more, less) = tolerated(&tree, |changed| {
        let content = changed.der();
        run_grammarless(&Message::new(&DEVICE, content.clone()).encode(), &content)
    });
    let none = Vec::<Place>::new();
    println!("{more:?} {less:?}");
    assert_eq!((more, less), (none.clone(), none));
}

#[test]
fn elements_of_a_message() {
    let message = Message::usual();
    let tree = Tree::parse(&message.encode());
    let content = message.content.unwrap();
    let (more, less) = tolerated(&tree, |changed| run_grammarless(&changed.der(), &content));
    let none = Vec::<Place>::new();
    println!("{more:?} {less:?}");
    assert_eq!((more, less), (none.clone(), none));
}

#[test]
fn elements_of_a_request() {
    let mut request = Request::new(&DEVICE);
    // Without a name that the child would have to open.
    request.attributes.as_mut().unwrap().truncate(1);
    let mut tree = Tree::parse(&request.encode());
    let info = tree.children()[0].clone();
    let (more, less) = tolerated(&info, |changed| {
        let octets = changed.der();
        let signature = DEVICE.sign(request.digest, &octets);
        let plaintext = sequence([
            changed.clone(),
            request.algorithm.clone(),
            crate::asn1::bit_string(&signature),
        ]);
        run_plaintext(&plaintext.der())
    });
    let none = Vec::<Place>::new();
    println!("{more:?} {less:?}");
    assert_eq!((more, less), (none.clone(), none));
}

#[test]
fn pieces_of_strings_are_primitive_octet_strings() {
    let usual = Message::usual();
    let content = usual.content.clone().unwrap();
    let with = |pieces: Vec<Tree>| {
        let mut tree = Tree::parse(&usual.encode());
        at(&mut tree, &[1, 0, 2, 1])[0] = Tree::Constructed(0x24, pieces);
        run_grammarless(&tree.der(), &content)
    };
    let (front, back) = content.split_at(100);
    with(vec![octet_string(front), octet_string(back)]).opened();
    let text = Tree::Primitive(0x0c, back.to_vec());
    assert_eq!(with(vec![octet_string(front), text]), Outcome::Malformed);
    let nested = Tree::Constructed(0x24, vec![octet_string(back)]);
    assert_eq!(with(vec![octet_string(front), nested]), Outcome::Malformed);

    let mut envelope = Tree::parse(&content);
    at(&mut envelope, &[1, 0, 2])[2] = Tree::Constructed(0xa0, vec![utf8("piece")]);
    let content = envelope.der();
    let message = Message::new(&DEVICE, content.clone()).encode();
    assert_eq!(run_grammarless(&message, &content), Outcome::Malformed);
}
