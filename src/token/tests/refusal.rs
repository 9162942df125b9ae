//! Keys and tokens that must not be used, and ceremonies that must not happen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::path::Path;

use chancery_token::ceremony::{CeremonyError, initialise_token};
use chancery_token::{
    Authenticate, Checkpoint, Class, Decrypt, Issue, KeyAlgorithm, KeyFault, OpenError, Pinned,
    PinnedKey, Respond, Role, Token,
};
use common::{Fixture, MODULE, PIN, secret};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session as RawSession;

/// What makes a private key good for issuing, but for what `changes` say.
fn template(id: &[u8], changes: &[Attribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Id(id.to_vec()),
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    for change in changes {
        template.retain(|attribute| attribute.attribute_type() != change.attribute_type());
        template.push(change.clone());
    }
    template
}

/// Generates an RSA pair as somebody else would, and pins it.
fn foreign_rsa(session: &RawSession, id: &[u8], changes: &[Attribute]) -> PinnedKey {
    let public = [
        Attribute::Token(true),
        Attribute::Id(id.to_vec()),
        Attribute::ModulusBits(2048.into()),
        Attribute::PublicExponent(vec![1, 0, 1]),
    ];
    let (public, _) = session
        .generate_key_pair(
            &Mechanism::RsaPkcsKeyPairGen,
            &public,
            &template(id, changes),
        )
        .unwrap();
    PinnedKey {
        id: id.to_vec(),
        material: Pinned::Public(rsa_spki(session, public)),
    }
}

/// Encoded by hand, so as not to judge the crate by itself.
fn rsa_spki(session: &RawSession, public: ObjectHandle) -> Vec<u8> {
    use cryptoki::object::AttributeType::Modulus;
    let attributes = session.get_attributes(public, &[Modulus]).unwrap();
    let [Attribute::Modulus(modulus)] = attributes.as_slice() else {
        panic!()
    };
    let mut spki = vec![0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09];
    spki.extend([
        0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ]);
    spki.extend([
        0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0,
    ]);
    spki.extend(modulus);
    spki.extend([0x02, 0x03, 1, 0, 1]);
    spki
}

fn fault<R: Role>(fixture: &Fixture, pinned: &PinnedKey) -> KeyFault {
    let error = fixture.token().key::<R>(pinned).map(drop).unwrap_err();
    let id: String = pinned
        .id
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    assert!(error.to_string().contains(&id), "{error}");
    assert!(error.to_string().contains(&fixture.config.name), "{error}");
    error.fault
}

fn attribute<R: Role>(fixture: &Fixture, pinned: &PinnedKey) -> (&'static str, Option<bool>) {
    match fault::<R>(fixture, pinned) {
        KeyFault::Attribute { name, found, .. } => (name, found),
        other => panic!("{other}"),
    }
}

/// The templates of this file are good as they stand, so that each refusal is for its change.
#[test]
fn a_foreign_key_that_keeps_the_rules_is_accepted() {
    let fixture = Fixture::new();
    let pinned = foreign_rsa(&fixture.raw(), b"good", &[]);
    fixture.token().key::<Issue>(&pinned).unwrap();
}

#[test]
fn an_extractable_key_is_refused() {
    let fixture = Fixture::new();
    let session = fixture.raw();
    let pinned = foreign_rsa(&session, b"out", &[Attribute::Extractable(true)]);
    assert_eq!(
        attribute::<Issue>(&fixture, &pinned),
        ("CKA_EXTRACTABLE", Some(true))
    );

    // Closing it later does not help: it may have left before.
    let search = [
        Attribute::Id(b"out".to_vec()),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
    ];
    let found = session.find_objects(&search).unwrap();
    session
        .update_attributes(found[0], &[Attribute::Extractable(false)])
        .unwrap();
    assert_eq!(
        attribute::<Issue>(&fixture, &pinned),
        ("CKA_NEVER_EXTRACTABLE", Some(false))
    );
}

#[test]
fn a_key_that_could_be_read_is_refused() {
    let fixture = Fixture::new();
    let session = fixture.raw();
    let pinned = foreign_rsa(&session, b"read", &[Attribute::Sensitive(false)]);
    assert_eq!(
        attribute::<Issue>(&fixture, &pinned),
        ("CKA_SENSITIVE", Some(false))
    );
    let search = [
        Attribute::Id(b"read".to_vec()),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
    ];
    let found = session.find_objects(&search).unwrap();
    session
        .update_attributes(found[0], &[Attribute::Sensitive(true)])
        .unwrap();
    assert_eq!(
        attribute::<Issue>(&fixture, &pinned),
        ("CKA_ALWAYS_SENSITIVE", Some(false))
    );
}

#[test]
fn a_key_with_a_second_usage_is_refused() {
    let fixture = Fixture::new();
    let session = fixture.raw();
    for (id, usage, name) in [
        (b"d", Attribute::Decrypt(true), "CKA_DECRYPT"),
        (b"r", Attribute::SignRecover(true), "CKA_SIGN_RECOVER"),
        (b"u", Attribute::Unwrap(true), "CKA_UNWRAP"),
        (b"e", Attribute::Derive(true), "CKA_DERIVE"),
    ] {
        let pinned = foreign_rsa(&session, id, &[usage]);
        assert_eq!(attribute::<Issue>(&fixture, &pinned), (name, Some(true)));
    }
}

#[test]
fn a_key_serves_no_other_role() {
    let fixture = Fixture::new();
    let ceremony = fixture.ceremony();
    let decrypt = ceremony
        .generate_pair::<Decrypt>("ra", KeyAlgorithm::Rsa2048)
        .unwrap();
    assert_eq!(
        attribute::<Respond>(&fixture, &decrypt),
        ("CKA_SIGN", Some(false))
    );
    let respond = ceremony
        .generate_pair::<Respond>("ra", KeyAlgorithm::Rsa2048)
        .unwrap();
    assert_eq!(
        attribute::<Decrypt>(&fixture, &respond),
        ("CKA_SIGN", Some(true))
    );
    assert!(matches!(
        fault::<Checkpoint>(&fixture, &respond),
        KeyFault::Unsuitable(_)
    ));
    assert!(matches!(
        fault::<Authenticate>(&fixture, &respond),
        KeyFault::Unsuitable(_)
    ));
    let secret = ceremony.generate_secret::<Authenticate>("ch").unwrap();
    assert!(matches!(
        fault::<Issue>(&fixture, &secret),
        KeyFault::Unsuitable(_)
    ));
}

#[test]
fn a_key_that_came_from_outside_is_refused() {
    let fixture = Fixture::new();
    let session = fixture.raw();
    let mut template = template(b"in", &[]);
    template.retain(|attribute| !matches!(attribute, Attribute::SignRecover(_)));
    template.extend([
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Value(vec![7; 32]),
        Attribute::Verify(false),
    ]);
    session.create_object(&template).unwrap();
    let pinned = PinnedKey {
        id: b"in".to_vec(),
        material: Pinned::Check([0; 32]),
    };
    let (name, found) = attribute::<Authenticate>(&fixture, &pinned);
    assert!(
        ["CKA_NEVER_EXTRACTABLE", "CKA_LOCAL"].contains(&name),
        "{name}"
    );
    assert_eq!(found, Some(false));
}

#[test]
fn two_keys_of_one_identifier_are_refused() {
    let fixture = Fixture::new();
    let session = fixture.raw();
    let pinned = foreign_rsa(&session, b"twin", &[]);
    fixture.token().key::<Issue>(&pinned).unwrap();
    foreign_rsa(&session, b"twin", &[]);
    assert!(matches!(
        fault::<Issue>(&fixture, &pinned),
        KeyFault::Several(2)
    ));
}

#[test]
fn a_replaced_key_is_refused() {
    let fixture = Fixture::new();
    let ceremony = fixture.ceremony();
    for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::P256] {
        let ours = ceremony.generate_pair::<Issue>("ca", algorithm).unwrap();
        let other = ceremony.generate_pair::<Issue>("ca", algorithm).unwrap();
        let replaced = PinnedKey {
            id: other.id,
            material: ours.material,
        };
        assert!(matches!(
            fault::<Issue>(&fixture, &replaced),
            KeyFault::PublicKeyDiffers
        ));
    }
    let ours = ceremony.generate_secret::<Authenticate>("ch").unwrap();
    let other = ceremony.generate_secret::<Authenticate>("ch").unwrap();
    let replaced = PinnedKey {
        id: other.id,
        material: ours.material,
    };
    assert!(matches!(
        fault::<Authenticate>(&fixture, &replaced),
        KeyFault::PublicKeyDiffers
    ));
}

/// Whoever can replace the private key can leave the public one standing, or remove it.
#[test]
fn a_private_key_replaced_alone_fails_its_test() {
    let fixture = Fixture::new();
    let ours = fixture
        .ceremony()
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    let session = fixture.raw();
    let find = |class, id: &[u8]| {
        let search = [Attribute::Class(class), Attribute::Id(id.to_vec())];
        session.find_objects(&search).unwrap()
    };
    session
        .destroy_object(find(ObjectClass::PRIVATE_KEY, &ours.id)[0])
        .unwrap();
    assert!(matches!(fault::<Issue>(&fixture, &ours), KeyFault::Missing));

    let other = fixture
        .ceremony()
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    session
        .destroy_object(find(ObjectClass::PUBLIC_KEY, &other.id)[0])
        .unwrap();
    let replaced = PinnedKey {
        id: other.id.clone(),
        material: ours.material,
    };
    assert!(matches!(
        fault::<Issue>(&fixture, &replaced),
        KeyFault::Pairwise(_)
    ));
    // Without a public key object the right pin is still recognised.
    fixture.token().key::<Issue>(&other).unwrap();
}

#[test]
fn a_missing_key_is_not_replaced() {
    let fixture = Fixture::new();
    let session = fixture.raw();
    let pinned = foreign_rsa(&session, b"was here", &[]);
    for object in session.find_objects(&[]).unwrap() {
        session.destroy_object(object).unwrap();
    }
    assert!(matches!(
        fault::<Issue>(&fixture, &pinned),
        KeyFault::Missing
    ));
    let error = fixture.token().key::<Issue>(&pinned).map(drop).unwrap_err();
    assert_eq!(error.class(), Class::Token);
    assert!(session.find_objects(&[]).unwrap().is_empty());
}

#[test]
fn what_is_pinned_must_be_a_key() {
    let fixture = Fixture::new();
    let pinned = |id: &[u8], spki: &[u8]| PinnedKey {
        id: id.to_vec(),
        material: Pinned::Public(spki.to_vec()),
    };
    assert!(matches!(
        fault::<Issue>(&fixture, &pinned(b"x", b"no key")),
        KeyFault::Unsuitable(_)
    ));
    let good = fixture
        .ceremony()
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    let without_id = PinnedKey { id: vec![], ..good };
    assert!(matches!(
        fault::<Issue>(&fixture, &without_id),
        KeyFault::Unsuitable(_)
    ));
}

#[test]
fn a_ceremony_refuses_unsuitable_algorithms() {
    let fixture = Fixture::new();
    let ceremony = fixture.ceremony();
    let refused = [
        ceremony.generate_pair::<Decrypt>("ra", KeyAlgorithm::P256),
        ceremony.generate_pair::<Respond>("ra", KeyAlgorithm::P384),
        ceremony.generate_pair::<Checkpoint>("audit", KeyAlgorithm::Rsa2048),
        ceremony.generate_pair::<Checkpoint>("audit", KeyAlgorithm::P384),
    ];
    for result in refused {
        assert!(matches!(result, Err(CeremonyError::Algorithm { .. })));
    }
    assert!(fixture.raw().find_objects(&[]).unwrap().is_empty());
}

#[test]
fn an_initialised_token_is_left_alone() {
    let fixture = Fixture::new();
    let pinned = fixture
        .ceremony()
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    let error = initialise_token(
        Path::new(MODULE),
        &fixture.config.label,
        &secret(b"so"),
        &secret(PIN),
    )
    .unwrap_err();
    assert!(matches!(error, CeremonyError::LabelTaken { .. }), "{error}");
    fixture.token().key::<Issue>(&pinned).unwrap();
}

#[test]
fn a_token_is_found_by_label_and_serial_number() {
    let fixture = Fixture::new();
    let serial = fixture.token().info().serial;
    let open = |label: &str, serial: Option<&str>| {
        let config = chancery_token::TokenConfig {
            label: label.to_owned(),
            serial: serial.map(str::to_owned),
            ..fixture.config.clone()
        };
        Token::open(&config, secret(PIN), &fixture.state).map(drop)
    };
    open(&fixture.config.label, Some(&serial)).unwrap();
    let error = open(&fixture.config.label, Some("0000000000000000")).unwrap_err();
    assert!(matches!(error, OpenError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains(&serial), "{error}");
    assert!(matches!(
        open("no such label", None),
        Err(OpenError::NotFound { .. })
    ));
}
