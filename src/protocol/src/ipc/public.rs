//! front → ledger, socket `ledger.public`: blobs that anybody may have.

use der::asn1::{Null, OctetString};
use der::{Choice, Sequence};

/// Asks for a published blob.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Request {
    /// For example the result of [`cacert`].
    pub name: String,
}

/// Name of the GetCACert answer of a profile.
#[must_use]
pub fn cacert(profile: &str) -> String {
    format!("cacert/{profile}")
}

/// The ledger's answer.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// The blob.
    #[asn1(context_specific = "0", constructed = "true")]
    Blob(Blob),
    /// Nothing was published under this name.
    #[asn1(context_specific = "1", constructed = "true")]
    Absent(Null),
    /// The database does not answer.
    #[asn1(context_specific = "2", constructed = "true")]
    Unavailable(Null),
}

/// A published blob.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Blob {
    /// HTTP media type.
    pub media_type: String,
    /// The octets.
    pub content: OctetString,
}
