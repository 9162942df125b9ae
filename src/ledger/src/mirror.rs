//! The log's copy in journald: each record in its order, at least once, from a durable mark on.
//!
//! A thread of its own, so that a slow or absent journald delays no certificate. The database has
//! the record already; what journald missed is sent when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use chancery_host::journal::Journal;
use chancery_protocol::audit::{Event, Kind, Outcome, Record, field};
use chancery_protocol::wire::Digest;
use rusqlite::Connection;

use crate::error::{StoreError, from_row, to_row};
use crate::log;

/// Names that an event's own fields must not have, for the ledger writes these itself.
pub(crate) const OWN_FIELDS: &[&str] = &[
    "actor", "event", "leaf", "origin", "outcome", "request", "seq", "time",
];

/// Records read at once.
const BATCH: u32 = 100;

/// After a failure the next try waits this long.
const PAUSE: Duration = Duration::from_secs(5);

/// Without news the log is looked at this often all the same.
const REST: Duration = Duration::from_secs(60);

/// The first record that journald may not have. The mirror moves it, the writer makes it durable
/// with whatever it writes next: after a crash journald gets the last records again, recognisable
/// by their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark(Arc<AtomicU64>);

impl Mark {
    /// Reads the durable mark.
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let next =
            connection.query_row("SELECT next FROM journal_position", [], |row| row.get(0))?;
        Ok(Self(Arc::new(AtomicU64::new(from_row(next)?))))
    }

    /// Where the mark is.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Makes the mark durable within an open transaction.
    pub(crate) fn store(&self, connection: &Connection) -> Result<u64, StoreError> {
        let next = self.get();
        connection
            .prepare_cached("UPDATE journal_position SET next = ?1 WHERE next <> ?1")?
            .execute([to_row(next)?])?;
        Ok(next)
    }

    fn set(&self, next: u64) {
        self.0.store(next, Ordering::Release);
    }
}

/// Copies the log to journald.
pub(crate) struct Mirror {
    reader: Connection,
    journal: Journal,
    mark: Mark,
    failing: bool,
}

impl Mirror {
    pub(crate) fn new(reader: Connection, journal: Journal, mark: Mark) -> Self {
        Self {
            reader,
            journal,
            mark,
            failing: false,
        }
    }

    /// Sends what there is whenever `committed` says that there is more, until its senders are
    /// gone; then sends the rest, once.
    pub(crate) fn run(mut self, committed: &Receiver<()>) {
        loop {
            self.catch_up();
            if self.is_over(committed) {
                self.catch_up();
                return;
            }
        }
    }

    /// Waits for news, or out the pause after a failure. Whether the senders are gone.
    fn is_over(&self, committed: &Receiver<()>) -> bool {
        let end = Instant::now() + if self.failing { PAUSE } else { REST };
        loop {
            match committed.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(()) if self.failing => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    fn catch_up(&mut self) {
        match self.send_new() {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("journald has every audit record again");
            }
            Ok(()) => {}
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(
                    %error,
                    next = self.mark.get(),
                    "audit records do not reach journald; they are kept and sent when it answers"
                );
            }
            Err(_) => {}
        }
    }

    fn send_new(&self) -> Result<(), MirrorError> {
        loop {
            let entries = log::entries(&self.reader, self.mark.get(), BATCH)?;
            if entries.is_empty() {
                return Ok(());
            }
            for (record, leaf) in entries {
                self.send(&fields(&record, &leaf))?;
                self.mark.set(record.seq.saturating_add(1));
            }
        }
    }

    fn send(&self, fields: &[(String, String)]) -> std::io::Result<()> {
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.journal.send(&fields)
    }
}

#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("journald does not answer: {0}; check systemd-journald.service")]
    Journal(#[from] std::io::Error),
}

/// A record as the fields of a journal entry.
fn fields(record: &Record, leaf: &Digest) -> Vec<(String, String)> {
    let Event {
        kind,
        outcome,
        request,
        fields,
    } = &record.event;
    let mut entry: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| entry.push((name.into(), value));
    put("MESSAGE", message(&record.event));
    put("MESSAGE_ID", kind.message_id().into());
    put("PRIORITY", priority(&record.event).into());
    put("CHANCERY_EVENT", kind.name().into());
    put("CHANCERY_OUTCOME", outcome.text().into());
    put("CHANCERY_ORIGIN", record.origin.clone());
    put("CHANCERY_SEQ", record.seq.to_string());
    put("CHANCERY_TIME", record.time.to_string());
    put("CHANCERY_LEAF", leaf.to_string());
    put("CHANCERY_ACTOR", record.actor.clone());
    if let Some(request) = request {
        put("CHANCERY_REQUEST", request.to_string());
    }
    for field in fields {
        put(
            &format!("CHANCERY_{}", field.name.to_ascii_uppercase()),
            field.value.clone(),
        );
    }
    entry
}

/// One line for whoever reads the journal without asking for fields.
fn message(event: &Event) -> String {
    let mut text = format!("chancery: {}", event.kind.name());
    if let Some(subject) = event.value(field::SUBJECT) {
        text.push(' ');
        text.push_str(subject);
    }
    for name in [
        field::SERIAL,
        field::PROFILE,
        field::ROLE,
        field::TOKEN,
        field::REASON,
        field::COUNT,
        field::SIZE,
    ] {
        if let Some(value) = event.value(name) {
            text.push_str(&format!(" {name} {value}"));
        }
    }
    text
}

/// The syslog level: what asks for a person stands out.
fn priority(event: &Event) -> &'static str {
    const CRITICAL: &str = "2";
    const WARNING: &str = "4";
    const NOTICE: &str = "5";
    const INFORMATION: &str = "6";
    match (event.kind, event.outcome) {
        (Kind::ParserLied | Kind::EvidenceRefused | Kind::SealBroken, _) => CRITICAL,
        (Kind::ParserDied | Kind::IssueAbandoned, _) | (_, Outcome::Failure) => WARNING,
        (Kind::ServiceStarted | Kind::ServiceStopped | Kind::Ceremony, _) => NOTICE,
        _ => INFORMATION,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use chancery_protocol::wire::Octets;

    use super::*;
    use crate::database;
    use crate::testing::{Bench, Idle, NOW};

    /// A journald that keeps its entries in the socket.
    fn journald(path: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        socket
    }

    /// Reads one entry of journald's native protocol.
    fn receive(socket: &UnixDatagram) -> BTreeMap<String, String> {
        let mut buffer = vec![0; 1 << 20];
        let length = socket.recv(&mut buffer).unwrap();
        let mut rest = &buffer[..length];
        let mut entry = BTreeMap::new();
        while !rest.is_empty() {
            let name_end = rest.iter().position(|&b| b == b'\n').unwrap();
            let name = String::from_utf8(rest[..name_end].to_vec()).unwrap();
            let size: [u8; 8] = rest[name_end + 1..name_end + 9].try_into().unwrap();
            let start = name_end + 9;
            let end = start + usize::try_from(u64::from_le_bytes(size)).unwrap();
            let value = String::from_utf8(rest[start..end].to_vec()).unwrap();
            assert!(entry.insert(name, value).is_none());
            rest = &rest[end + 1..];
        }
        entry
    }

    fn seq(socket: &UnixDatagram) -> u64 {
        receive(socket)["CHANCERY_SEQ"].parse().unwrap()
    }

    fn mirror(idle: &Idle, journal: &Path) -> Mirror {
        Mirror::new(
            database::open_reader(&idle.path).unwrap(),
            Journal::connect(journal).unwrap(),
            idle.mark.clone(),
        )
    }

    fn record(idle: &mut Idle) {
        idle.writer
            .record(&Event::new(Kind::TokenReady, Outcome::Success))
            .unwrap();
    }

    #[test]
    fn an_entry_has_the_record_field_by_field() {
        let record = Record {
            origin: "test/audit".into(),
            seq: 7,
            time: NOW,
            boot: Octets([1; 16]),
            actor: "ledger.store uid=1 pid=2".into(),
            event: Event::new(Kind::IssueDone, Outcome::Success)
                .of_request(Octets([2; 16]))
                .with(field::SERIAL, "ab")
                .with(field::SUBJECT, "CN=laptop"),
        };
        let entry: BTreeMap<String, String> =
            fields(&record, &Octets([3; 32])).into_iter().collect();
        for (name, value) in [
            ("MESSAGE", "chancery: issue.done CN=laptop serial ab"),
            ("MESSAGE_ID", Kind::IssueDone.message_id()),
            ("PRIORITY", "6"),
            ("CHANCERY_EVENT", "issue.done"),
            ("CHANCERY_OUTCOME", "success"),
            ("CHANCERY_ORIGIN", "test/audit"),
            ("CHANCERY_SEQ", "7"),
            ("CHANCERY_TIME", "1800000000"),
            ("CHANCERY_LEAF", &"03".repeat(32)),
            ("CHANCERY_REQUEST", &"02".repeat(16)),
            ("CHANCERY_ACTOR", "ledger.store uid=1 pid=2"),
            ("CHANCERY_SERIAL", "ab"),
            ("CHANCERY_SUBJECT", "CN=laptop"),
        ] {
            assert_eq!(entry[name], value, "{name}");
        }
        assert_eq!(entry.len(), 13);
        for name in OWN_FIELDS {
            let own = format!("CHANCERY_{}", name.to_uppercase());
            assert!(entry.contains_key(&own), "{own}");
        }
    }

    #[test]
    fn what_asks_for_a_person_stands_out() {
        for (kind, outcome, expected) in [
            (Kind::SealBroken, Outcome::Failure, "2"),
            (Kind::ParserDied, Outcome::Success, "4"),
            (Kind::RequestRefused, Outcome::Failure, "4"),
            (Kind::ServiceStarted, Outcome::Success, "5"),
            (Kind::IssueDone, Outcome::Success, "6"),
        ] {
            assert_eq!(
                priority(&Event::new(kind, outcome)),
                expected,
                "{}",
                kind.name()
            );
        }
    }

    #[test]
    fn every_record_is_sent_in_order_and_the_last_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let socket = journald(&path);
        let mut idle = Bench::started().into_writer(NOW);
        let mirror = mirror(&idle, &path);
        let (database, mark) = (idle.path.clone(), idle.mark.clone());
        record(&mut idle);
        let Idle {
            mut writer,
            news,
            folder: _folder,
            ..
        } = idle;
        let thread = std::thread::spawn(move || mirror.run(&news));
        for expected in 0..2 {
            assert_eq!(seq(&socket), expected);
        }
        for expected in 2..5 {
            writer
                .record(&Event::new(Kind::TokenReady, Outcome::Success))
                .unwrap();
            assert_eq!(seq(&socket), expected);
        }
        writer
            .record(&Event::new(Kind::ServiceStopped, Outcome::Success))
            .unwrap();
        writer.close(Some(thread)).unwrap();
        assert_eq!(seq(&socket), 5);
        assert_eq!(mark.get(), 6);
        let connection = database::open_reader(&database).unwrap();
        assert_eq!(Mark::load(&connection).unwrap().get(), 6);
    }

    #[test]
    fn what_journald_missed_is_sent_when_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let socket = journald(&path);
        let mut idle = Bench::started().into_writer(NOW);
        let mut mirror = mirror(&idle, &path);
        mirror.catch_up();
        assert_eq!(seq(&socket), 0);
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        for _ in 0..3 {
            record(&mut idle);
            mirror.catch_up();
            assert!(mirror.failing);
            assert_eq!(idle.mark.get(), 1);
        }
        let socket = journald(&path);
        mirror.catch_up();
        assert!(!mirror.failing);
        for expected in 1..4 {
            assert_eq!(seq(&socket), expected);
        }
    }

    #[test]
    fn a_restart_goes_on_from_the_durable_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let socket = journald(&path);
        let mut idle = Bench::started().into_writer(NOW);
        record(&mut idle);
        mirror(&idle, &path).catch_up();
        assert_eq!([seq(&socket), seq(&socket)], [0, 1]);
        // Sent, but not yet durable: sent again after a crash.
        let again = Mark::load(&database::open_reader(&idle.path).unwrap()).unwrap();
        assert_eq!(again.get(), 0);
        record(&mut idle);
        let again = Mark::load(&database::open_reader(&idle.path).unwrap()).unwrap();
        assert_eq!(again.get(), 2);
        let connection = database::open_reader(&idle.path).unwrap();
        Mirror::new(connection, Journal::connect(&path).unwrap(), again).catch_up();
        assert_eq!(seq(&socket), 2);
    }

    #[test]
    fn without_a_mirror_writing_goes_on() {
        let mut idle = Bench::started().into_writer(NOW);
        let (news, replaced) = std::sync::mpsc::sync_channel(1);
        drop(news);
        idle.news = replaced;
        for _ in 0..3 {
            record(&mut idle);
        }
    }
}
