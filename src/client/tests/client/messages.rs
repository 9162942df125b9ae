//! What the builders write, read by `openssl` and by the cms crate.

use std::time::SystemTime;

use chancery_client::{
    Certificate, ClientKey, ContentCipher, CsrBuilder, DigestAlgorithm, Envelope, KeyKind,
    KeyTransport, MessageBuilder, SignatureForm, Signer, SignerIdentification, StringType,
};
use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::scep::oid;
use chancery_protocol::wire::Secret;
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use const_oid::db::{rfc5911, rfc5912};
use der::{Decode, Encode};

use crate::pki::Pki;

fn subject() -> DistinguishedName {
    DistinguishedName::parse("CN=probe-1,OU=Läb,O=Example,C=DE").unwrap()
}

fn sans() -> Vec<GeneralName> {
    [
        "dns:probe-1.example",
        "email:a@b.example",
        "uri:urn:x",
        "ip:192.0.2.1",
        "ip:2001:db8::1",
    ]
    .into_iter()
    .map(|text| GeneralName::parse(text).unwrap())
    .collect()
}

pub(crate) fn signed_data(message: &[u8]) -> SignedData {
    ContentInfo::from_der(message)
        .unwrap()
        .content
        .decode_as()
        .unwrap()
}

fn values(message: &[u8], oid: const_oid::ObjectIdentifier) -> Vec<Vec<u8>> {
    let signed = signed_data(message);
    let info = signed.signer_infos.0.get(0).unwrap().clone();
    let attributes = info.signed_attrs.unwrap_or_default();
    let found = attributes.iter().filter(|attribute| attribute.oid == oid);
    found
        .flat_map(|a| a.values.iter().map(|v| v.to_der().unwrap()))
        .collect()
}

#[test]
fn a_request_says_what_was_asked_for() {
    let pki = Pki::new();
    let (subject, sans) = (subject(), sans());
    let challenge = Secret::new(b"0123456789ABCDEF".to_vec());
    for kind in [KeyKind::Rsa2048, KeyKind::EcP256] {
        let key = ClientKey::generate(kind).unwrap();
        let csr = CsrBuilder::new(&key, &subject)
            .sans(&sans)
            .challenge(&challenge);
        std::fs::write(pki.path("csr.der"), csr.build().unwrap()).unwrap();
        let text = pki.openssl(&[
            "req",
            "-verify",
            "-noout",
            "-text",
            "-inform",
            "DER",
            "-in",
            "csr.der",
            "-nameopt",
            "RFC2253,utf8,-esc_msb",
        ]);
        assert!(text.contains("verify OK"), "{text}");
        assert!(
            text.contains("Subject: CN=probe-1,OU=Läb,O=Example,C=DE"),
            "{text}"
        );
        assert!(
            text.contains("challengePassword        :0123456789ABCDEF"),
            "{text}"
        );
        assert!(
            text.contains(
                "DNS:probe-1.example, email:a@b.example, URI:urn:x, IP Address:192.0.2.1, \
                 IP Address:2001:DB8:0:0:0:0:0:1"
            ),
            "{text}"
        );
    }
}

#[test]
fn a_challenge_travels_in_any_string_type() {
    let pki = Pki::new();
    let key = ClientKey::generate(KeyKind::EcP256).unwrap();
    let subject = subject();
    let challenge = Secret::new(b"hunter2".to_vec());
    for (string, name) in [
        (StringType::Printable, "PRINTABLESTRING"),
        (StringType::Utf8, "UTF8STRING"),
        (StringType::Ia5, "IA5STRING"),
        (StringType::Teletex, "T61STRING"),
        (StringType::Bmp, "BMPSTRING"),
    ] {
        let csr = CsrBuilder::new(&key, &subject).challenge_as(&challenge, string);
        std::fs::write(pki.path("csr.der"), csr.build().unwrap()).unwrap();
        let text = pki.openssl(&["asn1parse", "-inform", "DER", "-in", "csr.der"]);
        let after = text.split(":challengePassword").nth(1).unwrap();
        assert!(
            after.lines().nth(2).unwrap().contains(name),
            "{string:?}: {text}"
        );
        pki.openssl(&[
            "req", "-verify", "-noout", "-inform", "DER", "-in", "csr.der",
        ]);
    }
    let umlaut = Secret::new("ä".into());
    assert!(
        CsrBuilder::new(&key, &subject)
            .challenge_as(&umlaut, StringType::Bmp)
            .build()
            .is_err()
    );
    let csr = CsrBuilder::new(&key, &subject)
        .challenge(&umlaut)
        .build()
        .unwrap();
    std::fs::write(pki.path("csr.der"), csr).unwrap();
    let text = pki.openssl(&["asn1parse", "-inform", "DER", "-in", "csr.der"]);
    assert!(
        text.split(":challengePassword")
            .nth(1)
            .unwrap()
            .contains("UTF8STRING"),
        "{text}"
    );
}

#[test]
fn a_request_for_a_foreign_key_has_no_proof_of_possession() {
    let pki = Pki::new();
    let key = ClientKey::generate(KeyKind::EcP256).unwrap();
    let other = ClientKey::generate(KeyKind::EcP256).unwrap();
    let csr = CsrBuilder::new(&key, &subject())
        .public_key_info(other.public_key_info())
        .build();
    std::fs::write(pki.path("csr.der"), csr.unwrap()).unwrap();
    let (_, text) = pki.try_openssl(&[
        "req", "-verify", "-noout", "-inform", "DER", "-in", "csr.der",
    ]);
    assert!(text.contains("verify failure"), "{text}");
}

#[test]
fn the_self_signed_certificate_is_one_for_messages() {
    let pki = Pki::new();
    for kind in [KeyKind::Rsa2048, KeyKind::EcP256] {
        let key = ClientKey::generate(kind).unwrap();
        let signer = Signer::self_signed(&key, &subject(), SystemTime::now()).unwrap();
        assert!(signer.certificate.is_self_signed());
        assert!(!signer.certificate.is_authority());
        assert_eq!(signer.certificate.public_key_info(), key.public_key_info());
        std::fs::write(pki.path("self.pem"), signer.certificate.to_pem().unwrap()).unwrap();
        pki.openssl(&[
            "verify",
            "-partial_chain",
            "-check_ss_sig",
            "-trusted",
            "self.pem",
            "self.pem",
        ]);
        let text = pki.openssl(&["x509", "-in", "self.pem", "-noout", "-text"]);
        assert!(
            text.contains("Digital Signature, Key Encipherment"),
            "{text}"
        );
    }
    let key = ClientKey::generate(KeyKind::EcP256).unwrap();
    let nameless = DistinguishedName::default();
    let signer = Signer::self_signed(&key, &nameless, SystemTime::now()).unwrap();
    assert_eq!(signer.certificate.subject_text(), "CN=SCEP client");
}

#[test]
fn openssl_verifies_and_opens_every_combination() {
    let pki = Pki::new();
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let subject = subject();
    let signer = Signer::self_signed(&key, &subject, SystemTime::now()).unwrap();
    let recipient = pki.certificate("decryption");
    let challenge = Secret::new(b"hunter2".to_vec());
    let csr = CsrBuilder::new(&key, &subject)
        .challenge(&challenge)
        .build()
        .unwrap();
    let forms = [SignatureForm::RsaEncryption, SignatureForm::DigestWithRsa];
    let names = [
        SignerIdentification::IssuerAndSerialNumber,
        SignerIdentification::SubjectKeyIdentifier,
    ];
    let transports = [KeyTransport::Pkcs1v15, KeyTransport::OaepSha1];
    for (index, digest) in DigestAlgorithm::ALL.into_iter().enumerate() {
        for (form, identification) in forms.into_iter().zip(names) {
            for transport in transports {
                let cipher = ContentCipher::ALL[index];
                let envelope = Envelope::to(&recipient)
                    .cipher(cipher)
                    .key_transport(transport);
                let message = MessageBuilder::new(&signer)
                    .digest(digest)
                    .signature_form(form)
                    .signer_identification(identification)
                    .build(&envelope, &csr)
                    .unwrap();
                let content = pki.verify(&message.der);
                assert_eq!(pki.decrypt(&content, "decryption"), *csr);
                let info = signed_data(&message.der)
                    .signer_infos
                    .0
                    .get(0)
                    .unwrap()
                    .clone();
                let plain = info.signature_algorithm.oid == rfc5912::RSA_ENCRYPTION;
                assert_eq!(plain, form == SignatureForm::RsaEncryption);
                assert_eq!(info.digest_alg.oid, digest.oid());
            }
        }
    }
}

#[test]
fn the_signed_attributes_are_those_of_a_pkcs_req() {
    let pki = Pki::new();
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let signer = Signer::self_signed(&key, &subject(), SystemTime::now()).unwrap();
    let message = MessageBuilder::new(&signer).sign(Some(b"content")).unwrap();
    assert_eq!(values(&message.der, oid::MESSAGE_TYPE), [b"\x13\x0219"]);
    let id = [b"\x13\x40", message.transaction_id.as_bytes()].concat();
    assert_eq!(values(&message.der, oid::TRANSACTION_ID), [id]);
    let nonce = [b"\x04\x10", message.sender_nonce.as_slice()].concat();
    assert_eq!(values(&message.der, oid::SENDER_NONCE), [nonce]);
    // DER: the SET as it travels is in ascending order of its elements' encodings.
    std::fs::write(pki.path("message.der"), &message.der).unwrap();
    pki.verify(&message.der);
    let info = signed_data(&message.der)
        .signer_infos
        .0
        .get(0)
        .unwrap()
        .clone();
    let set: Vec<_> = info
        .signed_attrs
        .unwrap()
        .iter()
        .map(|a| a.to_der().unwrap())
        .collect();
    let joined = set.concat();
    assert!(set.is_sorted());
    assert!(
        message
            .der
            .windows(joined.len())
            .any(|window| window == joined)
    );
    let again = MessageBuilder::new(&signer).sign(Some(b"content")).unwrap();
    assert_eq!(again.transaction_id, message.transaction_id);
    assert_ne!(again.sender_nonce, message.sender_nonce);
}

#[test]
fn every_part_can_be_wrong() {
    let pki = Pki::new();
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let signer = Signer::self_signed(&key, &subject(), SystemTime::now()).unwrap();
    let builder = || MessageBuilder::new(&signer);
    let content: Option<&[u8]> = Some(b"content");

    for (omitted, left) in [(oid::SENDER_NONCE, 4), (rfc5911::ID_MESSAGE_DIGEST, 4)] {
        let message = builder().omit(omitted).sign(content).unwrap();
        assert!(values(&message.der, omitted).is_empty());
        let info = signed_data(&message.der)
            .signer_infos
            .0
            .get(0)
            .unwrap()
            .clone();
        assert_eq!(info.signed_attrs.unwrap().len(), left);
    }
    let all = [
        rfc5911::ID_CONTENT_TYPE,
        rfc5911::ID_MESSAGE_DIGEST,
        oid::MESSAGE_TYPE,
        oid::TRANSACTION_ID,
        oid::SENDER_NONCE,
    ];
    let bare = all
        .into_iter()
        .fold(builder(), MessageBuilder::omit)
        .sign(content)
        .unwrap();
    assert!(
        signed_data(&bare.der)
            .signer_infos
            .0
            .get(0)
            .unwrap()
            .signed_attrs
            .is_none()
    );
    assert_eq!(pki.verify(&bare.der), b"content");

    let three = vec![b"\x13\x013".to_vec()];
    let message = builder()
        .attribute(oid::MESSAGE_TYPE, &three)
        .unwrap()
        .sign(content)
        .unwrap();
    assert_eq!(values(&message.der, oid::MESSAGE_TYPE), three);
    let message = builder()
        .extra_attribute(oid::MESSAGE_TYPE, &three)
        .unwrap();
    let message = message.sign(content).unwrap();
    assert_eq!(values(&message.der, oid::MESSAGE_TYPE).len(), 2);
    let message = builder()
        .attribute(oid::MESSAGE_TYPE, &[])
        .unwrap()
        .sign(content)
        .unwrap();
    assert!(values(&message.der, oid::MESSAGE_TYPE).is_empty());
    assert!(
        builder()
            .attribute(oid::MESSAGE_TYPE, &[vec![0x13]])
            .is_err()
    );

    let wrong = [[b"\x04\x20".as_slice(), &[0; 32]].concat()];
    let message = builder()
        .attribute(rfc5911::ID_MESSAGE_DIGEST, &wrong)
        .unwrap();
    std::fs::write(pki.path("message.der"), message.sign(content).unwrap().der).unwrap();
    let (verified, text) = pki.try_openssl(&[
        "cms",
        "-verify",
        "-noverify",
        "-inform",
        "DER",
        "-in",
        "message.der",
        "-out",
        "x",
    ]);
    assert!(!verified, "{text}");

    let message = builder().certificates(&[]).sign(content).unwrap();
    assert!(signed_data(&message.der).certificates.is_none());
    let message = builder().sign(None).unwrap();
    assert!(
        signed_data(&message.der)
            .encap_content_info
            .econtent
            .is_none()
    );
    let message = builder()
        .declared_digest(rfc5912::ID_SHA_1)
        .content_type(rfc5911::ID_ENVELOPED_DATA)
        .transaction_id("transaktion-ä")
        .sign(content)
        .unwrap();
    let info = signed_data(&message.der)
        .signer_infos
        .0
        .get(0)
        .unwrap()
        .clone();
    assert_eq!(info.digest_alg.oid, rfc5912::ID_SHA_1);
    assert_eq!(
        values(&message.der, rfc5911::ID_CONTENT_TYPE)[0],
        rfc5911::ID_ENVELOPED_DATA.to_der().unwrap()
    );
    assert_eq!(values(&message.der, oid::TRANSACTION_ID)[0][0], 0x0c);
}

#[test]
fn every_part_of_an_envelope_can_be_wrong() {
    let pki = Pki::new();
    let recipient = pki.certificate("decryption");
    let envelope = |der: &[u8]| -> cms::enveloped_data::EnvelopedData {
        ContentInfo::from_der(der)
            .unwrap()
            .content
            .decode_as()
            .unwrap()
    };
    let transported = |der: &[u8]| match envelope(der).recip_infos.0.get(0).unwrap() {
        cms::enveloped_data::RecipientInfo::Ktri(ktri) => ktri.clone(),
        other => panic!("{other:?}"),
    };
    let declared = Envelope::to(&recipient)
        .declared_cipher(rfc5911::DES_EDE_3_CBC)
        .declared_key_transport(rfc5912::ID_RSAES_OAEP)
        .seal(b"x")
        .unwrap();
    let found = envelope(&declared).encrypted_content.content_enc_alg.oid;
    assert_eq!(found, rfc5911::DES_EDE_3_CBC);
    assert_eq!(
        transported(&declared).key_enc_alg.oid,
        rfc5912::ID_RSAES_OAEP
    );

    let junk = Envelope::to(&recipient)
        .encrypted_key(b"junk")
        .seal(b"x")
        .unwrap();
    assert_eq!(transported(&junk).enc_key.as_bytes(), b"junk");

    // A content key of a length that no AES has travels as it is.
    let long = Envelope::to(&recipient)
        .content_key(&[7; 53])
        .seal(b"x")
        .unwrap();
    std::fs::write(pki.path("key.bin"), transported(&long).enc_key.as_bytes()).unwrap();
    pki.openssl(&[
        "pkeyutl",
        "-decrypt",
        "-inkey",
        "decryption.key",
        "-in",
        "key.bin",
        "-out",
        "key.out",
    ]);
    assert_eq!(std::fs::read(pki.path("key.out")).unwrap(), [7; 53]);

    let sealed = Envelope::to(&recipient).unpadded().seal(&[0; 32]).unwrap();
    assert_eq!(
        envelope(&sealed)
            .encrypted_content
            .encrypted_content
            .unwrap()
            .as_bytes()
            .len(),
        32
    );
    assert!(Envelope::to(&recipient).unpadded().seal(&[0; 31]).is_err());
    assert!(
        Envelope::to(&pki.certificate("issuing"))
            .seal(b"x")
            .is_err()
    );
}

#[test]
fn an_elliptic_signer_can_be_built_to_be_refused() {
    let pki = Pki::new();
    let key = ClientKey::generate(KeyKind::EcP256).unwrap();
    let signer = Signer::self_signed(&key, &subject(), SystemTime::now()).unwrap();
    let message = MessageBuilder::new(&signer).sign(Some(b"content")).unwrap();
    assert_eq!(pki.verify(&message.der), b"content");
    assert!(
        MessageBuilder::new(&signer)
            .digest(DigestAlgorithm::Sha512)
            .sign(None)
            .is_err()
    );
}

#[test]
fn a_degenerate_signed_data_is_read_by_openssl() {
    let pki = Pki::new();
    let all: Vec<Certificate> = pki.certificates(&["root", "issuing", "signing"]);
    std::fs::write(
        pki.path("p7.der"),
        chancery_client::degenerate(&all).unwrap(),
    )
    .unwrap();
    let text = pki.openssl(&[
        "pkcs7",
        "-inform",
        "DER",
        "-in",
        "p7.der",
        "-print_certs",
        "-noout",
    ]);
    for name in ["root", "issuing", "signing"] {
        assert!(text.contains(&format!("CN = {name}\n")), "{text}");
    }
}
