//! HTTP seen from outside: versions, framing, limits, slow and hostile peers.

use std::time::Duration;

use crate::common::{Client, Front, POST, echo, get, post};
use chancery_protocol::wire::MAX_MESSAGE;

const CAPS: &str = "/scep/devices?operation=GetCACaps";
const SHORT: Duration = Duration::from_millis(100);

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let front = Front::start();
    let (_ra, _) = echo(front.folder());
    let mut client = front.connect();
    let response = client.ask(format!("GET {CAPS} HTTP/1.0\r\n\r\n"));
    assert_eq!(
        (response.version.as_str(), response.status),
        ("HTTP/1.0", 200)
    );
    assert!(response.header("content-length").is_some());
    assert!(client.is_closed());

    let mut client = front.connect();
    let head = "POST /scep/devices HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n";
    for body in ["ab", "cd"] {
        let response = client.ask(format!("{head}{body}"));
        assert_eq!(response.body, body.as_bytes());
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
}

#[test]
fn http_1_1_stays_unless_asked_to_close() {
    let front = Front::start();
    let (_ra, _) = echo(front.folder());
    let mut client = front.connect();
    for n in 0..50u8 {
        assert_eq!(client.ask(post(&[n])).body, [n]);
        assert_eq!(client.ask(get(CAPS)).status, 200);
        assert_eq!(client.ask(get("/nowhere")).status, 404);
    }
    let response = client.ask(format!(
        "GET {CAPS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(response.status, 200);
    assert!(client.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let front = Front::start();
    let (_ra, _) = echo(front.folder());
    let mut client = front.connect();
    let all: Vec<u8> = (0..20u8).flat_map(|n| post(&[n; 100])).collect();
    client.send(all);
    client.send(get(CAPS));
    for n in 0..20u8 {
        assert_eq!(client.response().body, [n; 100]);
    }
    assert_eq!(client.response().header("content-type"), Some("text/plain"));
}

#[test]
fn a_chunked_body_is_joined() {
    let front = Front::start();
    let (_ra, _) = echo(front.folder());
    let mut client = front.connect();
    let body = "3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nTrailer: ignored\r\n\r\n";
    client.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"));
    for part in body.as_bytes().chunks(4) {
        client.send(part);
    }
    assert_eq!(client.response().body, b"abcdefgh");
    assert_eq!(client.ask(post(b"again")).body, b"again");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let front = Front::start();
    let (_ra, _) = echo(front.folder());
    let mut client = front.connect();
    let interim = client.ask(format!(
        "{POST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    ));
    assert_eq!(interim.status, 100);
    assert_eq!(client.ask("ok").body, b"ok");
    // What is refused anyway is not asked for.
    let refused = client.ask(format!(
        "{POST}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        MAX_MESSAGE + 1
    ));
    assert_eq!(refused.status, 413);
    assert!(client.is_closed());
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let front = Front::start();
    let (_ra, asked) = echo(front.folder());
    let large = vec![0x30; MAX_MESSAGE * 10];
    for _ in 0..20 {
        let mut client = front.connect();
        client.try_send(post(&large));
        let response = client.response();
        assert_eq!(response.status, 413);
        assert!(response.body.is_empty());
        assert!(client.is_closed());
    }

    let mut client = front.connect();
    client.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"));
    for chunk in large.chunks(1000) {
        client.try_send(format!("{:x}\r\n", chunk.len()));
        client.try_send([chunk, b"\r\n"].concat());
    }
    assert_eq!(client.response().status, 413);
    assert!(client.is_closed());

    // A body without end is not read for ever.
    let mut endless = front.connect();
    endless.send(format!("{POST}Content-Length: 999999999999\r\n\r\n"));
    for _ in 0..100 {
        endless.try_send(vec![0x30; 64 * 1024]);
    }
    assert!(endless.try_response().is_none_or(|r| r.status == 413));
    assert!(endless.is_closed());
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_refused_post_is_read_so_that_its_answer_arrives() {
    let front = Front::start();
    let body = "x".repeat(200_000);
    for (target, status) in [
        ("/scep/unknown", 404),
        ("/scep/devices?operation=GetCACert", 400),
    ] {
        let response = front.ask(format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{body}"
        ));
        assert_eq!(response.status, status);
    }
}

#[test]
fn heads_have_a_limit() {
    let front = Front::start();
    let url = |octets: usize| format!("{CAPS}&message={}", "A".repeat(octets));
    assert_eq!(front.ask(get(&url(8 * 1024))).status, 200);
    assert_eq!(front.ask(get(&url(30 * 1024))).status, 200);
    for octets in [33 * 1024, 40_000, 64 * 1024, 500_000] {
        let mut client = front.connect();
        client.try_send(get(&url(octets)));
        assert_eq!(client.response().status, 431);
        assert!(client.is_closed());
    }
    let mut client = front.connect();
    let header = format!("X-Filler: {}\r\n", "x".repeat(33 * 1024));
    client.try_send(format!("GET {CAPS} HTTP/1.1\r\nHost: x\r\n{header}\r\n"));
    assert_eq!(client.response().status, 431);
}

#[test]
fn a_head_that_does_not_end_is_not_awaited() {
    let front = Front::with(|settings| settings.patience.head = SHORT);
    let mut silent = front.connect();
    assert!(silent.is_closed());
    let mut slow = front.connect();
    slow.try_send(format!("GET {CAPS} HTTP/1.1\r\nX-Slow: "));
    // Each octet comes in time; the head as a whole does not.
    let closed = (0..1000).any(|_| {
        std::thread::sleep(SHORT / 10);
        !slow.try_send("x")
    });
    assert!(closed);
}

#[test]
fn an_idle_connection_is_closed() {
    let front = Front::with(|settings| settings.patience.idle = SHORT);
    let mut client = front.connect();
    assert_eq!(client.ask(get(CAPS)).status, 200);
    assert!(client.is_closed());
}

#[test]
fn a_body_that_does_not_end_is_not_awaited() {
    let front = Front::with(|settings| settings.patience.body = SHORT);
    let (_ra, asked) = echo(front.folder());
    let mut client = front.connect();
    client.send(format!("{POST}Content-Length: 10\r\n\r\nabc"));
    let response = client.response();
    assert_eq!(response.status, 408);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.is_closed());
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_client_may_close_its_side_and_wait() {
    let front = Front::start();
    let (_ra, _) = echo(front.folder());
    let mut client = front.connect();
    client.send(post(b"last"));
    client.finish();
    assert_eq!(client.response().body, b"last");
    assert!(client.is_closed());
}

#[test]
fn ambiguous_framing_is_refused() {
    let front = Front::start();
    let (_ra, asked) = echo(front.folder());
    for header in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: +1",
        "Content-Length: 1, 2",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Content-Length : 1",
    ] {
        let mut client = front.connect();
        client.send(format!("{POST}{header}\r\n\r\na"));
        let response = client.try_response();
        assert!(response.is_none_or(|r| r.status == 400), "{header}");
        assert!(client.is_closed(), "{header}");
    }
    let mut client = front.connect();
    client.send(
        "POST /scep/devices HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    );
    assert!(client.try_response().is_none_or(|r| r.status == 400));
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn one_host_has_so_many_connections() {
    let front = Front::with(|settings| settings.per_peer = 2);
    let mut first = front.connect();
    let mut second = front.connect();
    assert_eq!(first.ask(get(CAPS)).status, 200);
    assert_eq!(second.ask(get(CAPS)).status, 200);
    let mut third = front.connect();
    assert!(third.is_closed());
    drop(first);
    // The place is free as soon as the server has seen the end of the first.
    let served = (0..1000).any(|_| {
        let mut client = front.connect();
        client.try_send(get(CAPS));
        let served = client.try_response().is_some_and(|r| r.status == 200);
        if !served {
            std::thread::sleep(Duration::from_millis(10));
        }
        served
    });
    assert!(served);
    assert_eq!(second.ask(get(CAPS)).status, 200);
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    let front = Front::with(|settings| settings.connections = 1);
    let mut first = front.connect();
    assert_eq!(first.ask(get(CAPS)).status, 200);
    let mut second = front.connect();
    second.send(get(CAPS));
    let mut third = front.connect();
    third.send(get(CAPS));
    assert_eq!(first.ask(get(CAPS)).status, 200);
    drop(first);
    assert_eq!(second.response().status, 200);
    drop(second);
    assert_eq!(third.response().status, 200);
}

/// xorshift64: garbage that is the same in every run.
fn garbage(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
}

fn send_garbage(client: &mut Client, seed: u64) {
    let mut octets = garbage(seed);
    let length = usize::from(octets.next().unwrap()) * 4;
    let noise: Vec<u8> = octets.take(length).collect();
    let text = String::from_utf8_lossy(&noise).replace(['\r', '\n', ' '], "");
    client.try_send(match seed % 5 {
        0 => noise,
        1 => [
            b"GET /scep/devices?".as_slice(),
            &noise,
            b" HTTP/1.1\r\n\r\n",
        ]
        .concat(),
        2 => get(&format!("/scep/{text}?operation=PKIOperation")).into_bytes(),
        3 => [POST.as_bytes(), &noise, b"\r\n\r\n"].concat(),
        _ => [
            POST.as_bytes(),
            b"Transfer-Encoding: chunked\r\n\r\n",
            &noise,
        ]
        .concat(),
    });
    client.finish();
}

#[test]
fn a_thousand_garbage_requests_harm_nobody() {
    let front = Front::start();
    let (_ra, asked) = echo(front.folder());
    let mut neighbour = front.connect();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let front = &front;
            scope.spawn(move || {
                for n in 0..250 {
                    let mut client = front.connect();
                    send_garbage(&mut client, thread * 250 + n);
                    if let Some(response) = client.try_response() {
                        let status = response.status;
                        assert!((400..500).contains(&status), "{status}");
                        assert!(response.body.is_empty());
                    }
                }
            });
        }
        for n in 0..100u8 {
            assert_eq!(neighbour.ask(post(&[n])).body, [n]);
        }
    });
    assert_eq!(asked.lock().unwrap().len(), 100);
    assert_eq!(neighbour.ask(get(CAPS)).status, 200);
}
