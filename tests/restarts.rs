//! A role that dies is restarted, and service goes on.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::fs;

use common::{Appliance, Device, Reply, block_on, children, eventually};
use nix::sys::signal::{Signal, kill};

/// A device comes again while the appliance answers 503.
fn enrols_in_the_end(appliance: &Appliance, name: &str) {
    let server = appliance.server();
    let mut challenge = None;
    eventually("a challenge is minted", || {
        let output = appliance.chancery(&[
            "challenge",
            "new",
            "--profile",
            "devices",
            "--subject",
            name,
        ]);
        challenge = output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap());
        challenge.is_some()
    });
    let challenge = challenge.unwrap().trim_end().to_owned();
    let ca = block_on(server.get_ca_cert()).unwrap();
    let device = Device::new(name, &[]);
    let message = device.message(&ca, &challenge);
    eventually("the device is enrolled", || {
        match device.send(&server, &message.der) {
            Reply::Issued(_) => true,
            Reply::Http(503) => false,
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn every_role_may_die() {
    let appliance = Appliance::start();
    for role in ["ledger", "ca", "parser", "ra", "front"] {
        let before = appliance.pid(role).unwrap();
        appliance.kill(role);
        eventually("the role is restarted", || {
            appliance.pid(role).is_some_and(|pid| pid != before)
        });
        if role == "front" {
            let server = appliance.server();
            eventually("front serves", || block_on(server.get_ca_cert()).is_ok());
        }
        enrols_in_the_end(&appliance, &format!("CN=after-{role}"));
    }
}

#[test]
fn a_role_may_die_under_load() {
    let appliance = Appliance::start();
    for (number, role) in ["parser", "ra", "ca", "ledger"].into_iter().enumerate() {
        std::thread::scope(|scope| {
            let appliance = &appliance;
            let workers: Vec<_> = (0..3)
                .map(|worker| {
                    scope.spawn(move || {
                        for round in 0..3 {
                            enrols_in_the_end(
                                appliance,
                                &format!("CN=load-{number}-{worker}-{round}"),
                            );
                        }
                    })
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(100));
            appliance.kill(role);
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
    // Nothing was signed without its intent, and no challenge was used twice.
    let intents = appliance.query("SELECT CAST(count(*) AS TEXT) FROM certificates");
    let spends = appliance.query("SELECT CAST(count(DISTINCT challenge) AS TEXT) FROM spends");
    let all = appliance.query("SELECT CAST(count(*) AS TEXT) FROM spends");
    assert_eq!(spends, all);
    assert!(intents[0].parse::<u32>().unwrap() > 36, "{intents:?}");
}

#[test]
fn a_killed_parser_child_is_one_refused_request() {
    let appliance = Appliance::start();
    let zygote = appliance.pid("parser").unwrap();
    let zygote = u32::try_from(zygote.as_raw()).unwrap();
    let waiting = children(zygote, "chancery-parser");
    assert!(!waiting.is_empty(), "children are forked ahead of need");
    for child in waiting {
        kill(child, Signal::SIGKILL).unwrap();
    }
    enrols_in_the_end(&appliance, "CN=after-children");
}

#[test]
fn stopping_leaves_nothing_behind() {
    let mut appliance = Appliance::start();
    let pids: Vec<_> = ["ledger", "ca", "parser", "ra", "front"]
        .iter()
        .map(|role| appliance.pid(role).unwrap())
        .collect();
    appliance.stop();
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} still runs"
        );
    }
    let left: Vec<_> = fs::read_dir(appliance.dir().join("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
