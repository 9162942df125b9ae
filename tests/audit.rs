//! Written before signed: the log has an intent for every certificate, its checkpoints verify, and
//! no secret is anywhere.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::fs;
use std::path::Path;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_protocol::audit::Kind;
use chancery_protocol::tree::{self, CompactRange};
use chancery_protocol::wire;
use common::{Appliance, Device, eventually, run};
use der::Encode;
use x509_cert::der::Decode;

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().unwrap()
}

#[test]
fn every_certificate_has_an_intent_of_its_exact_tbs_before_it() {
    let appliance = Appliance::start();
    let challenge = appliance.challenge(&["--subject", "CN=a", "--device-id", "D-1"]);
    let certificate = Device::new("CN=a", &[])
        .enrol(&appliance.server(), &challenge)
        .certificate();
    let decoded = x509_cert::Certificate::from_der(&certificate).unwrap();
    let tbs = decoded.tbs_certificate().to_der().unwrap();
    let tbs_sha256 = chancery_protocol::hex::encode(&sha256(&[&tbs]));
    let certificate_sha256 = chancery_protocol::hex::encode(&sha256(&[&certificate]));

    let records = appliance.records();
    let position = |kind, field: &str, value: &str| {
        records
            .iter()
            .position(|r| r.event.kind == kind && r.event.value(field) == Some(value))
    };
    let intent = position(Kind::IssueIntent, "tbs_sha256", &tbs_sha256).expect("an intent");
    let done =
        position(Kind::IssueDone, "certificate_sha256", &certificate_sha256).expect("a result");
    assert!(intent < done);
    assert_eq!(records[intent].event.value("device_id"), Some("D-1"));
    assert_eq!(records[intent].event.request, records[done].event.request);
    assert!(
        records[intent].actor.starts_with("ledger.store uid="),
        "{}",
        records[intent].actor
    );
    assert_eq!(records[0].event.kind, Kind::Ceremony);
    for kind in [Kind::ServiceStarted, Kind::ChallengeMinted] {
        assert!(
            records.iter().any(|record| record.event.kind == kind),
            "{kind:?}"
        );
    }
    for pair in records.windows(2) {
        assert_eq!(pair[1].seq, pair[0].seq + 1);
        assert!(pair[1].time >= pair[0].time);
    }
}

#[test]
fn the_newest_checkpoint_verifies_with_openssl_and_covers_the_log() {
    let mut appliance = Appliance::start();
    appliance.challenge(&[]);
    appliance.stop();
    let note = appliance
        .query("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")
        .remove(0);
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let text = format!("{text}\n");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "demo.chancery.example/node-1/audit");
    let size: usize = lines[1].parse().unwrap();

    let records = appliance.records();
    assert!(size >= records.len() - 5, "{size} of {}", records.len());
    let mut range = CompactRange::default();
    for record in &records[..size] {
        range.append(sha256, tree::leaf(sha256, &wire::encode(record).unwrap()));
    }
    assert_eq!(lines[2], STANDARD.encode(range.root(sha256).as_bytes()));

    let signature = signatures.trim_end().rsplit(' ').next().unwrap();
    assert!(signatures.starts_with("\u{2014} demo.chancery.example/node-1/audit "));
    let signature = STANDARD.decode(signature).unwrap();
    let config: toml::Table = fs::read_to_string(appliance.dir().join("chancery.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let audit = config["key"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["name"].as_str() == Some("audit"))
        .unwrap();
    let spki = STANDARD
        .decode(audit["public_key"].as_str().unwrap())
        .unwrap();
    assert_eq!(signature[..4], sha256(&[&spki])[..4]);
    let folder = appliance.folder.path();
    fs::write(folder.join("audit.pem"), common::pem("PUBLIC KEY", &spki)).unwrap();
    fs::write(folder.join("text"), &text).unwrap();
    fs::write(folder.join("signature"), &signature[4..]).unwrap();
    run(
        folder,
        "openssl",
        &[
            "dgst",
            "-sha256",
            "-verify",
            "audit.pem",
            "-signature",
            "signature",
            "text",
        ],
    );
}

#[test]
fn a_rewritten_log_stops_the_ca() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let (ledger, copy) = (appliance.dir().join("ledger"), appliance.dir().join("copy"));
    copy_folder(&ledger, &copy);
    appliance.restart();
    appliance.challenge(&["--subject", "CN=a"]);
    appliance.stop();
    // Somebody puts an older copy back: the newest records, which a checkpoint covers, are gone.
    fs::remove_dir_all(&ledger).unwrap();
    copy_folder(&copy, &ledger);
    let config = appliance.dir().join("chancery.toml");
    let mut run = std::process::Command::new(common::CHANCERY)
        .args(["run", "--config"])
        .arg(&config)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let verdict = appliance.dir().join("state/ca/ledger-distrusted");
    eventually("the CA notices", || verdict.exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    run.wait().unwrap();
    assert_eq!(
        appliance
            .chancery(&["challenge", "new", "--profile", "devices"])
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn a_lost_head_is_no_licence_to_sign_a_log() {
    let mut appliance = Appliance::start();
    appliance.stop();
    fs::remove_file(appliance.dir().join("state/ca/log-head")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_chancery-ca"))
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "without arguments it says how it is used"
    );
    let config = appliance.dir().join("chancery.toml");
    let log = appliance.folder.path().join("log");
    let mut run = std::process::Command::new(common::CHANCERY)
        .args(["run", "--config"])
        .arg(&config)
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    eventually("the CA refuses", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("restore it from a backup of this node")
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    run.wait().unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn no_secret_is_in_the_database_the_log_or_a_command_line() {
    let appliance = Appliance::start();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    Device::new("CN=a", &[])
        .enrol(&appliance.server(), &challenge)
        .certificate();
    let mut secrets = vec![challenge.into_bytes()];
    for token in ["ca", "ra", "root"] {
        secrets.push(fs::read(appliance.dir().join("pins").join(token)).unwrap());
    }
    let holds = |text: &[u8], secret: &[u8]| text.windows(secret.len()).any(|part| part == secret);
    let log = appliance.log();
    for secret in &secrets {
        assert!(!holds(log.as_bytes(), secret), "a secret is in the log");
    }
    for file in fs::read_dir(appliance.dir().join("ledger")).unwrap() {
        let octets = fs::read(file.unwrap().path()).unwrap();
        assert!(
            secrets.iter().all(|secret| !holds(&octets, secret)),
            "a secret is in the database"
        );
    }
    for role in ["ledger", "ca", "parser", "ra", "front"] {
        let pid = appliance.pid(role).unwrap();
        for name in ["cmdline", "environ"] {
            let octets =
                fs::read(Path::new("/proc").join(pid.to_string()).join(name)).unwrap_or_default();
            assert!(
                secrets.iter().all(|secret| !holds(&octets, secret)),
                "a secret is in {name} of {role}"
            );
        }
    }
}
