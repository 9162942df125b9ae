//! What programs send that nobody here wrote (`tests/vectors`).

use chancery_message::{DigestAlgorithm, SignatureAlgorithm, verify_signature};
use chancery_protocol::wire::Secret;

use crate::asn1::Tree;
use crate::builder::Message;
use crate::keys::DEVICE;
use crate::run::{Outcome, run_with_key};

#[test]
fn strongswan() {
    let message = include_bytes!("../vectors/strongswan.der");
    let key = Secret::new(include_bytes!("../vectors/strongswan.key").to_vec());
    let opened = run_with_key(message, &key).opened();
    assert_eq!(opened.subject, "CN=probe-1,O=Example,C=DE");
    assert_eq!(opened.sans, ["dns:probe-1.example", "ip:192.0.2.7"]);
    assert_eq!(
        opened.challenge.as_deref(),
        Some(b"0123456789ABCDEF0123456789ABCDEF".as_slice())
    );
    assert_eq!(opened.transaction_id.len(), 40);
    assert_eq!(opened.sender_nonce.len(), 16);
}

/// The content of the envelope is of another key than the message around it, and this is the first
/// thing that is wrong: so it was decrypted and read.
#[test]
fn an_envelope_that_openssl_streamed() {
    let envelope = include_bytes!("../vectors/openssl-envelope.der");
    let key = Secret::new(include_bytes!("../vectors/openssl-envelope.key").to_vec());
    let message = Message::new(&DEVICE, envelope.to_vec()).encode();
    assert_eq!(
        run_with_key(&message, &key),
        Outcome::Refused(chancery_protocol::refusal::Refusal::SignerMismatch)
    );

    let tables = crate::run::message_tables(&message).unwrap();
    let read =
        chancery_message::SignedMessage::read(&message, &tables[0], Some(&tables[1])).unwrap();
    let plaintext = read.verify().ok().unwrap().decrypt(&key);
    let request = include_bytes!("../vectors/openssl-envelope.request.der");
    assert_eq!(plaintext.as_bytes(), request);
}

#[test]
fn signatures_of_openssl_on_both_curves_with_every_digest() {
    let digests = [
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha384,
        DigestAlgorithm::Sha512,
    ];
    let requests: [[&[u8]; 3]; 2] = [
        [
            include_bytes!("../vectors/openssl-P-256-sha256.der"),
            include_bytes!("../vectors/openssl-P-256-sha384.der"),
            include_bytes!("../vectors/openssl-P-256-sha512.der"),
        ],
        [
            include_bytes!("../vectors/openssl-P-384-sha256.der"),
            include_bytes!("../vectors/openssl-P-384-sha384.der"),
            include_bytes!("../vectors/openssl-P-384-sha512.der"),
        ],
    ];
    for requests in requests {
        for (index, request) in requests.into_iter().enumerate() {
            let mut request = Tree::parse(request);
            let fields = request.children();
            let info = fields[0].der();
            let spki = fields[0].children()[2].der();
            let Tree::Primitive(_, signature) = &fields[2] else {
                panic!("no signature");
            };
            for (other, digest) in digests.into_iter().enumerate() {
                let algorithm = SignatureAlgorithm::Ecdsa(digest);
                let verified = verify_signature(&spki, algorithm, &info, &signature[1..]);
                assert_eq!(verified.is_ok(), other == index);
            }
        }
    }
}
