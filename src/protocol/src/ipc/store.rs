//! ca → ledger, socket `ledger.store`.
//!
//! Every write carries a caller-made id: repeating it returns the first result. A change and its
//! audit record are one durable transaction.

use der::asn1::{Null, OctetString};
use der::{Choice, Sequence};

use crate::audit::{Event, Receipt};
use crate::seal::SealedRow;
use crate::wire::{Digest, Id};

/// What the CA may ask.
#[expect(clippy::large_enum_variant, reason = "one short-lived value a packet")]
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Request {
    /// Stores a new challenge.
    #[asn1(context_specific = "0", constructed = "true")]
    PutChallenge(PutChallenge),
    /// Finds a challenge, how often it is spent, and the reservation of a retry.
    #[asn1(context_specific = "1", constructed = "true")]
    FindChallenge(FindChallenge),
    /// Finds the newest reservation of a retry identity.
    #[asn1(context_specific = "2", constructed = "true")]
    FindReservation(FindReservation),
    /// Reserves a certificate: serial number, TBSCertificate, spent challenge, intent record.
    #[asn1(context_specific = "3", constructed = "true")]
    Reserve(Reserve),
    /// Stores the signed certificate of a reservation. The first commit wins.
    #[asn1(context_specific = "4", constructed = "true")]
    Commit(Commit),
    /// Audit records from a position on, for the next checkpoint.
    #[asn1(context_specific = "5", constructed = "true")]
    Records(Records),
    /// Stores a signed checkpoint.
    #[asn1(context_specific = "6", constructed = "true")]
    PutCheckpoint(PutCheckpoint),
    /// Publishes a blob that front serves.
    #[asn1(context_specific = "7", constructed = "true")]
    Publish(Publish),
    /// Records an event of the CA.
    #[asn1(context_specific = "8", constructed = "true")]
    Append(Append),
}

/// Stores a new challenge.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct PutChallenge {
    /// Id of this write.
    pub write: Id,
    /// The sealed row.
    pub row: SealedRow,
    /// For searching: profile.
    pub profile: String,
    /// For searching and clearing: Unix seconds.
    pub expires: u64,
    /// `challenge.minted`.
    pub event: Event,
}

/// Finds a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct FindChallenge {
    /// SHA-256 of the handle.
    pub challenge: Digest,
}

/// Finds a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct FindReservation {
    /// SHA-256 of the retry identity.
    pub retry: Digest,
}

/// Reserves a certificate. In one transaction: the retry identity has no live reservation, the
/// challenge has a use left and its names are not held by another key, the serial number is new.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Reserve {
    /// Id of this write.
    pub write: Id,
    /// The sealed {retry identity, TBSCertificate}.
    pub row: SealedRow,
    /// What is spent; absent for the certificates of our own keys.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub spend: Option<Spend>,
    /// How the certificate is found later.
    pub index: CertificateIndex,
    /// `issue.intent`.
    pub event: Event,
}

/// The use of a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Spend {
    /// SHA-256 of the handle.
    pub challenge: Digest,
    /// Uses that the claims allow.
    pub uses: u32,
    /// SHA-256 of each name by which somebody is known: under this challenge it belongs to the
    /// first key that took it.
    pub names: Vec<Digest>,
}

/// How a certificate is found.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct CertificateIndex {
    /// Id of the issuing CA.
    pub ca: String,
    /// Serial number, big-endian, without a leading zero octet.
    pub serial: OctetString,
    /// Profile, or the purpose of one of our own keys.
    pub profile: String,
    /// Subject in RFC 4514 text.
    pub subject: String,
    /// Subject alternative names as `kind:value`.
    pub sans: Vec<String>,
    /// The MDM's name for the device; empty if none.
    pub device_id: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub public_key: Digest,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// transactionID of the message; empty if none.
    pub transaction: String,
}

/// Stores a signed certificate.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Commit {
    /// Id of this write.
    pub write: Id,
    /// Id of the issuing CA.
    pub ca: String,
    /// The reserved serial number.
    pub serial: OctetString,
    /// The certificate in DER.
    pub certificate: OctetString,
    /// SHA-256 of the certificate.
    pub sha256: Digest,
    /// `issue.done`.
    pub event: Event,
}

/// Audit records from a position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence)]
pub struct Records {
    /// The first position wanted.
    pub from: u64,
}

/// Stores a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct PutCheckpoint {
    /// Id of this write.
    pub write: Id,
    /// Number of leaves.
    pub size: u64,
    /// Root hash.
    pub root: Digest,
    /// The signed note (C2SP signed-note).
    pub note: String,
}

/// Publishes a blob.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Publish {
    /// Id of this write.
    pub write: Id,
    /// What front asks for, see [`super::public`].
    pub name: String,
    /// HTTP media type.
    pub media_type: String,
    /// The octets.
    pub content: OctetString,
}

/// Records an event.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Append {
    /// Id of this write.
    pub write: Id,
    /// The event.
    pub event: Event,
}

/// The ledger's answer.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// Written.
    #[asn1(context_specific = "0", constructed = "true")]
    Done(Receipt),
    /// To [`Request::FindChallenge`].
    #[asn1(context_specific = "1", constructed = "true")]
    Challenge(ChallengeFound),
    /// Nothing of that kind.
    #[asn1(context_specific = "2", constructed = "true")]
    Absent(Null),
    /// To [`Request::FindReservation`], and to [`Request::Reserve`] if the retry identity has a
    /// live reservation already.
    #[asn1(context_specific = "3", constructed = "true")]
    Reservation(Reservation),
    /// To [`Request::Reserve`]: reserved by this request.
    #[asn1(context_specific = "4", constructed = "true")]
    Reserved(Recorded),
    /// To [`Request::Reserve`]: the challenge has no use left.
    #[asn1(context_specific = "5", constructed = "true")]
    Spent(Null),
    /// To [`Request::Reserve`]: a name belongs to another key under this challenge.
    #[asn1(context_specific = "6", constructed = "true")]
    Held(Null),
    /// To [`Request::Reserve`]: the serial number is taken.
    #[asn1(context_specific = "7", constructed = "true")]
    SerialTaken(Null),
    /// To [`Request::Commit`]: the certificate of the first commit.
    #[asn1(context_specific = "8", constructed = "true")]
    Committed(Committed),
    /// To [`Request::Records`].
    #[asn1(context_specific = "9", constructed = "true")]
    Records(RecordsFound),
    /// Nothing was written: disk, database or clock. The text is for the journal.
    #[asn1(context_specific = "10", constructed = "true")]
    Unavailable(String),
    /// To [`Request::Append`]: the record as written.
    #[asn1(context_specific = "11", constructed = "true")]
    Appended(Recorded),
}

/// A challenge as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct ChallengeFound {
    /// The sealed row.
    pub row: SealedRow,
    /// Whether an operator revoked it.
    pub revoked: bool,
    /// How many uses are spent.
    pub spent: u32,
}

/// State of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, der::Enumerated)]
#[repr(u8)]
pub enum ReservationState {
    /// Intended, not yet signed: a retry signs exactly its TBSCertificate.
    Open = 0,
    /// Signed: a retry gets its certificate.
    Issued = 1,
}

/// A reservation younger than 24 hours, or whose certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Reservation {
    /// The sealed {retry identity, TBSCertificate}.
    pub row: SealedRow,
    /// State.
    pub state: ReservationState,
    /// Id of the issuing CA.
    pub ca: String,
    /// The reserved serial number.
    pub serial: OctetString,
    /// The certificate, once issued.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub certificate: Option<OctetString>,
}

/// A record as written, so that the CA can compare it with what it asked.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Recorded {
    /// Canonical DER of the [`crate::audit::Record`].
    pub record: OctetString,
}

/// The winner of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Committed {
    /// The certificate in DER.
    pub certificate: OctetString,
}

/// A run of records.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct RecordsFound {
    /// Canonical DER of each record, consecutive from the position asked; empty at the end.
    pub records: Vec<OctetString>,
}
