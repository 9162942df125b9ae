//! Requests that must not pass, inside messages that are right, each with its own reason.

use chancery_message::Unproved;
use chancery_protocol::refusal::Refusal;

use crate::asn1::{
    Encoding, Tree, attribute, bit_string, integer, null, octet_string, oid, printable, sequence,
    set, utf8,
};
use crate::builder::{
    CERT_EXTENSIONS, CHALLENGE, CHALLENGE_PASSWORD, EXTENSION_REQUEST, Message, Request,
    SUBJECT_ALT_NAME, challenge, dns, extension, name, sans,
};
use crate::keys::{DEVICE, Digest, Key, P256, P384, STRANGER};
use crate::refused_messages::refusal_of;
use crate::run::{Outcome, run, run_plaintext};

/// The reason why the usual message around this request is refused.
fn refusal_of_request(request: &Request<'_>) -> Refusal {
    refusal_of(&Message::around(request.encode()))
}

fn refusal_of_attributes(attributes: Vec<Tree>) -> Refusal {
    refusal_of_request(&Request {
        attributes: Some(attributes),
        ..Request::new(&DEVICE)
    })
}

#[test]
fn requests_of_another_shape() {
    let indefinite = Request {
        encoding: Encoding::Indefinite,
        ..Request::new(&DEVICE)
    };
    let version = Request {
        version: integer(1),
        ..Request::new(&DEVICE)
    };
    let behind = Request {
        behind: vec![challenge(utf8(CHALLENGE))],
        ..Request::new(&DEVICE)
    };
    let bits = Request {
        signature: Some(Tree::Primitive(0x03, vec![1, 0])),
        ..Request::new(&DEVICE)
    };
    for request in [indefinite, version, behind, bits] {
        assert_eq!(refusal_of_request(&request), Refusal::Plaintext);
    }
    let twice = || attribute("1.2.3.4", [integer(1)]);
    assert_eq!(
        refusal_of_attributes(vec![twice(), twice()]),
        Refusal::Plaintext
    );
}

#[test]
fn requests_without_possession_of_their_key() {
    let stolen = Request {
        spki: Tree::Fixed(STRANGER.spki.clone()),
        ..Request::new(&DEVICE)
    };
    assert_eq!(refusal_of_request(&stolen), Refusal::ProofOfPossession);
    let nothing = Request {
        signature: Some(bit_string(&[])),
        ..Request::new(&DEVICE)
    };
    assert_eq!(refusal_of_request(&nothing), Refusal::ProofOfPossession);
    for algorithm in [
        "1.2.840.113549.1.1.5",
        "1.2.840.113549.1.1.1",
        "1.2.840.10045.4.3.2",
        Digest::Sha512.with_rsa(),
    ] {
        let request = Request {
            algorithm: sequence([oid(algorithm), null()]),
            ..Request::new(&DEVICE)
        };
        assert_eq!(
            refusal_of_request(&request),
            Refusal::ProofOfPossession,
            "{algorithm}"
        );
    }
}

#[test]
fn requests_of_another_key_than_the_signers() {
    for key in [&*STRANGER, &*P256, &*P384] {
        let request = Request::new(key);
        assert_eq!(refusal_of_request(&request), Refusal::SignerMismatch);
    }
}

#[test]
fn keys_of_another_form() {
    let keys = [
        // Without parameters, with others, with a sign, with a needless zero, with a third number.
        sequence([
            sequence([oid("1.2.840.113549.1.1.1")]),
            bit_string(&rsa_key(&[0, 0xc1], &[1, 0, 1])),
        ]),
        sequence([
            sequence([oid("1.2.840.113549.1.1.1"), integer(1)]),
            bit_string(&rsa_key(&[0, 0xc1], &[1, 0, 1])),
        ]),
        rsa_spki_of(&rsa_key(&[0xc1; 256], &[1, 0, 1])),
        rsa_spki_of(&rsa_key(&[&[0, 0][..], &[0xc1; 256]].concat(), &[1, 0, 1])),
        rsa_spki_of(&rsa_key(&[&[0][..], &[0xc1; 256]].concat(), &[0, 1])),
        rsa_spki_of(&rsa_key(&[0], &[3])),
        rsa_spki_of(&sequence([integer(3), integer(3), integer(3)]).der()),
        rsa_spki_of(&printable("key").der()),
        // Too small and too large to verify anything with.
        rsa_spki(&[0xc1; 128]),
        rsa_spki(&[0xc1; 1025]),
        // A compressed point, a short one, parameters in place of a name, other curves.
        ec_spki(&P256, |point| point[0] = 3),
        ec_spki(&P256, |point| point.truncate(64)),
        sequence([
            sequence([oid("1.2.840.10045.2.1"), sequence([])]),
            bit_string(&[4; 65]),
        ]),
        sequence([
            sequence([oid("1.2.840.10045.2.1"), oid("1.3.132.0.35")]),
            bit_string(&[4; 133]),
        ]),
        sequence([sequence([oid("1.3.101.112")]), bit_string(&[1; 32])]),
    ];
    for spki in keys {
        let request = Request {
            spki: spki.clone(),
            ..Request::new(&DEVICE)
        };
        assert_eq!(
            refusal_of_request(&request),
            Refusal::KeyQuality,
            "{spki:?}"
        );
    }
    // A point beside the curve cannot have signed.
    let beside = Request {
        spki: ec_spki(&P256, |point| point[64] ^= 1),
        ..Request::new(&P256)
    };
    assert_eq!(refusal_of_request(&beside), Refusal::ProofOfPossession);
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let number = |content: &[u8]| Tree::Primitive(0x02, content.to_vec());
    sequence([number(modulus), number(exponent)]).der()
}

fn rsa_spki_of(key: &[u8]) -> Tree {
    sequence([
        sequence([oid("1.2.840.113549.1.1.1"), null()]),
        bit_string(key),
    ])
}

pub(crate) fn rsa_spki(modulus: &[u8]) -> Tree {
    rsa_spki_of(&rsa_key(&[&[0], modulus].concat(), &[1, 0, 1]))
}

fn ec_spki(key: &Key, change: impl Fn(&mut Vec<u8>)) -> Tree {
    let mut point = key.spki[26..].to_vec();
    change(&mut point);
    sequence([
        sequence([oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")]),
        bit_string(&point),
    ])
}

#[test]
fn subjects_that_are_not_carried() {
    let pair = |kind: &str, value: Tree| sequence([oid(kind), value]);
    let many = vec![set([pair("2.5.4.3", utf8("a"))]); 65];
    let subjects = [
        name(&[("2.5.4.5.1", "unknown")]),
        name(&[("2.5.4.3", "ok"), ("1.2.3", "unknown")]),
        name(&[("2.5.4.3", "")]),
        name(&[("2.5.4.3", &"a".repeat(65))]),
        name(&[("2.5.4.3", " padded")]),
        name(&[("2.5.4.3", "nul\0")]),
        sequence([set([])]),
        sequence([set([pair("2.5.4.3", integer(1))])]),
        sequence([set([pair("2.5.4.3", octet_string("a"))])]),
        sequence([set([pair("2.5.4.3", Tree::Primitive(0x14, vec![0xfc]))])]),
        Tree::Constructed(0x30, many),
    ];
    for subject in subjects {
        let request = Request {
            subject: subject.clone(),
            ..Request::new(&DEVICE)
        };
        assert_eq!(refusal_of_request(&request), Refusal::Names, "{subject:?}");
    }
}

#[test]
fn alternative_names_that_are_not_carried() {
    let upn = Tree::Constructed(
        0xa0,
        vec![
            oid("1.3.6.1.4.1.311.20.2.3"),
            Tree::Constructed(0xa0, vec![utf8("a@b.example")]),
        ],
    );
    let names = [
        vec![upn.clone()],
        vec![dns("a.example"), upn],
        vec![Tree::Constructed(0xa4, vec![name(&[])])],
        vec![Tree::Primitive(0x88, vec![1, 2])],
        vec![Tree::Primitive(0x87, vec![1, 2, 3])],
        vec![Tree::Primitive(0x87, vec![192, 0, 2, 0, 255, 255, 255, 0])],
        vec![dns("*.example")],
        vec![dns("")],
        vec![Tree::Primitive(0x82, vec![0xff])],
        vec![Tree::Constructed(
            0xa2,
            vec![Tree::Primitive(0x16, b"a.example".to_vec())],
        )],
        vec![utf8("a.example")],
        vec![dns("a.example"); 65],
        vec![],
    ];
    for names in names {
        assert_eq!(
            refusal_of_attributes(vec![sans(EXTENSION_REQUEST, names.clone())]),
            Refusal::Names,
            "{names:?}"
        );
    }
}

#[test]
fn alternative_names_that_are_no_sequence() {
    for value in [set([dns("a.example")]), dns("a.example")] {
        let extension = extension(SUBJECT_ALT_NAME, value);
        let request = attribute(EXTENSION_REQUEST, [sequence([extension])]);
        assert_eq!(refusal_of_attributes(vec![request]), Refusal::Names);
    }
}

#[test]
fn alternative_names_that_stand_twice() {
    let names = || Tree::Constructed(0x30, vec![dns("a.example")]);
    let one = || extension(SUBJECT_ALT_NAME, names());
    let twice = attribute(EXTENSION_REQUEST, [sequence([one(), one()])]);
    let two_values = attribute(EXTENSION_REQUEST, [sequence([one()]), sequence([one()])]);
    let request = || attribute(EXTENSION_REQUEST, [sequence([one()])]);
    let of_microsoft = || attribute(CERT_EXTENSIONS, [sequence([one()])]);
    let no_value = attribute(EXTENSION_REQUEST, []);
    for attributes in [
        vec![twice],
        vec![two_values],
        vec![no_value],
        vec![request(), request()],
        vec![request(), of_microsoft()],
        vec![of_microsoft(), of_microsoft()],
    ] {
        assert_eq!(refusal_of_attributes(attributes), Refusal::Names);
    }
}

/// Of what the parser would not let through, the holder thinks the same.
#[test]
fn requests_that_a_child_let_through() {
    let usual = Request::new(&DEVICE);
    let mut behind = Request::new(&DEVICE);
    behind.behind = vec![challenge(utf8(CHALLENGE))];
    let mut outside = Tree::parse(&usual.encode());
    outside.children().push(challenge(utf8(CHALLENGE)));
    for plaintext in [behind.encode(), outside.der()] {
        assert_eq!(
            run_plaintext(&plaintext),
            Outcome::Refused(Refusal::Plaintext)
        );
    }
    for kind in [EXTENSION_REQUEST, CERT_EXTENSIONS] {
        let long = sequence([oid("2.5.29.15"), octet_string([]), null()]);
        for value in [
            printable("text"),
            sequence([printable("text")]),
            sequence([long]),
        ] {
            let mut request = Request::new(&DEVICE);
            request.attributes = Some(vec![attribute(kind, [value])]);
            let outcome = run_plaintext(&request.encode());
            assert_eq!(outcome, Outcome::Refused(Refusal::Names));
        }
    }
    // The value of a subjectAltName that the child left closed.
    assert_eq!(
        run_plaintext(&usual.encode()),
        Outcome::Unproved(Unproved::Unopened)
    );
}

#[test]
fn challenges_that_cannot_be_read() {
    let one = || challenge(utf8(CHALLENGE));
    for attributes in [
        vec![one(), one()],
        vec![attribute(CHALLENGE_PASSWORD, [utf8("a"), utf8("b")])],
        vec![attribute(CHALLENGE_PASSWORD, [])],
        vec![challenge(integer(1))],
        vec![challenge(Tree::Primitive(0x0c, vec![0xff]))],
        vec![challenge(Tree::Primitive(0x1e, vec![0]))],
        vec![challenge(utf8(&"x".repeat(16 * 1024 + 1)))],
    ] {
        assert_eq!(refusal_of_attributes(attributes), Refusal::ChallengeMissing);
    }
}

/// The same field in a place that the request's signature does not cover, or that is no attribute
/// of the request.
#[test]
fn a_challenge_in_another_place_is_not_found() {
    let hidden = attribute("1.2.3.4", [challenge(utf8(CHALLENGE))]);
    let request = Request {
        attributes: Some(vec![hidden]),
        ..Request::new(&DEVICE)
    };
    let opened = run(&Message::around(request.encode()).encode()).opened();
    assert_eq!(opened.challenge, None);

    // Behind the signature, and among the parameters of its algorithm.
    let mut outside = Tree::parse(&request.encode());
    outside.children().push(challenge(utf8(CHALLENGE)));
    assert_eq!(
        refusal_of(&Message::around(outside.der())),
        Refusal::Plaintext
    );
    let parameters = Request {
        algorithm: sequence([oid(Digest::Sha256.with_rsa()), challenge(utf8(CHALLENGE))]),
        ..Request::new(&DEVICE)
    };
    assert_eq!(refusal_of_request(&parameters), Refusal::ProofOfPossession);
}
