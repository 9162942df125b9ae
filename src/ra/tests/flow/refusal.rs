//! What is refused, what the device learns of it, and what the log does.

use chancery_client::{CsrBuilder, Message};
use chancery_protocol::ipc::message::Reply;
use chancery_protocol::name::DistinguishedName;
use chancery_protocol::scep::{FailInfo, oid};
use chancery_protocol::wire::Secret;
use const_oid::db::{rfc5911, rfc5912};

use crate::appliance::Appliance;
use crate::device::{Device, KEY, OTHER_KEY};

crate::harness::tests!(
    before_decryption_a_device_learns_the_kind_of_its_fault,
    from_decryption_on_all_refusals_are_one,
    what_is_no_message_is_malformed,
    profiles_are_those_of_the_configuration,
    totals_reach_the_log,
);

fn before_decryption_a_device_learns_the_kind_of_its_fault() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let request = Device::request("genuine");
    let sealed = device.envelope();
    let build =
        |builder: chancery_client::MessageBuilder<'_>| builder.build(&sealed, &request).unwrap();
    let mut cases: Vec<(Message, FailInfo)> = ["17", "18", "20", "21", "22", "3", "99", "junk"]
        .map(|kind| {
            (
                build(device.builder().message_type(kind)),
                FailInfo::BadRequest,
            )
        })
        .into();
    let wrong_signature = {
        let mut message = device.message("genuine");
        *message.der.last_mut().unwrap() ^= 1;
        message
    };
    // Encrypted for a certificate of the same key that our CA never issued.
    let stranger = chancery_client::Envelope::to(&device.signer.certificate);
    let to_stranger = device.builder().build(&stranger, &request).unwrap();
    let old_cipher = device.envelope().declared_cipher(rfc5911::DES_EDE_3_CBC);
    let old_cipher = device.builder().build(&old_cipher, &request).unwrap();
    let transport = device
        .envelope()
        .declared_key_transport(rfc5912::ID_EC_PUBLIC_KEY);
    let transport = device.builder().build(&transport, &request).unwrap();
    cases.extend([
        (wrong_signature, FailInfo::BadMessageCheck),
        (
            build(device.builder().omit(oid::MESSAGE_TYPE)),
            FailInfo::BadMessageCheck,
        ),
        (
            build(device.builder().declared_digest(rfc5912::ID_SHA_1)),
            FailInfo::BadAlg,
        ),
        (to_stranger, FailInfo::BadRequest),
        (old_cipher, FailInfo::BadAlg),
        (transport, FailInfo::BadAlg),
    ]);
    for (n, (message, expected)) in cases.iter().enumerate() {
        let (fail_info, _) = device.failure(message, &appliance.ask(&message.der));
        assert_eq!(fail_info, *expected, "case {n}");
    }
    // And none of it has hurt.
    let message = device.message("genuine");
    device.certificate(&message, &appliance.ask(&message.der));

    let mut totals = appliance.stop();
    totals.retain(|event| event.starts_with("refusals.counted"));
    let expected = [
        ("message-type", 8),
        ("algorithm", 3),
        ("signed-attributes", 1),
        ("signature", 1),
        ("recipient", 1),
    ]
    .map(|(code, count)| format!("refusals.counted {code} 192.0.2.7 {count}"));
    assert_eq!(totals, expected);
}

fn from_decryption_on_all_refusals_are_one() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let request = Device::request("genuine");
    let subject = DistinguishedName::parse("CN=device").unwrap();
    let challenge = Secret::new(b"genuine".to_vec());
    let csr = || CsrBuilder::new(&KEY, &subject).challenge(&challenge);
    let no_possession = csr()
        .public_key_info(OTHER_KEY.public_key_info())
        .build()
        .unwrap();
    let other_signer = Device::with_key(&appliance, &OTHER_KEY);
    let whole_blocks = vec![0; 64];
    let build = |envelope: chancery_client::Envelope<'_>, plaintext: &[u8]| {
        device.builder().build(&envelope, plaintext).unwrap()
    };
    let own = device.envelope();
    let mut cases = vec![
        (
            "a content key that is another",
            build(own.clone().content_key(&[7; 16]), &request),
        ),
        (
            "a content key of another length",
            build(own.clone().content_key(&[7; 5]), &request),
        ),
        (
            "no ciphertext of our key",
            build(own.clone().encrypted_key(&[1; 256]), &request),
        ),
        (
            "a ciphertext of another length",
            build(own.clone().encrypted_key(b"short"), &request),
        ),
        ("no padding", build(own.clone().unpadded(), &whole_blocks)),
        ("no request", build(own.clone(), b"no PKCS#10 at all")),
        ("an empty request", build(own.clone(), b"")),
        (
            "half a request",
            build(own.clone(), &request[..request.len() / 2]),
        ),
        ("no proof of possession", build(own.clone(), &no_possession)),
        (
            "another signer",
            other_signer.builder().build(&own, &request).unwrap(),
        ),
    ];
    for challenge in ["unknown", "spent", "evidence refused"] {
        cases.push((challenge, device.message(challenge)));
    }
    let without = CsrBuilder::new(&KEY, &subject).build().unwrap();
    cases.push(("no challenge", build(own, &without)));
    let mut answers = Vec::new();
    for (name, message) in &cases {
        let reply = appliance.ask(&message.der);
        let (fail_info, text) = device.failure(message, &reply);
        assert_eq!(fail_info, FailInfo::BadRequest, "{name}");
        let Reply::CertRep(certrep) = reply else {
            panic!("{name}")
        };
        answers.push((text, certrep.as_bytes().len()));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

fn what_is_no_message_is_malformed() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let message = device.message("genuine").der;
    let request = Device::request("genuine");
    let no_nonce = device.builder().omit(oid::SENDER_NONCE);
    let no_transaction = device.builder().omit(oid::TRANSACTION_ID);
    let nobody = device.builder().certificates(&[]);
    let built = [no_nonce, no_transaction, nobody]
        .map(|builder| builder.build(&device.envelope(), &request).unwrap().der);
    for (n, body) in [
        b"".to_vec(),
        b"GET / HTTP/1.1".to_vec(),
        message[1..].to_vec(),
        request.clone(),
    ]
    .iter()
    .chain(&built)
    .enumerate()
    {
        assert!(
            matches!(appliance.ask(body), Reply::Malformed(_)),
            "case {n}"
        );
    }
    // Nothing of it is a security event; the total is in the log.
    let events = appliance.stop();
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(
        events.contains(&"refusals.counted malformed 192.0.2.7 7".into()),
        "{events:?}"
    );
}

fn profiles_are_those_of_the_configuration() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let message = device.message("genuine");
    for name in ["", "Devices", "devices/", "issuing", &"x".repeat(10_000)] {
        assert!(matches!(
            appliance.ask_profile(name, &message.der),
            Reply::NoProfile(_)
        ));
    }
}

fn totals_reach_the_log() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    for challenge in ["unknown", "unknown", "unknown", "spent", "evidence refused"] {
        let message = device.message(challenge);
        device.failure(&message, &appliance.ask(&message.der));
    }
    let events = appliance.stop();
    let counted: Vec<_> = events
        .iter()
        .filter(|e| e.starts_with("refusals.counted"))
        .collect();
    // What comes after the proof of a challenge the CA records itself.
    assert_eq!(
        counted,
        [
            "refusals.counted signature 192.0.2.7 1",
            "refusals.counted challenge-unknown 192.0.2.7 3",
        ]
    );
}
