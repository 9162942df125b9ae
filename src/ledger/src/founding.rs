//! Makes a new ledger: `chancery-ledger --create --config FILE --transcript FILE`, by a ceremony or
//! quickstart. The service never makes one.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use chancery_config::Config;
use chancery_host::{clock, process};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::wire::Octets;

use crate::database;
use crate::log::{Log, sha256};
use crate::mirror::Mark;
use crate::process::LedgerError;
use crate::writer::{Clock, Writer};

/// Makes the database; its first record is the ceremony, with the SHA-256 of its transcript. If
/// that cannot be recorded, no database stays behind.
pub(crate) fn found(config: &Path, transcript: &Path) -> Result<(), LedgerError> {
    let config = Config::load(config)?;
    let text = std::fs::read(transcript).map_err(|source| LedgerError::Transcript {
        path: transcript.into(),
        source,
    })?;
    let log = Log {
        origin: config.ledger.origin.clone(),
        boot: clock::boot_id().map_err(LedgerError::Boot)?,
    };
    make(&config.ledger.database, log, &text)
}

fn make(database: &Path, log: Log, transcript: &[u8]) -> Result<(), LedgerError> {
    database::create(database)?;
    let recorded = record(database, log, transcript);
    if recorded.is_err() {
        // The error that matters is the one returned.
        let _ = std::fs::remove_file(database);
    }
    recorded
}

fn record(database: &Path, log: Log, transcript: &[u8]) -> Result<(), LedgerError> {
    let connection = database::open_writer(database, &log.origin)?;
    let mark = Mark::load(&connection)?;
    let (committed, _) = sync_channel(1);
    let clock: Clock = Arc::new(clock::now);
    let actor = format!(
        "ceremony uid={} pid={}",
        process::current_uid(),
        std::process::id()
    );
    let mut writer = Writer::new(connection, log, clock, actor, mark, committed);
    let digest = Octets(sha256(&[transcript]));
    let event = Event::new(Kind::Ceremony, Outcome::Success)
        .with(field::DETAIL, format!("transcript sha256 {digest}"))
        .with(field::VERSION, env!("CARGO_PKG_VERSION"));
    writer.record(&event)?;
    writer.close(None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseError;
    use crate::log;
    use crate::testing::{ORIGIN, digest, log};

    #[test]
    fn a_new_ledger_begins_with_its_ceremony() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        make(&path, log(), b"transcript").unwrap();
        let reader = database::open_writer(&path, ORIGIN).unwrap();
        let entries = log::entries(&reader, 0, 9).unwrap();
        assert_eq!(entries.len(), 1);
        let event = &entries[0].0.event;
        assert_eq!(event.kind, Kind::Ceremony);
        let expected = format!("transcript sha256 {}", digest("transcript"));
        assert_eq!(event.value(field::DETAIL), Some(expected.as_str()));
        assert!(matches!(
            make(&path, log(), b"another"),
            Err(LedgerError::Database(DatabaseError::Exists { .. }))
        ));
        assert_eq!(log::entries(&reader, 0, 9).unwrap().len(), 1);
    }

    #[test]
    fn without_its_record_no_ledger_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let too_long = Log {
            origin: "x".repeat(300 * 1024),
            ..log()
        };
        assert!(make(&path, too_long, b"transcript").is_err());
        assert!(!path.exists());
    }
}
