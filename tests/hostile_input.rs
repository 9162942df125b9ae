//! Any octets at all on the SCEP port: an empty 400 for what is no message, one constant FAILURE
//! for everything from decryption on, and service goes on.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use chancery_client::{
    CertRep, ClientKey, CsrBuilder, DigestAlgorithm, Envelope, KeyKind, MessageBuilder, Signer,
    Transport,
};
use chancery_protocol::scep::FailInfo;
use chancery_protocol::wire::Secret;
use common::{Appliance, Device, Reply, block_on};
use der::asn1::ObjectIdentifier;

fn random(length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    rand::fill(&mut octets).unwrap();
    octets
}

#[test]
fn garbage_and_broken_messages_are_an_empty_400() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    let whole = device.message(&ca, &challenge).der;

    let mut bodies = vec![
        vec![],
        vec![0],
        vec![0x30, 0x80],
        vec![0x30; 60_000],
        random(3000),
        device.csr(&challenge),
    ];
    bodies.extend((1..40).map(|part| whole[..whole.len() * part / 40].to_vec()));
    bodies.push([whole.as_slice(), &[0]].concat());
    // Nested as deep as it goes.
    bodies.push((0..2000).fold(vec![], |inner, _| {
        [&[0x30, 0x80][..], &inner, &[0, 0]].concat()
    }));
    for body in bodies {
        let response = block_on(server.pki_operation(Transport::Post, &body)).unwrap();
        assert_eq!(
            (response.status, response.body.len()),
            (400, 0),
            "{} octets",
            body.len()
        );
    }
    let too_large =
        block_on(server.pki_operation(Transport::Post, &vec![0x30; 65 * 1024])).unwrap();
    assert_eq!(too_large.status, 413);

    assert_eq!(
        device.send(&server, &whole).certificate().first(),
        Some(&0x30)
    );
    assert!(!appliance.log().contains("died"), "{}", appliance.log());
}

#[test]
fn any_octet_changed_anywhere_never_gets_other_than_what_was_signed() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    let whole = device.message(&ca, &challenge).der;
    let positions = random(120);
    for (number, draw) in positions.iter().enumerate() {
        let mut message = whole.clone();
        let position = (number * 251 + usize::from(*draw)) % message.len();
        message[position] ^= 1 << (draw % 8);
        let response = block_on(server.pki_operation(Transport::Post, &message)).unwrap();
        match response.status {
            400 => assert!(response.body.is_empty()),
            200 => {
                let reply = CertRep::read(&response.body).unwrap();
                assert!(
                    reply.envelope.is_none() || position_is_unsigned(&device, &reply),
                    "octet {position}"
                );
            }
            other => panic!("octet {position}: {other}"),
        }
    }
    device.send(&server, &whole).certificate();
}

/// What lies outside of the signature (a digest algorithm's place, the certificate's own
/// signature) may change; the certificate must then be the one that was asked for.
fn position_is_unsigned(device: &Device, reply: &CertRep) -> bool {
    let certificates = reply.open(&device.certificate, &device.key).unwrap();
    certificates[0].public_key_info() == device.key.public_key_info()
        && certificates[0].subject_text() == "CN=a"
}

#[test]
fn every_failure_from_decryption_on_is_the_same_answer() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let ra = ca.encryption().unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    let signer = device.signer();
    let csr = device.csr(&challenge);
    let secret = Secret::new(challenge.clone().into_bytes());
    let other_key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let builder = || MessageBuilder::new(&signer).transaction_id("t");
    let stranger = CsrBuilder::new(&other_key, &device.subject)
        .challenge(&secret)
        .build()
        .unwrap();
    let no_proof = CsrBuilder::new(&device.key, &device.subject)
        .challenge(&secret)
        .public_key_info(other_key.public_key_info())
        .build()
        .unwrap();
    let no_challenge = CsrBuilder::new(&device.key, &device.subject)
        .build()
        .unwrap();
    let cases = [
        (
            "bad padding of the key",
            builder().build(&Envelope::to(ra).encrypted_key(&random(256)[..]), &csr),
        ),
        (
            "short encrypted key",
            builder().build(&Envelope::to(ra).encrypted_key(&[1; 16]), &csr),
        ),
        (
            "content key of another length",
            builder().build(&Envelope::to(ra).content_key(&[7; 24]), &csr),
        ),
        (
            "bad padding of the content",
            builder().build(&Envelope::to(ra).unpadded(), &[9; 64]),
        ),
        (
            "no request",
            builder().build(&Envelope::to(ra), &random(500)),
        ),
        (
            "truncated request",
            builder().build(&Envelope::to(ra), &csr[..csr.len() - 1]),
        ),
        (
            "request of another key",
            builder().build(&Envelope::to(ra), &stranger),
        ),
        (
            "no proof of possession",
            builder().build(&Envelope::to(ra), &no_proof),
        ),
        (
            "no challenge",
            builder().build(&Envelope::to(ra), &no_challenge),
        ),
        (
            "unknown challenge",
            builder().build(
                &Envelope::to(ra),
                &device.csr("0123456789ABCDEF0123456789ABCDEF"),
            ),
        ),
        (
            "other name",
            builder().build(
                &Envelope::to(ra),
                &Device {
                    subject: "CN=b".parse_name(),
                    ..Device::new("CN=b", &[])
                }
                .csr_with(&device.key, &secret),
            ),
        ),
    ];
    let mut shapes = Vec::new();
    for (what, message) in cases {
        let message = message.unwrap();
        let sent = Instant::now();
        let response = block_on(server.pki_operation(Transport::Post, &message.der)).unwrap();
        assert!(
            sent.elapsed() >= Duration::from_millis(400),
            "{what}: a failure leaves on the grid"
        );
        assert_eq!(response.status, 200, "{what}");
        let reply = CertRep::read(&response.body).unwrap();
        assert_eq!(reply.fail_info, Some(FailInfo::BadRequest), "{what}");
        reply.verify(reply.signer(&ca.all).unwrap()).unwrap();
        shapes.push((
            what,
            response.body.len(),
            reply.fail_info_text,
            reply.certificates.len(),
        ));
    }
    assert!(
        shapes
            .iter()
            .all(|shape| (shape.1, &shape.2, shape.3) == (shapes[0].1, &shapes[0].2, shapes[0].3)),
        "{shapes:?}"
    );

    let log = appliance.log();
    for reason in [
        "plaintext",
        "signer-mismatch",
        "proof-of-possession",
        "challenge-missing",
        "challenge-unknown",
        "challenge-names",
    ] {
        assert!(log.contains(reason), "{reason} is not in\n{log}");
    }
    assert!(!log.contains(&challenge));
    device.enrol(&server, &challenge).certificate();
}

trait ParseName {
    fn parse_name(&self) -> chancery_protocol::name::DistinguishedName;
}

impl ParseName for str {
    fn parse_name(&self) -> chancery_protocol::name::DistinguishedName {
        chancery_protocol::name::DistinguishedName::parse(self).unwrap()
    }
}

impl Device {
    fn csr_with(&self, key: &ClientKey, challenge: &Secret) -> Vec<u8> {
        CsrBuilder::new(key, &self.subject)
            .challenge(challenge)
            .build()
            .unwrap()
            .to_vec()
    }
}

#[test]
fn what_is_refused_before_decryption_is_told_precisely() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let ra = ca.encryption().unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    let signer = device.signer();
    let csr = device.csr(&challenge);
    let send = |message: &[u8]| device.send(&server, message);
    let refused = |info| Reply::Refused(info);

    // Every messageType but PKCSReq, assigned or not.
    for number in (0..=99).filter(|number| *number != 19) {
        let message = MessageBuilder::new(&signer)
            .message_type(&number.to_string())
            .build(&Envelope::to(ra), &csr);
        assert_eq!(
            send(&message.unwrap().der),
            refused(FailInfo::BadRequest),
            "{number}"
        );
    }
    for junk in ["", "019", "19 ", "PKCSReq"] {
        let message = MessageBuilder::new(&signer)
            .message_type(junk)
            .build(&Envelope::to(ra), &csr);
        assert_eq!(
            send(&message.unwrap().der),
            refused(FailInfo::BadRequest),
            "{junk:?}"
        );
    }

    // Algorithms: 3DES content, SHA-1 and MD5 digests, an unknown key transport.
    let des3 = ObjectIdentifier::new_unwrap("1.2.840.113549.3.7");
    let des = ObjectIdentifier::new_unwrap("1.3.14.3.2.7");
    for cipher in [des3, des] {
        let message =
            MessageBuilder::new(&signer).build(&Envelope::to(ra).declared_cipher(cipher), &csr);
        assert_eq!(
            send(&message.unwrap().der),
            refused(FailInfo::BadAlg),
            "{cipher}"
        );
    }
    for digest in ["1.3.14.3.2.26", "1.2.840.113549.2.5"] {
        let oid = ObjectIdentifier::new_unwrap(digest);
        let message = MessageBuilder::new(&signer)
            .declared_digest(oid)
            .build(&Envelope::to(ra), &csr);
        assert_eq!(
            send(&message.unwrap().der),
            refused(FailInfo::BadAlg),
            "{digest}"
        );
    }

    // An EC signer cannot receive a reply.
    let ec = ClientKey::generate(KeyKind::EcP256).unwrap();
    let ec_signer =
        Signer::self_signed(&ec, &device.subject, std::time::SystemTime::now()).unwrap();
    let message = MessageBuilder::new(&ec_signer)
        .build(&Envelope::to(ra), &csr)
        .unwrap();
    let response = block_on(server.pki_operation(Transport::Post, &message.der)).unwrap();
    assert_eq!(
        CertRep::read(&response.body).unwrap().fail_info,
        Some(FailInfo::BadAlg)
    );

    // A certificate of ours does not yet renew.
    let issued = device.enrol(&server, &challenge).certificate();
    let renewing = Signer {
        key: &device.key,
        certificate: chancery_client::Certificate::from_der(&issued).unwrap(),
    };
    let message = MessageBuilder::new(&renewing)
        .build(&Envelope::to(ra), &csr)
        .unwrap();
    let response = block_on(server.pki_operation(Transport::Post, &message.der)).unwrap();
    assert_eq!(
        CertRep::read(&response.body).unwrap().fail_info,
        Some(FailInfo::BadRequest)
    );

    // A signature that does not verify, a digest that does not match, attributes that are missing.
    let message = MessageBuilder::new(&signer)
        .digest(DigestAlgorithm::Sha256)
        .attribute(
            ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4"),
            &[[&[4, 32][..], &[0; 32]].concat()],
        )
        .unwrap()
        .build(&Envelope::to(ra), &csr);
    assert_eq!(
        send(&message.unwrap().der),
        refused(FailInfo::BadMessageCheck)
    );
    let message = MessageBuilder::new(&signer)
        .omit(ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3"))
        .build(&Envelope::to(ra), &csr);
    assert_eq!(
        send(&message.unwrap().der),
        refused(FailInfo::BadMessageCheck)
    );

    // For somebody else.
    let message = MessageBuilder::new(&signer).build(&Envelope::to(&device.certificate), &csr);
    assert_eq!(send(&message.unwrap().der), refused(FailInfo::BadRequest));
}

#[test]
fn keys_that_are_not_certified() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let secret = Secret::new(challenge.clone().into_bytes());
    let device = Device::new("CN=a", &[]);
    // The key of an authority of ours, claimed by somebody who cannot prove it.
    let authority = ca.authorities()[0].public_key_info().to_vec();
    for spki in [
        authority,
        ca.encryption().unwrap().public_key_info().to_vec(),
    ] {
        let csr = CsrBuilder::new(&device.key, &device.subject)
            .challenge(&secret)
            .public_key_info(&spki)
            .build()
            .unwrap();
        let signer = device.signer();
        let message = MessageBuilder::new(&signer)
            .build(&Envelope::to(ca.encryption().unwrap()), &csr)
            .unwrap();
        assert_eq!(
            device.send(&server, &message.der),
            Reply::Refused(FailInfo::BadRequest)
        );
    }
    device.enrol(&server, &challenge).certificate();
}

#[test]
fn slow_and_broken_connections_do_not_stop_others() {
    let appliance = Appliance::start();
    let address = appliance.address();
    let mut idle: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    for (number, stream) in idle.iter_mut().enumerate() {
        let part = [
            &b""[..],
            b"POST",
            b"POST /scep/devices?operation=PKIOperation HTTP/1.1\r\nContent-Length: 9999\r\n\r\n0",
            b"\0\0\0\0",
        ];
        stream.write_all(part[number % part.len()]).unwrap();
    }
    let server = appliance.server();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    Device::new("CN=a", &[])
        .enrol(&server, &challenge)
        .certificate();

    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .write_all(
            b"GET /scep/devices/pkiclient.exe?operation=GetCACaps&message=0 HTTP/1.0\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(answer.contains("SHA-384"), "{answer}");
}
