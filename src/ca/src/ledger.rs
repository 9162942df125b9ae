//! The way to the ledger: repeated until it answers or the deadline is over, since every write
//! bears an id of its own.

use aws_lc_rs::rand;
use chancery_host::ipc::Channel;
use chancery_protocol::audit::Event;
use chancery_protocol::ipc::store::{self, Reply, Request};
use chancery_protocol::wire::{Id, Octets};

/// The ledger did not do what was asked; nothing may be signed on account of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// No answer.
    #[error("ledger: {0}")]
    Call(#[from] chancery_host::ipc::CallError),
    /// It says that it cannot.
    #[error("ledger: {0}")]
    Unavailable(String),
    /// An answer to another question.
    #[error("ledger: answered {0} with a reply of another kind")]
    Untimely(&'static str),
    /// The operating system has no randomness.
    #[error("no random numbers from the operating system")]
    Random,
}

/// The ledger's `store` socket.
pub(crate) struct Ledger(Channel);

impl Ledger {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// Asks; [`Reply::Unavailable`] becomes an error.
    pub(crate) fn ask(&self, request: &Request) -> Result<Reply, LedgerError> {
        match self.0.call_repeatable(request)? {
            Reply::Unavailable(cause) => Err(LedgerError::Unavailable(cause)),
            reply => Ok(reply),
        }
    }

    /// Records an event; returns the record as written, for the witness.
    pub(crate) fn append(&self, event: Event) -> Result<Vec<u8>, LedgerError> {
        let request = Request::Append(store::Append {
            write: new_id()?,
            event,
        });
        match self.ask(&request)? {
            Reply::Appended(recorded) => Ok(recorded.record.as_bytes().to_vec()),
            _ => Err(LedgerError::Untimely("append")),
        }
    }
}

/// A fresh id for a write or a request.
pub(crate) fn new_id() -> Result<Id, LedgerError> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| LedgerError::Random)?;
    Ok(Octets(id))
}
