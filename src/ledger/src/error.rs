//! What can keep a request from being answered.

use rusqlite::ErrorCode;

/// Nothing was written, or nothing can be read. The text goes to the caller's journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite refuses: disk, lock, damage.
    #[error("the ledger's database does not answer: {source}; {}", remedy(source))]
    Sqlite {
        #[from]
        source: rusqlite::Error,
    },
    /// The clock went back further than a correction would.
    #[error(
        "the clock reads {now}, but the newest audit record is of {mark} (Unix seconds); if the clock is behind, correct it; if it had run ahead when that record was written, nothing can be issued before that time"
    )]
    Clock { now: u64, mark: u64 },
    /// A stored value is none that was ever written.
    #[error("the ledger's database is damaged: {0}; restore a backup")]
    Damaged(&'static str),
    /// A value does not fit its encoding.
    #[error("a value cannot be encoded: {0}")]
    Encoding(#[from] der::Error),
    /// A value does not fit a packet.
    #[error(transparent)]
    Wire(#[from] chancery_protocol::wire::WireError),
    /// Handles are random, so this is a defect of whoever minted, or a row made up.
    #[error("a challenge of this handle exists already; mint another")]
    ChallengeExists,
    /// A head of the log that does not extend the one before.
    #[error(
        "a checkpoint of size {size} does not stand between the newest ({newest}) and the log ({records}); the log and the CA's head of it differ, restore neither without the other"
    )]
    Checkpoint {
        size: u64,
        newest: u64,
        records: u64,
    },
    /// Two heads of one size. Signing on would prove the log forked.
    #[error(
        "a checkpoint of size {size} with another root exists; the log and the CA's head of it differ, restore neither without the other"
    )]
    Fork { size: u64 },
    /// The thread that writes has ended.
    #[error("the ledger is stopping; try again")]
    Stopping,
    /// The id of this write named another request before: its answer must not pass for this one's.
    #[error("the id of this write belongs to another request")]
    WriteId,
}

/// What an operator can do about an SQLite error.
pub(crate) fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "free space on its file system",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "end the other program that holds the file open"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "restore a backup",
        Some(ErrorCode::SystemIoFailure) => "check the disk (kernel log)",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "check owner and permissions of the file and its folder"
        }
        _ => "check the ledger's journal",
    }
}

/// A number as SQLite keeps it. Times and sizes are far below the limit.
pub(crate) fn to_row(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Damaged("a number beyond 2^63"))
}

/// A number as it was stored: never negative.
pub(crate) fn from_row(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Damaged("a negative number"))
}
