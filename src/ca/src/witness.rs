//! The CA as witness of the ledger (design: it can only extend the log, never rewrite it).
//!
//! The CA remembers the leaf of every record that the ledger showed it. Before it signs a
//! checkpoint it pulls the records since its own head, refuses if one that it remembers differs,
//! extends the tree, makes its head durable in a file of its own, and signs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_protocol::audit::{self, Event, Kind, Record};
use chancery_protocol::ipc::store::{PutCheckpoint, Records, Reply, Request};
use chancery_protocol::tree::{self, CompactRange};
use chancery_protocol::wire::{self, Digest};
use chancery_token::{Checkpoint, Key, Session, TokenError};
use der::{Decode, Encode, Sequence};

use crate::digest::sha256;
use crate::ledger::{Ledger, LedgerError, new_id};

/// Covered leaves that are kept: more than are written while a worker waits for an answer.
const MAX_COVERED: usize = 65_536;

/// The log cannot be vouched for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WitnessError {
    /// The head's file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The head's file is damaged.
    #[error("{}: is not a log head; restore it from a backup of this node", .0.display())]
    Damaged(PathBuf),
    /// There is no head, but the log has checkpoints already.
    #[error(
        "{}: is missing, but the audit log has checkpoints already: this is another node's log, or \
         the file was lost; restore it from a backup of this node",
        .0.display()
    )]
    NoHead(PathBuf),
    /// The ledger contradicts what it showed before. Going on would sign a rewritten log.
    #[error(
        "the audit log contradicts what this CA has seen: {0}; nothing is signed until an auditor \
         has compared the log with the last checkpoint and removed the file ledger-distrusted from \
         the CA's state folder"
    )]
    Distrust(String),
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The token does not answer.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A value does not encode.
    #[error("the log head cannot be encoded: {0}")]
    Encode(#[from] der::Error),
}

/// What the CA knows of the log.
pub(crate) struct Witness {
    origin: String,
    folder: PathBuf,
    /// Guards the head, what is remembered, and the verdict.
    state: Mutex<State>,
}

struct State {
    head: Head,
    /// Size of the newest checkpoint that the ledger has confirmed in this process's life.
    confirmed: Option<u64>,
    /// Leaves that the ledger showed and no checkpoint covers yet.
    remembered: BTreeMap<u64, Digest>,
    /// The newest leaves that checkpoints of this process's life cover: a record may be shown to a
    /// worker after the checkpoint that covers it.
    covered: BTreeMap<u64, Digest>,
    distrust: Option<String>,
}

/// The durable head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Sequence)]
struct Head {
    range: CompactRange,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    last: Option<Digest>,
}

impl Witness {
    /// Reads the head, if there is one.
    pub(crate) fn open(folder: &Path, origin: &str) -> Result<Self, WitnessError> {
        let file = folder.join(HEAD);
        let head = match fs::read(&file) {
            Ok(octets) => Head::from_der(&octets)
                .ok()
                .filter(|head| head.range.is_valid())
                .ok_or_else(|| WitnessError::Damaged(file.clone()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Head::default(),
            Err(source) => return Err(WitnessError::File { file, source }),
        };
        let verdict = folder.join(DISTRUSTED);
        let distrust = match fs::read(&verdict) {
            Ok(cause) => Some(String::from_utf8_lossy(&cause).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(WitnessError::File {
                    file: verdict,
                    source,
                });
            }
        };
        let state = State {
            head,
            confirmed: None,
            remembered: BTreeMap::new(),
            covered: BTreeMap::new(),
            distrust,
        };
        Ok(Self {
            origin: origin.into(),
            folder: folder.into(),
            state: Mutex::new(state),
        })
    }

    /// Refuses while the ledger is not to be trusted.
    pub(crate) fn trusts(&self) -> Result<(), WitnessError> {
        match &self.lock().distrust {
            None => Ok(()),
            Some(cause) => Err(WitnessError::Distrust(cause.clone())),
        }
    }

    /// Compares a record that the ledger wrote with the event that it was asked to write, and
    /// remembers it.
    pub(crate) fn remember(&self, record: &[u8], asked: &Event) -> Result<(), WitnessError> {
        let decoded: Option<Record> = wire::decode(record).ok();
        let Some(decoded) = decoded.filter(|r| r.event == *asked && r.origin == self.origin) else {
            return Err(self.distrust("it recorded another event than it was asked to".into()));
        };
        let leaf = tree::leaf(sha256, record);
        let seq = decoded.seq;
        let mut state = self.lock();
        let known = if seq < state.head.range.size() {
            // Below the head only what a checkpoint of ours covers can be genuine.
            Some(state.covered.get(&seq).copied())
        } else {
            state.remembered.insert(seq, leaf).map(Some)
        };
        drop(state);
        if known.is_some_and(|known| known != Some(leaf)) {
            return Err(self.distrust(format!("it has two records at position {seq}")));
        }
        Ok(())
    }

    /// Records an event of our own and remembers the record.
    pub(crate) fn record(&self, ledger: &Ledger, event: &Event) -> Result<(), WitnessError> {
        let record = ledger.append(event.clone())?;
        self.remember(&record, event)
    }

    /// Whether the ledger still has the record at the head: a shorter or another log is a restored
    /// or a forged one.
    pub(crate) fn compare_head(&self, ledger: &Ledger) -> Result<(), WitnessError> {
        let head = self.lock().head.clone();
        let Some(position) = head.range.size().checked_sub(1) else {
            return self.begin(ledger);
        };
        let records = pull(ledger, position)?;
        let leaf = records.first().map(|record| tree::leaf(sha256, record));
        if leaf.is_some() && leaf == head.last {
            return Ok(());
        }
        Err(self.distrust(format!(
            "its record at position {position} is gone or differs"
        )))
    }

    /// Without a head, this must be a log that no CA has vouched for: a lost head is no licence to
    /// sign another's log, or a rewritten one.
    fn begin(&self, ledger: &Ledger) -> Result<(), WitnessError> {
        let mut position = 0;
        loop {
            let records = pull(ledger, position)?;
            if records.is_empty() {
                return Ok(());
            }
            let vouched = records.iter().any(|record| {
                wire::decode::<Record>(record).is_ok_and(|record| {
                    record.event.kind == Kind::Checkpoint || record.origin != self.origin
                })
            });
            if vouched {
                return Err(WitnessError::NoHead(self.folder.join(HEAD)));
            }
            position += records.len() as u64;
        }
    }

    /// Extends the head by what the ledger has recorded and signs it. Returns the size signed.
    pub(crate) fn checkpoint(
        &self,
        ledger: &Ledger,
        key: &Key<Checkpoint>,
        session: &mut Session,
    ) -> Result<u64, WitnessError> {
        self.trusts()?;
        let (mut head, shown) = {
            let state = self.lock();
            (
                state.head.clone(),
                state.remembered.last_key_value().map(|(seq, _)| *seq),
            )
        };
        let before = head.range.size();
        let mut pulled = BTreeMap::new();
        loop {
            let records = pull(ledger, head.range.size())?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                let leaf = self.extend(&mut head, record)?;
                pulled.insert(head.range.size().saturating_sub(1), leaf);
            }
        }
        let size = head.range.size();
        if let Some(seq) = shown.filter(|seq| *seq >= size) {
            return Err(self.distrust(format!("it withholds its record at position {seq}")));
        }
        if size > before {
            self.make_durable(&head)?;
            self.advance(&head, pulled)?;
        }
        if size > 0 && self.lock().confirmed != Some(size) {
            self.publish(&head, ledger, key, session)?;
        }
        Ok(size)
    }

    /// From here on this head, and no other of its size, is signed. What was shown to a worker
    /// while the records were pulled is compared now.
    fn advance(&self, head: &Head, pulled: BTreeMap<u64, Digest>) -> Result<(), WitnessError> {
        let size = head.range.size();
        let mut state = self.lock();
        let other = state
            .remembered
            .range(..size)
            .find(|(seq, leaf)| pulled.get(*seq) != Some(*leaf))
            .map(|(seq, _)| *seq);
        if let Some(seq) = other {
            drop(state);
            return Err(self.distrust(format!("it has two records at position {seq}")));
        }
        state.remembered = state.remembered.split_off(&size);
        state.covered.extend(pulled);
        while state.covered.len() > MAX_COVERED {
            state.covered.pop_first();
        }
        state.head = head.clone();
        Ok(())
    }

    fn publish(
        &self,
        head: &Head,
        ledger: &Ledger,
        key: &Key<Checkpoint>,
        session: &mut Session,
    ) -> Result<(), WitnessError> {
        let size = head.range.size();
        let request = Request::PutCheckpoint(PutCheckpoint {
            write: new_id()?,
            size,
            root: head.range.root(sha256),
            note: self.note(head, key, session)?,
        });
        match ledger.ask(&request)? {
            Reply::Done(_) => {
                self.lock().confirmed = Some(size);
                Ok(())
            }
            _ => Err(LedgerError::Untimely("checkpoint").into()),
        }
    }

    /// Size of the log under the newest checkpoint.
    pub(crate) fn size(&self) -> u64 {
        self.lock().head.range.size()
    }

    fn extend(&self, head: &mut Head, record: &[u8]) -> Result<Digest, WitnessError> {
        let position = head.range.size();
        let decoded: Option<Record> = wire::decode(record).ok();
        if decoded.is_none_or(|r| r.seq != position || r.origin != self.origin) {
            return Err(self.distrust(format!("its record at position {position} is malformed")));
        }
        let leaf = tree::leaf(sha256, record);
        let remembered = self.lock().remembered.get(&position).copied();
        if remembered.is_some_and(|remembered| remembered != leaf) {
            return Err(self.distrust(format!("its record at position {position} was changed")));
        }
        head.range.append(sha256, leaf);
        head.last = Some(leaf);
        Ok(leaf)
    }

    /// C2SP signed-note with a checkpoint as its text.
    fn note(
        &self,
        head: &Head,
        key: &Key<Checkpoint>,
        session: &mut Session,
    ) -> Result<String, WitnessError> {
        let root = STANDARD.encode(head.range.root(sha256).as_bytes());
        let text = audit::checkpoint_text(&self.origin, head.range.size(), &root);
        let signature = key.checkpoint(session, text.as_bytes())?;
        let key_hash = sha256(&[key.public_key().unwrap_or_default()]);
        let mut blob = key_hash.get(..4).unwrap_or_default().to_vec();
        blob.extend_from_slice(&signature);
        Ok(format!(
            "{text}\n\u{2014} {} {}\n",
            self.origin,
            STANDARD.encode(blob)
        ))
    }

    fn make_durable(&self, head: &Head) -> Result<(), WitnessError> {
        write_durably(&self.folder, HEAD, &head.to_der()?)
    }

    /// From here on nothing is signed, not after a restart either.
    fn distrust(&self, cause: String) -> WitnessError {
        tracing::error!(cause, "the audit log contradicts what this CA has seen");
        if let Err(error) = write_durably(&self.folder, DISTRUSTED, cause.as_bytes()) {
            tracing::error!(%error, "the verdict could not be written down");
        }
        self.lock().distrust = Some(cause.clone());
        WitnessError::Distrust(cause)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HEAD: &str = "log-head";
const DISTRUSTED: &str = "ledger-distrusted";

fn pull(ledger: &Ledger, from: u64) -> Result<Vec<Vec<u8>>, WitnessError> {
    match ledger.ask(&Request::Records(Records { from }))? {
        Reply::Records(found) => Ok(found
            .records
            .into_iter()
            .map(|r| r.into_bytes().into())
            .collect()),
        _ => Err(LedgerError::Untimely("records").into()),
    }
}

/// Writes a file whole or not at all, and durably.
pub(crate) fn write_durably(folder: &Path, name: &str, octets: &[u8]) -> Result<(), WitnessError> {
    let file = folder.join(name);
    let scratch = folder.join(format!("{name}.new"));
    let write = || -> io::Result<()> {
        let mut new = File::create(&scratch)?;
        new.write_all(octets)?;
        new.sync_all()?;
        fs::rename(&scratch, &file)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| WitnessError::File { file, source })
}

#[cfg(test)]
mod tests {
    use chancery_protocol::audit::Outcome;
    use chancery_protocol::wire::Octets;

    use super::*;

    fn record(seq: u64, event: &Event) -> Vec<u8> {
        let record = Record {
            origin: "log".into(),
            seq,
            time: 1,
            boot: Octets([0; 16]),
            actor: "ledger.store uid=0 pid=1".into(),
            event: event.clone(),
        };
        wire::encode(&record).unwrap().to_vec()
    }

    fn event(detail: &str) -> Event {
        Event::new(Kind::IssueIntent, Outcome::Success).with("detail", detail)
    }

    #[test]
    fn another_event_than_asked_is_distrusted_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        witness
            .remember(&record(0, &event("a")), &event("a"))
            .unwrap();
        witness.trusts().unwrap();
        assert!(
            witness
                .remember(&record(1, &event("b")), &event("c"))
                .is_err()
        );
        assert!(witness.trusts().is_err());
        let again = Witness::open(folder.path(), "log").unwrap();
        assert!(again.trusts().is_err(), "a restart forgets nothing");
    }

    #[test]
    fn two_records_at_one_position_are_distrusted() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        witness
            .remember(&record(0, &event("a")), &event("a"))
            .unwrap();
        witness
            .remember(&record(0, &event("a")), &event("a"))
            .unwrap();
        assert!(
            witness
                .remember(&record(0, &event("b")), &event("b"))
                .is_err()
        );
    }

    #[test]
    fn a_record_below_the_head_must_be_the_one_that_was_covered() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        let mut head = Head::default();
        let leaf = witness.extend(&mut head, &record(0, &event("a"))).unwrap();
        witness.advance(&head, BTreeMap::from([(0, leaf)])).unwrap();
        // A worker may see the answer after the checkpoint that covers it.
        witness
            .remember(&record(0, &event("a")), &event("a"))
            .unwrap();
        assert!(
            witness
                .remember(&record(0, &event("b")), &event("b"))
                .is_err()
        );

        // After a restart nothing below the head can be new.
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        witness.make_durable(&head).unwrap();
        let again = Witness::open(folder.path(), "log").unwrap();
        assert!(
            again
                .remember(&record(0, &event("a")), &event("a"))
                .is_err()
        );
    }

    #[test]
    fn what_a_worker_saw_while_records_were_pulled_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        let mut head = Head::default();
        let leaf = witness
            .extend(&mut head, &record(0, &event("forged")))
            .unwrap();
        witness
            .remember(&record(0, &event("a")), &event("a"))
            .unwrap();
        assert!(witness.advance(&head, BTreeMap::from([(0, leaf)])).is_err());
        assert!(witness.trusts().is_err());
    }

    #[test]
    fn a_verdict_that_cannot_be_read_is_one_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DISTRUSTED), [0xff]).unwrap();
        assert!(
            Witness::open(folder.path(), "log")
                .unwrap()
                .trusts()
                .is_err()
        );
        fs::remove_file(folder.path().join(DISTRUSTED)).unwrap();
        fs::create_dir(folder.path().join(DISTRUSTED)).unwrap();
        assert!(Witness::open(folder.path(), "log").is_err());
    }

    #[test]
    fn a_changed_record_does_not_extend_the_head() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        witness
            .remember(&record(0, &event("a")), &event("a"))
            .unwrap();
        let mut head = Head::default();
        assert!(witness.extend(&mut head, &record(0, &event("b"))).is_err());
        let witness = Witness::open(folder.path(), "other log").unwrap();
        assert!(witness.extend(&mut head, &record(0, &event("a"))).is_err());
    }

    #[test]
    fn the_head_survives_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::open(folder.path(), "log").unwrap();
        let mut head = Head::default();
        witness.extend(&mut head, &record(0, &event("a"))).unwrap();
        witness.make_durable(&head).unwrap();
        assert_eq!(Witness::open(folder.path(), "log").unwrap().size(), 1);
        fs::write(folder.path().join(HEAD), b"damaged").unwrap();
        assert!(matches!(
            Witness::open(folder.path(), "log"),
            Err(WitnessError::Damaged(_))
        ));
    }
}
