//! A PIN is tried once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::path::Path;

use chancery_token::ceremony::{Ceremony, CeremonyError};
use chancery_token::{OpenError, PinRefusal, Token, TokenConfig, clear_pin};
use common::{Fixture, MODULE, PIN, secret};
use cryptoki::context::Pkcs11;
use cryptoki::session::UserType;
use cryptoki::slot::TokenInfo;
use cryptoki::types::AuthPin;

fn open(config: &TokenConfig, pin: &[u8], state: &Path) -> Result<(), OpenError> {
    Token::open(config, secret(pin), state).map(drop)
}

fn refusal(result: Result<(), OpenError>) -> PinRefusal {
    match result {
        Err(OpenError::PinRefused { refusal, .. }) => refusal,
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("logged in"),
    }
}

/// The token as the module shows it to anyone.
fn seen(fixture: &Fixture) -> (Pkcs11, cryptoki::slot::Slot, TokenInfo) {
    let module = Pkcs11::new(MODULE).unwrap();
    let slots = module.get_slots_with_token().unwrap();
    slots
        .into_iter()
        .map(|slot| (module.clone(), slot, module.get_token_info(slot).unwrap()))
        .find(|(_, _, info)| info.label() == fixture.config.label)
        .unwrap()
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let fixture = Fixture::new();
    let state = fixture.state.as_path();
    let error = open(&fixture.config, b"wrong", state).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("clear-pin --token") && text.contains("pin-refused"),
        "{text}"
    );
    assert!(!text.contains("wrong"), "{text}");
    assert!(matches!(refusal(Err(error)), PinRefusal::Now(_)));
    assert!(!state.join("login-pending").exists());

    // Not even the right PIN is tried now, and the module is not so much as looked at.
    assert_eq!(
        refusal(open(&fixture.config, PIN, state)),
        PinRefusal::Earlier
    );
    let elsewhere = TokenConfig {
        module: "/none.so".into(),
        ..fixture.config.clone()
    };
    assert_eq!(refusal(open(&elsewhere, PIN, state)), PinRefusal::Earlier);

    clear_pin(state).unwrap();
    open(&fixture.config, PIN, state).unwrap();
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

#[test]
fn an_interrupted_login_is_repeated_while_the_token_counts_no_failure() {
    let fixture = Fixture::new();
    let state = fixture.state.as_path();
    std::fs::write(state.join("login-pending"), "").unwrap();
    open(&fixture.config, PIN, state).unwrap();
    assert!(!state.join("login-pending").exists());
}

#[test]
fn an_interrupted_login_is_not_repeated_once_the_token_counts_failures() {
    let fixture = Fixture::new();
    let state = fixture.state.as_path();
    open(&fixture.config, PIN, state).unwrap();
    let (module, slot, _) = seen(&fixture);
    let session = module.open_ro_session(slot).unwrap();
    session
        .login(UserType::User, Some(&AuthPin::from("wrong".to_owned())))
        .unwrap_err();
    assert!(seen(&fixture).2.user_pin_count_low());

    std::fs::write(state.join("login-pending"), "").unwrap();
    assert!(matches!(
        refusal(open(&fixture.config, PIN, state)),
        PinRefusal::Interrupted(_)
    ));
    // The token still counts, so no login was tried: a good one would have reset the count.
    assert!(seen(&fixture).2.user_pin_count_low());
    assert!(!state.join("login-pending").exists());
    assert_eq!(
        refusal(open(&fixture.config, PIN, state)),
        PinRefusal::Earlier
    );

    clear_pin(state).unwrap();
    open(&fixture.config, PIN, state).unwrap();
    assert!(!seen(&fixture).2.user_pin_count_low());
}

#[test]
fn a_token_that_is_not_there_costs_no_attempt() {
    let fixture = Fixture::new();
    let state = fixture.state.as_path();
    let config = TokenConfig {
        label: "elsewhere".into(),
        ..fixture.config.clone()
    };
    assert!(matches!(
        open(&config, PIN, state),
        Err(OpenError::NotFound { .. })
    ));
    let config = TokenConfig {
        module: "/none.so".into(),
        ..fixture.config.clone()
    };
    assert!(matches!(
        open(&config, PIN, state),
        Err(OpenError::Module { .. })
    ));
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

#[test]
fn a_second_login_of_one_process_shares_the_first() {
    let fixture = Fixture::new();
    let first = fixture.token();
    let second = fixture.token();
    drop(first);
    second.session().unwrap().random(1).unwrap();
}

#[test]
fn a_ceremony_tries_once_and_keeps_no_marker() {
    let fixture = Fixture::new();
    let error = Ceremony::open(&fixture.config, &secret(b"wrong"))
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, CeremonyError::PinRefused { .. }), "{error}");
    Ceremony::open(&fixture.config, &secret(PIN))
        .map(drop)
        .unwrap();
}
