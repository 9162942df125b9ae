//! Neighbours that lie, die or are away, and a PIN that is refused.

use std::path::Path;
use std::time::{Duration, Instant};

use chancery_host::ipc::{CallError, ask_once};
use chancery_protocol::ipc::message::Reply;
use chancery_protocol::ipc::socket;
use chancery_protocol::scep::FailInfo;
use chancery_token::clear_pin;

use crate::appliance::{Appliance, PATIENCE, PIN, eventually};
use crate::device::Device;
use crate::programs::write_pin;

crate::harness::tests!(
    a_false_parser_gains_one_refusal_and_is_reported,
    a_certificate_for_another_key_never_leaves,
    without_ca_or_parser_a_device_is_told_to_come_back,
    a_ca_that_waits_for_a_custodian_does_not_keep_the_ra_from_ready,
    nothing_leaves_before_its_time_once_it_is_decrypted,
    a_packet_that_is_no_request_closes_its_connection,
    a_killed_ra_serves_again,
    a_token_that_is_gone_ends_the_process_until_it_is_back,
    a_refused_pin_is_not_tried_again_until_a_custodian_clears_it,
);

fn set_parser(appliance_folder: &Path, mode: &str) {
    std::fs::write(appliance_folder.join("parser-mode"), mode).unwrap();
}

fn a_false_parser_gains_one_refusal_and_is_reported() {
    let appliance = Appliance::start_with("false-parser", |folder| set_parser(folder, "- -"));
    let device = Device::new(&appliance);
    let folder = appliance.path("");
    let ask = |mode: &str| {
        set_parser(&folder, mode);
        let message = device.message("genuine");
        let reply = appliance.ask(&message.der);
        (message, reply)
    };
    // What is wrong with the outer message leaves nobody to answer to.
    for what in ["die", "lie", "babble", "more", "none", "refuse"] {
        let (_, reply) = ask(&format!("{what} message"));
        assert!(matches!(reply, Reply::Malformed(_)), "{what}");
    }
    // What is wrong with the plaintext looks like every other refusal.
    for what in ["die", "lie", "babble", "more", "none", "refuse"] {
        let (message, reply) = ask(&format!("{what} plaintext"));
        assert_eq!(
            device.failure(&message, &reply).0,
            FailInfo::BadRequest,
            "{what}"
        );
    }
    let (message, reply) = ask("- -");
    device.certificate(&message, &reply);

    let events = appliance.stop();
    let number = |start: &str| events.iter().filter(|e| e.starts_with(start)).count();
    assert_eq!(number("parser.died - 192.0.2.7"), 2, "{events:?}");
    assert_eq!(number("parser.lied - 192.0.2.7"), 8, "{events:?}");
    for total in ["malformed 192.0.2.7 1", "plaintext 192.0.2.7 6"] {
        let total = format!("refusals.counted {total}");
        assert!(events.contains(&total), "{events:?}");
    }
}

fn a_certificate_for_another_key_never_leaves() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    for challenge in ["for another key", "no certificate"] {
        let message = device.message(challenge);
        assert_eq!(appliance.ask(&message.der), Reply::Unavailable(5));
    }
}

fn without_ca_or_parser_a_device_is_told_to_come_back() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let message = device.message("away");
    assert_eq!(appliance.ask(&message.der), Reply::Unavailable(5));
    let parser = appliance.socket(socket::PARSER_PARSE);
    std::fs::remove_file(parser).unwrap();
    let message = device.message("genuine");
    assert_eq!(appliance.ask(&message.der), Reply::Unavailable(5));
}

fn a_ca_that_waits_for_a_custodian_does_not_keep_the_ra_from_ready() {
    let waits = |folder: &Path| folder.join("ca-waits");
    let appliance = Appliance::launch("parser", |folder| {
        std::fs::write(waits(folder), "").unwrap();
    });
    let device = Device::new(&appliance);
    let ask = || appliance.ask(&device.message("genuine").der);
    assert_eq!(ask(), Reply::Unavailable(5));
    std::fs::remove_file(waits(&appliance.path(""))).unwrap();
    eventually(|| matches!(ask(), Reply::CertRep(_)));
}

fn nothing_leaves_before_its_time_once_it_is_decrypted() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    for challenge in ["away", "for another key", "spent"] {
        let message = device.message(challenge);
        let asked = Instant::now();
        appliance.ask(&message.der);
        // The first mark of the grid. However slow the machine, no answer may come earlier.
        assert!(asked.elapsed() >= Duration::from_millis(500), "{challenge}");
    }
}

fn a_packet_that_is_no_request_closes_its_connection() {
    let appliance = Appliance::start();
    let path = appliance.socket(socket::RA_MESSAGE);
    for packet in [&b"junk"[..], b"0", &[0x30, 0x80, 0, 0]] {
        assert!(matches!(
            ask_once(&path, PATIENCE, packet),
            Err(CallError::Closed)
        ));
    }
    let device = Device::new(&appliance);
    let message = device.message("genuine");
    device.certificate(&message, &appliance.ask(&message.der));
}

fn a_killed_ra_serves_again() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    appliance.kill("ra");
    eventually(|| {
        let message = device.message("genuine");
        matches!(appliance.ask(&message.der), Reply::CertRep(_))
    });
}

fn a_token_that_is_gone_ends_the_process_until_it_is_back() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let (tokens, away) = (appliance.path("tokens"), appliance.path("away"));
    let before = appliance.pid("ra");
    std::fs::rename(&tokens, &away).unwrap();
    std::thread::scope(|scope| {
        // Asked again until there is an answer, as front's devices do.
        let asked = scope.spawn(|| {
            eventually(|| {
                let message = device.message("genuine");
                matches!(appliance.ask(&message.der), Reply::CertRep(_))
            });
        });
        appliance.await_successor("ra", before);
        std::fs::rename(&away, &tokens).unwrap();
        asked.join().unwrap();
    });
    let message = device.message("genuine");
    device.certificate(&message, &appliance.ask(&message.der));
}

fn a_refused_pin_is_not_tried_again_until_a_custodian_clears_it() {
    let appliance = Appliance::start_with("parser", |folder| write_pin(folder, "1111-wrong"));
    let device = Device::new(&appliance);
    let ask = || {
        let message = device.message("genuine");
        appliance.ask(&message.der)
    };
    assert_eq!(ask(), Reply::Unavailable(300));
    // A restart with the right PIN changes nothing: whoever corrects it says so.
    write_pin(&appliance.path(""), PIN);
    appliance.kill("ra");
    assert_eq!(ask(), Reply::Unavailable(300));

    let waiting = appliance.pid("ra");
    clear_pin(&appliance.path("state/ra/ra")).unwrap();
    appliance.await_successor("ra", waiting);
    eventually(|| matches!(ask(), Reply::CertRep(_)));
}
