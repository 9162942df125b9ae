//! command line → ledger, socket `ledger.query`: reading, never writing.

use der::asn1::{Null, OctetString};
use der::{Choice, Sequence};

use crate::wire::Digest;

/// Most rows in one answer.
pub const MAX_ROWS: u32 = 100;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Request {
    /// Certificates that match a text.
    #[asn1(context_specific = "0", constructed = "true")]
    Find(Find),
    /// One certificate.
    #[asn1(context_specific = "1", constructed = "true")]
    Show(Show),
    /// How the ledger is.
    #[asn1(context_specific = "2", constructed = "true")]
    Status(Null),
}

/// Finds certificates, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Find {
    /// Serial number, SHA-256 of certificate or key, device id, transactionID or name in full, or
    /// the beginning of a name; empty: every certificate.
    pub text: String,
    /// Rows to skip.
    pub offset: u32,
    /// Rows wanted, at most [`MAX_ROWS`].
    pub limit: u32,
}

/// Shows one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Show {
    /// Serial number or SHA-256 of the certificate, hexadecimal.
    pub id: String,
}

/// The ledger's answer.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// To [`Request::Find`].
    #[asn1(context_specific = "0", constructed = "true")]
    Found(Found),
    /// To [`Request::Show`]: the row and the certificate in DER.
    #[asn1(context_specific = "1", constructed = "true")]
    Certificate(Shown),
    /// Nothing of that kind.
    #[asn1(context_specific = "2", constructed = "true")]
    Absent(Null),
    /// More than one certificate matches; ask by SHA-256.
    #[asn1(context_specific = "3", constructed = "true")]
    Ambiguous(Null),
    /// The database does not answer; the text is for the operator.
    #[asn1(context_specific = "4", constructed = "true")]
    Unavailable(String),
    /// To [`Request::Status`].
    #[asn1(context_specific = "5", constructed = "true")]
    Status(Status),
}

/// Rows found.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Found {
    /// Newest first.
    pub rows: Vec<Row>,
    /// Whether there are more.
    pub more: bool,
}

/// A certificate and its row.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Shown {
    /// The row.
    pub row: Row,
    /// The certificate in DER.
    pub certificate: OctetString,
}

/// Status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, der::Enumerated)]
#[repr(u8)]
pub enum CertificateStatus {
    /// Issued and not revoked; whether it has expired says its validity.
    Valid = 0,
    /// Revoked.
    Revoked = 1,
}

impl CertificateStatus {
    /// The text for people and scripts, given the time.
    #[must_use]
    pub fn text(self, not_after: u64, now: u64) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Valid if not_after < now => "expired",
            Self::Valid => "valid",
        }
    }
}

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Row {
    /// Id of the issuing CA.
    pub ca: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// RFC 4514 text.
    pub subject: String,
    /// `kind:value` each.
    pub sans: Vec<String>,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// Status.
    pub status: CertificateStatus,
    /// Profile, or the purpose of one of our own keys.
    pub profile: String,
    /// The MDM's name for the device; empty if none.
    pub device_id: String,
    /// SHA-256 of the certificate.
    pub sha256: Digest,
}

/// How the ledger is.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Status {
    /// Number of certificates.
    pub certificates: u64,
    /// Number of audit records.
    pub records: u64,
    /// Audit records under the newest checkpoint.
    pub checkpoint: u64,
    /// Unix seconds of the newest record.
    pub time: u64,
}
