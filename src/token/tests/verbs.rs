//! Every verb against SoftHSM, judged by aws-lc-rs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use chancery_token::{
    Authenticate, Checkpoint, Class, Decrypt, DigestAlgorithm, Issue, Key, KeyAlgorithm,
    KeyTransport, Pinned, Respond, SignatureAlgorithm, TokenError,
};
use common::Fixture;

const TEXT: &[u8] = b"not quite a TBSCertificate";

fn verifies(
    algorithm: &'static dyn VerificationAlgorithm,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, spki)
        .verify(message, signature)
        .is_ok()
}

fn encrypt(spki: &[u8], transport: KeyTransport, content_key: &[u8]) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(spki).unwrap();
    let mut encrypted = vec![0; key.key_size_bytes()];
    match transport {
        KeyTransport::Pkcs1v15 => {
            let key = Pkcs1PublicEncryptingKey::new(key).unwrap();
            key.encrypt(content_key, &mut encrypted).unwrap();
        }
        KeyTransport::OaepSha1 => {
            let key = OaepPublicEncryptingKey::new(key).unwrap();
            key.encrypt(&OAEP_SHA1_MGF1SHA1, content_key, &mut encrypted, None)
                .unwrap();
        }
    }
    encrypted
}

/// A new key of `fixture`'s token, found as a service finds it.
fn pair<R: chancery_token::PairRole>(fixture: &Fixture, algorithm: KeyAlgorithm) -> Key<R> {
    let pinned = fixture
        .ceremony()
        .generate_pair::<R>("key", algorithm)
        .unwrap();
    fixture.token().key::<R>(&pinned).unwrap()
}

#[test]
fn issuing_keys_sign_by_their_algorithm() {
    let fixture = Fixture::new();
    let mut session = fixture.token().session().unwrap();
    let table: [(KeyAlgorithm, SignatureAlgorithm, &dyn VerificationAlgorithm); 5] = [
        (
            KeyAlgorithm::Rsa2048,
            SignatureAlgorithm::Sha256WithRsaEncryption,
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            KeyAlgorithm::Rsa3072,
            SignatureAlgorithm::Sha256WithRsaEncryption,
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            KeyAlgorithm::Rsa4096,
            SignatureAlgorithm::Sha256WithRsaEncryption,
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            KeyAlgorithm::P256,
            SignatureAlgorithm::EcdsaWithSha256,
            &ECDSA_P256_SHA256_ASN1,
        ),
        (
            KeyAlgorithm::P384,
            SignatureAlgorithm::EcdsaWithSha384,
            &ECDSA_P384_SHA384_ASN1,
        ),
    ];
    for (algorithm, expected, verification) in table {
        let key = pair::<Issue>(&fixture, algorithm);
        assert_eq!(key.signature_algorithm(), expected);
        let spki = key.public_key().unwrap();
        let signature = key.issue(&mut session, TEXT).unwrap();
        assert!(
            verifies(verification, spki, TEXT, &signature),
            "{algorithm}"
        );
        assert!(
            !verifies(verification, spki, b"another text", &signature),
            "{algorithm}"
        );
    }
}

#[test]
fn responding_keys_sign_with_each_digest() {
    let fixture = Fixture::new();
    let key = pair::<Respond>(&fixture, KeyAlgorithm::Rsa2048);
    let mut session = fixture.token().session().unwrap();
    let table: [(DigestAlgorithm, &dyn VerificationAlgorithm); 3] = [
        (DigestAlgorithm::Sha256, &RSA_PKCS1_2048_8192_SHA256),
        (DigestAlgorithm::Sha384, &RSA_PKCS1_2048_8192_SHA384),
        (DigestAlgorithm::Sha512, &RSA_PKCS1_2048_8192_SHA512),
    ];
    for (digest, verification) in table {
        let signature = key.respond(&mut session, digest, TEXT).unwrap();
        assert!(
            verifies(verification, key.public_key().unwrap(), TEXT, &signature),
            "{digest:?}"
        );
    }
}

#[test]
fn checkpoints_are_signed_with_p256() {
    let fixture = Fixture::new();
    let key = pair::<Checkpoint>(&fixture, KeyAlgorithm::P256);
    let mut session = fixture.token().session().unwrap();
    let note = b"origin\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let signature = key.checkpoint(&mut session, note).unwrap();
    let spki = key.public_key().unwrap();
    assert!(verifies(&ECDSA_P256_SHA256_ASN1, spki, note, &signature));
}

#[test]
fn macs_tell_messages_and_keys_apart() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let mut session = token.session().unwrap();
    let ceremony = fixture.ceremony();
    let pinned = ceremony
        .generate_secret::<Authenticate>("challenges")
        .unwrap();
    let key = token.key::<Authenticate>(&pinned).unwrap();
    let pinned_other = ceremony
        .generate_secret::<Authenticate>("next challenges")
        .unwrap();
    let other = token.key::<Authenticate>(&pinned_other).unwrap();

    let mac = key.authenticate(&mut session, TEXT).unwrap();
    assert_eq!(mac, key.authenticate(&mut session, TEXT).unwrap());
    assert!(key.verify(&mut session, TEXT, &mac).unwrap());
    assert!(!key.verify(&mut session, b"another text", &mac).unwrap());
    assert!(!other.verify(&mut session, TEXT, &mac).unwrap());
    assert!(!key.verify(&mut session, TEXT, &mac[..31]).unwrap());
    assert!(!key.verify(&mut session, TEXT, &[]).unwrap());
    let mut changed = mac;
    changed[31] ^= 1;
    assert!(!key.verify(&mut session, TEXT, &changed).unwrap());

    assert_eq!(
        Pinned::Check(key.check_value(&mut session).unwrap()),
        pinned.material
    );
    assert_ne!(pinned.material, pinned_other.material);
    assert!(key.public_key().is_none());
}

#[test]
fn both_key_transports_decrypt() {
    let fixture = Fixture::new();
    let mut session = fixture.token().session().unwrap();
    for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::Rsa3072] {
        let key = pair::<Decrypt>(&fixture, algorithm);
        for transport in [KeyTransport::Pkcs1v15, KeyTransport::OaepSha1] {
            for length in [16, 24, 32] {
                let content_key = vec![0x5a; length];
                let encrypted = encrypt(key.public_key().unwrap(), transport, &content_key);
                let decrypted = key.decrypt(&mut session, transport, &encrypted, length);
                assert_eq!(
                    decrypted.expose(),
                    content_key,
                    "{algorithm} {transport:?} {length}"
                );
            }
        }
    }
}

/// Every ciphertext that is not for us gives a key of the length asked for, another one each time,
/// and the session goes on working without being renewed.
#[test]
fn decryption_fails_in_silence() {
    let fixture = Fixture::new();
    let key = pair::<Decrypt>(&fixture, KeyAlgorithm::Rsa2048);
    let spki = key.public_key().unwrap();
    let mut session = fixture.token().session().unwrap();
    let stranger = pair::<Decrypt>(&fixture, KeyAlgorithm::Rsa2048);
    let content_key = [0x5a; 16];
    let good = encrypt(spki, KeyTransport::Pkcs1v15, &content_key);

    let mut changed = good.clone();
    changed[100] ^= 1;
    let hostile = [
        changed,
        encrypt(
            stranger.public_key().unwrap(),
            KeyTransport::Pkcs1v15,
            &content_key,
        ),
        encrypt(spki, KeyTransport::Pkcs1v15, &[0x5a; 15]),
        encrypt(spki, KeyTransport::Pkcs1v15, &[0x5a; 17]),
        encrypt(spki, KeyTransport::Pkcs1v15, &[]),
        encrypt(spki, KeyTransport::OaepSha1, &content_key),
        vec![0; 256],
        vec![0xff; 256],
        vec![1],
        vec![],
        good[..255].to_vec(),
        [good.as_slice(), &[0]].concat(),
        vec![7; 70_000],
    ];
    for (number, encrypted) in hostile.iter().enumerate() {
        let mut decrypt = || key.decrypt(&mut session, KeyTransport::Pkcs1v15, encrypted, 16);
        let (first, second) = (decrypt(), decrypt());
        assert_eq!(first.expose().len(), 16, "case {number}");
        assert_ne!(first.expose(), content_key, "case {number}");
        assert_ne!(first.expose(), second.expose(), "case {number}");

        let decrypted = key.decrypt(&mut session, KeyTransport::Pkcs1v15, &good, 16);
        assert_eq!(decrypted.expose(), content_key, "after case {number}");
    }
    for encrypted in &hostile {
        let _ = key.decrypt(&mut session, KeyTransport::OaepSha1, encrypted, 32);
    }
    session.self_test(&key).unwrap();
}

#[test]
fn a_session_can_be_renewed_at_any_time() {
    let fixture = Fixture::new();
    let key = pair::<Issue>(&fixture, KeyAlgorithm::P256);
    let token = fixture.token();
    let mut session = token.session().unwrap();
    for _ in 0..3 {
        let signature = key.issue(&mut session, TEXT).unwrap();
        assert!(verifies(
            &ECDSA_P256_SHA256_ASN1,
            key.public_key().unwrap(),
            TEXT,
            &signature
        ));
        session.renew().unwrap();
    }
}

/// The anchor keeps the login while no session is open, and a session keeps it after the token's
/// own value is gone.
#[test]
fn the_login_lives_as_long_as_its_users() {
    let fixture = Fixture::new();
    let pinned = fixture
        .ceremony()
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    let token = fixture.token();
    drop(token.session().unwrap());
    let key = token.key::<Issue>(&pinned).unwrap();
    let mut session = token.session().unwrap();
    drop(token);
    key.issue(&mut session, TEXT).unwrap();
}

#[test]
fn eight_workers_share_a_token() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let issue = pair::<Issue>(&fixture, KeyAlgorithm::P256);
    let decrypt = pair::<Decrypt>(&fixture, KeyAlgorithm::Rsa2048);
    let content_key = [0x33; 32];
    let encrypted = encrypt(
        decrypt.public_key().unwrap(),
        KeyTransport::OaepSha1,
        &content_key,
    );
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..8_usize {
            let (token, issue, decrypt) = (token.clone(), issue.clone(), decrypt.clone());
            let (encrypted, done) = (&encrypted, &done);
            scope.spawn(move || {
                let mut session = token.session().unwrap();
                for round in 0..10_usize {
                    let text = [worker.to_be_bytes(), round.to_be_bytes()].concat();
                    let signature = issue.issue(&mut session, &text).unwrap();
                    let spki = issue.public_key().unwrap();
                    assert!(verifies(&ECDSA_P256_SHA256_ASN1, spki, &text, &signature));
                    let decrypted =
                        decrypt.decrypt(&mut session, KeyTransport::OaepSha1, encrypted, 32);
                    assert_eq!(decrypted.expose(), content_key);
                    session.renew().unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 80);
}

#[test]
fn a_key_stays_on_its_token() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let key = pair::<Issue>(&fixture, KeyAlgorithm::P256);
    let error = key
        .issue(&mut other.token().session().unwrap(), TEXT)
        .unwrap_err();
    assert!(matches!(error, TokenError::OtherToken { .. }), "{error}");
    assert_eq!(error.class(), Class::Fatal);
}

#[test]
fn random_octets_differ() {
    let fixture = Fixture::new();
    let mut session = fixture.token().session().unwrap();
    let (first, second) = (session.random(32).unwrap(), session.random(32).unwrap());
    assert_eq!(first.len(), 32);
    assert_ne!(first, second);
    assert_ne!(digest::digest(&digest::SHA256, &first).as_ref(), second);
    assert!(session.random(0).unwrap().is_empty());
}

#[test]
fn a_self_test_serves_every_role() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let mut session = token.session().unwrap();
    session
        .self_test(&pair::<Issue>(&fixture, KeyAlgorithm::P384))
        .unwrap();
    session
        .self_test(&pair::<Decrypt>(&fixture, KeyAlgorithm::Rsa2048))
        .unwrap();
    session
        .self_test(&pair::<Respond>(&fixture, KeyAlgorithm::Rsa2048))
        .unwrap();
    session
        .self_test(&pair::<Checkpoint>(&fixture, KeyAlgorithm::P256))
        .unwrap();
    let pinned = fixture
        .ceremony()
        .generate_secret::<Authenticate>("challenges")
        .unwrap();
    session
        .self_test(&token.key::<Authenticate>(&pinned).unwrap())
        .unwrap();
}

#[test]
fn a_token_describes_itself() {
    let fixture = Fixture::new();
    let info = fixture.token().info();
    assert_eq!(info.label, fixture.config.label);
    assert!(!info.serial.is_empty());
    assert!(info.manufacturer.unwrap().contains("SoftHSM"));
    assert_eq!(info.firmware.unwrap(), "2.6");
}
