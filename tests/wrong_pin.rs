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

    let config = appliance.dir().join("chancery.toml");
    let mut run = std::process::Command::new(common::CHANCERY)
        .args(["run", "--config"])
        .arg(&config)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let marker = appliance.dir().join("state/ca/ca/pin-refused");
    eventually("the PIN is refused", || marker.exists());
    eventually("the CA says so", || {
        let output = appliance.chancery(&["challenge", "new", "--profile", "devices"]);
        output.status.code() == Some(5) && String::from_utf8_lossy(&output.stderr).contains("PIN")
    });
    let doctor = appliance.chancery(&["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("refused the PIN"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    run.wait().unwrap();

    fs::write(&pin_file, right).unwrap();
    fs::remove_file(marker).unwrap();
    appliance.restart();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    Device::new("CN=a", &[])
        .enrol(&appliance.server(), &challenge)
        .certificate();
}
