//! The process as the supervisor runs it: sockets by activation, both sandboxes, audit, stop.
//!
//! This program is both sides: run with `--config` it is front, otherwise the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[allow(
    dead_code,
    reason = "shared with the tests from outside, which use all of it"
)]
#[path = "../outside/common.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;

use chancery_host::process::Stop;
use chancery_host::supervise::{self, Socket, Supervisor};
use chancery_protocol::audit::{Kind, Outcome, Receipt, field};
use chancery_protocol::ipc::{append, socket};
use chancery_protocol::wire::{self, Octets};
use common::{Client, PATIENCE, Role, echo, get, ledger, packet, post};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a.starts_with("--con")) {
        return chancery_front::main();
    }
    let tests: [(&str, fn()); 2] = [
        ("it_serves_inside_its_sandbox", it_serves_inside_its_sandbox),
        ("it_refuses_to_start_by_hand", it_refuses_to_start_by_hand),
    ];
    let wanted = |name: &str| {
        let mut filters = arguments.iter().filter(|a| !a.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    let mut passed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
        // A failure panics, and so ends the program with another status.
        test();
        println!("test {name} ... ok");
        passed += 1;
    }
    let filtered = tests.len() - passed;
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out\n"
    );
    ExitCode::SUCCESS
}

/// Writes a configuration; its keys exist nowhere, since front asks for none.
fn configuration(folder: &Path) -> PathBuf {
    let key = |name: &str, token: &str, id: u8| {
        format!(
            "[[key]]\nname = \"{name}\"\ntoken = \"{token}\"\nid = \"{id:02x}\"\npublic_key = \"MAA=\"\n\
             check = \"{}\"\n",
            "00".repeat(32)
        )
    };
    let token = |name: &str| {
        format!(
            "[[token]]\nname = \"{name}\"\nmodule = \"none.so\"\nlabel = \"{name}\"\npin_file = \"./pin\"\n"
        )
    };
    let text = [
        "[appliance]\nname = \"test/node\"\ndevelopment = true\nrun = \"run\"\nstate = \"state\"\n"
            .into(),
        "[ra]\ndecryption_key = \"decrypt\"\nsigning_key = \"respond\"\n".into(),
        "[challenge]\nkey = \"challenge\"\n[audit]\nkey = \"audit\"\n".into(),
        "[ledger]\ndatabase = \"ledger.db\"\n".into(),
        token("ra"),
        token("ca"),
        key("decrypt", "ra", 1),
        key("respond", "ra", 2),
        key("challenge", "ca", 3),
        key("audit", "ca", 4),
        key("issue", "ca", 5),
        "[[ca]]\nid = \"issuing\"\ncertificate = \"ca.pem\"\nkey = \"issue\"\n".into(),
        "[[profile]]\nname = \"devices\"\nca = \"issuing\"\n".to_owned(),
    ]
    .concat();
    let file = folder.join("chancery.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn it_serves_inside_its_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(folder.path());
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let (record, recorded) = mpsc::channel::<append::Request>();
    let _appends = Role::start(
        &run.join(socket::LEDGER_APPEND_FRONT),
        socket::LEDGER_APPEND_FRONT,
        1,
        move |octets| {
            record.send(wire::decode(octets).unwrap()).unwrap();
            packet(&append::Reply::Done(Receipt {
                seq: 0,
                leaf: Octets([0; 32]),
            }))
        },
    );
    let (_ra, _) = echo(&run);
    let stop = Stop::new().unwrap();
    let front = supervise::Role {
        name: "front".into(),
        program: std::env::current_exe().unwrap(),
        arguments: vec!["--config".into(), file.into()],
        environment: vec![("CHANCERY_LOG".into(), "warn".into())],
        sockets: vec![Socket::Tcp {
            name: socket::FRONT_HTTP.into(),
            address: "127.0.0.1:0".parse().unwrap(),
        }],
    };
    let mut supervisor = Supervisor::start(vec![front], &stop).unwrap();
    // Ready although nobody has published a GetCACert answer.
    supervisor.wait_ready(PATIENCE).unwrap();
    let address = supervisor.addresses(socket::FRONT_HTTP)[0];

    let started = recorded.recv_timeout(PATIENCE).unwrap();
    assert_eq!(started.event.kind, Kind::ServiceStarted);
    assert_eq!(started.event.outcome, Outcome::Success);
    assert_eq!(started.event.value(field::ROLE), Some("front"));
    assert!(started.event.is_valid());

    // Many at once, so that the sealed process starts threads and opens sockets.
    std::thread::scope(|scope| {
        for n in 0..16u8 {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                assert_eq!(
                    client.ask(get("/scep/devices?operation=GetCACaps")).status,
                    200
                );
                for _ in 0..10 {
                    assert_eq!(client.ask(post(&[n; 2000])).body, [n; 2000]);
                }
            });
        }
    });
    let _ledger = ledger(&run, b"chain");
    let mut client = Client::connect(address);
    while client.ask(get("/scep/devices?operation=GetCACert")).status != 200 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    stop.request();
    supervisor.run().unwrap();
    assert!(client.is_closed());
    let stopped = recorded.recv_timeout(PATIENCE).unwrap();
    assert_eq!(stopped.event.kind, Kind::ServiceStopped);
    assert_eq!(stopped.event.outcome, Outcome::Success);
    assert_ne!(stopped.write, started.write);
}

fn it_refuses_to_start_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(folder.path());
    let front = |arguments: &[&str]| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (status, said) = front(&["--configuration", "x"]);
    assert_eq!(status, Some(2));
    assert!(
        said.contains("usage: chancery-front --config FILE"),
        "{said}"
    );

    let absent = folder.path().join("absent.toml");
    let (status, said) = front(&["--config", absent.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    assert!(said.contains("absent.toml"), "{said}");

    let (status, said) = front(&["--config", file.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    assert!(said.contains("no sockets were passed"), "{said}");
}
