//! Audit events and records. The vocabulary is fixed here; roles fill in values.

use der::{DecodeValue, EncodeValue, FixedTag, Header, Length, Reader, Sequence, Tag, Writer};

use crate::refusal::Refusal;
use crate::wire::{Digest, Id};

/// Longest field value in octets: longer ones are cut. journald shows no more than 4,096 by default.
pub const MAX_VALUE: usize = 1024;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $id:literal;)+) => {
        /// The kinds of audit events. Name and MESSAGE_ID never change once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in records and journal fields.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// journald's MESSAGE_ID: 32 lower-case hexadecimal digits.
            #[must_use]
            pub fn message_id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }
        }
    };
}

kinds! {
    /// A role began to serve.
    ServiceStarted "service.started" "3f0d4a6f7b1e4f6f8c2a51d09be7c101";
    /// A role was asked to stop and stopped.
    ServiceStopped "service.stopped" "3f0d4a6f7b1e4f6f8c2a51d09be7c102";
    /// A token was opened and every key passed its checks.
    TokenReady "token.ready" "3f0d4a6f7b1e4f6f8c2a51d09be7c103";
    /// A parser child died without an answer: a defect, or an attack.
    ParserDied "parser.died" "3f0d4a6f7b1e4f6f8c2a51d09be7c104";
    /// Nodes answered by a parser child did not prove: a defect, or a child taken over.
    ParserLied "parser.lied" "3f0d4a6f7b1e4f6f8c2a51d09be7c105";
    /// A challenge was minted.
    ChallengeMinted "challenge.minted" "3f0d4a6f7b1e4f6f8c2a51d09be7c106";
    /// A request with a genuine challenge was refused.
    RequestRefused "request.refused" "3f0d4a6f7b1e4f6f8c2a51d09be7c107";
    /// Requests refused before any proof, counted per reason and source over a minute.
    RefusalsCounted "refusals.counted" "3f0d4a6f7b1e4f6f8c2a51d09be7c108";
    /// A certificate is about to be signed; carries the SHA-256 of the exact TBSCertificate.
    IssueIntent "issue.intent" "3f0d4a6f7b1e4f6f8c2a51d09be7c109";
    /// A certificate was signed and stored.
    IssueDone "issue.done" "3f0d4a6f7b1e4f6f8c2a51d09be7c10a";
    /// A repeated enrolment was answered with the certificate that it already has.
    IssueRepeated "issue.repeated" "3f0d4a6f7b1e4f6f8c2a51d09be7c10b";
    /// An intent that was interrupted is about to be signed after all; carries the SHA-256 of the
    /// exact TBSCertificate, as the intent did.
    IssueResumed "issue.resumed" "3f0d4a6f7b1e4f6f8c2a51d09be7c111";
    /// An intent was never followed by a certificate; its serial number counts as revoked.
    IssueAbandoned "issue.abandoned" "3f0d4a6f7b1e4f6f8c2a51d09be7c10c";
    /// Evidence that a requester's message does not bear out came from the RA.
    EvidenceRefused "evidence.refused" "3f0d4a6f7b1e4f6f8c2a51d09be7c10d";
    /// A row that the CA asked for was not sealed by its challenge key.
    SealBroken "seal.broken" "3f0d4a6f7b1e4f6f8c2a51d09be7c10e";
    /// A checkpoint over the log was signed.
    Checkpoint "audit.checkpoint" "3f0d4a6f7b1e4f6f8c2a51d09be7c10f";
    /// A hierarchy was made: its transcript.
    Ceremony "ceremony" "3f0d4a6f7b1e4f6f8c2a51d09be7c110";
}

impl Kind {
    /// Finds a kind by its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl FixedTag for Kind {
    const TAG: Tag = Tag::Utf8String;
}

impl<'a> DecodeValue<'a> for Kind {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        let name = String::decode_value(reader, header)?;
        Self::by_name(&name).ok_or_else(|| reader.error(Tag::Utf8String.value_error()))
    }
}

impl EncodeValue for Kind {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.name().len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(self.name().as_bytes())
    }
}

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, der::Enumerated)]
#[repr(u8)]
pub enum Outcome {
    /// It was done.
    Success = 0,
    /// It was refused or failed.
    Failure = 1,
}

impl Outcome {
    /// The text in journal fields.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// Names of fields. In the journal each stands as `CHANCERY_` and the upper-case name.
pub mod field {
    /// Id of a CA.
    pub const CA: &str = "ca";
    /// SHA-256 of a challenge's handle: names a challenge without being one.
    pub const CHALLENGE: &str = "challenge";
    /// SHA-256 of a certificate.
    pub const CERTIFICATE_SHA256: &str = "certificate_sha256";
    /// How many.
    pub const COUNT: &str = "count";
    /// Detail for a person.
    pub const DETAIL: &str = "detail";
    /// The MDM's name for the device.
    pub const DEVICE_ID: &str = "device_id";
    /// Unix seconds.
    pub const EXPIRES: &str = "expires";
    /// SHA-256 of a SubjectPublicKeyInfo.
    pub const KEY_SHA256: &str = "key_sha256";
    /// Network address of the device, in front's word.
    pub const PEER: &str = "peer";
    /// Name of a profile.
    pub const PROFILE: &str = "profile";
    /// A [`Refusal`](crate::refusal::Refusal) code, or another cause.
    pub const REASON: &str = "reason";
    /// Name of a role.
    pub const ROLE: &str = "role";
    /// Root hash of the log.
    pub const ROOT: &str = "root";
    /// Subject alternative names, separated by blanks.
    pub const SANS: &str = "sans";
    /// Serial number in lower-case hexadecimal.
    pub const SERIAL: &str = "serial";
    /// Number of leaves.
    pub const SIZE: &str = "size";
    /// Subject in RFC 4514 text.
    pub const SUBJECT: &str = "subject";
    /// SHA-256 of a TBSCertificate.
    pub const TBS_SHA256: &str = "tbs_sha256";
    /// Label of a token.
    pub const TOKEN: &str = "token";
    /// transactionID of the message.
    pub const TRANSACTION: &str = "transaction";
    /// How often a challenge may be used.
    pub const USES: &str = "uses";
    /// Version of the program.
    pub const VERSION: &str = "version";
}

/// A named value of an event.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Field {
    /// One of [`field`].
    pub name: String,
    /// At most [`MAX_VALUE`] octets, without control characters.
    pub value: String,
}

/// An event as a role reports it; the ledger adds who, when and where.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Event {
    /// The kind.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// The request that it belongs to.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub request: Option<Id>,
    /// Named values, in the order given.
    pub fields: Vec<Field>,
}

impl Event {
    /// An event without fields.
    #[must_use]
    pub fn new(kind: Kind, outcome: Outcome) -> Self {
        Self {
            kind,
            outcome,
            request: None,
            fields: Vec::new(),
        }
    }

    /// A refusal and its reason.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self::new(Kind::RequestRefused, Outcome::Failure).with(field::REASON, refusal)
    }

    /// Names the request that the event belongs to.
    #[must_use]
    pub fn of_request(mut self, request: Id) -> Self {
        self.request = Some(request);
        self
    }

    /// Adds a value. Control characters are replaced and long values cut.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl core::fmt::Display) -> Self {
        self.fields.push(Field {
            name: name.into(),
            value: clean(&value.to_string()),
        });
        self
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.value.as_str())
    }

    /// Whether a decoded event keeps the rules: clean values, lower-case names, at most 32 fields.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let name_fits = |name: &str| {
            (1..=40).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        self.fields.len() <= 32
            && self
                .fields
                .iter()
                .all(|f| name_fits(&f.name) && clean(&f.value) == f.value)
    }
}

fn clean(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        let character = if character.is_control() {
            '\u{fffd}'
        } else {
            character
        };
        if text.len() + character.len_utf8() > MAX_VALUE {
            break;
        }
        text.push(character);
    }
    text
}

/// One record of the audit log. Its canonical DER is the leaf of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Record {
    /// The log: name of appliance and node, as in its checkpoints.
    pub origin: String,
    /// Position in the log, from 0.
    pub seq: u64,
    /// Unix seconds; never less than in the record before.
    pub time: u64,
    /// The boot of the machine.
    pub boot: Id,
    /// Who reported it: the socket and the peer as the kernel names it.
    pub actor: String,
    /// What happened.
    pub event: Event,
}

/// Where a record stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence)]
pub struct Receipt {
    /// Position in the log, from 0.
    pub seq: u64,
    /// Hash of the leaf.
    pub leaf: Digest,
}

/// The text of a checkpoint (C2SP tlog-checkpoint): origin, size, root. `root` is base64.
#[must_use]
pub fn checkpoint_text(origin: &str, size: u64, root_base64: &str) -> String {
    format!("{origin}\n{size}\n{root_base64}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::wire::{self, Octets};

    #[test]
    fn kinds_are_distinct() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|k| k.name()).collect();
        let ids: BTreeSet<_> = Kind::ALL.iter().map(|k| k.message_id()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert_eq!(ids.len(), Kind::ALL.len());
        assert!(ids.iter().all(|id| Id::from_hex(id).is_some()));
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let record = Record {
            origin: "demo/audit".into(),
            seq: 7,
            time: 1_800_000_000,
            boot: Octets([3; 16]),
            actor: "store uid=0 pid=1".into(),
            event: Event::refused(Refusal::ChallengeSpent)
                .of_request(Octets([1; 16]))
                .with(field::SUBJECT, "CN=a\nCHANCERY_FORGED=1"),
        };
        let decoded: Record = wire::decode(&wire::encode(&record).unwrap()).unwrap();
        assert_eq!(decoded, record);
        assert!(decoded.event.is_valid());
        assert_eq!(
            decoded.event.value(field::SUBJECT),
            Some("CN=a\u{fffd}CHANCERY_FORGED=1")
        );
    }

    #[test]
    fn values_are_bounded() {
        let event =
            Event::new(Kind::Ceremony, Outcome::Success).with(field::DETAIL, "é".repeat(4000));
        assert_eq!(event.value(field::DETAIL).unwrap().len(), MAX_VALUE);
        let mut event = event;
        event.fields[0].value.push('x');
        assert!(!event.is_valid());
    }
}
