use chancery_protocol::audit::Record;
use chancery_protocol::wire;

use super::*;
use crate::check::Change;
use crate::testing::{Bench, NOW, commit, digest, put_challenge, reserve, reserve_own};

fn with_challenge() -> Bench {
    let mut bench = Bench::new();
    bench.apply(NOW, put_challenge(1, "a"));
    bench
}

fn spends(bench: &Bench) -> u64 {
    bench.count("SELECT count(*) FROM spends")
}

#[test]
fn a_reservation_is_one_transaction_with_its_record() {
    let mut bench = with_challenge();
    let request = reserve(2, "a", 1, "key", "host", &[1]);
    let Reply::Reserved(recorded) = bench.apply(NOW + 5, Change::Reserve(request.clone())) else {
        panic!()
    };
    let record: Record = wire::decode(recorded.record.as_bytes()).unwrap();
    assert_eq!((record.seq, record.time), (1, NOW + 5));
    assert_eq!(record.event, request.event);
    let found = find(&bench.connection, &request.row.id, NOW + 5)
        .unwrap()
        .unwrap();
    assert_eq!(found.row, request.row);
    assert_eq!(found.state, ReservationState::Open);
    assert_eq!(found.serial, request.index.serial);
    assert_eq!(found.certificate, None);
    assert_eq!(spends(&bench), 1);
}

#[test]
fn a_retry_gets_its_reservation_then_its_certificate() {
    let mut bench = with_challenge();
    bench.apply(
        NOW,
        Change::Reserve(reserve(2, "a", 1, "key", "host", &[1])),
    );
    let retry = |write, serial| Change::Reserve(reserve(write, "a", 1, "key", "host", &[serial]));
    let Reply::Reservation(open) = bench.apply(NOW + LIFE - 1, retry(3, 2)) else {
        panic!()
    };
    assert_eq!(open.state, ReservationState::Open);
    assert_eq!(open.serial.as_bytes(), [1]);
    bench.apply(NOW + LIFE - 1, commit(4, &[1], "certificate"));
    let Reply::Reservation(issued) = bench.apply(NOW + 2 * LIFE - 2, retry(5, 3)) else {
        panic!()
    };
    assert_eq!(issued.state, ReservationState::Issued);
    assert_eq!(issued.certificate.unwrap().as_bytes(), b"certificate");
    assert_eq!(bench.count("SELECT count(*) FROM certificates"), 1);
    assert_eq!(
        bench.kinds(),
        [Kind::ChallengeMinted, Kind::IssueIntent, Kind::IssueDone]
    );
}

#[test]
fn a_day_after_issuance_a_static_challenge_is_used_anew() {
    let mut bench = with_challenge();
    bench.apply(
        NOW,
        Change::Reserve(reserve(2, "a", 2, "key", "host", &[1])),
    );
    bench.apply(NOW, commit(3, &[1], "certificate"));
    let again = reserve(4, "a", 2, "key", "host", &[2]);
    assert_eq!(
        find(&bench.connection, &again.row.id, NOW + LIFE).unwrap(),
        None
    );
    let reply = bench.apply(NOW + LIFE, Change::Reserve(again));
    assert!(matches!(reply, Reply::Reserved(_)));
    let third = reserve(5, "a", 2, "key", "other", &[3]);
    let reply = bench.apply(NOW + LIFE, Change::Reserve(third));
    assert_eq!(reply, Reply::Spent(Null));
}

#[test]
fn a_challenge_is_spent_once() {
    let mut bench = with_challenge();
    bench.apply(
        NOW,
        Change::Reserve(reserve(2, "a", 1, "key", "host", &[1])),
    );
    let mut refused = |write, key: &str, names: &str| {
        bench.apply(
            NOW,
            Change::Reserve(reserve(write, "a", 1, key, names, &[9])),
        )
    };
    assert_eq!(refused(3, "other key", "host"), Reply::Spent(Null));
    assert_eq!(refused(4, "other key", "other"), Reply::Spent(Null));
    assert_eq!(refused(5, "key", "other"), Reply::Spent(Null));
    assert_eq!(spends(&bench), 1);
    assert_eq!(bench.kinds().len(), 2);
}

#[test]
fn names_under_a_static_challenge_belong_to_the_first_key() {
    let mut bench = with_challenge();
    bench.apply(
        NOW,
        Change::Reserve(reserve(2, "a", 9, "key", "host", &[1])),
    );
    abandon(&mut bench.pen(NOW + LIFE), 10).unwrap();
    let other_key = reserve(3, "a", 9, "other key", "host", &[2]);
    let reply = bench.apply(NOW + LIFE, Change::Reserve(other_key));
    assert_eq!(reply, Reply::Held(Null));
    let same_key = reserve(4, "a", 9, "key", "host", &[2]);
    let reply = bench.apply(NOW + LIFE, Change::Reserve(same_key));
    assert!(matches!(reply, Reply::Reserved(_)));
}

#[test]
fn each_name_has_a_holder_of_its_own() {
    let mut bench = with_challenge();
    let mut first = reserve(2, "a", 9, "key", "host", &[1]);
    first.spend.as_mut().unwrap().names = vec![digest("host"), digest("host.example")];
    bench.apply(NOW, Change::Reserve(first));
    for (write, name) in [(3, "host"), (4, "host.example")] {
        let mut other = reserve(write, "a", 9, "other key", "another", &[2]);
        other.spend.as_mut().unwrap().names = vec![digest("free"), digest(name)];
        assert_eq!(bench.apply(NOW, Change::Reserve(other)), Reply::Held(Null));
    }
    let free = reserve(5, "a", 9, "other key", "free", &[2]);
    assert!(matches!(
        bench.apply(NOW, Change::Reserve(free)),
        Reply::Reserved(_)
    ));
}

#[test]
fn unknown_and_revoked_challenges_have_no_use() {
    let mut bench = with_challenge();
    let unknown = reserve(2, "b", 1, "key", "host", &[1]);
    assert_eq!(
        bench.apply(NOW, Change::Reserve(unknown)),
        Reply::Spent(Null)
    );
    bench
        .connection
        .execute("UPDATE challenges SET revoked = 1", [])
        .unwrap();
    let revoked = reserve(3, "a", 1, "key", "host", &[1]);
    assert_eq!(
        bench.apply(NOW, Change::Reserve(revoked)),
        Reply::Spent(Null)
    );
    assert_eq!(bench.kinds(), [Kind::ChallengeMinted]);
}

#[test]
fn a_serial_number_is_taken_once_a_ca() {
    let mut bench = with_challenge();
    bench.apply(NOW, put_challenge(2, "b"));
    bench.apply(
        NOW,
        Change::Reserve(reserve(3, "a", 1, "key", "host", &[1])),
    );
    let mut same = reserve(4, "b", 1, "key", "host", &[1]);
    let reply = bench.apply(NOW, Change::Reserve(same.clone()));
    assert_eq!(reply, Reply::SerialTaken(Null));
    assert_eq!(spends(&bench), 1);
    same.index.ca = "other".into();
    let reply = bench.apply(NOW, Change::Reserve(same));
    assert!(matches!(reply, Reply::Reserved(_)));
}

#[test]
fn the_first_commit_wins() {
    let mut bench = with_challenge();
    bench.apply(
        NOW,
        Change::Reserve(reserve(2, "a", 1, "key", "host", &[1])),
    );
    for (write, certificate) in [(3, "winner"), (4, "loser")] {
        let Reply::Committed(committed) = bench.apply(NOW, commit(write, &[1], certificate)) else {
            panic!()
        };
        assert_eq!(committed.certificate.as_bytes(), b"winner");
    }
    assert_eq!(
        bench.apply(NOW, commit(5, &[2], "unknown")),
        Reply::Absent(Null)
    );
    assert_eq!(
        bench.kinds(),
        [Kind::ChallengeMinted, Kind::IssueIntent, Kind::IssueDone]
    );
}

#[test]
fn an_intent_is_abandoned_after_a_day() {
    let mut bench = with_challenge();
    let request = reserve(2, "a", 1, "key", "host", &[0xab]);
    bench.apply(NOW, Change::Reserve(request.clone()));
    assert_eq!(abandon(&mut bench.pen(NOW + LIFE - 1), 10).unwrap(), 0);
    assert_eq!(abandon(&mut bench.pen(NOW + LIFE), 10).unwrap(), 1);
    assert_eq!(abandon(&mut bench.pen(NOW + LIFE), 10).unwrap(), 0);
    assert_eq!(
        bench.count("SELECT count(*) FROM certificates WHERE revoked_at NOT NULL AND state = 2"),
        1
    );
    let (record, _) = crate::log::entries(&bench.connection, 2, 1)
        .unwrap()
        .remove(0);
    assert_eq!(record.event.kind, Kind::IssueAbandoned);
    assert_eq!(record.event.value(field::SERIAL), Some("ab"));
    assert_eq!(
        record.event.value(field::TBS_SHA256),
        Some(digest("tbs").to_string().as_str())
    );
    let retry = &request.row.id;
    assert_eq!(find(&bench.connection, retry, NOW + LIFE).unwrap(), None);
    let late = bench.apply(NOW + LIFE, commit(3, &[0xab], "late"));
    assert_eq!(late, Reply::Absent(Null));
}

#[test]
fn abandoning_goes_on_where_it_left_off() {
    let mut bench = with_challenge();
    for n in 1..=5u8 {
        let names = format!("host-{n}");
        let request = reserve(u64::from(n) + 1, "a", 9, "key", &names, &[n]);
        bench.apply(NOW, Change::Reserve(request));
    }
    let mut rounds = Vec::new();
    for _ in 0..4 {
        rounds.push(abandon(&mut bench.pen(NOW + LIFE), 2).unwrap());
    }
    assert_eq!(rounds, [2, 2, 1, 0]);
}

#[test]
fn a_certificate_of_our_own_is_found_until_it_expires_and_renewed_before() {
    let mut bench = Bench::new();
    let request = reserve_own(1, "ra-decryption", &[1]);
    bench.apply(NOW, Change::Reserve(request.clone()));
    bench.apply(NOW, commit(2, &[1], "certificate"));
    let expiry = request.index.not_after;
    for (now, expected) in [
        (NOW + 1, true),
        (NOW + LIFE, true),
        (expiry - 1, true),
        (expiry, false),
    ] {
        let found = find(&bench.connection, &request.row.id, now).unwrap();
        assert_eq!(found.is_some(), expected, "{now}");
    }
    let renewal = reserve_own(3, "ra-decryption", &[2]);
    let reply = bench.apply(expiry - 10, Change::Reserve(renewal));
    assert!(matches!(reply, Reply::Reserved(_)));
    let found = find(&bench.connection, &request.row.id, expiry - 10).unwrap();
    assert_eq!(found.unwrap().serial.as_bytes(), [2]);
}

#[test]
fn certificates_are_found_by_every_name() {
    let mut index = reserve(1, "a", 1, "key", "host", &[1]).index;
    index.subject = "CN=Laptop\\, 1,O=Example".into();
    index.sans = vec![
        "dns:laptop.example".into(),
        "uri:urn:x:Y".into(),
        "ip:192.0.2.1".into(),
    ];
    let values: Vec<String> = search_values(&index).into_iter().collect();
    assert_eq!(
        values,
        [
            "192.0.2.1",
            "cn=laptop\\, 1,o=example",
            "example",
            "laptop, 1",
            "laptop.example",
            "urn:x:y"
        ]
    );
    index.subject = String::new();
    index.sans = vec!["dns:laptop.example".into()];
    assert_eq!(search_values(&index).len(), 1);
}
