//! Tokens that are not ready, and tokens that look alike. Alone in its process: SoftHSM does not
//! lock its list of slots when it grows.
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
use chancery_token::{OpenError, Token, TokenConfig};
use common::{Fixture, MODULE, PIN, secret};
use cryptoki::context::Pkcs11;
use cryptoki::types::AuthPin;

/// Initialises a blank token and leaves it without a user PIN.
fn initialise_by_halves(label: &str) {
    let module = Pkcs11::new(MODULE).unwrap();
    let slots = module.get_slots_with_token().unwrap();
    let blank = slots
        .into_iter()
        .find(|slot| !module.get_token_info(*slot).unwrap().token_initialized());
    module
        .init_token(
            blank.unwrap(),
            &AuthPin::from("1234-officer".to_owned()),
            label,
        )
        .unwrap();
    module.get_slots_with_token().unwrap();
}

#[test]
fn tokens_must_be_ready_and_unmistakable() {
    let fixture = Fixture::new();
    let open = |config: &TokenConfig| Token::open(config, secret(PIN), &fixture.state);

    initialise_by_halves("half");
    let half = TokenConfig {
        label: "half".into(),
        ..fixture.config.clone()
    };
    let error = open(&half).unwrap_err();
    assert!(
        matches!(error, OpenError::PinNotInitialised { .. }),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(&fixture.state).unwrap().count(), 0);

    // A second token of the fixture's label, as a careless administrator makes one.
    let serial = open(&fixture.config).unwrap().info().serial;
    initialise_by_halves(&fixture.config.label);
    let error = open(&fixture.config).unwrap_err();
    assert!(matches!(error, OpenError::Ambiguous { .. }), "{error}");
    assert!(error.to_string().contains(&serial), "{error}");
    let by_serial = TokenConfig {
        serial: Some(serial.clone()),
        ..fixture.config.clone()
    };
    assert_eq!(open(&by_serial).unwrap().info().serial, serial);

    let again = initialise_token(
        Path::new(MODULE),
        &fixture.config.label,
        &secret(b"so pin"),
        &secret(PIN),
    );
    assert!(matches!(again, Err(CeremonyError::LabelTaken { .. })));
    let info =
        initialise_token(Path::new(MODULE), "new", &secret(b"so pin"), &secret(PIN)).unwrap();
    assert_eq!(info.label, "new");
    open(&TokenConfig {
        label: "new".into(),
        ..fixture.config.clone()
    })
    .unwrap();
}
