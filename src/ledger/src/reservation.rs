//! A certificate from its reservation to its commit, and the retry that finds it again.

use std::collections::BTreeSet;

use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::hex;
use chancery_protocol::ipc::store::{
    CertificateIndex, Commit, Committed, Recorded, Reply, Reservation, ReservationState, Reserve,
};
use chancery_protocol::name::DistinguishedName;
use chancery_protocol::seal::SealedRow;
use chancery_protocol::wire::{Digest, Octets};
use der::asn1::{Null, OctetString};
use rusqlite::{Connection, OptionalExtension, params};

use crate::challenge::{self, Use};
use crate::change::Effect;
use crate::error::{StoreError, to_row};
use crate::log::{Pen, sha256};

/// For how long a retry finds its reservation: from the intent while there is no certificate, then
/// from the issuance.
pub(crate) const LIFE: u64 = 24 * 60 * 60;

pub(crate) const INTENT: i64 = 0;
pub(crate) const ISSUED: i64 = 1;
pub(crate) const ABANDONED: i64 = 2;

/// Reserves a certificate, or says why not. Whatever refuses stands before whatever writes.
pub(crate) fn reserve(pen: &mut Pen<'_>, reserve: &Reserve) -> Result<Effect, StoreError> {
    let retry = &reserve.row.id;
    if let Some(found) = find_live(pen.connection, retry, pen.time)? {
        return Ok(Effect::None(Reply::Reservation(found)));
    }
    let public_key = &reserve.index.public_key;
    let mut use_of_challenge = None;
    if let Some(spend) = &reserve.spend {
        match challenge::usable(pen.connection, spend, public_key)? {
            Use::Free { n } => use_of_challenge = Some((spend, n)),
            Use::Spent => return Ok(Effect::None(Reply::Spent(Null))),
            Use::Held => return Ok(Effect::None(Reply::Held(Null))),
        }
    }
    if is_taken(pen.connection, &reserve.index)? {
        return Ok(Effect::None(Reply::SerialTaken(Null)));
    }
    let certificate = insert(pen, reserve)?;
    if let Some((spend, n)) = use_of_challenge {
        challenge::spend(pen.connection, spend, n, retry, public_key, certificate)?;
    }
    let written = pen.record(&reserve.event)?;
    Ok(Effect::Written(Reply::Reserved(Recorded {
        record: OctetString::new(written.record)?,
    })))
}

/// Stores the certificate of a reservation. The first commit wins; a later one learns of the
/// winner and leaves no record, for it issued nothing.
pub(crate) fn commit(pen: &mut Pen<'_>, commit: &Commit) -> Result<Effect, StoreError> {
    let row: Option<(i64, i64, Option<Vec<u8>>)> = pen
        .connection
        .prepare_cached(
            "SELECT id, state, certificate FROM certificates WHERE ca = ?1 AND serial = ?2",
        )?
        .query_row(params![commit.ca, commit.serial.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let committed = |certificate| Reply::Committed(Committed { certificate });
    match row {
        Some((_, ISSUED, Some(winner))) => Ok(Effect::None(committed(OctetString::new(winner)?))),
        Some((id, INTENT, _)) => {
            pen.connection
                .prepare_cached(
                    "UPDATE certificates SET state = 1, issued_at = ?2, sha256 = ?3, certificate = ?4
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    to_row(pen.time)?,
                    commit.sha256.as_bytes(),
                    commit.certificate.as_bytes()
                ])?;
            pen.record(&commit.event)?;
            Ok(Effect::Written(committed(commit.certificate.clone())))
        }
        _ => Ok(Effect::None(Reply::Absent(Null))),
    }
}

/// Finds the newest reservation that a retry of this identity completes or is answered with.
///
/// A certificate of one of our own keys, which spent no challenge, is found until it expires, so
/// that a restart of the CA does not issue another.
pub(crate) fn find(
    connection: &Connection,
    retry: &Digest,
    now: u64,
) -> Result<Option<Reservation>, StoreError> {
    find_newest(connection, retry, now, to_row(now)?)
}

/// Finds the reservation that forbids another under the same retry identity. The certificates of
/// our own keys are renewed before they expire, so theirs does not.
fn find_live(
    connection: &Connection,
    retry: &Digest,
    now: u64,
) -> Result<Option<Reservation>, StoreError> {
    find_newest(connection, retry, now, i64::MAX)
}

/// `own_beyond`: certificates of our own keys that are valid beyond this time are found at any age.
fn find_newest(
    connection: &Connection,
    retry: &Digest,
    now: u64,
    own_beyond: i64,
) -> Result<Option<Reservation>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key_id, body, mac, state, ca, serial, certificate FROM certificates
         WHERE retry = ?1
           AND ((state = 0 AND reserved_at > ?2) OR (state = 1 AND issued_at > ?2)
                OR (state = 1 AND challenge IS NULL AND not_after > ?3))
         ORDER BY id DESC LIMIT 1",
    )?;
    let mut rows = statement.query(params![retry.as_bytes(), outlived(now)?, own_beyond])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let state = match row.get(3)? {
        INTENT => ReservationState::Open,
        ISSUED => ReservationState::Issued,
        _ => return Err(StoreError::Damaged("a certificate of unknown state")),
    };
    Ok(Some(Reservation {
        row: SealedRow {
            key_id: OctetString::new(row.get::<_, Vec<u8>>(0)?)?,
            id: *retry,
            body: OctetString::new(row.get::<_, Vec<u8>>(1)?)?,
            mac: Octets(row.get(2)?),
        },
        state,
        ca: row.get(4)?,
        serial: OctetString::new(row.get::<_, Vec<u8>>(5)?)?,
        certificate: row
            .get::<_, Option<Vec<u8>>>(6)?
            .map(OctetString::new)
            .transpose()?,
    }))
}

/// The time at or before which what began has outlived [`LIFE`].
fn outlived(now: u64) -> Result<i64, StoreError> {
    Ok(to_row(now)?.saturating_sub(to_row(LIFE)?))
}

fn is_taken(connection: &Connection, index: &CertificateIndex) -> Result<bool, StoreError> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM certificates WHERE ca = ?1 AND serial = ?2")?
        .exists(params![index.ca, index.serial.as_bytes()])?)
}

fn insert(pen: &Pen<'_>, reserve: &Reserve) -> Result<i64, StoreError> {
    let Reserve { row, index, .. } = reserve;
    pen.connection
        .prepare_cached(
            "INSERT INTO certificates (state, ca, serial, retry, key_id, body, mac, challenge,
                 profile, subject, sans, device_id, public_key, not_before, not_after,
                 transaction_id, reserved_at)
             VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            index.ca,
            index.serial.as_bytes(),
            row.id.as_bytes(),
            row.key_id.as_bytes(),
            row.body.as_bytes(),
            row.mac.as_bytes(),
            reserve
                .spend
                .as_ref()
                .map(|spend| spend.challenge.as_bytes()),
            index.profile,
            index.subject,
            index.sans.join("\n"),
            index.device_id,
            index.public_key.as_bytes(),
            to_row(index.not_before)?,
            to_row(index.not_after)?,
            index.transaction,
            to_row(pen.time)?,
        ])?;
    let certificate = pen.connection.last_insert_rowid();
    let mut insert = pen
        .connection
        .prepare_cached("INSERT INTO names (certificate, value) VALUES (?1, ?2)")?;
    for value in search_values(index) {
        insert.execute(params![certificate, value])?;
    }
    Ok(certificate)
}

/// What a certificate is found by, in lower case: the whole subject, each attribute value, each
/// subject alternative name without its kind.
fn search_values(index: &CertificateIndex) -> BTreeSet<String> {
    let subject = DistinguishedName::parse(&index.subject).unwrap_or_default();
    let attributes = subject
        .attributes()
        .iter()
        .map(|attribute| attribute.value());
    let sans = index
        .sans
        .iter()
        .map(|san| san.split_once(':').map_or(san.as_str(), |(_, value)| value));
    attributes
        .chain(sans)
        .chain([index.subject.as_str()])
        .filter(|value| !value.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Abandons up to `limit` intents that no commit followed within their life: their serial numbers
/// count as revoked from now on, since nobody can tell whether a signature was made. Returns how
/// many.
pub(crate) fn abandon(pen: &mut Pen<'_>, limit: u32) -> Result<usize, StoreError> {
    let mut overdue = Vec::new();
    {
        let mut statement = pen.connection.prepare_cached(
            "SELECT id, ca, serial, profile, subject, body FROM certificates
             WHERE state = 0 AND reserved_at <= ?1 LIMIT ?2",
        )?;
        let mut rows = statement.query(params![outlived(pen.time)?, limit])?;
        while let Some(row) = rows.next()? {
            let tbs = sha256(&[row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?]);
            let event = Event::new(Kind::IssueAbandoned, Outcome::Failure)
                .with(field::CA, row.get::<_, String>(1)?)
                .with(field::SERIAL, hex::encode(&row.get::<_, Vec<u8>>(2)?))
                .with(field::PROFILE, row.get::<_, String>(3)?)
                .with(field::SUBJECT, row.get::<_, String>(4)?)
                .with(field::TBS_SHA256, Octets(tbs));
            overdue.push((row.get::<_, i64>(0)?, event));
        }
    }
    for (id, event) in &overdue {
        pen.connection
            .prepare_cached("UPDATE certificates SET state = ?2, revoked_at = ?3 WHERE id = ?1")?
            .execute(params![id, ABANDONED, to_row(pen.time)?])?;
        pen.record(event)?;
    }
    Ok(overdue.len())
}

#[cfg(test)]
mod tests;
