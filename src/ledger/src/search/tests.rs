use chancery_protocol::ipc::query::MAX_ROWS;
use chancery_protocol::wire;

use super::*;
use crate::check::Change;
use crate::testing::{Bench, NOW, commit, digest, put_challenge, reserve};

/// A bench with one challenge that never runs out.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.apply(NOW, put_challenge(1, "a"));
    bench
}

/// Issues a certificate for `names` with the serial number `n`, at second `n`.
fn issue(bench: &mut Bench, n: u16, names: &str) {
    let serial = Wanted::new(&format!("{n:04x}")).serial.unwrap();
    let key = format!("key of {names}");
    let write = 10 + 2 * u64::from(n);
    let now = NOW + u64::from(n);
    let request = reserve(write, "a", u32::MAX, &key, names, &serial);
    bench.apply(now, Change::Reserve(request));
    bench.apply(
        now,
        commit(write + 1, &serial, &format!("certificate of {names}")),
    );
}

fn ask(connection: &Connection, text: &str, offset: u32, limit: u32) -> Found {
    let find = Find {
        text: text.into(),
        offset,
        limit,
    };
    super::find(connection, &find).unwrap()
}

fn subjects(bench: &Bench, text: &str) -> Vec<String> {
    ask(&bench.connection, text, 0, MAX_ROWS)
        .rows
        .into_iter()
        .map(|row| row.subject)
        .collect()
}

#[test]
fn a_certificate_is_found_by_all_that_identifies_it() {
    let mut bench = bench();
    issue(&mut bench, 0x1a2b, "Laptop-1");
    issue(&mut bench, 0x1a2c, "other");
    for text in [
        "1a2b",
        "1A2B",
        "1a:2b",
        "00:1A:2B",
        &digest("certificate of Laptop-1").to_string(),
        &digest("key of Laptop-1").to_string().to_uppercase(),
        "device-Laptop-1",
        "transaction-Laptop-1",
        "Laptop-1",
        "laptop-1",
        " LAP ",
        "CN=Laptop-1",
        "cn=lap",
        "laptop-1.example",
    ] {
        assert_eq!(subjects(&bench, text), ["CN=Laptop-1"], "{text}");
    }
    for text in [
        "1a",
        "device-Laptop",
        "transaction-laptop-1",
        "aptop",
        "laptop-2",
        "0",
        "%",
        "_aptop-1",
        "l*",
        "' OR 1=1 --",
    ] {
        assert!(subjects(&bench, text).is_empty(), "{text}");
    }
}

#[test]
fn wildcards_are_letters() {
    let mut bench = bench();
    issue(&mut bench, 1, "100");
    bench
        .connection
        .execute("INSERT INTO names VALUES (1, '100%_\u{10ffff}z')", [])
        .unwrap();
    for text in ["100%", "100%_", "100%_\u{10ffff}"] {
        assert_eq!(subjects(&bench, text).len(), 1, "{text:?}");
    }
    for text in ["10%", "100%%", "___", "\u{10ffff}"] {
        assert!(subjects(&bench, text).is_empty(), "{text:?}");
    }
}

#[test]
fn the_end_of_a_prefix_lies_behind_all_that_begin_with_it() {
    assert_eq!(end_of_prefix("ab"), Value::Text("ac".into()));
    assert_eq!(end_of_prefix("a\u{d7ff}"), Value::Text("a\u{e000}".into()));
    assert_eq!(end_of_prefix("a\u{10ffff}"), Value::Text("b".into()));
    assert_eq!(end_of_prefix("\u{10ffff}"), Value::Blob(Vec::new()));
}

#[test]
fn the_newest_stands_first_and_pages_follow() {
    let mut bench = bench();
    for n in 1..=7 {
        issue(&mut bench, n, &format!("laptop-{n}"));
    }
    for text in ["", "laptop"] {
        let mut seen = Vec::new();
        loop {
            let offset = u32::try_from(seen.len()).unwrap();
            let found = ask(&bench.connection, text, offset, 3);
            seen.extend(found.rows.into_iter().map(|row| row.subject));
            if !found.more {
                break;
            }
            assert!(seen.len() < 7);
        }
        let expected: Vec<String> = (1..=7).rev().map(|n| format!("CN=laptop-{n}")).collect();
        assert_eq!(seen, expected);
    }
    assert!(ask(&bench.connection, "", 7, 3).rows.is_empty());
    let none = ask(&bench.connection, "", 0, 0);
    assert!(none.rows.is_empty() && none.more);
}

#[test]
fn an_intent_is_no_certificate() {
    let mut bench = bench();
    let request = reserve(2, "a", 9, "key", "laptop", &[1]);
    bench.apply(NOW, Change::Reserve(request));
    let show_it = |bench: &Bench| show(&bench.connection, &Show { id: "01".into() }).unwrap();
    for text in ["", "01", "laptop", "device-laptop"] {
        assert!(subjects(&bench, text).is_empty(), "{text}");
    }
    assert_eq!(show_it(&bench), Reply::Absent(Null));
    crate::reservation::abandon(&mut bench.pen(NOW + crate::reservation::LIFE), 1).unwrap();
    for text in ["", "01", "laptop", "device-laptop"] {
        assert!(subjects(&bench, text).is_empty(), "{text}");
    }
    assert_eq!(show_it(&bench), Reply::Absent(Null));
    assert_eq!(status(&bench.connection).unwrap().certificates, 0);
}

#[test]
fn one_certificate_is_shown() {
    let mut bench = bench();
    issue(&mut bench, 0xab, "laptop");
    let sha256 = digest("certificate of laptop").to_string();
    for id in ["ab", "AB", "00ab", &sha256, &sha256.to_uppercase()] {
        let Reply::Certificate(shown) = show(&bench.connection, &Show { id: id.into() }).unwrap()
        else {
            panic!("{id}")
        };
        assert_eq!(shown.certificate.as_bytes(), b"certificate of laptop");
        assert_eq!(shown.row.serial, "ab");
        assert_eq!(shown.row.sans, ["dns:laptop.example"]);
        assert_eq!(shown.row.status, CertificateStatus::Valid);
        assert_eq!(shown.row.device_id, "device-laptop");
        assert_eq!(shown.row.sha256.to_string(), sha256);
    }
    for id in ["", "ac", "laptop", &digest("other").to_string()] {
        let reply = show(&bench.connection, &Show { id: id.into() }).unwrap();
        assert_eq!(reply, Reply::Absent(Null), "{id}");
    }
}

#[test]
fn a_serial_number_under_two_cas_is_ambiguous() {
    let mut bench = bench();
    issue(&mut bench, 7, "laptop");
    let mut other = reserve(100, "a", 9, "key", "other", &[7]);
    other.index.ca = "other".into();
    bench.apply(NOW, Change::Reserve(other));
    let by_serial = Show { id: "07".into() };
    let before = show(&bench.connection, &by_serial).unwrap();
    assert!(matches!(before, Reply::Certificate(_)));
    let Change::Commit(mut second) = commit(101, &[7], "other") else {
        unreachable!()
    };
    second.ca = "other".into();
    bench.apply(NOW, Change::Commit(second));
    assert_eq!(
        show(&bench.connection, &by_serial).unwrap(),
        Reply::Ambiguous(Null)
    );
    let by_digest = Show {
        id: digest("other").to_string(),
    };
    assert!(matches!(
        show(&bench.connection, &by_digest).unwrap(),
        Reply::Certificate(shown) if shown.row.ca == "other"
    ));
    assert_eq!(ask(&bench.connection, "07", 0, 9).rows.len(), 2);
}

#[test]
fn an_answer_fits_in_a_packet() {
    let mut bench = bench();
    for n in 1..=8u8 {
        let mut request = reserve(u64::from(n) + 10, "a", 99, "key", &format!("h{n}"), &[n]);
        request.index.sans = (0..64)
            .map(|i| format!("uri:urn:{i}:{}", "x".repeat(1000)))
            .collect();
        bench.apply(NOW, Change::Reserve(request));
        bench.apply(
            NOW,
            commit(u64::from(n) + 100, &[n], &format!("certificate {n}")),
        );
    }
    let mut seen = 0;
    loop {
        let found = ask(&bench.connection, "", seen, MAX_ROWS);
        assert!(!found.rows.is_empty());
        seen += u32::try_from(found.rows.len()).unwrap();
        let more = found.more;
        wire::encode(&Reply::Found(found)).unwrap();
        if !more {
            break;
        }
        assert!(seen < 8);
    }
    assert_eq!(seen, 8);
}

#[test]
fn revocation_and_numbers_are_reported() {
    let mut bench = bench();
    issue(&mut bench, 1, "laptop");
    bench
        .connection
        .execute("UPDATE certificates SET revoked_at = 1", [])
        .unwrap();
    let found = ask(&bench.connection, "laptop", 0, 1);
    assert_eq!(found.rows[0].status, CertificateStatus::Revoked);
    let expected = Status {
        certificates: 1,
        records: 3,
        checkpoint: 0,
        time: NOW + 1,
    };
    assert_eq!(status(&bench.connection).unwrap(), expected);
    let empty = status(&Bench::new().connection).unwrap();
    assert_eq!((empty.records, empty.time), (0, 0));
}

/// The plan, one step a line.
fn plan(connection: &Connection, sql: &str) -> String {
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let mut rows = statement.raw_query();
    let mut plan = String::new();
    while let Some(row) = rows.next().unwrap() {
        plan.push_str(&row.get::<_, String>(3).unwrap());
        plan.push('\n');
    }
    plan
}

#[test]
fn twenty_thousand_certificates_are_searched_by_index() {
    let bench = bench();
    let transaction = bench.connection.unchecked_transaction().unwrap();
    for n in 0..20_100u32 {
        let serial = [1, (n >> 16) as u8, (n >> 8) as u8, n as u8];
        let names = format!("laptop-{n}");
        let request = reserve(0, "a", u32::MAX, &names, &names, &serial);
        let Change::Commit(commit) = commit(0, &serial, &names) else {
            unreachable!()
        };
        let mut pen = bench.pen(NOW + u64::from(n));
        crate::reservation::reserve(&mut pen, &request).unwrap();
        crate::reservation::commit(&mut pen, &commit).unwrap();
    }
    transaction.commit().unwrap();
    for sql in [sql_all(), sql_narrow(), sql_broad(), sql_show()] {
        let plan = plan(&bench.connection, &sql);
        assert!(plan.contains("SEARCH c"), "{plan}");
        for table in ["c", "certificates", "n", "names"] {
            assert!(
                !plan.lines().any(|l| l == format!("SCAN {table}")),
                "{plan}"
            );
            assert!(!plan.contains(&format!("SCAN {table} ")), "{plan}");
        }
    }
    let narrow = Wanted::new("laptop-777");
    assert!(!is_broad(&bench.connection, &narrow).unwrap());
    assert_eq!(subjects(&bench, "laptop-777").len(), 11);
    assert!(is_broad(&bench.connection, &Wanted::new("laptop-")).unwrap());
    let newest = ask(&bench.connection, "laptop-", 0, 2);
    assert_eq!(newest.rows[0].subject, "CN=laptop-20099");
    assert_eq!(newest.rows[1].subject, "CN=laptop-20098");
    assert!(newest.more);
    let last = ask(&bench.connection, "laptop-", 20_099, 2);
    assert_eq!(last.rows.len(), 1);
    assert!(!last.more);
}
