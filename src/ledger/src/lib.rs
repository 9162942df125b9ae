//! The row store and the audit log, run by `chancery-ledger`.
//!
//! Trusted with keeping what the CA wrote: each change and its audit record are one durable
//! transaction, each challenge is spent no more often than its claims allow, and a repeated write
//! gets its first answer. Not trusted with authority: rows that matter later are sealed by the CA,
//! records are hashed into a tree whose head the CA's token signs, so the ledger can lose a row but
//! not make or change one unnoticed. Holds no key, no PIN and no usable challenge.
//!
//! Within: `check` turns packets into requests that keep the rules, `desk` answers them, reading
//! by itself (`challenge`, `reservation`, `search`, `log`) and handing changes to the one
//! `writer`, which applies them (`change`) in group commits; `mirror` copies the log to
//! journald. `founding` makes a new ledger.
#![forbid(unsafe_code)]

mod challenge;
mod change;
mod check;
mod database;
mod desk;
mod error;
mod founding;
mod log;
mod mirror;
mod process;
#[cfg(test)]
mod promises;
mod reservation;
mod search;
#[cfg(test)]
mod testing;
mod writer;

pub use crate::database::{DatabaseError, create};
pub use crate::process::main;
