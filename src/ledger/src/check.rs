//! From packets to requests that keep the rules. Whoever breaks one is not answered: the breach is
//! logged and the connection closed.

use chancery_protocol::audit::{Event, Kind};
use chancery_protocol::ipc::{append, query, socket, store};
use chancery_protocol::name::{DistinguishedName, GeneralName, MAX_NAMES};
use chancery_protocol::seal::SealedRow;
use chancery_protocol::wire::{Digest, Id, Octets, WireError};
use der::asn1::OctetString;

use crate::log::sha256;
use crate::mirror;

/// Longest text of an index: profile, device id, transactionID.
const MAX_TEXT: usize = 1024;

/// Longest subject in RFC 4514 text.
const MAX_SUBJECT: usize = 16 * 1024;

/// Longest sealed body and longest certificate: both together fit in one answer.
const MAX_BODY: usize = 64 * 1024;

/// 9999-12-31T23:59:59Z, the last moment that a certificate can name (RFC 5280 §4.1.2.5).
const MAX_TIME: u64 = 253_402_300_799;

/// What the CA asked.
#[expect(clippy::large_enum_variant, reason = "one short-lived value a packet")]
pub(crate) enum Asked {
    Read(Read),
    Change(Change),
}

/// What the CA may read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Read {
    /// By SHA-256 of the handle.
    Challenge(Digest),
    /// By SHA-256 of the retry identity.
    Reservation(Digest),
    /// From a position on.
    Records(u64),
}

/// A write that keeps the rules.
#[expect(clippy::large_enum_variant, reason = "one short-lived value a packet")]
#[derive(Clone, Debug)]
pub(crate) enum Change {
    PutChallenge(store::PutChallenge),
    Reserve(store::Reserve),
    Commit(store::Commit),
    PutCheckpoint(store::PutCheckpoint),
    Publish(store::Publish),
    Append(store::Append),
}

impl Change {
    /// The caller-made id of this write.
    pub(crate) fn id(&self) -> Id {
        match self {
            Self::PutChallenge(change) => change.write,
            Self::Reserve(change) => change.write,
            Self::Commit(change) => change.write,
            Self::PutCheckpoint(change) => change.write,
            Self::Publish(change) => change.write,
            Self::Append(change) => change.write,
        }
    }
}

/// A rule that a peer broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Packet(#[from] WireError),
    #[error("no socket of the ledger has this name")]
    Socket,
    #[error("an event breaks the rules of names, values or number of fields")]
    Event,
    #[error("an event of kind {0} does not belong in this request")]
    Kind(&'static str),
    #[error("a serial number has leading zero octets, no octet or more than 20")]
    Serial,
    #[error("a subject is no RFC 4514 text or too long")]
    Subject,
    #[error("a subject alternative name is malformed, or there are more than {MAX_NAMES}")]
    Sans,
    #[error("a text is empty, too long or has control characters")]
    Text,
    #[error("a time lies after the year 9999")]
    Time,
    #[error("a sealed row or certificate exceeds its size")]
    Size,
    #[error("a digest is not that of the certificate it came with")]
    Digest,
    #[error("the id of a write was used for another request before")]
    WriteId,
    #[error("more than {} rows were asked for", query::MAX_ROWS)]
    Rows,
}

/// Checks what came by the socket `ledger.store`.
pub(crate) fn store(request: store::Request) -> Result<Asked, Violation> {
    Ok(Asked::Change(match request {
        store::Request::FindChallenge(find) => {
            return Ok(Asked::Read(Read::Challenge(find.challenge)));
        }
        store::Request::FindReservation(find) => {
            return Ok(Asked::Read(Read::Reservation(find.retry)));
        }
        store::Request::Records(records) => {
            return Ok(Asked::Read(Read::Records(records.from)));
        }
        store::Request::PutChallenge(put) => {
            event_of(&put.event, Kind::ChallengeMinted)?;
            row(&put.row)?;
            text(&put.profile)?;
            time(put.expires)?;
            Change::PutChallenge(put)
        }
        store::Request::Reserve(reserve) => {
            event_of(&reserve.event, Kind::IssueIntent)?;
            row(&reserve.row)?;
            index(&reserve.index)?;
            if reserve
                .spend
                .as_ref()
                .is_some_and(|spend| spend.names.len() > 2 * MAX_NAMES)
            {
                return Err(Violation::Sans);
            }
            Change::Reserve(reserve)
        }
        store::Request::Commit(commit) => {
            event_of(&commit.event, Kind::IssueDone)?;
            text(&commit.ca)?;
            serial(&commit.serial)?;
            fits(&commit.certificate)?;
            if Octets(sha256(&[commit.certificate.as_bytes()])) != commit.sha256 {
                return Err(Violation::Digest);
            }
            Change::Commit(commit)
        }
        store::Request::PutCheckpoint(put) => Change::PutCheckpoint(put),
        store::Request::Publish(publish) => {
            text(&publish.name)?;
            text(&publish.media_type)?;
            Change::Publish(publish)
        }
        store::Request::Append(append) => {
            // Records of changes stand in the transaction of the change, or nowhere.
            if let Kind::ChallengeMinted
            | Kind::IssueIntent
            | Kind::IssueDone
            | Kind::IssueAbandoned = append.event.kind
            {
                return Err(Violation::Kind(append.event.kind.name()));
            }
            event(&append.event)?;
            Change::Append(append)
        }
    }))
}

/// Checks what came by `ledger.append-ra` or `ledger.append-front`.
pub(crate) fn append(name: &str, request: append::Request) -> Result<Change, Violation> {
    let kinds = match name {
        socket::LEDGER_APPEND_RA => append::RA_KINDS,
        socket::LEDGER_APPEND_FRONT => append::FRONT_KINDS,
        _ => return Err(Violation::Socket),
    };
    if !kinds.contains(&request.event.kind) {
        return Err(Violation::Kind(request.event.kind.name()));
    }
    event(&request.event)?;
    Ok(Change::Append(request))
}

/// Checks what came by `ledger.query`.
pub(crate) fn query(request: query::Request) -> Result<query::Request, Violation> {
    match &request {
        query::Request::Find(find) if find.limit > query::MAX_ROWS => Err(Violation::Rows),
        _ => Ok(request),
    }
}

fn event_of(given: &Event, kind: Kind) -> Result<(), Violation> {
    if given.kind != kind {
        return Err(Violation::Kind(given.kind.name()));
    }
    event(given)
}

/// A field that the ledger writes itself would give a journal entry two values, one forged.
fn event(event: &Event) -> Result<(), Violation> {
    let own =
        |field: &chancery_protocol::audit::Field| mirror::OWN_FIELDS.contains(&field.name.as_str());
    if event.is_valid() && !event.fields.iter().any(own) {
        Ok(())
    } else {
        Err(Violation::Event)
    }
}

fn row(row: &SealedRow) -> Result<(), Violation> {
    fits(&row.key_id)?;
    fits(&row.body)
}

fn fits(octets: &OctetString) -> Result<(), Violation> {
    if octets.as_bytes().len() <= MAX_BODY {
        Ok(())
    } else {
        Err(Violation::Size)
    }
}

fn index(index: &store::CertificateIndex) -> Result<(), Violation> {
    text(&index.ca)?;
    text(&index.profile)?;
    serial(&index.serial)?;
    for optional in [&index.device_id, &index.transaction] {
        if !optional.is_empty() {
            text(optional)?;
        }
    }
    time(index.not_before)?;
    time(index.not_after)?;
    if index.subject.len() > MAX_SUBJECT || DistinguishedName::parse(&index.subject).is_err() {
        return Err(Violation::Subject);
    }
    let malformed = |san: &String| GeneralName::parse(san).is_err();
    if index.sans.len() > MAX_NAMES || index.sans.iter().any(malformed) {
        return Err(Violation::Sans);
    }
    Ok(())
}

fn text(text: &str) -> Result<(), Violation> {
    if (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Violation::Text)
    }
}

fn time(time: u64) -> Result<(), Violation> {
    if time <= MAX_TIME {
        Ok(())
    } else {
        Err(Violation::Time)
    }
}

/// RFC 5280 §4.1.2.2: positive, at most 20 octets; here without the sign octet, so that one number
/// has one form.
fn serial(serial: &OctetString) -> Result<(), Violation> {
    match serial.as_bytes() {
        [] | [0, ..] => Err(Violation::Serial),
        octets if octets.len() > 20 => Err(Violation::Serial),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use chancery_protocol::audit::Outcome;

    use super::*;
    use crate::testing::{append, commit, id, put_challenge, reserve};

    fn good() -> store::Reserve {
        reserve(1, "a", 1, "key", "host", &[1])
    }

    #[test]
    fn requests_that_keep_the_rules_pass() {
        for change in [
            put_challenge(1, "a"),
            Change::Reserve(good()),
            commit(1, &[1], "certificate"),
            append(1, Kind::TokenReady),
        ] {
            assert_eq!(change.id(), id(1));
            let request = match change {
                Change::PutChallenge(put) => store::Request::PutChallenge(put),
                Change::Reserve(reserve) => store::Request::Reserve(reserve),
                Change::Commit(commit) => store::Request::Commit(commit),
                Change::Append(append) => store::Request::Append(append),
                _ => unreachable!(),
            };
            assert!(matches!(store(request), Ok(Asked::Change(_))));
        }
    }

    #[test]
    fn a_reservation_that_breaks_a_rule_is_refused() {
        type Break = fn(&mut store::Reserve);
        let breaks: [(&str, Break); 16] = [
            ("kind", |r| r.event.kind = Kind::IssueDone),
            ("field name", |r| r.event.fields[0].name = "Serial".into()),
            ("own field", |r| r.event.fields[0].name = "actor".into()),
            ("control character", |r| {
                r.event.fields[0].value = "a\nb".into()
            }),
            ("serial empty", |r| {
                r.index.serial = OctetString::new([]).unwrap()
            }),
            ("serial zero", |r| {
                r.index.serial = OctetString::new([0, 1]).unwrap()
            }),
            ("serial long", |r| {
                r.index.serial = OctetString::new([1; 21]).unwrap()
            }),
            ("subject", |r| r.index.subject = "laptop".into()),
            ("subject long", |r| {
                r.index.subject = format!("CN=a{}", ",CN=a".repeat(9999))
            }),
            ("san", |r| r.index.sans[0] = "laptop".into()),
            ("sans", |r| {
                r.index.sans = vec!["dns:a".into(); MAX_NAMES + 1]
            }),
            ("ca", |r| r.index.ca = String::new()),
            ("device", |r| r.index.device_id = "a\u{7}".into()),
            ("transaction", |r| {
                r.index.transaction = "a".repeat(MAX_TEXT + 1)
            }),
            ("time", |r| r.index.not_after = u64::MAX),
            ("body", |r| {
                r.row.body = OctetString::new(vec![0; MAX_BODY + 1]).unwrap()
            }),
        ];
        for (name, break_it) in breaks {
            let mut request = good();
            break_it(&mut request);
            assert!(store(store::Request::Reserve(request)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_commit_names_the_digest_of_its_certificate() {
        let Change::Commit(mut request) = commit(1, &[1], "certificate") else {
            unreachable!()
        };
        request.sha256 = Octets([0; 32]);
        assert!(matches!(
            store(store::Request::Commit(request)),
            Err(Violation::Digest)
        ));
    }

    #[test]
    fn the_record_of_a_change_comes_with_the_change_only() {
        for kind in [
            Kind::ChallengeMinted,
            Kind::IssueIntent,
            Kind::IssueDone,
            Kind::IssueAbandoned,
        ] {
            let event = Event::new(kind, Outcome::Success);
            let request = store::Request::Append(store::Append {
                write: id(1),
                event,
            });
            assert!(matches!(store(request), Err(Violation::Kind(_))));
        }
    }

    #[test]
    fn a_role_appends_its_own_kinds() {
        for (name, kinds) in [
            (socket::LEDGER_APPEND_RA, append::RA_KINDS),
            (socket::LEDGER_APPEND_FRONT, append::FRONT_KINDS),
        ] {
            for &kind in Kind::ALL {
                let event = Event::new(kind, Outcome::Success);
                let checked = super::append(
                    name,
                    store::Append {
                        write: id(1),
                        event,
                    },
                );
                assert_eq!(
                    checked.is_ok(),
                    kinds.contains(&kind),
                    "{name} {}",
                    kind.name()
                );
            }
        }
        let event = Event::new(Kind::ServiceStarted, Outcome::Success);
        let request = store::Append {
            write: id(1),
            event,
        };
        assert!(super::append(socket::LEDGER_STORE, request).is_err());
    }
}
