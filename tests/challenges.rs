//! A challenge is good once, for its names, its profile and its time; every refusal looks the
//! same to a device and different to an auditor.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::thread;
use std::time::Duration;

use chancery_client::Server;
use chancery_protocol::scep::FailInfo;
use common::{Appliance, Device, Reply, block_on, eventually};

const REFUSED: Reply = Reply::Refused(FailInfo::BadRequest);

#[test]
fn a_challenge_is_spent_by_its_first_key() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    Device::new("CN=a", &[])
        .enrol(&server, &challenge)
        .certificate();
    assert_eq!(Device::new("CN=a", &[]).enrol(&server, &challenge), REFUSED);
    assert_eq!(appliance.refusals(), ["challenge-spent"]);
}

#[test]
fn a_challenge_is_for_its_names_and_a_mismatch_does_not_spend_it() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&["--subject", "CN=a", "--san", "dns:a.example"]);
    for (subject, sans) in [
        ("CN=b", vec![]),
        ("CN=a,O=Other", vec![]),
        ("CN=a", vec!["dns:b.example"]),
        ("CN=a", vec!["dns:a.example", "dns:b.example"]),
        ("CN=a", vec!["email:a@a.example"]),
    ] {
        assert_eq!(
            Device::new(subject, &sans).enrol(&server, &challenge),
            REFUSED,
            "{subject} {sans:?}"
        );
    }
    assert_eq!(appliance.refusals(), ["challenge-names"; 5]);
    Device::new("CN=a", &["dns:a.example"])
        .enrol(&server, &challenge)
        .certificate();
}

#[test]
fn unknown_missing_and_mistyped_challenges_are_counted_not_recorded() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let genuine = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    let lower = genuine.to_lowercase();
    let longer = format!("{genuine}0");
    for challenge in [
        "00000000000000000000000000000000",
        "x",
        &lower,
        &longer,
        &genuine[..31],
    ] {
        if challenge != genuine {
            assert_eq!(device.enrol(&server, challenge), REFUSED, "{challenge}");
        }
    }
    assert!(appliance.refusals().is_empty());
    let log = appliance.log();
    assert!(log.contains("challenge-unknown"), "{log}");
    assert!(!log.contains(&genuine), "a challenge is in the log");
    device.enrol(&server, &genuine).certificate();
}

#[test]
fn a_challenge_expires() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&["--subject", "CN=a", "--ttl", "1s"]);
    let device = Device::new("CN=a", &[]);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(device.enrol(&server, &challenge), REFUSED);
    assert_eq!(appliance.refusals(), ["challenge-expired"]);
}

#[test]
fn a_challenge_is_for_its_profile() {
    let appliance = Appliance::start_edited(|config| {
        let profiles = config["profile"].as_array_mut().unwrap();
        let mut other = profiles[0].clone();
        other
            .as_table_mut()
            .unwrap()
            .insert("name".into(), "printers".into());
        profiles.push(other);
    });
    let other = Server::new(appliance.url_of("printers").parse().unwrap());
    eventually("the other profile is served", || {
        block_on(other.get_ca_cert()).is_ok()
    });
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    assert_eq!(device.enrol(&other, &challenge), REFUSED);
    assert_eq!(appliance.refusals(), ["challenge-profile"]);
    device.enrol(&appliance.server(), &challenge).certificate();
}

#[test]
fn an_open_challenge_stays_within_the_template() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&[]);
    for (subject, sans) in [
        ("CN=a,O=Example", vec![]),
        ("CN=a,CN=b", vec![]),
        ("CN=a", vec!["ip:192.0.2.1"]),
        ("CN=a", vec!["uri:urn:a"]),
    ] {
        assert_eq!(
            Device::new(subject, &sans).enrol(&server, &challenge),
            REFUSED,
            "{subject} {sans:?}"
        );
    }
    Device::new("CN=a", &["dns:a.example", "dns:b.example"])
        .enrol(&server, &challenge)
        .certificate();
}

#[test]
fn a_challenge_of_several_uses_gives_each_name_to_its_first_key() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&["--uses", "2"]);
    Device::new("CN=a", &[])
        .enrol(&server, &challenge)
        .certificate();
    assert_eq!(Device::new("CN=a", &[]).enrol(&server, &challenge), REFUSED);
    Device::new("CN=b", &[])
        .enrol(&server, &challenge)
        .certificate();
    assert_eq!(Device::new("CN=c", &[]).enrol(&server, &challenge), REFUSED);
    assert_eq!(appliance.refusals(), ["challenge-held", "challenge-spent"]);
}

#[test]
fn a_name_that_is_taken_is_not_had_by_asking_differently() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&["--uses", "9"]);
    Device::new("CN=gw1", &["dns:gw1.example"])
        .enrol(&server, &challenge)
        .certificate();
    for (subject, sans) in [
        ("CN=gw1", vec![]),
        ("CN=GW1", vec!["dns:other.example"]),
        ("CN=gw2", vec!["dns:gw1.example", "dns:x.example"]),
        ("CN=gw1.example", vec![]),
    ] {
        let reply = Device::new(subject, &sans).enrol(&server, &challenge);
        assert_eq!(reply, REFUSED, "{subject} {sans:?}");
    }
    assert_eq!(appliance.refusals(), ["challenge-held"; 4]);
}

#[test]
fn the_record_of_a_refusal_says_what_was_asked() {
    let appliance = Appliance::start();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    Device::new("CN=b", &["dns:b.example"]).enrol(&appliance.server(), &challenge);
    let records = appliance.records();
    let refused = records
        .iter()
        .find(|r| r.event.kind == chancery_protocol::audit::Kind::RequestRefused)
        .unwrap();
    assert_eq!(refused.event.value("subject"), Some("CN=b"));
    assert_eq!(refused.event.value("sans"), Some("dns:b.example"));
    assert_eq!(refused.event.value("peer"), Some("127.0.0.1"));
    assert!(refused.event.value("key_sha256").is_some());
    assert!(refused.event.value("transaction").is_some());
}

#[test]
fn of_two_keys_racing_for_one_challenge_one_wins() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    for round in 0..5 {
        let name = format!("CN=racer-{round}");
        let challenge = appliance.challenge(&["--subject", &name]);
        let devices: Vec<Device> = (0..4).map(|_| Device::new(&name, &[])).collect();
        let messages: Vec<_> = devices
            .iter()
            .map(|device| device.message(&ca, &challenge))
            .collect();
        let replies: Vec<Reply> = thread::scope(|scope| {
            let runs: Vec<_> = devices
                .iter()
                .zip(&messages)
                .map(|(device, message)| {
                    let server = appliance.server();
                    scope.spawn(move || device.send(&server, &message.der))
                })
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let issued = replies
            .iter()
            .filter(|reply| matches!(reply, Reply::Issued(_)))
            .count();
        assert_eq!(issued, 1, "{replies:?}");
        assert_eq!(
            replies.iter().filter(|reply| **reply == REFUSED).count(),
            3,
            "{replies:?}"
        );
    }
}
