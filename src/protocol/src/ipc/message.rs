//! front → ra, socket `ra.message`: a request body from a device.

use der::asn1::{Null, OctetString};
use der::{Choice, Sequence};

/// A pkiMessage as it came from the network.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Request {
    /// The profile that the path names.
    pub profile: String,
    /// Address and port of the device: front's word, good for limits, never for authority.
    pub peer: String,
    /// The body, at most [`crate::wire::MAX_MESSAGE`] octets.
    pub message: OctetString,
}

/// What front sends to the device.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// HTTP 200 with this CertRep, whatever its pkiStatus.
    #[asn1(context_specific = "0", constructed = "true")]
    CertRep(OctetString),
    /// HTTP 400 without a body: not a pkiMessage.
    #[asn1(context_specific = "1", constructed = "true")]
    Malformed(Null),
    /// HTTP 404: no such profile.
    #[asn1(context_specific = "2", constructed = "true")]
    NoProfile(Null),
    /// HTTP 503 with Retry-After in seconds.
    #[asn1(context_specific = "3", constructed = "true")]
    Unavailable(u32),
}
