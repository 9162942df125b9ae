//! A device enrols: every algorithm that is announced works, over POST and GET, and the
//! certificate says what the challenge allows.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use chancery_client::{
    ContentCipher, DigestAlgorithm, Envelope, KeyTransport, MessageBuilder, SignatureForm,
    Transport,
};
use common::{Appliance, Device, Reply, block_on, pem, run};

#[test]
fn a_certificate_says_what_the_challenge_allows_and_chains_to_the_root() {
    let appliance = Appliance::start();
    let challenge =
        appliance.challenge(&["--subject", "CN=probe-1", "--san", "dns:probe-1.example"]);
    assert_eq!(challenge.len(), 32);
    assert!(
        challenge
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    );

    // It asks for less than it may have.
    let device = Device::new("CN=probe-1", &[]);
    let certificate = device.enrol(&appliance.server(), &challenge).certificate();

    let folder = appliance.folder.path();
    std::fs::write(folder.join("cert.pem"), pem("CERTIFICATE", &certificate)).unwrap();
    let verified = run(
        folder,
        "openssl",
        &[
            "verify",
            "-x509_strict",
            "-CAfile",
            "a/root.pem",
            "-untrusted",
            "a/issuing.pem",
            "-purpose",
            "sslclient",
            "cert.pem",
        ],
    );
    assert!(verified.contains("cert.pem: OK"));
    let text = run(
        folder,
        "openssl",
        &["x509", "-in", "cert.pem", "-noout", "-text"],
    );
    for part in [
        "Subject: CN = probe-1",
        "DNS:probe-1.example",
        "TLS Web Client Authentication",
        "X509v3 Key Usage: critical",
        "Digital Signature, Key Encipherment",
        "ecdsa-with-SHA256",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("CA:TRUE"));
}

#[test]
fn every_announced_algorithm_works_over_post_and_get() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let caps = block_on(server.get_ca_caps()).unwrap();
    for keyword in [
        "AES",
        "POSTPKIOperation",
        "SHA-256",
        "SHA-384",
        "SHA-512",
        "SCEPStandard",
    ] {
        assert!(caps.has(keyword), "{keyword}");
    }
    let ca = block_on(server.get_ca_cert()).unwrap();
    let mut number = 0;
    let mut enrol = |digest, cipher, transport, form, over| {
        number += 1;
        let device = Device::new(&format!("CN=d{number}"), &[]);
        let challenge = appliance.challenge(&["--subject", &format!("CN=d{number}")]);
        let signer = device.signer();
        let envelope = Envelope::to(ca.encryption().unwrap())
            .cipher(cipher)
            .key_transport(transport);
        let message = MessageBuilder::new(&signer)
            .digest(digest)
            .signature_form(form)
            .build(&envelope, &device.csr(&challenge))
            .unwrap();
        let response = block_on(server.pki_operation(over, &message.der)).unwrap();
        assert_eq!(
            response.header("content-type"),
            Some("application/x-pki-message")
        );
        let reply = chancery_client::CertRep::read(&response.body).unwrap();
        // The reply mirrors the request's digest, with plain rsaEncryption for strongSwan.
        assert_eq!(reply.digest, digest);
        assert_eq!(
            reply.signature_algorithm.to_string(),
            "1.2.840.113549.1.1.1"
        );
        assert_eq!(reply.transaction_id, message.transaction_id);
        assert_eq!(reply.recipient_nonce, message.sender_nonce);
        reply
            .verify(reply.signer(&ca.all).expect("an RA certificate signed"))
            .unwrap();
        assert!(
            matches!(device.read(&response), Reply::Issued(_)),
            "{digest:?} {cipher:?} {transport:?} {over:?}"
        );
    };
    let ciphers = ContentCipher::ALL.into_iter().cycle();
    for (digest, cipher) in DigestAlgorithm::ALL.into_iter().zip(ciphers) {
        enrol(
            digest,
            cipher,
            KeyTransport::Pkcs1v15,
            SignatureForm::DigestWithRsa,
            Transport::Post,
        );
        enrol(
            digest,
            cipher,
            KeyTransport::OaepSha1,
            SignatureForm::RsaEncryption,
            Transport::Get,
        );
    }
}

#[test]
fn issuing_keys_of_every_kind_work() {
    for key in ["rsa2048", "p384"] {
        let appliance = Appliance::start_with(&["--ca-key", key]);
        let challenge = appliance.challenge(&["--subject", "CN=probe-1"]);
        let certificate = Device::new("CN=probe-1", &[])
            .enrol(&appliance.server(), &challenge)
            .certificate();
        let folder = appliance.folder.path();
        std::fs::write(folder.join("cert.pem"), pem("CERTIFICATE", &certificate)).unwrap();
        run(
            folder,
            "openssl",
            &[
                "verify",
                "-x509_strict",
                "-CAfile",
                "a/root.pem",
                "-untrusted",
                "a/issuing.pem",
                "cert.pem",
            ],
        );
    }
}

#[test]
fn the_command_line_enrols_too() {
    let appliance = Appliance::start();
    let folder = appliance.folder.path();
    let challenge = appliance.challenge(&["--subject", "CN=printer-1"]);
    std::fs::write(folder.join("challenge"), format!("{challenge}\n")).unwrap();
    let (url, root) = (appliance.url(), appliance.fact("root-sha256").to_owned());
    let challenge_file = folder.join("challenge").display().to_string();
    let out = folder.join("out").display().to_string();
    appliance.must(&[
        "enroll",
        "--url",
        &url,
        "--challenge-file",
        &challenge_file,
        "--subject",
        "CN=printer-1",
        "--root-sha256",
        &root,
        "--out",
        &out,
    ]);
    run(
        folder,
        "openssl",
        &[
            "verify",
            "-CAfile",
            "a/root.pem",
            "-untrusted",
            "out/chain.pem",
            "out/cert.pem",
        ],
    );
    let public = run(
        folder,
        "openssl",
        &["x509", "-in", "out/cert.pem", "-noout", "-pubkey"],
    );
    assert_eq!(
        run(
            folder,
            "openssl",
            &["pkey", "-in", "out/key.pem", "-pubout"]
        ),
        public
    );
}
