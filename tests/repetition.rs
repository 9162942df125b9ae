//! A lost answer loses nothing: the same enrolment again gets the same certificate, whatever
//! transactionID the client chose this time.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::thread;

use chancery_client::{Envelope, MessageBuilder};
use chancery_protocol::audit::Kind;
use common::{Appliance, Device, Reply, block_on};

#[test]
fn the_same_enrolment_again_gets_the_same_certificate() {
    let mut appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=a", "--ttl", "30s"]);
    let device = Device::new("CN=a", &[]);
    let message = device.message(&ca, &challenge);
    let first = device.send(&server, &message.der).certificate();

    // Octet for octet the same message, a new message, and one with another transactionID.
    assert_eq!(device.send(&server, &message.der).certificate(), first);
    assert_eq!(device.enrol(&server, &challenge).certificate(), first);
    let signer = device.signer();
    let other = MessageBuilder::new(&signer)
        .transaction_id("another")
        .build(
            &Envelope::to(ca.encryption().unwrap()),
            &device.csr(&challenge),
        )
        .unwrap();
    assert_eq!(device.send(&server, &other.der).certificate(), first);

    // After a restart of everything too.
    appliance.restart();
    assert_eq!(
        device.enrol(&appliance.server(), &challenge).certificate(),
        first
    );

    let issued = appliance.must(&["cert", "find", "a", "--output", "json"]);
    let found: serde_json::Value = serde_json::from_str(&issued).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1, "{issued}");
    let repeated = appliance
        .records()
        .iter()
        .filter(|r| r.event.kind == Kind::IssueRepeated)
        .count();
    assert!(repeated >= 4, "{repeated}");
}

/// A crash between intent and signature leaves a reservation: the retry gets exactly what was
/// reserved, and what is signed then is recorded before.
#[test]
fn an_interrupted_enrolment_is_completed_under_the_same_tbs() {
    let mut appliance = Appliance::start();
    let challenge = appliance.challenge(&["--subject", "CN=a"]);
    let device = Device::new("CN=a", &[]);
    let first = device.enrol(&appliance.server(), &challenge).certificate();
    appliance.stop();
    let database = rusqlite::Connection::open(appliance.dir().join("ledger/ledger.db")).unwrap();
    let changed = database
        .execute(
            "UPDATE certificates SET state = 0, issued_at = NULL, sha256 = NULL, certificate = NULL
             WHERE subject = 'CN=a'",
            [],
        )
        .unwrap();
    assert_eq!(changed, 1);
    drop(database);
    appliance.restart();

    assert!(
        Device::new("CN=a", &[]).enrol(&appliance.server(), &challenge)
            != Reply::Issued(first.clone())
    );
    let second = device.enrol(&appliance.server(), &challenge).certificate();
    let tbs = |certificate: &[u8]| {
        use x509_cert::der::{Decode, Encode};
        let decoded = x509_cert::Certificate::from_der(certificate).unwrap();
        decoded.tbs_certificate().to_der().unwrap()
    };
    assert_eq!(tbs(&second), tbs(&first));
    let records = appliance.records();
    let resumed = records
        .iter()
        .position(|r| r.event.kind == Kind::IssueResumed)
        .unwrap();
    let done = records
        .iter()
        .rposition(|r| r.event.kind == Kind::IssueDone)
        .unwrap();
    assert!(resumed < done);
    assert_eq!(
        device.enrol(&appliance.server(), &challenge).certificate(),
        second
    );
}

#[test]
fn the_same_key_for_other_names_is_another_enrolment() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let challenge = appliance.challenge(&["--uses", "2"]);
    let mut device = Device::new("CN=a", &[]);
    let first = device.enrol(&server, &challenge).certificate();
    device.sans = vec![chancery_protocol::name::GeneralName::dns("a.example").unwrap()];
    let second = device.enrol(&server, &challenge).certificate();
    assert_ne!(first, second);
}

#[test]
fn repetitions_at_the_same_time_agree() {
    let appliance = Appliance::start();
    let server = appliance.server();
    let ca = block_on(server.get_ca_cert()).unwrap();
    for round in 0..5 {
        let name = format!("CN=twin-{round}");
        let challenge = appliance.challenge(&["--subject", &name]);
        let device = Device::new(&name, &[]);
        let message = device.message(&ca, &challenge);
        let certificates: Vec<Vec<u8>> = thread::scope(|scope| {
            let runs: Vec<_> = (0..4)
                .map(|_| {
                    let server = appliance.server();
                    let (device, message) = (&device, &message);
                    scope.spawn(move || device.send(&server, &message.der).certificate())
                })
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert!(
            certificates
                .iter()
                .all(|certificate| *certificate == certificates[0])
        );
    }
}
