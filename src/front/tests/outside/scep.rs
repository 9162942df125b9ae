//! SCEP over HTTP, seen from outside: every operation and every answer of ra.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Front, Response, Role, cert_rep, echo, get, ledger, post, ra};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_host::ipc::server::Answer;
use chancery_protocol::ipc::{message, socket};
use chancery_protocol::wire::MAX_MESSAGE;
use zeroize::Zeroizing;

fn is_empty_unavailable(response: &Response, seconds: &str) {
    assert_eq!(response.status, 503);
    assert_eq!(response.header("retry-after"), Some(seconds));
    assert!(response.body.is_empty());
}

#[test]
fn capabilities_are_one_keyword_a_line() {
    let front = Front::start();
    for target in [
        "/scep/devices?operation=GetCACaps",
        "/scep/devices/pkiclient.exe?operation=getcacaps&message=0",
        "/scep/legacy/a/b?message=CAIdentifier&operation=GetCACaps",
    ] {
        let response = front.ask(get(target));
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(response.header("content-type"), Some("text/plain"));
        assert_eq!(response.header("server"), None);
        let text = String::from_utf8(response.body).unwrap();
        let keywords: Vec<&str> = text.lines().collect();
        assert_eq!(
            keywords,
            [
                "AES",
                "POSTPKIOperation",
                "SHA-256",
                "SHA-384",
                "SHA-512",
                "SCEPStandard"
            ]
        );
    }
}

#[test]
fn ca_certificates_come_from_the_ledger_and_outlive_it() {
    let front = Front::start();
    let request = get("/scep/devices?operation=GetCACert&message=CAIdentifier");
    is_empty_unavailable(&front.ask(&request), "5");
    let ledger = ledger(front.folder(), b"chain");
    let response = loop {
        let response = front.ask(&request);
        if response.status == 200 {
            break response;
        }
        is_empty_unavailable(&response, "5");
        std::thread::sleep(Duration::from_millis(50));
    };
    let check = |response: Response| {
        assert_eq!(
            response.header("content-type"),
            Some("application/x-x509-ca-ra-cert")
        );
        assert_eq!(response.body, b"chain");
    };
    check(response);
    drop(ledger);
    check(front.ask(&request));
    is_empty_unavailable(&front.ask(get("/scep/legacy?operation=GetCACert")), "5");
}

#[test]
fn a_posted_message_reaches_ra_as_it_is() {
    let front = Front::start();
    let (_ra, asked) = echo(front.folder());
    let body: Vec<u8> = (0..=255).cycle().take(MAX_MESSAGE).collect();
    let length = format!("Content-Length: {MAX_MESSAGE}\r\n");
    for (target, header) in [
        ("/scep/devices?operation=PKIOperation", ""),
        (
            "/scep/devices",
            "Content-Type: application/octet-stream\r\n",
        ),
        (
            "/scep/devices/pkiclient.exe?operation=pkioperation",
            "Content-Type: application/x-pki-message\r\n",
        ),
        ("/scep/devices?", "Content-Type: text/html; charset=x\r\n"),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{header}{length}\r\n");
        let response = front.ask([head.as_bytes(), &body].concat());
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(
            response.header("content-type"),
            Some("application/x-pki-message")
        );
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.body == body, "{target}");
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    for request in asked.iter() {
        assert_eq!(request.profile, "devices");
        assert!(request.peer.starts_with("127.0.0.1:"), "{}", request.peer);
        assert!(request.message.as_bytes() == body);
    }
}

#[test]
fn a_message_in_the_query_reaches_ra_as_if_posted() {
    let front = Front::start();
    let (_ra, asked) = echo(front.folder());
    let message: Vec<u8> = (0..=255).rev().cycle().take(12_000).collect();
    let raw = STANDARD.encode(&message);
    let escaped = raw
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    for text in [&raw, &escaped] {
        let target = format!("/scep/devices?operation=PKIOperation&message={text}");
        assert!(target.len() > 8192);
        let response = front.ask(get(&target));
        assert_eq!(response.status, 200);
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.body == message);
    }
    // Old macOS announces a body, sends none, and has the message in the query.
    let request = format!(
        "POST /scep/legacy?operation=PKIOperation&message={raw} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    );
    assert!(front.ask(request).body == message);
    let asked = asked.lock().unwrap();
    let profiles: Vec<&str> = asked.iter().map(|r| r.profile.as_str()).collect();
    assert_eq!(profiles, ["devices", "devices", "legacy"]);
}

#[test]
fn an_empty_message_is_malformed_without_asking_anybody() {
    let front = Front::start();
    let (_ra, asked) = echo(front.folder());
    for request in [
        post(b""),
        b"POST /scep/devices HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        get("/scep/devices?operation=PKIOperation").into_bytes(),
        get("/scep/devices?operation=PKIOperation&message=%25").into_bytes(),
    ] {
        let response = front.ask(request);
        assert_eq!(response.status, 400);
        assert!(response.body.is_empty());
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn every_answer_of_ra_has_its_status() {
    let front = Front::start();
    let _ra = ra(front.folder(), 1, |request| {
        match request.message.as_bytes()[0] {
            0 => cert_rep(b"reply"),
            1 => message::Reply::Malformed(der::asn1::Null),
            2 => message::Reply::NoProfile(der::asn1::Null),
            seconds => message::Reply::Unavailable(u32::from(seconds)),
        }
    });
    let mut client = front.connect();
    let mut ask = |octet| client.ask(post(&[octet]));
    assert_eq!(ask(0).body, b"reply");
    for (octet, status) in [(1, 400), (2, 404)] {
        let response = ask(octet);
        assert_eq!(response.status, status);
        assert!(response.body.is_empty());
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
    is_empty_unavailable(&ask(7), "7");
    is_empty_unavailable(&ask(200), "200");
}

#[test]
fn what_scep_does_not_know_is_refused_without_a_word() {
    let front = Front::start();
    for (request, status) in [
        ("GET / HTTP/1.1", 404),
        ("GET /scep HTTP/1.1", 404),
        ("GET /scep/unknown?operation=GetCACaps HTTP/1.1", 404),
        ("HEAD /scep/unknown HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("GET /scep/devices HTTP/1.1", 400),
        ("GET /scep/devices?operation=GetNextCACert HTTP/1.1", 400),
        ("GET /scep/devices?operation=GetCRL HTTP/1.1", 400),
        ("POST /scep/devices?operation=GetCACaps HTTP/1.1", 400),
        ("HEAD /scep/devices?operation=GetCACaps HTTP/1.1", 405),
        ("PUT /scep/devices?operation=PKIOperation HTTP/1.1", 405),
        ("BREW /scep/devices HTTP/1.1", 405),
    ] {
        let response = front.ask(format!("{request}\r\nHost: x\r\n\r\n"));
        assert_eq!(response.status, status, "{request}");
        assert!(response.body.is_empty(), "{request}");
        let allow = (status == 405).then_some("GET, POST");
        assert_eq!(response.header("allow"), allow, "{request}");
    }
}

#[test]
fn without_an_ra_that_answers_service_is_unavailable() {
    let front = Front::with(|settings| settings.deadlines.call = Duration::from_millis(300));
    let path = front.folder().join(socket::RA_MESSAGE);
    is_empty_unavailable(&front.ask(post(b"x")), "5");
    {
        let _closes = Role::start(&path, socket::RA_MESSAGE, 1, |_| Answer::Close);
        is_empty_unavailable(&front.ask(post(b"x")), "5");
    }
    {
        let _babbles = Role::start(&path, socket::RA_MESSAGE, 1, |_| {
            Answer::Now(Zeroizing::new(b"no packet of ours".to_vec()))
        });
        is_empty_unavailable(&front.ask(post(b"x")), "5");
    }
    {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let _hangs = Role::start(&path, socket::RA_MESSAGE, 1, move |_| {
            let _ = gate.lock().unwrap().recv();
            Answer::Close
        });
        is_empty_unavailable(&front.ask(post(b"x")), "5");
        drop(release);
    }
    // A restarted ra is found without any help.
    let (_ra, _) = echo(front.folder());
    while front.ask(post(b"x")).body != b"x" {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An ra that holds every message until it is let go.
struct HeldRa {
    _role: Role,
    arrived: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

fn held(front: &Front) -> HeldRa {
    let (tell, arrived) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let role = ra(front.folder(), 4, move |request| {
        tell.send(()).unwrap();
        // An error means that the test is over.
        let _ = gate.lock().unwrap().recv();
        message::Reply::CertRep(request.message)
    });
    HeldRa {
        _role: role,
        arrived,
        release,
    }
}

#[test]
fn a_full_queue_is_unavailable_at_once() {
    let front = Front::with(|settings| (settings.calls, settings.queue) = (1, 1));
    let ra = held(&front);
    let mut first = front.connect();
    first.send(post(b"first"));
    ra.arrived.recv().unwrap();
    // One of these waits, the other is turned away while ra still holds the first.
    let (answers, answered) = mpsc::channel();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = front.connect();
            let answers = answers.clone();
            std::thread::spawn(move || answers.send(client.ask(post(b"next"))).unwrap())
        })
        .collect();
    is_empty_unavailable(&answered.recv().unwrap(), "5");
    ra.release.send(()).unwrap();
    assert_eq!(first.response().body, b"first");
    ra.release.send(()).unwrap();
    assert_eq!(answered.recv().unwrap().body, b"next");
    for thread in waiting {
        thread.join().unwrap();
    }
}

#[test]
fn a_message_waits_only_so_long_for_its_call() {
    let front = Front::with(|settings| {
        settings.calls = 1;
        settings.deadlines.queue = Duration::from_millis(100);
    });
    let ra = held(&front);
    let mut first = front.connect();
    first.send(post(b"first"));
    ra.arrived.recv().unwrap();
    is_empty_unavailable(&front.ask(post(b"second")), "5");
    ra.release.send(()).unwrap();
    assert_eq!(first.response().body, b"first");
}

#[test]
fn a_device_that_hangs_up_leaves_nothing_behind() {
    let front = Front::with(|settings| (settings.calls, settings.queue) = (1, 0));
    let ra = held(&front);
    let mut client = front.connect();
    client.send(post(b"gone"));
    ra.arrived.recv().unwrap();
    drop(client);
    ra.release.send(()).unwrap();
    ra.release.send(()).unwrap();
    // Its call ends by itself and frees the only place.
    loop {
        let response = front.ask(post(b"next"));
        if response.status == 200 {
            assert_eq!(response.body, b"next");
            break;
        }
        is_empty_unavailable(&response, "5");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stop_lets_requests_end_and_takes_no_more() {
    let mut front = Front::start();
    let ra = held(&front);
    let mut idle = front.connect();
    assert_eq!(
        idle.ask(get("/scep/devices?operation=GetCACaps")).status,
        200
    );
    let mut silent = front.connect();
    let mut busy = front.connect();
    busy.send(post(b"busy"));
    ra.arrived.recv().unwrap();
    front.request_stop();
    assert!(idle.is_closed());
    assert!(silent.is_closed());
    ra.release.send(()).unwrap();
    let response = busy.response();
    assert_eq!(response.body, b"busy");
    assert!(busy.is_closed());
    front.join();
    assert!(std::net::TcpStream::connect(front.address).is_err());
}

#[test]
fn a_stop_cuts_off_what_outlasts_the_grace() {
    let mut front = Front::with(|settings| settings.grace = Duration::from_millis(100));
    let ra = held(&front);
    let mut busy = front.connect();
    busy.send(post(b"busy"));
    ra.arrived.recv().unwrap();
    front.request_stop();
    front.join();
    assert!(busy.try_response().is_none());
    drop(ra.release);
}
