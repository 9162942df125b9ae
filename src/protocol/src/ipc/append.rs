//! ra, front → ledger, one socket each (`ledger.append-ra`, `ledger.append-front`): events of a
//! role, its own kinds only.

use der::Choice;

use crate::audit::{Kind, Receipt};
pub use crate::ipc::store::Append as Request;

/// The ledger's answer.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// Written.
    #[asn1(context_specific = "0", constructed = "true")]
    Done(Receipt),
    /// Not written; the text is for the journal.
    #[asn1(context_specific = "1", constructed = "true")]
    Unavailable(String),
}

/// The kinds that the RA may append.
pub const RA_KINDS: &[Kind] = &[
    Kind::ServiceStarted,
    Kind::ServiceStopped,
    Kind::TokenReady,
    Kind::ParserDied,
    Kind::ParserLied,
    Kind::RefusalsCounted,
];

/// The kinds that front may append.
pub const FRONT_KINDS: &[Kind] = &[Kind::ServiceStarted, Kind::ServiceStopped];
