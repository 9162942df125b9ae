//! The ledger as the supervisor runs it: made, served, killed, stopped; sockets by activation,
//! inside both sandboxes.
//!
//! This program is both sides: with options of its own it is the ledger, else the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod harness;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Stdio};

use chancery_host::ipc::{CallError, ask_once};
use chancery_host::process::Stop;
use chancery_host::supervise::{SuperviseError, Supervisor};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::ipc::{append, public, query, socket, store};
use chancery_protocol::wire::{self, Octets};
use der::asn1::{Null, OctetString};
use harness::{Appliance, PATIENCE, SOCKETS, exists, kill};

const TESTS: [(&str, fn()); 8] = [
    ("a_ledger_is_made_once", a_ledger_is_made_once),
    (
        "nothing_starts_without_a_database",
        nothing_starts_without_a_database,
    ),
    ("nothing_starts_by_hand", nothing_starts_by_hand),
    ("every_socket_answers", every_socket_answers),
    (
        "a_breach_closes_its_connection_only",
        a_breach_closes_its_connection_only,
    ),
    ("many_callers_share_the_log", many_callers_share_the_log),
    ("a_killed_ledger_goes_on", a_killed_ledger_goes_on),
    ("journald_gets_every_record", journald_gets_every_record),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map_or("", String::as_str);
    if ["--config", "--create"].contains(&first) {
        return chancery_ledger::main();
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(*f));
    let mut passed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        // A failure panics and ends the program.
        test();
        println!("test {name} ... ok");
        passed += 1;
    }
    let filtered = TESTS.len() - passed;
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out\n"
    );
    ExitCode::SUCCESS
}

fn append(write: u8, kind: Kind) -> store::Append {
    store::Append {
        write: Octets([write; 16]),
        event: Event::new(kind, Outcome::Success),
    }
}

fn kinds(appliance: &Appliance) -> Vec<Kind> {
    appliance.records().iter().map(|r| r.event.kind).collect()
}

fn a_ledger_is_made_once() {
    let appliance = Appliance::new();
    assert!(appliance.create().success());
    let records = appliance.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event.kind, Kind::Ceremony);
    assert_eq!(records[0].origin, "test/node/audit");
    assert_eq!(appliance.create().code(), Some(1));
    assert_eq!(appliance.records(), records);
}

fn nothing_starts_without_a_database() {
    let appliance = Appliance::new();
    let stop = Stop::new().unwrap();
    let mut supervisor = Supervisor::start(vec![appliance.role()], &stop).unwrap();
    let error = supervisor.wait_ready(PATIENCE).unwrap_err();
    assert!(
        matches!(&error, SuperviseError::Died { status, .. } if status.code() == Some(1)),
        "{error}"
    );
    assert!(!exists(&appliance.path("ledger.db")));
}

fn nothing_starts_by_hand() {
    let appliance = Appliance::created();
    let run = |arguments: &[&str]| {
        Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let config = appliance.path("chancery.toml");
    let by_hand = run(&["--config", config.to_str().unwrap()]);
    assert_eq!(by_hand.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("LISTEN_FDS"));
    let usage = run(&["--config", "a", "b"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage"));
    assert_eq!(kinds(&appliance), [Kind::Ceremony]);
}

fn every_socket_answers() {
    let appliance = Appliance::created();
    appliance.serve(|_| {
        let publish = store::Request::Publish(store::Publish {
            write: Octets([1; 16]),
            name: public::cacert("devices"),
            media_type: "application/x-x509-ca-ra-cert".into(),
            content: OctetString::new(b"chain".to_vec()).unwrap(),
        });
        let reply: store::Reply = appliance
            .channel(socket::LEDGER_STORE)
            .call(&publish)
            .unwrap();
        assert!(matches!(reply, store::Reply::Done(_)));
        let name = public::cacert("devices");
        let reply: public::Reply = appliance
            .channel(socket::LEDGER_PUBLIC)
            .call(&public::Request { name })
            .unwrap();
        assert!(matches!(reply, public::Reply::Blob(blob) if blob.content.as_bytes() == b"chain"));
        for (write, name) in [
            (2, socket::LEDGER_APPEND_RA),
            (3, socket::LEDGER_APPEND_FRONT),
        ] {
            let reply: append::Reply = appliance
                .channel(name)
                .call(&append(write, Kind::ServiceStarted))
                .unwrap();
            assert!(matches!(reply, append::Reply::Done(_)));
        }
        let reply: query::Reply = appliance
            .channel(socket::LEDGER_QUERY)
            .call(&query::Request::Status(Null))
            .unwrap();
        assert!(matches!(reply, query::Reply::Status(status) if status.records == 4));
    });
    // Closed in order: SQLite's log is in the database.
    assert!(!exists(&appliance.path("ledger.db-wal")));
    let records = appliance.records();
    let peer = format!("pid={}", std::process::id());
    for (record, socket) in [
        (&records[2], "ledger.append-ra uid="),
        (&records[3], "ledger.append-front uid="),
    ] {
        assert!(record.actor.starts_with(socket), "{}", record.actor);
        assert!(record.actor.ends_with(&peer), "{}", record.actor);
    }
    assert_eq!(records[1].event.value(field::ROLE), Some("ledger"));
    assert_eq!(
        kinds(&appliance),
        [
            Kind::Ceremony,
            Kind::ServiceStarted,
            Kind::ServiceStarted,
            Kind::ServiceStarted,
            Kind::ServiceStopped
        ]
    );
}

fn a_breach_closes_its_connection_only() {
    let appliance = Appliance::created();
    appliance.serve(|_| {
        let forged = wire::encode(&append(1, Kind::IssueDone)).unwrap();
        for name in SOCKETS {
            let path = appliance.path("run").join(name);
            for packet in [b"\xff".as_slice(), &forged, &[0; 60_000]] {
                let answer = ask_once(&path, PATIENCE, packet);
                assert!(
                    matches!(answer, Err(CallError::Closed)),
                    "{name} {answer:?}"
                );
            }
        }
        let reply: append::Reply = appliance
            .channel(socket::LEDGER_APPEND_RA)
            .call(&append(1, Kind::TokenReady))
            .unwrap();
        assert!(matches!(reply, append::Reply::Done(receipt) if receipt.seq == 2));
    });
}

fn many_callers_share_the_log() {
    let appliance = Appliance::created();
    appliance.serve(|_| {
        std::thread::scope(|scope| {
            for caller in 0..24u8 {
                let channel = appliance.channel(socket::LEDGER_STORE);
                scope.spawn(move || {
                    for n in 0..10u8 {
                        let mut append = append(caller, Kind::RequestRefused);
                        append.write.0[0] = n;
                        let request = store::Request::Append(append);
                        let reply: store::Reply = channel.call(&request).unwrap();
                        assert!(matches!(reply, store::Reply::Appended(_)));
                    }
                });
            }
        });
    });
    let records = appliance.records();
    assert_eq!(records.len(), 1 + 1 + 240 + 1);
    for (position, record) in records.iter().enumerate() {
        assert_eq!(record.seq, position as u64);
    }
}

fn a_killed_ledger_goes_on() {
    let appliance = Appliance::created();
    appliance.serve(|pids| {
        let channel = appliance.channel(socket::LEDGER_STORE);
        let ask = |write| -> store::Reply {
            let request = store::Request::Append(append(write, Kind::RequestRefused));
            channel.call_repeatable(&request).unwrap()
        };
        let first = ask(1);
        let pid = pids.get("ledger").unwrap();
        kill(pid);
        assert_eq!(ask(1), first);
        assert_ne!(ask(2), first);
        assert_ne!(pids.get("ledger"), Some(pid));
    });
    assert_eq!(
        kinds(&appliance),
        [
            Kind::Ceremony,
            Kind::ServiceStarted,
            Kind::RequestRefused,
            Kind::ServiceStarted,
            Kind::RequestRefused,
            Kind::ServiceStopped
        ]
    );
}

fn journald_gets_every_record() {
    let appliance = Appliance::created();
    let journald = UnixDatagram::bind(appliance.path("journal")).unwrap();
    journald.set_read_timeout(Some(PATIENCE)).unwrap();
    appliance.serve(|_| {
        let reply: append::Reply = appliance
            .channel(socket::LEDGER_APPEND_FRONT)
            .call(&append(1, Kind::ServiceStarted))
            .unwrap();
        assert!(matches!(reply, append::Reply::Done(_)));
    });
    let mut buffer = vec![0; 1 << 16];
    for (seq, record) in appliance.records().iter().enumerate() {
        let length = journald.recv(&mut buffer).unwrap();
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // Name, newline, length in 8 octets, value, newline.
        let has = |name: &str, value: &str| {
            let length = (value.len() as u64).to_le_bytes();
            let length = String::from_utf8_lossy(&length).into_owned();
            entry.contains(&format!("{name}\n{length}{value}\n"))
        };
        assert!(has("MESSAGE_ID", record.event.kind.message_id()), "{entry}");
        assert!(has("CHANCERY_SEQ", &seq.to_string()), "{entry}");
    }
}
