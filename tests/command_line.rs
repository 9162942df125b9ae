//! The command line: what scripts rely on.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use common::{Appliance, CHANCERY, Device, eventually};
use serde_json::Value;

fn code(output: &std::process::Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn certificates_are_found_by_whatever_is_known_of_them() {
    let appliance = Appliance::start();
    let challenge = appliance.challenge(&[
        "--subject",
        "CN=Laptop-7",
        "--san",
        "dns:laptop-7.example",
        "--device-id",
        "D-7",
    ]);
    let certificate = Device::new("CN=Laptop-7", &[])
        .enrol(&appliance.server(), &challenge)
        .certificate();
    let all: Value =
        serde_json::from_str(&appliance.must(&["cert", "find", "laptop-7", "--output", "json"]))
            .unwrap();
    let row = &all[0];
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!(row["subject"], "CN=Laptop-7");
    assert_eq!(row["sans"], serde_json::json!(["dns:laptop-7.example"]));
    assert_eq!(row["status"], "valid");
    assert_eq!(row["profile"], "devices");
    assert_eq!(row["device_id"], "D-7");
    let serial = row["serial"].as_str().unwrap();
    let sha256 = row["sha256"].as_str().unwrap();
    assert!(
        serial
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );

    for text in [
        serial,
        sha256,
        "D-7",
        "laptop-7.example",
        "LAPTOP",
        "CN=Laptop-7",
    ] {
        let found: Value =
            serde_json::from_str(&appliance.must(&["cert", "find", text, "--output", "json"]))
                .unwrap();
        assert_eq!(found[0]["serial"], serial, "{text}");
    }
    let shown: Value =
        serde_json::from_str(&appliance.must(&["cert", "show", serial, "--output", "json"]))
            .unwrap();
    assert_eq!(shown["sha256"], sha256);
    assert!(shown["pem"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(
        shown["pem"].as_str().unwrap(),
        common::pem("CERTIFICATE", &certificate)
    );
    assert!(
        appliance
            .must(&["cert", "show", &sha256.to_uppercase()])
            .contains("CN=Laptop-7")
    );

    assert_eq!(code(&appliance.chancery(&["cert", "show", "00"])), Some(3));
    assert_eq!(
        code(&appliance.chancery(&["cert", "find", "--limit", "0"])),
        Some(2)
    );
    let nothing = appliance.chancery(&["cert", "find", "nothing", "--output", "json"]);
    assert_eq!(code(&nothing), Some(3));
    assert_eq!(String::from_utf8_lossy(&nothing.stdout).trim(), "[]");
}

#[test]
fn exit_codes_and_streams() {
    let appliance = Appliance::start();
    let refused = appliance.chancery(&["challenge", "new", "--profile", "nobody"]);
    assert_eq!(code(&refused), Some(4));
    assert!(refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no profile \"nobody\""));
    assert_eq!(
        code(&appliance.chancery(&["challenge", "new", "--profile", "devices", "--ttl", "400d"])),
        Some(4)
    );
    assert_eq!(
        code(&appliance.chancery(&[
            "challenge",
            "new",
            "--profile",
            "devices",
            "--subject",
            "nonsense"
        ])),
        Some(2)
    );
    assert_eq!(code(&appliance.chancery(&["challenge", "new"])), Some(2));
    assert_eq!(code(&appliance.chancery(&["no-such-command"])), Some(2));
    let minted = appliance.chancery(&["challenge", "new", "--profile", "devices"]);
    assert_eq!(minted.stdout.len(), 33, "the challenge alone on one line");
    let minted = appliance.must(&[
        "challenge",
        "new",
        "--profile",
        "devices",
        "--output",
        "json",
    ]);
    let minted: Value = serde_json::from_str(&minted).unwrap();
    assert_eq!(minted["challenge"].as_str().unwrap().len(), 32);
}

#[test]
fn a_stopped_appliance_says_so() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let output = appliance.chancery(&["challenge", "new", "--profile", "devices"]);
    assert_eq!(code(&output), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is the appliance running"));
}

#[test]
fn configuration_errors_name_file_key_and_remedy_and_nothing_starts() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let file = appliance.dir().join("chancery.toml");
    let good = fs::read_to_string(&file).unwrap();
    assert!(appliance.chancery(&["config", "check"]).status.success());
    for (from, to, says) in [
        ("[appliance]", "[appliance]\nsurprise = 1", "surprise"),
        (
            "signing_key = \"ra-signing\"",
            "signing_key = \"nobody\"",
            "ra.signing_key",
        ),
        (
            "signing_key = \"ra-signing\"",
            "signing_key = \"ra-decryption\"",
            "serves another purpose",
        ),
        ("validity_days = 365", "validity_days = 0", "validity_days"),
        ("open_sans = [\"dns\"]", "open_sans = [\"telex\"]", "telex"),
    ] {
        assert!(good.contains(from), "{from} is not in\n{good}");
        fs::write(&file, good.replace(from, to)).unwrap();
        let output = appliance.chancery(&["config", "check"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), Some(1), "{error}");
        assert!(
            error.contains("chancery.toml") && error.contains(says),
            "{error}"
        );
        let output = appliance.chancery(&["run"]);
        assert_eq!(code(&output), Some(1));
    }
    fs::write(
        &file,
        good.replace("development = true", "development = false"),
    )
    .unwrap();
    let output = appliance.chancery(&["run"]);
    assert_eq!(code(&output), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("systemd"));
}

#[test]
fn quickstart_touches_nothing_that_it_did_not_make() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "data").unwrap();
    let output = Command::new(CHANCERY)
        .args(["quickstart", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), Some(4));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn quickstart(dir: &Path, listen: &str) -> (Option<i32>, String) {
    let output = Command::new(CHANCERY)
        .args(["quickstart", "--listen", listen, "--dir"])
        .arg(dir)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (code(&output), error)
}

#[test]
fn quickstart_makes_nothing_that_it_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("a");
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let (code, error) = quickstart(&dir, &address);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&address) && error.contains("--listen"),
        "{error}"
    );
    assert!(!dir.exists());

    let dir = folder.path().join("x".repeat(90));
    let (code, error) = quickstart(&dir, "127.0.0.1:0");
    assert_eq!(code, Some(1));
    assert!(
        error.contains(dir.join("run").to_str().unwrap()) && error.contains("shorter --dir"),
        "{error}"
    );
    assert!(!dir.exists());
}

#[test]
fn an_appliance_that_is_there_is_served_again() {
    let mut appliance = Appliance::start();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let (root, ra) = (
        appliance.fact("root-sha256").to_owned(),
        appliance.fact("ra-sha256").to_owned(),
    );
    appliance.restart();
    assert_eq!(appliance.fact("root-sha256"), root);
    assert_eq!(appliance.fact("ra-sha256"), ra);
    assert!(!appliance.log().contains("--listen"), "asked for no other");
    assert!(!appliance.log().contains("enrolling a first device"));
    Device::new("CN=a", &[])
        .enrol(&appliance.server(), &challenge)
        .certificate();
    for file in [
        "chancery.toml",
        "ledger.db",
        "root.pem",
        "issuing.pem",
        "chain.pem",
    ] {
        assert!(appliance.dir().join(file).is_file(), "{file}");
    }
}

#[test]
fn a_first_enrolment_that_did_not_end_is_made_good() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let certificate = appliance.dir().join("quickstart-device/cert.pem");
    fs::remove_file(&certificate).unwrap();
    appliance.restart();
    assert!(certificate.is_file());
}

#[test]
fn enroll_tells_a_refusal_from_a_failure() {
    let appliance = Appliance::start();
    let challenge = appliance.folder.path().join("challenge");
    fs::write(&challenge, "0123456789ABCDEF0123456789ABCDEF\n").unwrap();
    let enroll = |url: &str| {
        let output = Command::new(CHANCERY)
            .args(["enroll", "--subject", "CN=a", "--url", url])
            .arg("--challenge-file")
            .arg(&challenge)
            .arg("--out")
            .arg(appliance.folder.path().join("device"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (code(&output), error)
    };
    let (code, error) = enroll(&appliance.url());
    assert_eq!(code, Some(4), "{error}");
    let url = appliance.url_of("device");
    let (code, error) = enroll(&url);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains(&format!("answered 404 to GetCACaps at {url}: ")),
        "{error}"
    );
    eventually("front says so too", || {
        let log = appliance.log();
        log.contains("no such profile") && log.contains("path=\"/scep/device\"")
    });
}

#[test]
fn a_cleared_pin_brings_the_ra_back() {
    let mut appliance = Appliance::start();
    let unknown = appliance.chancery(&["token", "clear-pin", "--token", "nobody"]);
    assert_eq!(code(&unknown), Some(3));
    appliance.must(&["token", "clear-pin", "--token", "ra"]);

    appliance.edit(|config| {
        let listen = toml::Value::Array(vec![free_address().into()]);
        config["front"]
            .as_table_mut()
            .unwrap()
            .insert("listen".into(), listen);
    });
    appliance.stop();
    fs::write(appliance.dir().join("state/ra/ra/pin-refused"), "").unwrap();
    appliance.restart();
    let output = appliance.chancery(&["doctor"]);
    assert_eq!(code(&output), Some(1));
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.contains("FAILURE  token \"ra\": PIN"), "{found}");
    assert!(found.contains("token clear-pin --token ra"), "{found}");
    assert!(found.contains("FAILURE  ra and parser behind"), "{found}");
    appliance.must(&["token", "clear-pin", "--token", "ra"]);
    eventually("ra serves again, by itself", || {
        appliance.chancery(&["doctor"]).status.success()
    });
    assert!(
        appliance
            .log()
            .contains("role ended; starting it again role=\"ra\"")
    );
}

/// An address that was free just now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn doctor_finds_what_is_wrong() {
    let address = free_address();
    let mut appliance = Appliance::start_edited(|config| {
        let listen = toml::Value::Array(vec![address.clone().into()]);
        config["front"]
            .as_table_mut()
            .unwrap()
            .insert("listen".into(), listen);
    });
    assert!(
        appliance.log().contains(&format!(
            "the configuration decides: listening on {address}"
        )),
        "the appliance was asked for another address"
    );
    let well: Value =
        serde_json::from_str(&appliance.must(&["doctor", "--output", "json"])).unwrap();
    let well = well.as_array().unwrap();
    assert!(
        well.iter().all(|finding| finding["verdict"] == "ok"),
        "{well:?}"
    );
    for what in ["configuration", "sandbox", "disk", "ledger", "ca", "clock"] {
        assert!(well.iter().any(|finding| finding["what"] == what), "{what}");
    }
    let behind = format!("ra and parser behind {address}");
    assert!(well.iter().any(|finding| finding["what"] == *behind));
    appliance.stop();
    let output = appliance.chancery(&["doctor"]);
    assert_eq!(code(&output), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("FAILURE  ledger"), "{text}");
    assert!(text.contains("FAILURE  http://"), "{text}");
    assert!(!text.contains("`chancery doctor`"), "{text}");
    fs::write(appliance.dir().join("chancery.toml"), "[").unwrap();
    let output = appliance.chancery(&["doctor"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 thing is wrong"));
}
