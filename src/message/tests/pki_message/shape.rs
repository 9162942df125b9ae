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
    // The issuer's name, which is only compared; the parameters of rsaEncryption may be absent.
    let name: [Place; 3] = [
        vec![1, 0, 1, 0, 1, 0],
        vec![1, 0, 1, 0, 1, 0, 0],
        vec![1, 0, 1, 0, 1, 0, 0, 0],
    ];
    assert_eq!(more, name);
    assert_eq!(less, [&name[..], &[vec![1, 0, 1, 0, 2]]].concat());
}

#[test]
fn elements_of_a_message() {
    let message = Message::usual();
    let tree = Tree::parse(&message.encode());
    let content = message.content.unwrap();
    let (more, less) = tolerated(&tree, |changed| run_grammarless(&changed.der(), &content));
    // digestAlgorithms, which nobody reads, and what a self-signed certificate says but nobody
    // believes: its version, both signature algorithms, validity.
    let unread: [Place; 6] = [
        vec![1, 0, 1],
        vec![1, 0, 1, 0],
        vec![1, 0, 3, 0, 0, 0],
        vec![1, 0, 3, 0, 0, 2],
        vec![1, 0, 3, 0, 0, 4],
        vec![1, 0, 3, 0, 1],
    ];
    // The parameters of digestAlgorithm and signatureAlgorithm may be absent.
    let parameters = [vec![1, 0, 4, 0, 2], vec![1, 0, 4, 0, 4]];
    assert_eq!(more, unread);
    assert_eq!(less, [&unread[..], &parameters].concat());
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
    // There may be no attributes, none in their set, and one name less.
    assert_eq!(more, Vec::<Place>::new());
    assert_eq!(less, [vec![], vec![1], vec![3]]);
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
