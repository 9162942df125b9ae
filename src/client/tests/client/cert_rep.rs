//! Replies, correct and wrong, as a server could send them.

use std::time::SystemTime;

use chancery_client::{
    CertRep, CertRepError, Certificate, ClientKey, ContentCipher, DigestAlgorithm, Envelope,
    KeyKind, KeyTransport, MessageBuilder, SignatureForm, Signer, SignerIdentification, degenerate,
};
use chancery_protocol::name::DistinguishedName;
use chancery_protocol::scep::{FailInfo, PkiStatus, oid};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5911, rfc5912};

use crate::pki::Pki;

const NONCE: [u8; 16] = [9; 16];

/// The attributes of a CertRep with this status, for transaction `t-1` and [`NONCE`].
pub(crate) fn reply<'a>(signer: &'a Signer<'a>, status: &str) -> MessageBuilder<'a> {
    let text =
        |text: &str| vec![[&[0x13, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()];
    let nonce = [&[0x04, 16], NONCE.as_slice()].concat();
    MessageBuilder::new(signer)
        .message_type("3")
        .transaction_id("t-1")
        .signature_form(SignatureForm::RsaEncryption)
        .attribute(oid::PKI_STATUS, &text(status))
        .unwrap()
        .attribute(oid::RECIPIENT_NONCE, &[nonce])
        .unwrap()
}

struct Scene {
    pki: Pki,
    ra_key: ClientKey,
    device_key: ClientKey,
}

impl Scene {
    fn new() -> Self {
        let pki = Pki::new();
        pki.certify("device", "rsa", "device", "issuing", 30);
        let (ra_key, device_key) = (pki.key("signing"), pki.key("device"));
        Self {
            pki,
            ra_key,
            device_key,
        }
    }

    fn ra(&self) -> Signer<'_> {
        self.pki.signer(&self.ra_key, "signing")
    }

    fn requester(&self) -> Signer<'_> {
        let subject = DistinguishedName::parse("CN=device").unwrap();
        Signer::self_signed(&self.device_key, &subject, SystemTime::now()).unwrap()
    }

    fn contents(&self) -> Vec<u8> {
        degenerate(&self.pki.certificates(&["device", "issuing"])).unwrap()
    }
}

#[test]
fn success_brings_the_certificates() {
    let scene = Scene::new();
    let (ra, requester) = (scene.ra(), scene.requester());
    for (index, cipher) in ContentCipher::ALL.into_iter().enumerate() {
        for transport in [KeyTransport::Pkcs1v15, KeyTransport::OaepSha1] {
            let envelope = Envelope::to(&requester.certificate)
                .cipher(cipher)
                .key_transport(transport);
            let der = reply(&ra, "0")
                .digest(DigestAlgorithm::ALL[index])
                .build(&envelope, &scene.contents())
                .unwrap()
                .der;
            let read = CertRep::read(&der).unwrap();
            assert_eq!(read.status, PkiStatus::Success);
            assert_eq!(
                (read.message_type.as_str(), read.transaction_id.as_str()),
                ("3", "t-1")
            );
            assert_eq!(
                (read.recipient_nonce.as_slice(), read.fail_info),
                (&NONCE[..], None)
            );
            assert_eq!(read.sender_nonce.as_ref().map(Vec::len), Some(16));
            assert_eq!(read.digest, DigestAlgorithm::ALL[index]);
            assert_eq!(read.signature_algorithm, rfc5912::RSA_ENCRYPTION);
            assert_eq!(
                read.certificates.as_slice(),
                std::slice::from_ref(&ra.certificate)
            );
            assert_eq!(read.verify(&ra.certificate), Ok(()));
            let issued = read
                .open(&requester.certificate, &scene.device_key)
                .unwrap();
            assert!(issued.contains(&scene.pki.certificate("device")));
            assert_eq!(issued.len(), 2);
        }
    }
}

#[test]
fn an_envelope_of_openssl_opens() {
    let scene = Scene::new();
    std::fs::write(scene.pki.path("contents.der"), scene.contents()).unwrap();
    for (cipher, options) in [
        ("-aes-128-cbc", &[][..]),
        ("-aes-256-cbc", &["-keyopt", "rsa_padding_mode:oaep"][..]),
    ] {
        let arguments = [
            &[
                "cms",
                "-encrypt",
                "-binary",
                "-in",
                "contents.der",
                "-outform",
                "DER",
                "-out",
                "env.der",
                cipher,
                "-recip",
                "device.pem",
            ],
            options,
        ];
        scene.pki.openssl(&arguments.concat());
        let envelope = std::fs::read(scene.pki.path("env.der")).unwrap();
        let ra = scene.ra();
        let der = reply(&ra, "0").sign(Some(&envelope)).unwrap().der;
        let read = CertRep::read(&der).unwrap();
        let issued = read
            .open(&scene.pki.certificate("device"), &scene.device_key)
            .unwrap();
        assert_eq!(issued.len(), 2);
    }
}

#[test]
fn failure_and_pending_are_read_without_an_envelope() {
    let scene = Scene::new();
    let ra = scene.ra();
    let failure = reply(&ra, "2")
        .attribute(oid::FAIL_INFO, &[b"\x13\x012".to_vec()])
        .unwrap()
        .attribute(oid::FAIL_INFO_TEXT, &[b"\x0c\x02no".to_vec()])
        .unwrap();
    let read = CertRep::read(&failure.sign(None).unwrap().der).unwrap();
    assert_eq!(read.verify(&ra.certificate), Ok(()));
    assert_eq!(
        (read.status, read.fail_info),
        (PkiStatus::Failure, Some(FailInfo::BadRequest))
    );
    assert_eq!(read.fail_info_text.as_deref(), Some("no"));
    assert_eq!(
        read.open(&ra.certificate, &scene.device_key),
        Ok(Vec::new())
    );

    let read = CertRep::read(&reply(&ra, "3").sign(None).unwrap().der).unwrap();
    assert_eq!((read.status, read.fail_info), (PkiStatus::Pending, None));
    assert_eq!(read.verify(&ra.certificate), Ok(()));
}

#[test]
fn what_is_no_cert_rep_is_refused() {
    let scene = Scene::new();
    let ra = scene.ra();
    let read = |builder: MessageBuilder<'_>, content: Option<&[u8]>| {
        CertRep::read(&builder.sign(content).unwrap().der).map(|_| ())
    };
    let attribute = |name| Err(CertRepError::Attribute(name));
    let one = |octets: &[u8]| [octets.to_vec()];
    assert!(matches!(
        read(reply(&ra, "3").message_type("19"), None),
        Err(CertRepError::NotScep(_))
    ));
    assert_eq!(read(reply(&ra, "1"), None), attribute("pkiStatus"));
    assert_eq!(read(reply(&ra, "2"), None), attribute("failInfo"));
    let strange = reply(&ra, "2")
        .attribute(oid::FAIL_INFO, &one(b"\x13\x015"))
        .unwrap();
    assert_eq!(read(strange, None), attribute("failInfo"));
    assert!(matches!(
        read(reply(&ra, "0"), None),
        Err(CertRepError::NotScep(_))
    ));
    assert!(matches!(
        read(reply(&ra, "3"), Some(b"x")),
        Err(CertRepError::NotScep(_))
    ));
    for (oid, name) in [
        (rfc5911::ID_CONTENT_TYPE, "contentType"),
        (rfc5911::ID_MESSAGE_DIGEST, "messageDigest"),
        (oid::TRANSACTION_ID, "transactionID"),
    ] {
        assert_eq!(read(reply(&ra, "3").omit(oid), None), attribute(name));
        let doubled = reply(&ra, "3")
            .extra_attribute(oid, &one(b"\x13\x01x"))
            .unwrap();
        assert_eq!(read(doubled, None), attribute(name));
    }
    let no_nonce = reply(&ra, "3")
        .attribute(oid::RECIPIENT_NONCE, &[])
        .unwrap();
    assert!(read(no_nonce, None).is_err());
    let other_content = reply(&ra, "3").content_type(rfc5911::ID_ENVELOPED_DATA);
    assert!(matches!(
        read(other_content, None),
        Err(CertRepError::NotScep(_))
    ));
    let sha1 = reply(&ra, "3").declared_digest(rfc5912::ID_SHA_1);
    assert_eq!(read(sha1, None), Err(CertRepError::Algorithm("digest")));
    assert!(matches!(
        CertRep::read(b""),
        Err(CertRepError::Malformed(_))
    ));
    assert!(matches!(
        CertRep::read(&scene.contents()),
        Err(CertRepError::NotScep(_))
    ));
}

#[test]
fn a_reply_by_another_signer_does_not_verify() {
    let scene = Scene::new();
    let ra = scene.ra();
    let der = reply(&ra, "3").sign(None).unwrap().der;
    let read = CertRep::read(&der).unwrap();
    let candidates = scene.pki.certificates(&["decryption", "signing"]);
    assert_eq!(read.signer(&candidates), Some(&candidates[1]));
    assert_eq!(read.signer(&candidates[..1]), None);
    assert_eq!(read.verify(&candidates[0]), Err(CertRepError::Signature));
    // An elliptic key does not make an RSA signature.
    let issuing = scene.pki.certificate("issuing");
    assert!(matches!(
        read.verify(&issuing),
        Err(CertRepError::Algorithm(_))
    ));

    let named = reply(&ra, "3").signer_identification(SignerIdentification::SubjectKeyIdentifier);
    let read = CertRep::read(&named.sign(None).unwrap().der).unwrap();
    assert_eq!(read.signer(&candidates), Some(&candidates[1]));
    assert_eq!(read.verify(&candidates[1]), Ok(()));

    let digest = [b"\x04\x20".as_slice(), &[0; 32]].concat();
    let wrong = reply(&ra, "3")
        .attribute(rfc5911::ID_MESSAGE_DIGEST, &[digest])
        .unwrap();
    let read = CertRep::read(&wrong.sign(None).unwrap().der).unwrap();
    assert_eq!(read.verify(&ra.certificate), Err(CertRepError::Digest));
}

#[test]
fn an_envelope_for_others_stays_shut() {
    let scene = Scene::new();
    let (ra, requester) = (scene.ra(), scene.requester());
    let read = |envelope: &Envelope<'_>| {
        let der = reply(&ra, "0")
            .build(envelope, &scene.contents())
            .unwrap()
            .der;
        CertRep::read(&der).unwrap()
    };
    let elsewhere = pki_certificate(&scene, "decryption");
    let open = |envelope: &Envelope<'_>| {
        read(envelope)
            .open(&requester.certificate, &scene.device_key)
            .map(|_| ())
    };
    assert_eq!(open(&Envelope::to(&elsewhere)), Err(CertRepError::NotForUs));
    let ours = || Envelope::to(&requester.certificate);
    assert_eq!(
        open(&ours().encrypted_key(&[1; 256])),
        Err(CertRepError::Decrypt)
    );
    assert_eq!(
        open(&ours().content_key(&[1; 53])),
        Err(CertRepError::Decrypt)
    );
    let declared = |oid: ObjectIdentifier| open(&ours().declared_cipher(oid));
    assert_eq!(
        declared(rfc5911::DES_EDE_3_CBC),
        Err(CertRepError::Algorithm("content cipher"))
    );
    let transport = ours().declared_key_transport(rfc5912::ID_RSASSA_PSS);
    assert_eq!(
        open(&transport),
        Err(CertRepError::Algorithm("key transport"))
    );
    let der = reply(&ra, "0")
        .build(&ours(), b"no certificates")
        .unwrap()
        .der;
    let opened = CertRep::read(&der)
        .unwrap()
        .open(&requester.certificate, &scene.device_key);
    assert!(matches!(opened, Err(CertRepError::Contents(_))));
    let other = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let opened = read(&ours()).open(&requester.certificate, &other);
    assert_eq!(opened, Err(CertRepError::Decrypt));
}

fn pki_certificate(scene: &Scene, name: &str) -> Certificate {
    scene.pki.certificate(name)
}

/// Whatever one octet is changed to what, the reply is either refused or says what was signed.
#[test]
fn a_damaged_reply_never_says_something_else() {
    let scene = Scene::new();
    let (ra, requester) = (scene.ra(), scene.requester());
    let envelope = Envelope::to(&requester.certificate);
    let der = reply(&ra, "0")
        .build(&envelope, &scene.contents())
        .unwrap()
        .der;
    let original = CertRep::read(&der).unwrap();
    let mut refused = 0;
    for position in 0..der.len() {
        for change in [0x01, 0x80] {
            let mut damaged = der.clone();
            damaged[position] ^= change;
            let verified = CertRep::read(&damaged)
                .and_then(|read| read.verify(&ra.certificate).map(|()| read));
            match verified {
                Ok(read) => {
                    assert_eq!(read.envelope, original.envelope, "{position}");
                    assert_eq!(read.status, original.status, "{position}");
                    assert_eq!(read.transaction_id, original.transaction_id, "{position}");
                    assert_eq!(read.recipient_nonce, original.recipient_nonce, "{position}");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(CertRep::read(&der[..position]).is_err());
    }
    assert!(refused > der.len());
}
