//! Messages that must not pass, each with its own reason.

use chancery_message::{SignedMessage, verify_signature};
use chancery_protocol::refusal::Refusal;
use chancery_protocol::wire::Secret;

use crate::asn1::{
    Encoding, Tree, attribute, bit_string, integer, null, octet_string, oid, printable, sequence,
    utf8,
};
use crate::builder::{
    CONTENT_TYPE, Certificate, Envelope, ID_DATA, ID_ENVELOPED_DATA, ID_SIGNED_DATA,
    MESSAGE_DIGEST, MESSAGE_TYPE, Message, RSA_ENCRYPTION, Request, SENDER_NONCE, TRANSACTION_ID,
    name, recipient,
};
use crate::keys::{DEVICE, Digest, Key, P256, P384, STRANGER};
use crate::refused_requests::rsa_spki;
use crate::run::{Outcome, message_tables, run, run_with_key, run_with_tables, usual_key};

pub(crate) fn refusal_of(message: &Message<'_>) -> Refusal {
    match run(&message.encode()) {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn is_malformed(message: &Message<'_>) -> bool {
    run(&message.encode()) == Outcome::Malformed
}

#[test]
fn every_message_type_but_one() {
    let mut texts: Vec<String> = (0..=300u32)
        .filter(|n| *n != 19)
        .map(|n| n.to_string())
        .collect();
    texts.extend(["", "019", "19 ", " 19", "+19", "19\0", "x"].map(String::from));
    for text in texts {
        let message =
            Message::usual().replace(MESSAGE_TYPE, attribute(MESSAGE_TYPE, [printable(&text)]));
        assert_eq!(refusal_of(&message), Refusal::MessageType, "{text:?}");
    }
    let number = attribute(MESSAGE_TYPE, [integer(19)]);
    let message = Message::usual().replace(MESSAGE_TYPE, number);
    assert_eq!(refusal_of(&message), Refusal::MessageType);
}

#[test]
fn messages_that_nobody_could_be_answered_for() {
    let cases = [
        Message::usual().without(TRANSACTION_ID),
        Message::usual().without(SENDER_NONCE),
        Message::usual().replace(TRANSACTION_ID, attribute(TRANSACTION_ID, [printable("")])),
        Message::usual().replace(TRANSACTION_ID, attribute(TRANSACTION_ID, [])),
        Message::usual().replace(TRANSACTION_ID, attribute(TRANSACTION_ID, [integer(1)])),
        Message::usual().replace(
            TRANSACTION_ID,
            attribute(TRANSACTION_ID, [printable(&"1".repeat(257))]),
        ),
        Message::usual().replace(
            TRANSACTION_ID,
            attribute(TRANSACTION_ID, [printable("1"), printable("1")]),
        ),
        Message::usual().replace(SENDER_NONCE, attribute(SENDER_NONCE, [octet_string([])])),
        Message::usual().replace(SENDER_NONCE, attribute(SENDER_NONCE, [printable("nonce")])),
        Message::usual().replace(
            SENDER_NONCE,
            attribute(SENDER_NONCE, [octet_string([1; 65])]),
        ),
    ];
    for message in cases {
        assert!(is_malformed(&message));
    }
    for kind in [TRANSACTION_ID, SENDER_NONCE] {
        let mut message = Message::usual();
        let doubled = message
            .attributes
            .iter()
            .find(|a| matches!(a, Tree::Constructed(_, f) if f[0] == oid(kind)))
            .unwrap()
            .clone();
        message.attributes.push(doubled);
        assert!(is_malformed(&message), "{kind}");
    }
}

#[test]
fn messages_without_one_known_signer() {
    let mut two = Message::usual();
    two.more_signer_infos = vec![two.signer_info()];
    assert!(is_malformed(&two));

    let mut nobody = Message::usual();
    nobody.certificates.clear();
    assert!(is_malformed(&nobody));

    for (issuer, serial) in [("myself", 2), ("another", 1)] {
        let mut somebody_else = Message::usual();
        somebody_else.sid = sequence([name(&[("2.5.4.3", issuer)]), integer(serial)]);
        assert!(is_malformed(&somebody_else));
    }

    // Two keys under one name: whose counts?
    let mut ambiguous = Message::usual();
    ambiguous
        .certificates
        .push(Certificate::new(&STRANGER).encode(Encoding::Der));
    assert!(is_malformed(&ambiguous));

    let mut indefinite = Message::usual();
    indefinite.certificates = vec![Certificate::new(&DEVICE).encode(Encoding::Indefinite)];
    assert!(is_malformed(&indefinite));
}

#[test]
fn versions_that_nobody_assigned() {
    let with = |change: &dyn Fn(&mut Vec<Tree>)| {
        let mut message = Tree::parse(&Message::usual().encode());
        change(message.children()[1].children()[0].children());
        run(&message.der())
    };
    for version in [0, 2, 4, 5] {
        let signed_data = with(&|fields| fields[0] = integer(version));
        assert_eq!(signed_data, Outcome::Malformed, "{version}");
        let signer_info = with(&|fields| fields[4].children()[0].children()[0] = integer(version));
        assert_eq!(signer_info, Outcome::Malformed, "{version}");
    }
    let long = with(&|fields| fields[0] = Tree::Primitive(2, vec![0, 1]));
    assert_eq!(long, Outcome::Malformed);
    with(&|fields| fields[0] = integer(3)).opened();
    with(&|fields| fields[4].children()[0].children()[0] = integer(3)).opened();

    let mut envelope = Envelope::new(Request::new(&DEVICE).encode()).tree();
    envelope.children()[1].children()[0].children()[0] = integer(1);
    assert!(is_malformed(&Message::new(&DEVICE, envelope.der())));
}

/// The parser would not let these through. The tables are true for other octets of the same shape.
#[test]
fn contents_of_another_type() {
    let message = Message::usual().encode();
    let tables = message_tables(&message).unwrap();
    for kind in [ID_SIGNED_DATA, ID_ENVELOPED_DATA] {
        let kind = oid(kind).der();
        let place = message.windows(kind.len()).position(|w| w == kind).unwrap();
        let mut changed = message.clone();
        changed[place + kind.len() - 1] ^= 0x10;
        assert_eq!(
            run_with_tables(&changed, &tables, &usual_key()),
            Outcome::Malformed
        );
    }
}

#[test]
fn algorithms_that_are_not_allowed() {
    let digests = [
        "1.3.14.3.2.26",
        "1.2.840.113549.2.5",
        "2.16.840.1.101.3.4.2.4",
    ];
    for digest in digests {
        let mut message = Message::usual();
        message.digest_algorithm = sequence([oid(digest), null()]);
        assert_eq!(refusal_of(&message), Refusal::Algorithm, "{digest}");
    }
    let signatures = [
        Digest::Sha384.with_rsa(),
        "1.2.840.113549.1.1.5",
        "1.2.840.113549.1.1.10",
        "1.2.840.10045.4.3.2",
        "1.2.3",
    ];
    for signature in signatures {
        let mut message = Message::usual();
        message.signature_algorithm = sequence([oid(signature), null()]);
        assert_eq!(refusal_of(&message), Refusal::Algorithm, "{signature}");
    }
    for signature in [Digest::Sha256.with_rsa(), RSA_ENCRYPTION] {
        let mut parameters = Message::usual();
        parameters.signature_algorithm = sequence([oid(signature), integer(1)]);
        assert_eq!(refusal_of(&parameters), Refusal::Algorithm, "{signature}");
    }
    let mut parameters = Message::usual();
    parameters.digest_algorithm = sequence([oid(Digest::Sha256.oid()), integer(1)]);
    assert_eq!(refusal_of(&parameters), Refusal::Algorithm);
}

#[test]
fn content_encryption_that_is_not_allowed() {
    let vector = || octet_string([0xa5; 16]);
    let algorithms = [
        sequence([oid("1.2.840.113549.3.7"), octet_string([1; 8])]),
        sequence([oid("1.3.14.3.2.7"), octet_string([1; 8])]),
        sequence([oid("2.16.840.1.101.3.4.1.6"), vector()]),
        sequence([oid("2.16.840.1.101.3.4.1.2"), octet_string([1; 15])]),
        sequence([oid("2.16.840.1.101.3.4.1.2"), null()]),
        sequence([oid("2.16.840.1.101.3.4.1.2"), utf8("sixteen octets..")]),
        sequence([oid("2.16.840.1.101.3.4.1.2")]),
    ];
    for algorithm in algorithms {
        let envelope = Envelope {
            algorithm: Some(algorithm),
            ..Envelope::new(Request::new(&DEVICE).encode())
        };
        let message = Message::new(&DEVICE, envelope.encode());
        assert_eq!(refusal_of(&message), Refusal::Algorithm);
    }
    let envelope = Envelope {
        content_type: ID_SIGNED_DATA,
        ..Envelope::new(Request::new(&DEVICE).encode())
    };
    let message = Message::new(&DEVICE, envelope.encode());
    assert_eq!(refusal_of(&message), Refusal::Algorithm);
}

#[test]
fn envelopes_for_nobody() {
    let with = |recipients| {
        let envelope = Envelope {
            recipients,
            ..Envelope::new(Request::new(&DEVICE).encode())
        };
        refusal_of(&Message::new(&DEVICE, envelope.encode()))
    };
    assert_eq!(with(vec![]), Refusal::Recipient);
    let password = Tree::Constructed(0xa3, vec![integer(0)]);
    assert_eq!(with(vec![password]), Refusal::Algorithm);

    let mut absent = Message::usual();
    absent.content = None;
    assert_eq!(refusal_of(&absent), Refusal::Recipient);
}

#[test]
fn recipients_without_their_fields() {
    for field in 0..4 {
        let mut info = recipient(sequence([oid("1.2.840.113549.1.1.1"), null()]));
        info.children().remove(field);
        let envelope = Envelope {
            recipients: vec![info],
            ..Envelope::new(Request::new(&DEVICE).encode())
        };
        assert!(
            is_malformed(&Message::new(&DEVICE, envelope.encode())),
            "{field}"
        );
    }
}

#[test]
fn signer_keys_that_are_not_allowed() {
    for key in [&*P256, &*P384] {
        let message = Message::new(key, Envelope::new(Request::new(key).encode()).encode());
        assert_eq!(refusal_of(&message), Refusal::SignerKey);
    }
    let with = |spki: Tree| {
        let certificate = Certificate {
            spki,
            ..Certificate::new(&DEVICE)
        };
        let mut message = Message::usual();
        message.certificates = vec![certificate.encode(Encoding::Der)];
        refusal_of(&message)
    };
    assert_eq!(with(rsa_spki(&[0xc1; 128])), Refusal::Algorithm);
    assert_eq!(with(rsa_spki(&[0xc1; 1025])), Refusal::Algorithm);
    assert_eq!(
        with(sequence([
            sequence([oid("1.3.101.112")]),
            bit_string(&[1; 32])
        ])),
        Refusal::Algorithm
    );
}

#[test]
fn signers_with_a_certificate_of_somebody() {
    let certificate = Certificate {
        issuer: name(&[("2.5.4.3", "Issuing")]),
        ..Certificate::new(&DEVICE)
    };
    let mut message = Message::usual();
    message.certificates = vec![certificate.encode(Encoding::Der)];
    message.sid = certificate.sid();
    assert_eq!(refusal_of(&message), Refusal::Signer);
}

#[test]
fn signed_attributes_that_do_not_say_enough() {
    let oid_of_data = || oid(ID_DATA);
    let untyped = octet_string(&oid_of_data().der()[2..]);
    let cases = [
        Message::usual().without(CONTENT_TYPE),
        Message::usual().without(MESSAGE_DIGEST),
        Message::usual().without(MESSAGE_TYPE),
        Message::usual().replace(CONTENT_TYPE, attribute(CONTENT_TYPE, [oid(ID_SIGNED_DATA)])),
        Message::usual().replace(CONTENT_TYPE, attribute(CONTENT_TYPE, [printable("data")])),
        Message::usual().replace(CONTENT_TYPE, attribute(CONTENT_TYPE, [untyped])),
        Message::usual().replace(
            CONTENT_TYPE,
            attribute(CONTENT_TYPE, [oid_of_data(), oid_of_data()]),
        ),
        Message::usual().replace(MESSAGE_DIGEST, attribute(MESSAGE_DIGEST, [])),
        Message::usual().replace(
            MESSAGE_TYPE,
            attribute(MESSAGE_TYPE, [printable("19"), printable("19")]),
        ),
    ];
    for message in cases {
        assert_eq!(refusal_of(&message), Refusal::SignedAttributes);
    }
    for index in 0..3 {
        let mut message = Message::usual();
        message.attributes.push(message.attributes[index].clone());
        assert_eq!(refusal_of(&message), Refusal::SignedAttributes, "{index}");
    }
    let mut other_content = Message::usual();
    other_content.content_type = ID_SIGNED_DATA;
    assert_eq!(refusal_of(&other_content), Refusal::SignedAttributes);

    let mut indefinite = Message::usual();
    indefinite.attributes_encoding = Encoding::Indefinite;
    assert_eq!(refusal_of(&indefinite), Refusal::SignedAttributes);

    let mut broken = Message::usual();
    broken.attributes.push(integer(1));
    assert!(is_malformed(&broken));
}

#[test]
fn a_digest_of_something_else() {
    let mut message = Message::usual();
    let other = Request {
        subject: name(&[("2.5.4.3", "other")]),
        ..Request::new(&DEVICE)
    };
    message.content = Some(Envelope::new(other.encode()).encode());
    assert_eq!(refusal_of(&message), Refusal::MessageDigest);

    let short = attribute(MESSAGE_DIGEST, [octet_string([0; 31])]);
    let message = Message::usual().replace(MESSAGE_DIGEST, short);
    assert_eq!(refusal_of(&message), Refusal::MessageDigest);
}

#[test]
fn signatures_of_something_or_somebody_else() {
    let mut stolen = Message::usual();
    stolen.signature = Some(Message::usual().key.sign(Digest::Sha256, b"something else"));
    assert_eq!(refusal_of(&stolen), Refusal::Signature);

    let mut empty = Message::usual();
    empty.signature = Some(Vec::new());
    assert_eq!(refusal_of(&empty), Refusal::Signature);

    // The certificate of another key under the same name.
    let mut replaced = Message::usual();
    replaced.certificates = vec![Certificate::new(&STRANGER).encode(Encoding::Der)];
    assert_eq!(refusal_of(&replaced), Refusal::Signature);

    // Signed with the tag [0], as it was sent, instead of that of a SET.
    let mut untagged = Message::usual();
    let attributes = Tree::Constructed(0xa0, untagged.attributes.clone()).der();
    untagged.signature = Some(DEVICE.sign(Digest::Sha256, &attributes));
    assert_eq!(refusal_of(&untagged), Refusal::Signature);
}

#[test]
fn plaintexts_that_are_no_request() {
    let message = Message::usual().encode();
    for key in [vec![0x5b; 16], vec![0x5a; 15], vec![], vec![0x5a; 32]] {
        assert_eq!(
            run_with_key(&message, &Secret::new(key)),
            Outcome::Refused(Refusal::Plaintext)
        );
    }
    for plaintext in [vec![], b"hello".to_vec(), sequence([]).der()] {
        assert_eq!(refusal_of(&Message::around(plaintext)), Refusal::Plaintext);
    }
    let mut trailing = Request::new(&DEVICE).encode();
    trailing.push(0);
    assert_eq!(refusal_of(&Message::around(trailing)), Refusal::Plaintext);
}

/// A request without padding that happens to fill its blocks reads well, and is refused for the
/// padding all the same.
#[test]
fn a_plaintext_without_padding() {
    let mut filler = 0;
    let blocks = loop {
        let request = Request {
            subject: name(&[("2.5.4.3", &"a".repeat(filler + 1))]),
            ..Request::new(&DEVICE)
        }
        .encode();
        let ends_like_padding = request.last().is_some_and(|last| (1..=16).contains(last));
        if request.len().is_multiple_of(16) && !ends_like_padding {
            break request;
        }
        filler = (filler + 1) % 60;
    };
    let envelope = |blocks: Option<Vec<u8>>, plaintext: Vec<u8>| {
        let envelope = Envelope {
            blocks,
            ..Envelope::new(plaintext)
        };
        run(&Message::new(&DEVICE, envelope.encode()).encode())
    };
    envelope(None, blocks.clone()).opened();
    assert_eq!(
        envelope(Some(blocks), Vec::new()),
        Outcome::Refused(Refusal::Plaintext)
    );
}

#[test]
fn an_encrypted_content_that_ends_inside_a_block() {
    for length in [0, 1, 15, 17, 33] {
        let mut tree = Envelope::new(Request::new(&DEVICE).encode()).tree();
        let content = tree.children()[1].children()[0].children()[2].children();
        content[2] = Tree::Primitive(0x80, vec![7; length]);
        let message = Message::new(&DEVICE, tree.der());
        assert_eq!(refusal_of(&message), Refusal::Plaintext, "{length}");
    }
}

#[test]
fn a_refused_message_can_be_answered() {
    let message = Message::usual()
        .replace(MESSAGE_TYPE, attribute(MESSAGE_TYPE, [printable("17")]))
        .encode();
    let tables = message_tables(&message).unwrap();
    let read = SignedMessage::read(&message, &tables[0], Some(&tables[1])).unwrap();
    let rejected = read.verify().err().unwrap();
    assert_eq!(rejected.refusal, Refusal::MessageType);
    assert_eq!(rejected.transaction_id().as_str(), "transaction-1");
    assert_eq!(rejected.sender_nonce().as_bytes(), [0x11; 16]);
    assert_eq!(rejected.requester().public_key, DEVICE.spki);

    let message = Message::usual().encode();
    let tables = message_tables(&message).unwrap();
    let read = SignedMessage::read(&message, &tables[0], Some(&tables[1])).unwrap();
    let verified = read.verify().ok().unwrap();
    let rejected = verified.reject(Refusal::Recipient);
    assert_eq!(rejected.refusal, Refusal::Recipient);
    assert_eq!(rejected.transaction_id().as_str(), "transaction-1");
}

#[test]
fn signatures_are_bound_to_key_algorithm_and_message() {
    use chancery_message::{DigestAlgorithm as D, SignatureAlgorithm as S};
    let cases: [(&Key, S); 3] = [
        (&DEVICE, S::RsaPkcs1(D::Sha256)),
        (&P256, S::Ecdsa(D::Sha256)),
        (&P384, S::Ecdsa(D::Sha384)),
    ];
    for (key, algorithm) in cases {
        let signature = key.sign(Digest::Sha256, b"message");
        assert!(verify_signature(&key.spki, algorithm, b"message", &signature).is_ok());
        assert!(verify_signature(&key.spki, algorithm, b"massage", &signature).is_err());
        for (other, other_algorithm) in cases {
            let same = other.spki == key.spki && other_algorithm == algorithm;
            let verified = verify_signature(&other.spki, other_algorithm, b"message", &signature);
            assert_eq!(verified.is_ok(), same);
            let mixed = verify_signature(&key.spki, other_algorithm, b"message", &signature);
            assert_eq!(mixed.is_ok(), other_algorithm == algorithm);
        }
    }
    assert!(verify_signature(b"", S::RsaPkcs1(D::Sha256), b"", b"").is_err());
}
