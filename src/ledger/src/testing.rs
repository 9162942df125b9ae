//! What this crate's tests share: a database of their own, and requests to fill it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use chancery_protocol::audit::{Event, Kind, Outcome};
use chancery_protocol::ipc::{socket, store};
use chancery_protocol::seal::SealedRow;
use chancery_protocol::wire::{self, Digest, Octets};
use der::asn1::OctetString;
use rusqlite::Connection;

use crate::change::{self, Order};
use crate::check::Change;
use crate::database;
use crate::error::StoreError;
use crate::log::{Log, Pen, sha256};
use crate::mirror::Mark;
use crate::writer::{Counter, Writer};

/// A moment in 2027.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) const ORIGIN: &str = "test/audit";

/// A database in a folder of its own.
pub(crate) struct Bench {
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) log: Log,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        database::create(&path).unwrap();
        Self {
            connection: database::open_writer(&path, ORIGIN).unwrap(),
            log: log(),
            path,
            folder,
        }
    }

    /// With one record in the log.
    pub(crate) fn started() -> Self {
        let bench = Self::new();
        bench
            .pen(NOW)
            .record(&Event::new(Kind::ServiceStarted, Outcome::Success))
            .unwrap();
        bench
    }

    pub(crate) fn pen(&self, now: u64) -> Pen<'_> {
        Pen::new(&self.connection, &self.log, "tests", now).unwrap()
    }

    pub(crate) fn reopen(&mut self) {
        self.connection = database::open_writer(&self.path, ORIGIN).unwrap();
    }

    /// Applies a write in a transaction of its own.
    pub(crate) fn try_apply(
        &mut self,
        now: u64,
        order: &Order,
    ) -> Result<store::Reply, StoreError> {
        let transaction = self.connection.transaction().unwrap();
        let reply = change::apply(&transaction, &self.log, now, order)?;
        transaction.commit().unwrap();
        Ok(reply)
    }

    pub(crate) fn apply(&mut self, now: u64, change: Change) -> store::Reply {
        self.try_apply(now, &order(change)).unwrap()
    }

    pub(crate) fn count(&self, sql: &str) -> u64 {
        count(&self.connection, sql)
    }

    /// Starts the writing thread on this bench's connection.
    pub(crate) fn write(self, now: u64) -> Writing {
        let idle = self.into_writer(now);
        let (counter, thread) = idle.writer.start().unwrap();
        Writing {
            path: idle.path,
            counter,
            thread,
            folder: idle.folder,
        }
    }

    /// Hands the connection to a writer that is not started.
    pub(crate) fn into_writer(self, now: u64) -> Idle {
        let now = Arc::new(AtomicU64::new(now));
        let (committed, news) = sync_channel(1);
        let mark = Mark::load(&self.connection).unwrap();
        let clock = now.clone();
        Idle {
            writer: Writer::new(
                self.connection,
                self.log,
                Arc::new(move || clock.load(Ordering::SeqCst)),
                "ledger uid=1 pid=1".into(),
                mark.clone(),
                committed,
            ),
            path: self.path,
            now,
            news,
            mark,
            folder: self.folder,
        }
    }

    /// The kinds of all records in their order.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        crate::log::entries(&self.connection, 0, u32::MAX)
            .unwrap()
            .into_iter()
            .map(|(record, _)| record.event.kind)
            .collect()
    }
}

/// A writer at hand, with its clock, news and mark.
pub(crate) struct Idle {
    pub(crate) writer: Writer,
    pub(crate) path: PathBuf,
    pub(crate) now: Arc<AtomicU64>,
    pub(crate) news: Receiver<()>,
    pub(crate) mark: Mark,
    pub(crate) folder: tempfile::TempDir,
}

/// A writer at work.
pub(crate) struct Writing {
    pub(crate) path: PathBuf,
    pub(crate) counter: Counter,
    thread: JoinHandle<Writer>,
    folder: tempfile::TempDir,
}

impl Writing {
    /// A connection to look by.
    pub(crate) fn reader(&self) -> Connection {
        database::open_reader(&self.path).unwrap()
    }

    /// Ends the thread, once every other counter is gone. The folder goes with its handle.
    pub(crate) fn end(self) -> (Writer, tempfile::TempDir) {
        drop(self.counter);
        (self.thread.join().unwrap(), self.folder)
    }
}

pub(crate) fn count(connection: &Connection, sql: &str) -> u64 {
    connection
        .query_row(sql, [], |row| row.get::<_, i64>(0))
        .unwrap()
        .try_into()
        .unwrap()
}

pub(crate) fn log() -> Log {
    Log {
        origin: ORIGIN.into(),
        boot: Octets([7; 16]),
    }
}

/// The order that the store socket would make of a change.
pub(crate) fn order(change: Change) -> Order {
    let packet = format!("{change:?}");
    Order::new(
        socket::LEDGER_STORE,
        "uid=1 pid=2",
        packet.as_bytes(),
        change,
    )
}

pub(crate) fn digest(text: &str) -> Digest {
    Octets(sha256(&[text.as_bytes()]))
}

pub(crate) fn id(n: u64) -> wire::Id {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    Octets(id)
}

pub(crate) fn octets(bytes: &[u8]) -> OctetString {
    OctetString::new(bytes).unwrap()
}

fn row(id: Digest, body: &str) -> SealedRow {
    SealedRow {
        key_id: octets(b"challenge-key"),
        id,
        body: octets(body.as_bytes()),
        mac: digest("mac"),
    }
}

pub(crate) fn put_challenge(write: u64, challenge: &str) -> Change {
    Change::PutChallenge(store::PutChallenge {
        write: id(write),
        row: row(digest(challenge), "claims"),
        profile: "devices".into(),
        expires: NOW + 3600,
        event: Event::new(Kind::ChallengeMinted, Outcome::Success)
            .with("challenge", digest(challenge)),
    })
}

/// A reservation by `key` for `names` under `challenge`.
pub(crate) fn reserve(
    write: u64,
    challenge: &str,
    uses: u32,
    key: &str,
    names: &str,
    serial: &[u8],
) -> store::Reserve {
    store::Reserve {
        write: id(write),
        row: row(digest(&format!("{challenge} {key} {names}")), "tbs"),
        spend: Some(store::Spend {
            challenge: digest(challenge),
            uses,
            names: vec![digest(names)],
        }),
        index: store::CertificateIndex {
            ca: "issuing".into(),
            serial: octets(serial),
            profile: "devices".into(),
            subject: format!("CN={names}"),
            sans: vec![format!("dns:{names}.example")],
            device_id: format!("device-{names}"),
            public_key: digest(key),
            not_before: NOW,
            not_after: NOW + 365 * 24 * 3600,
            transaction: format!("transaction-{names}"),
        },
        event: Event::new(Kind::IssueIntent, Outcome::Success)
            .of_request(id(write))
            .with("serial", chancery_protocol::hex::encode(serial)),
    }
}

/// A reservation for one of our own keys.
pub(crate) fn reserve_own(write: u64, purpose: &str, serial: &[u8]) -> store::Reserve {
    store::Reserve {
        spend: None,
        ..reserve(write, "", 0, purpose, purpose, serial)
    }
}

pub(crate) fn commit(write: u64, serial: &[u8], certificate: &str) -> Change {
    Change::Commit(store::Commit {
        write: id(write),
        ca: "issuing".into(),
        serial: octets(serial),
        certificate: octets(certificate.as_bytes()),
        sha256: digest(certificate),
        event: Event::new(Kind::IssueDone, Outcome::Success)
            .with("serial", chancery_protocol::hex::encode(serial)),
    })
}

pub(crate) fn append(write: u64, kind: Kind) -> Change {
    Change::Append(store::Append {
        write: id(write),
        event: Event::new(kind, Outcome::Success),
    })
}
