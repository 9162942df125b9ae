//! openssl is the judge, and the cms crate the second one.

use std::path::PathBuf;
use std::process::Command;

use ::cms::content_info::ContentInfo;
use ::cms::enveloped_data::{EnvelopedData, RecipientIdentifier, RecipientInfo};
use ::cms::signed_data::{SignedData, SignerInfo};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512};
use chancery_message::{ContentCipher, DigestAlgorithm};
use der::Decode;
use der::asn1::{Any, OctetString};
use tempfile::TempDir;

use super::*;

const DIGESTS: [DigestAlgorithm; 3] = [
    DigestAlgorithm::Sha256,
    DigestAlgorithm::Sha384,
    DigestAlgorithm::Sha512,
];
const CIPHERS: [ContentCipher; 3] = [
    ContentCipher::Aes128Cbc,
    ContentCipher::Aes192Cbc,
    ContentCipher::Aes256Cbc,
];

/// An RA, a requester and an issued certificate, made by openssl.
struct World {
    folder: TempDir,
    ra: Certificate,
    ra_key: KeyPair,
    requester: Certificate,
    issued: Vec<u8>,
    id: TransactionId,
    nonce: Nonce,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, key) in [
            ("ra", "rsa:2048"),
            ("requester", "rsa:2048"),
            ("issued", "rsa:2048"),
        ] {
            openssl(
                &folder,
                &format!(
                    "req -x509 -newkey {key} -nodes -keyout {name}.key -out {name}.cer -outform DER \
                     -subj /O=Example/CN={name} -days 2"
                ),
            );
            openssl(
                &folder,
                &format!("x509 -inform DER -in {name}.cer -out {name}.pem"),
            );
        }
        openssl(
            &folder,
            "pkcs8 -topk8 -nocrypt -in ra.key -outform DER -out ra.p8",
        );
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        Self {
            ra: Certificate::read(&read("ra.cer")).unwrap(),
            ra_key: KeyPair::from_pkcs8(&read("ra.p8")).unwrap(),
            requester: Certificate::read(&read("requester.cer")).unwrap(),
            issued: read("issued.cer"),
            id: TransactionId::new(b"not_printable*in@the&strict=sense").unwrap(),
            nonce: Nonce::new(&[0xa5; 16]).unwrap(),
            folder,
        }
    }

    fn transaction(&self, digest: DigestAlgorithm) -> Transaction<'_> {
        Transaction {
            id: &self.id,
            nonce: &self.nonce,
            digest,
        }
    }

    fn recipient(&self) -> Recipient<'_> {
        let requester = &self.requester;
        Recipient::new(
            requester.issuer(),
            requester.serial(),
            requester.public_key(),
        )
        .unwrap()
    }

    fn sign(&self, draft: Draft) -> Vec<u8> {
        let padding = match draft.digest {
            DigestAlgorithm::Sha256 => &RSA_PKCS1_SHA256,
            DigestAlgorithm::Sha384 => &RSA_PKCS1_SHA384,
            DigestAlgorithm::Sha512 => &RSA_PKCS1_SHA512,
        };
        let mut signature = vec![0; self.ra_key.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        self.ra_key
            .sign(padding, &random, draft.to_be_signed(), &mut signature)
            .unwrap();
        draft.signed(&self.ra, &signature).unwrap()
    }

    fn success(&self, digest: DigestAlgorithm, cipher: ContentCipher) -> Vec<u8> {
        let recipient = self.recipient();
        let outcome = Outcome::Success {
            certificate: &self.issued,
            recipient: &recipient,
            cipher,
        };
        self.sign(Draft::new(self.transaction(digest), &outcome).unwrap())
    }

    fn failure(&self, fail_info: FailInfo) -> Vec<u8> {
        let transaction = self.transaction(DigestAlgorithm::Sha256);
        self.sign(Draft::new(transaction, &Outcome::Failure(fail_info)).unwrap())
    }

    fn write(&self, name: &str, octets: &[u8]) {
        std::fs::write(self.path(name), octets).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn openssl(folder: &TempDir, arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Decodes with the cms crate; its encoding must be the same octets, so ours is DER.
fn decode(certrep: &[u8]) -> (SignedData, SignerInfo) {
    let info = ContentInfo::from_der(certrep).unwrap();
    assert_eq!(info.to_der().unwrap(), certrep);
    let signed: SignedData = info.content.decode_as().unwrap();
    let signers = signed.signer_infos.0.as_slice();
    assert_eq!(signers.len(), 1);
    let signer = signers[0].clone();
    (signed, signer)
}

fn attribute(signer: &SignerInfo, kind: ObjectIdentifier) -> Option<Any> {
    let attributes = signer.signed_attrs.as_ref().unwrap();
    let found: Vec<_> = attributes.iter().filter(|a| a.oid == kind).collect();
    assert!(found.len() <= 1);
    let values = &found.first()?.values;
    assert_eq!(values.len(), 1);
    values.get(0).cloned()
}

fn text(signer: &SignerInfo, kind: ObjectIdentifier) -> String {
    let value = attribute(signer, kind).unwrap();
    assert_eq!(value.header().tag(), Tag::PrintableString);
    String::from_utf8(value.value().to_vec()).unwrap()
}

#[test]
fn openssl_verifies_and_decrypts_every_combination() {
    let world = World::new();
    for (digest, cipher) in DIGESTS.into_iter().flat_map(|d| CIPHERS.map(|c| (d, c))) {
        world.write("certrep.der", &world.success(digest, cipher));
        openssl(
            &world.folder,
            "cms -verify -inform DER -binary -in certrep.der -CAfile ra.pem -purpose any \
             -out envelope.der",
        );
        openssl(
            &world.folder,
            "cms -decrypt -inform DER -binary -in envelope.der -recip requester.pem \
             -inkey requester.key -out degenerate.der",
        );
        openssl(
            &world.folder,
            "pkcs7 -inform DER -in degenerate.der -print_certs -out out.pem",
        );
        openssl(&world.folder, "x509 -in out.pem -outform DER -out out.cer");
        assert_eq!(std::fs::read(world.path("out.cer")).unwrap(), world.issued);
    }
}

#[test]
fn openssl_verifies_a_failure_over_no_content() {
    let world = World::new();
    world.write("certrep.der", &world.failure(FailInfo::BadRequest));
    world.write("nothing", b"");
    openssl(
        &world.folder,
        "cms -verify -inform DER -binary -in certrep.der -CAfile ra.pem -purpose any \
         -content nothing -out out",
    );
}

#[test]
fn a_success_has_the_attributes_of_rfc_8894() {
    let world = World::new();
    let (signed, signer) = decode(&world.success(DIGESTS[0], CIPHERS[2]));
    assert_eq!(signed.encap_content_info.econtent_type, ID_DATA);
    assert_eq!(
        attribute(&signer, ID_CONTENT_TYPE).unwrap().decode_as(),
        Ok(ID_DATA)
    );
    assert_eq!(text(&signer, oid::MESSAGE_TYPE), "3");
    assert_eq!(text(&signer, oid::PKI_STATUS), "0");
    assert_eq!(text(&signer, oid::TRANSACTION_ID), world.id.as_str());
    let nonce = attribute(&signer, oid::RECIPIENT_NONCE).unwrap();
    assert_eq!(nonce.value(), world.nonce.as_bytes());
    let own = attribute(&signer, oid::SENDER_NONCE).unwrap();
    assert_eq!(own.header().tag(), Tag::OctetString);
    assert_eq!(own.value().len(), NONCE_LENGTH);
    assert!(attribute(&signer, oid::FAIL_INFO).is_none());
    assert!(attribute(&signer, oid::FAIL_INFO_TEXT).is_none());
    assert_eq!(signer.signature_algorithm.oid, RSA_ENCRYPTION);
    assert_eq!(signer.signature_algorithm.parameters, Some(Any::null()));
    assert_eq!(signer.digest_alg.oid, ID_SHA_256);
    assert_eq!(signed.certificates.unwrap().0.len(), 1);
}

#[test]
fn nothing_random_is_used_twice() {
    let world = World::new();
    let parts = || {
        let (signed, signer) = decode(&world.success(DIGESTS[0], CIPHERS[0]));
        let content: OctetString = signed
            .encap_content_info
            .econtent
            .unwrap()
            .decode_as()
            .unwrap();
        let info = ContentInfo::from_der(content.as_bytes()).unwrap();
        let enveloped: EnvelopedData = info.content.decode_as().unwrap();
        let encrypted = enveloped.encrypted_content;
        let RecipientInfo::Ktri(recipient) = enveloped.recip_infos.0.get(0).unwrap() else {
            panic!("no key transport")
        };
        [
            attribute(&signer, oid::SENDER_NONCE)
                .unwrap()
                .value()
                .to_vec(),
            encrypted
                .content_enc_alg
                .parameters
                .unwrap()
                .value()
                .to_vec(),
            encrypted.encrypted_content.unwrap().into_bytes().to_vec(),
            recipient.enc_key.as_bytes().to_vec(),
        ]
    };
    for (first, second) in parts().iter().zip(&parts()) {
        assert_ne!(first, second);
    }
}

#[test]
fn a_failure_has_no_envelope_and_says_no_more_than_its_fail_info() {
    let world = World::new();
    for (fail_info, number) in [
        (FailInfo::BadAlg, "0"),
        (FailInfo::BadMessageCheck, "1"),
        (FailInfo::BadRequest, "2"),
    ] {
        let (signed, signer) = decode(&world.failure(fail_info));
        assert!(signed.encap_content_info.econtent.is_none());
        assert_eq!(text(&signer, oid::PKI_STATUS), "2");
        assert_eq!(text(&signer, oid::FAIL_INFO), number);
        let digest = attribute(&signer, ID_MESSAGE_DIGEST).unwrap();
        assert_eq!(digest.value(), hash(DigestAlgorithm::Sha256, b"").as_ref());
        let human = attribute(&signer, oid::FAIL_INFO_TEXT).unwrap();
        assert_eq!(human.header().tag(), Tag::Utf8String);
        assert_eq!(human.value(), fail_info_text(fail_info).as_bytes());
    }
}

#[test]
fn two_failures_differ_in_nothing_but_nonce_and_signature() {
    let world = World::new();
    let masked = || {
        let certrep = world.failure(FailInfo::BadRequest);
        let (_, signer) = decode(&certrep);
        let nonce = attribute(&signer, oid::SENDER_NONCE)
            .unwrap()
            .value()
            .to_vec();
        let signature = signer.signature.as_bytes().to_vec();
        let mut masked = certrep;
        for secret in [nonce, signature] {
            let at = masked
                .windows(secret.len())
                .position(|w| w == secret)
                .unwrap();
            masked[at..at + secret.len()].fill(0);
        }
        masked
    };
    assert_eq!(masked(), masked());
}

#[test]
fn the_requesters_name_is_copied_whatever_it_holds() {
    let world = World::new();
    // An element of the right outer shape whose content is no Name.
    let issuer = [0x30, 4, 0xff, 0xff, 0x80, 0x00];
    let serial = [0x02, 2, 0x00, 0x80];
    let recipient = Recipient::new(&issuer, &serial, world.requester.public_key()).unwrap();
    let envelope = envelope(&world.issued, &recipient, CIPHERS[0]).unwrap();
    let spliced = [0x30, 10]
        .iter()
        .chain(&issuer)
        .chain(&serial)
        .copied()
        .collect::<Vec<u8>>();
    assert!(
        envelope
            .windows(spliced.len())
            .any(|window| window == spliced)
    );
}

#[test]
fn the_recipient_is_named_by_issuer_and_serial_number() {
    let world = World::new();
    let envelope = envelope(&world.issued, &world.recipient(), CIPHERS[0]).unwrap();
    let info = ContentInfo::from_der(&envelope).unwrap();
    assert_eq!(info.to_der().unwrap(), envelope);
    let enveloped: EnvelopedData = info.content.decode_as().unwrap();
    let RecipientInfo::Ktri(recipient) = enveloped.recip_infos.0.get(0).unwrap() else {
        panic!("no key transport")
    };
    let RecipientIdentifier::IssuerAndSerialNumber(rid) = &recipient.rid else {
        panic!("no issuer and serial number")
    };
    assert_eq!(rid.issuer.to_der().unwrap(), world.requester.issuer());
    assert_eq!(
        rid.serial_number.to_der().unwrap(),
        world.requester.serial()
    );
    assert_eq!(recipient.key_enc_alg.oid, RSA_ENCRYPTION);
}

#[test]
fn a_recipient_that_cannot_be_served_is_refused_before_anything_is_made() {
    let world = World::new();
    let requester = &world.requester;
    let (issuer, serial, key) = (
        requester.issuer(),
        requester.serial(),
        requester.public_key(),
    );
    openssl(
        &world.folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ec.key -out ec.cer \
         -outform DER -subj /CN=ec",
    );
    let ec = Certificate::read(&std::fs::read(world.path("ec.cer")).unwrap()).unwrap();
    assert!(matches!(
        Recipient::new(issuer, serial, ec.public_key()),
        Err(CertRepError::Cryptography)
    ));
    assert!(Recipient::new(issuer, serial, &key[1..]).is_err());
    for broken in [&issuer[..issuer.len() - 1], &[issuer, b"\0"].concat(), b""] {
        assert!(matches!(
            Recipient::new(broken, serial, key),
            Err(CertRepError::Encoding(_))
        ));
    }
}
