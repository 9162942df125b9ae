//! The database file: made once by an explicit act, opened by the service.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chancery_protocol::audit::Record;
use chancery_protocol::wire;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

/// `PRAGMA application_id`: "CHNC", so that no other SQLite file passes for a ledger.
const APPLICATION: i32 = 0x4348_4e43;

/// `PRAGMA user_version` of [`SCHEMA`].
const VERSION: i32 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// How long a statement waits for a lock. The one writer is ours; only a person's `sqlite3` or a
/// backup can stand in its way.
const BUSY: Duration = Duration::from_secs(5);

/// Makes an empty database, readable and writable by the caller's user alone.
///
/// # Errors
/// [`DatabaseError::Exists`] if there is a file already: it is never overwritten. Otherwise what
/// the file system or SQLite says; no half-made file stays behind.
pub fn create(path: &Path) -> Result<(), DatabaseError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match file {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(DatabaseError::Exists { path: path.into() });
        }
        Err(source) => return Err(system(path, source)),
    }
    let made = fill(path).and_then(|()| sync_folder(path));
    if made.is_err() {
        // The error that matters is the one returned; a file that cannot be removed is refused by
        // `open` all the same, for its version is 0.
        let _ = std::fs::remove_file(path);
    }
    made
}

/// Refuses a database that is not there, before the sandbox closes its folder's neighbourhood.
pub(crate) fn must_exist(path: &Path) -> Result<(), DatabaseError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(DatabaseError::Missing { path: path.into() })
        }
        Err(source) => Err(system(path, source)),
    }
}

/// Opens the connection of the one writer, whose log must be that of `origin`.
pub(crate) fn open_writer(path: &Path, origin: &str) -> Result<Connection, DatabaseError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let tuned = || {
        set_wal(&connection)?;
        // A commit is on the disk before anybody hears of it.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)
    };
    tuned().map_err(|source| sqlite(path, source))?;
    check_origin(path, &connection, origin)?;
    Ok(connection)
}

/// One log has one origin from its first record to its last: a checkpoint names it once.
fn check_origin(path: &Path, connection: &Connection, origin: &str) -> Result<(), DatabaseError> {
    let newest: Option<Vec<u8>> = connection
        .query_row(
            "SELECT record FROM records ORDER BY seq DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()
        .map_err(|source| sqlite(path, source))?;
    let Some(newest) = newest else {
        return Ok(());
    };
    match wire::decode::<Record>(&newest) {
        Ok(record) if record.origin == origin => Ok(()),
        Ok(record) => Err(DatabaseError::Origin {
            path: path.into(),
            found: record.origin,
            expected: origin.into(),
        }),
        Err(_) => Err(DatabaseError::Damaged { path: path.into() }),
    }
}

/// Opens a connection that cannot write.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, DatabaseError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn fill(path: &Path) -> Result<(), DatabaseError> {
    let make = || {
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        set_wal(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        connection.close().map_err(|(_, error)| error)
    };
    make().map_err(|source| sqlite(path, source))
}

/// Makes the new name itself durable.
fn sync_folder(path: &Path) -> Result<(), DatabaseError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| system(path, source))
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, DatabaseError> {
    must_exist(path)?;
    let connection = connect(path, access).map_err(|source| sqlite(path, source))?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let application = pragma("application_id").map_err(|source| sqlite(path, source))?;
    let version = pragma("user_version").map_err(|source| sqlite(path, source))?;
    if application != APPLICATION {
        return Err(DatabaseError::Foreign { path: path.into() });
    }
    if version != VERSION {
        return Err(DatabaseError::Version {
            path: path.into(),
            found: version,
        });
    }
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // The sandbox leaves no folder for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A damaged or doctored file is an error, not a guess.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

fn set_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" {
            Ok(())
        } else {
            Err(rusqlite::Error::InvalidQuery)
        }
    })
}

fn sqlite(path: &Path, source: rusqlite::Error) -> DatabaseError {
    DatabaseError::Sqlite {
        path: path.into(),
        source,
    }
}

fn system(path: &Path, source: std::io::Error) -> DatabaseError {
    DatabaseError::System {
        path: path.into(),
        source,
    }
}

/// Why a database cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The service never makes a database by itself: an empty one would forget spent challenges.
    #[error(
        "{}: there is no database; run `chancery quickstart` or a ceremony, or restore a backup",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A new database would take the place of another.
    #[error("{}: exists already; choose another file or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// No ledger.
    #[error(
        "{}: is not a Chancery ledger; correct ledger.database in the configuration",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A ledger of another release.
    #[error(
        "{}: has schema version {found} and this release reads {VERSION}; use the release that made it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// The log of another appliance or node.
    #[error(
        "{}: holds the audit log of {found}, but the configuration says {expected}; correct appliance.name or ledger.database",
        path.display()
    )]
    Origin {
        /// The file.
        path: PathBuf,
        /// In the newest record.
        found: String,
        /// In the configuration.
        expected: String,
    },
    /// The newest record does not decode.
    #[error("{}: the newest audit record is damaged; restore a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// SQLite refuses.
    #[error("{}: {source}; {}", path.display(), crate::error::remedy(source))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The file system refuses.
    #[error("{}: {source}; check the folder's owner and permissions", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_database_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(create(&path), Err(DatabaseError::Exists { .. })));
        let writer = open_writer(&path, "test/audit").unwrap();
        let text = |name: &str| {
            writer
                .pragma_query_value(None, name, |row| row.get::<_, String>(0))
                .unwrap()
        };
        assert_eq!(text("journal_mode"), "wal");
        let number = |name: &str| {
            writer
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(number("synchronous"), 2);
        assert_eq!(number("foreign_keys"), 1);
    }

    #[test]
    fn a_service_makes_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let error = open_writer(&path, "test/audit").unwrap_err();
        assert!(matches!(error, DatabaseError::Missing { .. }));
        assert!(error.to_string().contains("chancery quickstart"));
        assert!(!path.exists());
    }

    #[test]
    fn a_half_made_database_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        // SQLite cannot make its log where a folder stands.
        std::fs::create_dir(folder.path().join("ledger.db-wal")).unwrap();
        assert!(matches!(create(&path), Err(DatabaseError::Sqlite { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        assert!(matches!(
            open_writer(&path, "test/audit"),
            Err(DatabaseError::Foreign { .. })
        ));
        let text = folder.path().join("text.db");
        std::fs::write(
            &text,
            "not a database, but long enough to be read as one".repeat(100),
        )
        .unwrap();
        assert!(matches!(
            open_reader(&text),
            Err(DatabaseError::Sqlite { .. })
        ));
        let newer = folder.path().join("newer.db");
        create(&newer).unwrap();
        Connection::open(&newer)
            .unwrap()
            .pragma_update(None, "user_version", 2)
            .unwrap();
        assert!(matches!(
            open_writer(&newer, "test/audit"),
            Err(DatabaseError::Version { found: 2, .. })
        ));
    }

    #[test]
    fn a_log_keeps_its_origin() {
        let bench = crate::testing::Bench::started();
        assert!(matches!(
            open_writer(&bench.path, "other/audit"),
            Err(DatabaseError::Origin { found, .. }) if found == "test/audit"
        ));
        bench
            .connection
            .execute("INSERT INTO records VALUES (1, 1, x'00', x'00')", [])
            .unwrap();
        assert!(matches!(
            open_writer(&bench.path, "test/audit"),
            Err(DatabaseError::Damaged { .. })
        ));
    }

    #[test]
    fn a_reader_cannot_write_and_nobody_changes_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        create(&path).unwrap();
        let writer = open_writer(&path, "test/audit").unwrap();
        let insert = "INSERT INTO records VALUES (0, 1, x'00', x'00')";
        assert!(open_reader(&path).unwrap().execute(insert, []).is_err());
        writer.execute(insert, []).unwrap();
        assert!(writer.execute("DELETE FROM records", []).is_err());
        assert!(writer.execute("UPDATE records SET time = 2", []).is_err());
    }
}
