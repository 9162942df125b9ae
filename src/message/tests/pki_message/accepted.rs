//! Messages that have to pass.

use chancery_message::{KeyTransport, PublicKeyKind, RecipientId, SignedMessage, Signer};
use chancery_protocol::scep::MessageType;
use chancery_protocol::wire::Secret;
use cms::cert::CertificateChoices;
use cms::enveloped_data::EnvelopedData;
use cms::signed_data::SignedData;
use der::{Decode, Encode};

use crate::asn1::{
    Encoding, Tree, attribute, context, integer, null, octet_string, oid, printable, sequence, set,
    utf8,
};
use crate::builder::{
    CERT_EXTENSIONS, CHALLENGE, Certificate, EXTENSION_REQUEST, Envelope, Message, RSA_ENCRYPTION,
    Request, SENDER_NONCE, SUBJECT_ALT_NAME, TRANSACTION_ID, challenge, dns, extension, name,
    recipient, sans,
};
use crate::keys::{DEVICE, DIGESTS, STRANGER};
use crate::run::{Opened, message_tables, request_table, run, run_with_key, usual_key};

fn expected() -> Opened {
    Opened {
        transaction_id: "transaction-1".into(),
        sender_nonce: vec![0x11; 16],
        spki: DEVICE.spki.clone(),
        subject: "CN=probe-1,O=Example".into(),
        sans: vec!["dns:probe-1.example".into()],
        challenge: Some(CHALLENGE.into()),
    }
}

#[test]
fn the_usual_message_opens() {
    assert_eq!(run(&Message::usual().encode()).opened(), expected());
}

/// The builder is judged by somebody who did not write it.
#[test]
fn what_the_builder_makes_is_cms_and_pkcs10_to_other_eyes() {
    let message = Message::usual();
    let info = cms::content_info::ContentInfo::from_der(&message.encode()).unwrap();
    let signed: SignedData = info.content.decode_as().unwrap();
    assert_eq!(signed.signer_infos.0.len(), 1);
    let certificates = signed.certificates.unwrap();
    let Some(CertificateChoices::Certificate(certificate)) = certificates.0.iter().next() else {
        panic!("no certificate");
    };
    assert_eq!(certificate.to_der().unwrap(), message.certificates[0]);
    let content = signed.encap_content_info.econtent.unwrap();
    let inner = cms::content_info::ContentInfo::from_der(content.value()).unwrap();
    let enveloped: EnvelopedData = inner.content.decode_as().unwrap();
    assert_eq!(enveloped.recip_infos.0.len(), 1);

    let request = Request::new(&DEVICE).encode();
    let decoded = x509_cert::request::CertReq::from_der(&request).unwrap();
    assert_eq!(decoded.to_der().unwrap(), request);
}

#[test]
fn a_message_shows_what_a_reply_needs() {
    let message = Message::usual().encode();
    let tables = message_tables(&message).unwrap();
    let read = SignedMessage::read(&message, &tables[0], Some(&tables[1])).unwrap();
    assert_eq!(read.message_type(), Some(MessageType::PkcsReq));
    assert_eq!(
        read.digest(),
        Some(chancery_message::DigestAlgorithm::Sha256)
    );
    let requester = read.requester();
    assert_eq!(requester.issuer, Certificate::new(&DEVICE).issuer.der());
    assert_eq!(requester.serial, [2, 1, 1]);
    assert_eq!(requester.public_key, DEVICE.spki);
    let verified = read.verify().ok().unwrap();
    assert_eq!(verified.requester(), requester);
    assert_eq!(verified.signer(), Signer::SelfSigned);
    assert_eq!(Some(verified.cipher()), requester.cipher);
    assert_eq!(verified.cipher().key_len(), 16);
    let recipients: Vec<_> = verified.recipients().collect();
    assert_eq!(recipients.len(), 1);
    assert_eq!(recipients[0].transport, KeyTransport::Pkcs1v15);
    assert_eq!(recipients[0].encrypted_key, [0xee; 256]);
    let issuer = crate::builder::authority().der();
    assert_eq!(
        recipients[0].id,
        RecipientId::IssuerAndSerialNumber {
            issuer: &issuer,
            serial: &[2, 1, 9]
        }
    );

    let plaintext = verified.decrypt(&usual_key());
    let table = request_table(plaintext.as_bytes());
    let opened = verified.open(&plaintext, table.as_deref()).ok().unwrap();
    assert_eq!(opened.signer, Signer::SelfSigned);
    assert_eq!(opened.requester, requester);
    let PublicKeyKind::Rsa { modulus, exponent } = opened.request.public_key.kind() else {
        panic!("not RSA");
    };
    assert_eq!((modulus.len(), exponent.as_slice()), (256, &[1, 0, 1][..]));
    assert_eq!(opened.request.public_key.bits(), 2048);
}

#[test]
fn every_encoding_of_the_outside_opens() {
    let encodings = [
        Encoding::Der,
        Encoding::Indefinite,
        Encoding::Pieces(100),
        Encoding::IndefinitePieces(7),
        Encoding::IndefinitePieces(1000),
    ];
    for outer in encodings {
        for inner in encodings {
            let envelope = Envelope {
                encoding: inner,
                ..Envelope::new(Request::new(&DEVICE).encode())
            };
            let message = Message {
                encoding: outer,
                ..Message::new(&DEVICE, envelope.encode())
            };
            let opened = run(&message.encode()).opened();
            assert_eq!(opened, expected(), "{outer:?} {inner:?}");
        }
    }
}

#[test]
fn every_digest_and_both_ways_to_name_the_signature_open() {
    for digest in DIGESTS {
        let request = Request {
            digest,
            algorithm: sequence([oid(digest.with_rsa()), null()]),
            ..Request::new(&DEVICE)
        };
        for algorithm in [digest.with_rsa(), RSA_ENCRYPTION] {
            for parameters in [vec![null()], vec![]] {
                let mut identifier = sequence([oid(algorithm)]);
                identifier.children().extend(parameters.clone());
                let mut message =
                    Message::with_digest(&DEVICE, Envelope::new(request.encode()).encode(), digest);
                message.signature_algorithm = identifier;
                message
                    .digest_algorithm
                    .children()
                    .truncate(1 + parameters.len());
                assert_eq!(run(&message.encode()).opened(), expected(), "{digest:?}");
            }
        }
    }
}

#[test]
fn every_cipher_opens() {
    for length in [16, 24, 32] {
        let envelope = Envelope {
            key: vec![7; length],
            ..Envelope::new(Request::new(&DEVICE).encode())
        };
        let message = Message::new(&DEVICE, envelope.encode()).encode();
        let opened = run_with_key(&message, &Secret::new(vec![7; length])).opened();
        assert_eq!(opened, expected());
    }
}

#[test]
fn recipients_by_key_identifier_and_by_oaep_are_found() {
    let sha1 = || sequence([oid("1.3.14.3.2.26"), null()]);
    let oaep = |parameters: Vec<Tree>| {
        sequence([
            oid("1.2.840.113549.1.1.7"),
            Tree::Constructed(0x30, parameters),
        ])
    };
    let explicit = oaep(vec![
        context(0, vec![sha1()]),
        context(1, vec![sequence([oid("1.2.840.113549.1.1.8"), sha1()])]),
        context(
            2,
            vec![sequence([oid("1.2.840.113549.1.1.9"), octet_string([])])],
        ),
    ]);
    let sha256 = || sequence([oid("2.16.840.1.101.3.4.2.1"), null()]);
    let hash = oaep(vec![context(0, vec![sha256()])]);
    let mask = oaep(vec![context(
        1,
        vec![sequence([oid("1.2.840.113549.1.1.8"), sha256()])],
    )]);
    let labelled = oaep(vec![context(
        2,
        vec![sequence([oid("1.2.840.113549.1.1.9"), octet_string([1])])],
    )]);
    let mut by_identifier = recipient(oaep(vec![]));
    by_identifier.children()[1] = Tree::Primitive(0x80, vec![4; 20]);
    let password = Tree::Constructed(0xa3, vec![integer(0)]);
    let envelope = Envelope {
        recipients: vec![
            password,
            by_identifier,
            recipient(explicit),
            recipient(hash),
            recipient(mask),
            recipient(sequence([oid(RSA_ENCRYPTION), integer(1)])),
            recipient(labelled),
            recipient(sequence([oid("1.2.3")])),
        ],
        ..Envelope::new(Request::new(&DEVICE).encode())
    };
    let message = Message::new(&DEVICE, envelope.encode()).encode();
    let tables = message_tables(&message).unwrap();
    let read = SignedMessage::read(&message, &tables[0], Some(&tables[1])).unwrap();
    let verified = read.verify().ok().unwrap();
    let found: Vec<_> = verified.recipients().collect();
    assert_eq!(found[0].id, RecipientId::SubjectKeyIdentifier(&[4; 20]));
    let transports: Vec<_> = found.iter().map(|r| r.transport).collect();
    assert_eq!(
        transports,
        [
            KeyTransport::OaepSha1,
            KeyTransport::OaepSha1,
            KeyTransport::Unsupported,
            KeyTransport::Unsupported,
            KeyTransport::Unsupported,
            KeyTransport::Unsupported,
            KeyTransport::Unsupported
        ]
    );
}

#[test]
fn the_name_of_a_recipient_is_given_as_received() {
    let envelope = Envelope {
        encoding: Encoding::Indefinite,
        ..Envelope::new(Request::new(&DEVICE).encode())
    };
    let message = Message::new(&DEVICE, envelope.encode()).encode();
    let tables = message_tables(&message).unwrap();
    let read = SignedMessage::read(&message, &tables[0], Some(&tables[1])).unwrap();
    let verified = read.verify().ok().unwrap();
    let received = crate::builder::authority().encode(Encoding::Indefinite);
    let Some(RecipientId::IssuerAndSerialNumber { issuer, .. }) =
        verified.recipients().next().map(|recipient| recipient.id)
    else {
        panic!("no issuer");
    };
    assert_eq!(issuer, received);
}

#[test]
fn the_signer_is_found_among_others_and_by_key_identifier() {
    let other = Certificate {
        serial: 2,
        extensions: vec![extension("2.5.29.35", octet_string([4; 20]))],
        ..Certificate::new(&STRANGER)
    };
    let mut message = Message::usual();
    message.certificates.insert(0, other.encode(Encoding::Der));
    message.certificates.push(message.certificates[1].clone());
    assert_eq!(run(&message.encode()).opened(), expected());

    let identified = Certificate {
        extensions: vec![extension("2.5.29.14", octet_string([4; 20]))],
        ..Certificate::new(&DEVICE)
    };
    let mut message = Message::usual();
    message.certificates = vec![
        other.encode(Encoding::Der),
        identified.encode(Encoding::Der),
    ];
    message.sid = Tree::Primitive(0x80, vec![4; 20]);
    assert_eq!(run(&message.encode()).opened(), expected());
}

#[test]
fn the_subject_of_the_self_signed_certificate_may_be_another() {
    let request = Request {
        subject: name(&[("2.5.4.3", "quite-another")]),
        ..Request::new(&DEVICE)
    };
    let opened = run(&Message::around(request.encode()).encode()).opened();
    assert_eq!(opened.subject, "CN=quite-another");
}

#[test]
fn identifiers_of_real_clients_are_taken() {
    let cases = [
        printable("SSCEP transactionId"),
        printable("+/9A="),
        utf8("under_score"),
        printable(&"7".repeat(77)),
    ];
    for value in cases {
        let Tree::Primitive(_, text) = value.clone() else {
            panic!("no text")
        };
        let message = Message::usual().replace(TRANSACTION_ID, attribute(TRANSACTION_ID, [value]));
        let opened = run(&message.encode()).opened();
        assert_eq!(opened.transaction_id.as_bytes(), text);
    }
    for length in [1, 8, 64] {
        let nonce = attribute(SENDER_NONCE, [octet_string(vec![3; length])]);
        let message = Message::usual().replace(SENDER_NONCE, nonce);
        assert_eq!(
            run(&message.encode()).opened().sender_nonce,
            vec![3; length]
        );
    }
}

#[test]
fn attributes_may_stand_in_any_order() {
    let mut message = Message::usual();
    message.attributes.reverse();
    message
        .attributes
        .push(attribute("1.2.840.113549.1.9.5", [integer(1), integer(1)]));
    assert_eq!(run(&message.encode()).opened(), expected());

    let mut request = Request::new(&DEVICE);
    request.attributes.as_mut().unwrap().reverse();
    assert_eq!(
        run(&Message::around(request.encode()).encode()).opened(),
        expected()
    );
}

#[test]
fn a_request_without_attributes_has_no_challenge() {
    for attributes in [None, Some(vec![]), Some(vec![challenge(utf8(""))])] {
        let request = Request {
            attributes,
            ..Request::new(&DEVICE)
        };
        let opened = run(&Message::around(request.encode()).encode()).opened();
        assert_eq!(opened.challenge, None);
        assert!(opened.sans.is_empty());
    }
}

#[test]
fn a_challenge_of_every_string_type_is_the_same() {
    let utf16: Vec<u8> = CHALLENGE
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let utf32: Vec<u8> = CHALLENGE
        .chars()
        .flat_map(|c| u32::from(c).to_be_bytes())
        .collect();
    let mut values: Vec<Tree> = [0x0c, 0x13, 0x14, 0x16]
        .map(|tag| Tree::Primitive(tag, CHALLENGE.into()))
        .into();
    values.extend([Tree::Primitive(0x1e, utf16), Tree::Primitive(0x1c, utf32)]);
    for value in values {
        let mut request = Request::new(&DEVICE);
        request.attributes.as_mut().unwrap()[0] = challenge(value);
        let opened = run(&Message::around(request.encode()).encode()).opened();
        assert_eq!(opened, expected());
    }
}

#[test]
fn a_challenge_of_the_largest_size_is_taken() {
    let mut request = Request::new(&DEVICE);
    request.attributes.as_mut().unwrap()[0] = challenge(utf8(&"x".repeat(16 * 1024)));
    let opened = run(&Message::around(request.encode()).encode()).opened();
    assert_eq!(opened.challenge.unwrap().len(), 16 * 1024);
}

#[test]
fn names_of_every_kind_are_read() {
    let pair =
        |kind: &str, tag, value: &[u8]| sequence([oid(kind), Tree::Primitive(tag, value.to_vec())]);
    let request = Request {
        subject: sequence([
            set([pair("2.5.4.6", 0x13, b"DE")]),
            set([
                pair("2.5.4.10", 0x1e, b"\0E\0x"),
                pair("2.5.4.11", 0x14, b"Unit"),
            ]),
            set([pair("0.9.2342.19200300.100.1.25", 0x16, b"example")]),
            set([pair("2.5.4.3", 0x13, b"user_1@example")]),
        ]),
        attributes: Some(vec![sans(
            EXTENSION_REQUEST,
            vec![
                dns("A.Example"),
                Tree::Primitive(0x81, b"a@b.example".to_vec()),
                Tree::Primitive(0x86, b"urn:uuid:1".to_vec()),
                Tree::Primitive(0x87, vec![192, 0, 2, 7]),
                Tree::Primitive(0x87, vec![0; 16]),
            ],
        )]),
        ..Request::new(&DEVICE)
    };
    let opened = run(&Message::around(request.encode()).encode()).opened();
    assert_eq!(
        opened.subject,
        "CN=user_1@example,DC=example,OU=Unit,O=Ex,C=DE"
    );
    assert_eq!(
        opened.sans,
        [
            "dns:a.example",
            "email:a@b.example",
            "uri:urn:uuid:1",
            "ip:192.0.2.7",
            "ip:::"
        ]
    );
}

#[test]
fn a_critical_name_and_an_empty_subject_are_read() {
    let names = Tree::Constructed(0x30, vec![dns("a.example")]).der();
    let critical = Tree::Primitive(0x01, vec![0xff]);
    let extension = sequence([oid(SUBJECT_ALT_NAME), critical, octet_string(names)]);
    let request = Request {
        subject: name(&[]),
        attributes: Some(vec![attribute(EXTENSION_REQUEST, [sequence([extension])])]),
        ..Request::new(&DEVICE)
    };
    let opened = run(&Message::around(request.encode()).encode()).opened();
    assert_eq!(
        (opened.subject.as_str(), opened.sans),
        ("", vec!["dns:a.example".to_string()])
    );
}

#[test]
fn names_under_the_attribute_type_of_microsoft_are_read() {
    let mut request = Request::new(&DEVICE);
    request.attributes.as_mut().unwrap()[1] = sans(CERT_EXTENSIONS, vec![dns("probe-1.example")]);
    let opened = run(&Message::around(request.encode()).encode()).opened();
    assert_eq!(opened, expected());
}

#[test]
fn unsigned_attributes_and_decoys_are_not_looked_at() {
    let mut message = Message::usual();
    message.unsigned_attributes = vec![
        attribute(TRANSACTION_ID, [printable("another")]),
        attribute(SENDER_NONCE, [octet_string([9; 16])]),
        challenge(utf8("decoy")),
    ];
    message.attributes.push(attribute(
        "1.2.3.4",
        [
            challenge(utf8("decoy")),
            attribute(TRANSACTION_ID, [printable("another")]),
        ],
    ));
    message.attributes.push(challenge(utf8("decoy")));
    assert_eq!(run(&message.encode()).opened(), expected());
}
