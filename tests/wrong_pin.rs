//! A PIN is tried once: a wrong one is not tried again by any restart until a custodian acts.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::fs;

use common::{Appliance, Device, eventually};

#[test]
fn a_wrong_pin_serves_unavailable_until_a_custodian_acts() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let pin_file = appliance.dir().join("pins/ca");
    let right = fs::read(&pin_file).unwrap();
    fs::write(&pin_file, "wrong-pin").unwrap();

    appliance.restart();
    let marker = appliance.dir().join("state/ca/ca/pin-refused");
    eventually("the PIN is refused", || marker.exists());
    eventually("the CA says so", || {
        let output = appliance.chancery(&["challenge", "new", "--profile", "devices"]);
        output.status.code() == Some(5) && String::from_utf8_lossy(&output.stderr).contains("PIN")
    });
    let doctor = appliance.chancery(&["doctor"]);
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(
        found.contains("refused the PIN") && found.contains("token clear-pin --token ca"),
        "{found}"
    );

    fs::write(&pin_file, right).unwrap();
    appliance.must(&["token", "clear-pin", "--token", "ca"]);
    assert!(!marker.exists());
    eventually("the CA serves again, by itself", || {
        let minting = ["challenge", "new", "--profile", "devices"];
        appliance.chancery(&minting).status.success()
    });
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    Device::new("CN=a", &[])
        .enrol(&appliance.server(), &challenge)
        .certificate();
}
