//! What holds whatever comes, in whatever order, and whenever the power fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use chancery_protocol::audit::{Kind, field};
use chancery_protocol::ipc::store::Reply;
use chancery_protocol::tree::{self, CompactRange};
use chancery_protocol::wire::{self, Digest, Id};
use der::asn1::Null;
use proptest::prelude::*;
use rusqlite::Connection;

use crate::change::Order;
use crate::check::Change;
use crate::error::StoreError;
use crate::log::{self, sha256};
use crate::reservation::{self, LIFE};
use crate::testing::{Bench, NOW, ORIGIN, commit, count, order, put_challenge, reserve};
use crate::{database, writer::Counter};

/// Checks what holds in every database, at any moment.
fn check_database(connection: &Connection) {
    let zero = |sql: &str| assert_eq!(count(connection, sql), 0, "{sql}");
    // No spend without its intent, no intent without its spend.
    zero("SELECT count(*) FROM spends WHERE certificate NOT IN (SELECT id FROM certificates)");
    zero(
        "SELECT count(*) FROM certificates WHERE challenge NOT NULL
         AND id NOT IN (SELECT certificate FROM spends)",
    );
    zero("SELECT count(*) - count(DISTINCT certificate) FROM spends");
    // Names under a challenge belong to one key.
    zero(
        "SELECT count(*) FROM (SELECT 1 FROM spends
                               JOIN certificates ON certificates.id = spends.certificate
                               GROUP BY spends.challenge, subject
                               HAVING count(DISTINCT spends.public_key) > 1)",
    );
    zero("SELECT count(*) FROM pragma_foreign_key_check");
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    check_log(connection);
}

/// Every certificate has its records, each once; the log has no gap and makes one tree.
fn check_log(connection: &Connection) {
    let entries = log::entries(connection, 0, u32::MAX).unwrap();
    let mut tree = CompactRange::default();
    let mut time = 0;
    let mut serials: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
    for (position, (record, leaf)) in entries.iter().enumerate() {
        assert_eq!(record.seq, position as u64);
        assert!(record.time >= time);
        time = record.time;
        assert_eq!(*leaf, tree::leaf(sha256, &wire::encode(record).unwrap()));
        tree.append(sha256, *leaf);
        if let Some(serial) = record.event.value(field::SERIAL) {
            let first = serials
                .entry(record.event.kind)
                .or_default()
                .insert(serial.to_owned());
            assert!(first, "{} {serial} twice", record.event.kind.name());
        }
    }
    assert_eq!(tree.size(), entries.len() as u64);
    for (kind, states) in [
        (Kind::IssueIntent, "0, 1, 2"),
        (Kind::IssueDone, "1"),
        (Kind::IssueAbandoned, "2"),
    ] {
        let mut statement = connection
            .prepare(&format!(
                "SELECT lower(hex(serial)) FROM certificates WHERE state IN ({states})"
            ))
            .unwrap();
        let stored: BTreeSet<String> = statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            stored,
            serials.remove(&kind).unwrap_or_default(),
            "{}",
            kind.name()
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        write: u64,
        challenge: u8,
        key: u8,
        names: u8,
        serial: u8,
    },
    Commit {
        write: u64,
        serial: u8,
        certificate: u8,
    },
    Wait(u64),
    Abandon,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reserve = (0..60u64, 0..3u8, 0..3u8, 0..3u8, 1..12u8).prop_map(
        |(write, challenge, key, names, serial)| Step::Reserve {
            write,
            challenge,
            key,
            names,
            serial,
        },
    );
    let commit =
        (0..60u64, 1..12u8, 0..3u8).prop_map(|(write, serial, certificate)| Step::Commit {
            write,
            serial,
            certificate,
        });
    let step = prop_oneof![
        8 => reserve,
        5 => commit,
        2 => (0..LIFE).prop_map(Step::Wait),
        1 => Just(Step::Abandon),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the answers so far commit the ledger to.
#[derive(Default)]
struct Model {
    /// Writes whose first answer is kept.
    kept: BTreeMap<Id, (Digest, Reply)>,
    /// Winners of commits.
    winners: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When a retry identity was last reserved or issued.
    alive: BTreeMap<Digest, u64>,
    reserved: BTreeMap<String, u32>,
}

const USES: [u32; 3] = [1, 2, 50];

impl Model {
    fn follow(&mut self, now: u64, order: &Order, answer: Result<Reply, StoreError>) {
        let id = order.change.id();
        if let Some((request, reply)) = self.kept.get(&id) {
            if *request == order.request {
                assert_eq!(answer.unwrap(), *reply);
            } else {
                assert!(matches!(answer, Err(StoreError::WriteId)));
            }
            return;
        }
        let reply = answer.unwrap();
        match (&order.change, &reply) {
            (Change::Reserve(reserve), Reply::Reserved(_)) => {
                let before = self.alive.insert(reserve.row.id, now);
                assert!(before.is_none_or(|before| now - before >= LIFE));
                let spend = reserve.spend.as_ref().unwrap();
                let used = self
                    .reserved
                    .entry(spend.challenge.to_string())
                    .or_default();
                *used += 1;
                assert!(*used <= spend.uses);
                self.kept.insert(id, (order.request, reply));
            }
            (Change::Reserve(reserve), Reply::Reservation(found)) => {
                assert!(now - self.alive[&reserve.row.id] < LIFE);
                assert_eq!(found.row.id, reserve.row.id);
                let winner = self.winners.get(found.serial.as_bytes());
                assert_eq!(
                    found
                        .certificate
                        .as_ref()
                        .map(|c| c.as_bytes().to_vec())
                        .as_ref(),
                    winner
                );
            }
            (Change::Commit(commit), Reply::Committed(committed)) => {
                let serial = commit.serial.as_bytes().to_vec();
                let certificate = committed.certificate.as_bytes().to_vec();
                match self.winners.get(&serial) {
                    Some(winner) => assert_eq!(*winner, certificate),
                    None => {
                        assert_eq!(certificate, commit.certificate.as_bytes());
                        self.winners.insert(serial, certificate);
                        self.kept.insert(id, (order.request, reply));
                    }
                }
            }
            (Change::Reserve(_), Reply::Spent(_) | Reply::Held(_) | Reply::SerialTaken(_))
            | (Change::Commit(_), Reply::Absent(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_keeps_the_promises(steps in steps()) {
        let mut bench = Bench::new();
        for challenge in 0..3u8 {
            bench.apply(NOW, put_challenge(1000 + u64::from(challenge), &challenge.to_string()));
        }
        let mut model = Model::default();
        let mut now = NOW;
        let mut retry_of = BTreeMap::new();
        for step in steps {
            let change = match step {
                Step::Reserve { write, challenge, key, names, serial } => Change::Reserve(reserve(
                    write,
                    &challenge.to_string(),
                    USES[usize::from(challenge)],
                    &key.to_string(),
                    &names.to_string(),
                    &[serial],
                )),
                Step::Commit { write, serial, certificate } => {
                    commit(write, &[serial], &format!("certificate {certificate}"))
                }
                Step::Wait(seconds) => {
                    now += seconds;
                    continue;
                }
                Step::Abandon => {
                    reservation::abandon(&mut bench.pen(now), 100).unwrap();
                    continue;
                }
                Step::Reopen => {
                    bench.reopen();
                    continue;
                }
            };
            let order = order(change);
            let new = !model.kept.contains_key(&order.change.id());
            let answer = bench.try_apply(now, &order);
            match (&order.change, &answer) {
                (Change::Reserve(reserve), Ok(Reply::Reserved(_))) => {
                    retry_of.insert(reserve.index.serial.as_bytes().to_vec(), reserve.row.id);
                }
                (Change::Commit(commit), Ok(Reply::Committed(_))) if new => {
                    let serial = commit.serial.as_bytes();
                    if !model.winners.contains_key(serial) {
                        model.alive.insert(retry_of[serial], now);
                    }
                }
                _ => {}
            }
            model.follow(now, &order, answer);
        }
        check_database(&bench.connection);
    }
}

#[test]
fn of_two_keys_racing_for_one_challenge_one_wins() {
    let mut bench = Bench::new();
    for round in 0..20u64 {
        bench.apply(NOW, put_challenge(round, &format!("challenge {round}")));
    }
    let writing = bench.write(NOW);
    for round in 0..20u64 {
        let start = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8u8)
            .map(|thread| {
                let (counter, start) = (writing.counter.clone(), start.clone());
                std::thread::spawn(move || {
                    let request = reserve(
                        1000 + round * 100 + u64::from(thread),
                        &format!("challenge {round}"),
                        1,
                        if thread % 2 == 0 { "even" } else { "odd" },
                        "host",
                        &[1, u8::try_from(round).unwrap(), thread],
                    );
                    start.wait();
                    counter.submit(order(Change::Reserve(request))).unwrap()
                })
            })
            .collect();
        let replies: Vec<Reply> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let many = |is: fn(&Reply) -> bool| replies.iter().filter(|reply| is(reply)).count();
        assert_eq!(many(|reply| matches!(reply, Reply::Reserved(_))), 1);
        assert_eq!(many(|reply| matches!(reply, Reply::Reservation(_))), 3);
        assert_eq!(many(|reply| *reply == Reply::Spent(Null)), 4);
    }
    let reader = writing.reader();
    check_database(&reader);
    assert_eq!(count(&reader, "SELECT count(*) FROM spends"), 20);
}

/// Issues certificates until told to stop; each acknowledged serial number goes into `done`.
fn keep_issuing(counter: &Counter, worker: u8, done: &Mutex<Vec<String>>, stop: &Mutex<bool>) {
    for n in 0..=u16::MAX {
        if *stop.lock().unwrap() {
            return;
        }
        let [high, low] = n.to_be_bytes();
        let serial = [1, worker, high, low];
        let write = u64::from(worker) << 32 | u64::from(n) << 1;
        let names = format!("host-{worker}-{n}");
        let request = reserve(write, "a", u32::MAX, "key", &names, &serial);
        let reserved = counter.submit(order(Change::Reserve(request))).unwrap();
        assert!(matches!(reserved, Reply::Reserved(_)));
        done.lock()
            .unwrap()
            .push(format!("0{}", chancery_protocol::hex::encode(&serial)));
        let committed = counter
            .submit(order(commit(write + 1, &serial, &names)))
            .unwrap();
        assert!(matches!(committed, Reply::Committed(_)));
        done.lock()
            .unwrap()
            .push(format!("1{}", chancery_protocol::hex::encode(&serial)));
    }
}

/// Opens what a power failure would have left: the database, and its log as far as it was written.
fn check_crashed(path: &Path, acknowledged: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("ledger.db");
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    let connection = database::open_writer(&copy, ORIGIN).unwrap();
    check_database(&connection);
    let mut statement = connection
        .prepare("SELECT count(*) FROM certificates WHERE lower(hex(serial)) = ?1 AND state >= ?2")
        .unwrap();
    for entry in acknowledged {
        let (state, serial) = entry.split_at(1);
        let found: i64 = statement
            .query_row([serial, state], |row| row.get(0))
            .unwrap();
        assert_eq!(found, 1, "{entry} was acknowledged and is lost");
    }
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged_and_leaves_nothing_half_done() {
    let mut bench = Bench::new();
    // Without checkpoints the database file rests, and a copy of the two files at any moment is
    // what a crash at that moment leaves.
    bench
        .connection
        .pragma_update(None, "wal_autocheckpoint", 0)
        .unwrap();
    bench.apply(NOW, put_challenge(u64::MAX, "a"));
    let writing = bench.write(NOW);
    let done = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(Mutex::new(false));
    let threads: Vec<_> = (0..4u8)
        .map(|worker| {
            let (counter, done, stop) = (writing.counter.clone(), done.clone(), stop.clone());
            std::thread::spawn(move || keep_issuing(&counter, worker, &done, &stop))
        })
        .collect();
    for crash in 1..=6 {
        while done.lock().unwrap().len() < crash * 20 {
            assert!(!threads.iter().any(std::thread::JoinHandle::is_finished));
            std::thread::yield_now();
        }
        let acknowledged = done.lock().unwrap().clone();
        check_crashed(&writing.path, &acknowledged);
    }
    *stop.lock().unwrap() = true;
    for thread in threads {
        thread.join().unwrap();
    }
    check_database(&writing.reader());
    let (writer, _folder) = writing.end();
    writer.close(None).unwrap();
}
