//! A token whose storage goes away while it is in use. Alone in its process: the module does not
//! recover.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_token::{Class, Decrypt, Issue, KeyAlgorithm, KeyFault, KeyTransport};
use common::{Fixture, token_folder};

#[test]
fn a_token_without_its_storage_ends_the_process() {
    let fixture = Fixture::new();
    let ceremony = fixture.ceremony();
    let issue = ceremony
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    let decrypt = ceremony
        .generate_pair::<Decrypt>("ra", KeyAlgorithm::Rsa2048)
        .unwrap();
    let token = fixture.token();
    let issue_key = token.key::<Issue>(&issue).unwrap();
    let decrypt_key = token.key::<Decrypt>(&decrypt).unwrap();
    let mut session = token.session().unwrap();

    std::fs::rename(token_folder(), token_folder().with_extension("away")).unwrap();

    let error = issue_key.issue(&mut session, b"text").unwrap_err();
    assert_eq!(error.class(), Class::Token, "{error}");
    assert!(error.is_fatal());

    // A decryption tells nothing of it; the self-test does.
    let decrypted = decrypt_key.decrypt(&mut session, KeyTransport::Pkcs1v15, &[1; 256], 16);
    assert_eq!(decrypted.expose().len(), 16);
    let error = session.self_test(&decrypt_key).unwrap_err();
    assert_eq!(error.class(), Class::Token, "{error}");

    let error = token.key::<Issue>(&issue).map(drop).unwrap_err();
    assert!(
        matches!(error.fault, KeyFault::Missing | KeyFault::Call(_)),
        "{error}"
    );
    assert_eq!(error.class(), Class::Token);
}
