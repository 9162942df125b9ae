//! command line → ca, socket `ca.operator`.

use der::{Choice, Sequence};

use crate::name::{DistinguishedName, GeneralName};
use crate::wire::{Digest, Secret};

/// What an operator may ask.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Request {
    /// Mints a challenge.
    #[asn1(context_specific = "0", constructed = "true")]
    NewChallenge(NewChallenge),
    /// How the CA, its token and its log are.
    #[asn1(context_specific = "1", constructed = "true")]
    Status(der::asn1::Null),
}

/// Mints a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct NewChallenge {
    /// The profile that it is for.
    pub profile: String,
    /// Seconds until it expires.
    pub ttl: u64,
    /// How many certificates it is good for.
    pub uses: u32,
    /// The subject; absent: open if the profile's template leaves it open, else none.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub subject: Option<DistinguishedName>,
    /// The subject alternative names; absent: open if the profile's template leaves them open,
    /// else none.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub sans: Option<Vec<GeneralName>>,
    /// The MDM's name for the device.
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    pub device_id: Option<String>,
}

/// The CA's answer.
#[derive(Clone, Debug, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// The new challenge.
    #[asn1(context_specific = "0", constructed = "true")]
    Challenge(Challenge),
    /// Refused by policy; the text is for the operator.
    #[asn1(context_specific = "1", constructed = "true")]
    Refused(String),
    /// Not now, on account of the token; the text is for the operator.
    #[asn1(context_specific = "2", constructed = "true")]
    Unavailable(String),
    /// Status.
    #[asn1(context_specific = "3", constructed = "true")]
    Status(Status),
    /// Not now, on account of anything else; the text is for the operator.
    #[asn1(context_specific = "4", constructed = "true")]
    Failed(String),
}

/// A new challenge.
#[derive(Clone, Debug, Sequence)]
pub struct Challenge {
    /// 32 upper-case hexadecimal digits.
    pub handle: Secret,
    /// SHA-256 of the handle: names the challenge without being one.
    pub id: Digest,
    /// Unix seconds.
    pub expires: u64,
}

/// How the CA is.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Status {
    /// Label of the token.
    pub token: String,
    /// Size of the log at the last checkpoint.
    pub checkpoint: u64,
    /// Profiles served.
    pub profiles: Vec<String>,
}
