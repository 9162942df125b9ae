//! ra → ca, socket `ca.enrol`: evidence in, certificate or refusal out.

use der::asn1::OctetString;
use der::{Choice, Sequence};

use crate::refusal::Refusal;
use crate::wire::{Id, Secret};

/// What the RA may ask.
#[derive(Clone, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Request {
    /// Check this evidence and issue.
    #[asn1(context_specific = "0", constructed = "true")]
    Issue(Issue),
    /// The RA's own certificates for the CA of a profile.
    #[asn1(context_specific = "1", constructed = "true")]
    RaCertificates(RaCertificates),
}

/// The evidence of one enrolment: everything that the RA itself judged by.
#[derive(Clone, Sequence)]
pub struct Issue {
    /// Made by the RA; correlates audit records.
    pub request: Id,
    /// Address of the device, front's word.
    pub peer: String,
    /// The profile that the path names.
    pub profile: String,
    /// The pkiMessage as received.
    pub message: OctetString,
    /// Node tables of message, joined eContent and plaintext.
    pub tables: Vec<OctetString>,
    /// The content-encryption key that the RA's token decrypted.
    pub content_key: Secret,
}

/// Asks for the RA's certificates.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct RaCertificates {
    /// A profile; its issuing CA issues.
    pub profile: String,
}

/// The CA's answer.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// The certificate in DER.
    #[asn1(context_specific = "0", constructed = "true")]
    Issued(OctetString),
    /// No certificate, and why. The RA tells the device no more than
    /// [`Refusal::fail_info`] and counts what [`Refusal::after_proof`] says is not yet recorded.
    #[asn1(context_specific = "1", constructed = "true")]
    Refused(Refused),
    /// Not now: ledger or token do not answer. Nothing was spent that a retry would not find.
    #[asn1(context_specific = "2", constructed = "true")]
    Unavailable(String),
    /// The RA's certificates.
    #[asn1(context_specific = "3", constructed = "true")]
    RaCertificates(RaChain),
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence)]
pub struct Refused {
    /// The reason.
    pub refusal: Refusal,
}

/// The RA's two certificates and the chain above them.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct RaChain {
    /// Certificate of the decryption key (keyEncipherment), DER.
    pub decryption: OctetString,
    /// Certificate of the signing key (digitalSignature), DER.
    pub signing: OctetString,
    /// The issuing CA's certificate, then each above it, DER.
    pub authorities: Vec<OctetString>,
}
