//! Finding certificates. Reservations are none: what is found was issued.

use chancery_protocol::hex;
use chancery_protocol::ipc::query::{
    CertificateStatus, Find, Found, Reply, Row, Show, Shown, Status,
};
use chancery_protocol::wire::{Digest, Octets};
use der::asn1::{Null, OctetString};
use der::{Encode, Length};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use crate::error::{StoreError, from_row};

/// Octets of rows in one answer, well below a packet.
const FOUND_OCTETS: u32 = 150 * 1024;

/// Up to here, matching names are gathered and sorted; above, certificates are walked through
/// newest first until enough of them match, since then every few do.
const GATHERED: u32 = 20_000;

const COLUMNS: &str = "c.ca, c.serial, c.subject, c.sans, c.not_before, c.not_after, c.revoked_at,
     c.profile, c.device_id, c.sha256";

/// The certificates that match a text; empty: all.
pub(crate) fn find(connection: &Connection, find: &Find) -> Result<Found, StoreError> {
    // One more than wanted tells whether there are more.
    let limit = find.limit.saturating_add(1);
    let text = find.text.trim();
    if text.is_empty() {
        let mut statement = connection.prepare_cached(&sql_all())?;
        return collect(statement.query(params![limit, find.offset])?, find.limit);
    }
    let wanted = Wanted::new(text);
    let sql = if is_broad(connection, &wanted)? {
        sql_broad()
    } else {
        sql_narrow()
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query(params![
        wanted.serial,
        wanted.digest,
        wanted.text,
        wanted.name,
        wanted.name_end,
        limit,
        find.offset
    ])?;
    collect(rows, find.limit)
}

/// One certificate by its serial number or SHA-256.
pub(crate) fn show(connection: &Connection, show: &Show) -> Result<Reply, StoreError> {
    let wanted = Wanted::new(show.id.trim());
    let mut statement = connection.prepare_cached(&sql_show())?;
    let mut rows = statement.query(params![wanted.serial, wanted.digest])?;
    let Some(found) = rows.next()? else {
        return Ok(Reply::Absent(Null));
    };
    let shown = Shown {
        row: row(found)?,
        certificate: OctetString::new(found.get::<_, Vec<u8>>("certificate")?)?,
    };
    Ok(match rows.next()? {
        None => Reply::Certificate(shown),
        Some(_) => Reply::Ambiguous(Null),
    })
}

/// Numbers for `doctor` and monitoring.
pub(crate) fn status(connection: &Connection) -> Result<Status, StoreError> {
    let (certificates, records, checkpoint, time) = connection
        .prepare_cached(
            "SELECT (SELECT count(*) FROM certificates WHERE state = 1),
                    (SELECT coalesce(max(seq) + 1, 0) FROM records),
                    (SELECT coalesce(max(size), 0) FROM checkpoints),
                    coalesce((SELECT time FROM records ORDER BY seq DESC LIMIT 1), 0)",
        )?
        .query_row([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    Ok(Status {
        certificates: from_row(certificates)?,
        records: from_row(records)?,
        checkpoint: from_row(checkpoint)?,
        time: from_row(time)?,
    })
}

/// A text as each of the things that it may be.
struct Wanted {
    /// Octets of a serial number.
    serial: Option<Vec<u8>>,
    /// Octets of a SHA-256 digest.
    digest: Option<Vec<u8>>,
    /// The text itself, for exact matches.
    text: String,
    /// The beginning of a name.
    name: String,
    /// What lies just behind every name of that beginning.
    name_end: Value,
}

impl Wanted {
    fn new(text: &str) -> Self {
        // As openssl and browsers print them: in either case, with colons, with a sign octet.
        let digits: String = text.chars().filter(|&c| c != ':').collect();
        let octets = hex::decode(&digits);
        let serial = octets.as_deref().map(|octets| {
            let zeroes = octets.iter().take_while(|&&octet| octet == 0).count();
            octets.iter().skip(zeroes).copied().collect()
        });
        let name = text.to_lowercase();
        Self {
            serial,
            digest: octets.filter(|octets| octets.len() == 32),
            text: text.into(),
            name_end: end_of_prefix(&name),
            name,
        }
    }
}

/// The least value that is greater than every text with this beginning. A range over an index, so
/// no character of the text is a wildcard.
fn end_of_prefix(prefix: &str) -> Value {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The code point after U+D7FF is a surrogate, which no text holds.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => u32::from(last).checked_add(1).and_then(char::from_u32),
        };
        if let Some(next) = next {
            end.push(next);
            return Value::Text(end);
        }
    }
    // SQLite sorts every BLOB behind every TEXT.
    Value::Blob(Vec::new())
}

fn is_broad(connection: &Connection, wanted: &Wanted) -> Result<bool, StoreError> {
    let matching: u32 = connection
        .prepare_cached(
            "SELECT count(*) FROM
                 (SELECT 1 FROM names WHERE value >= ?1 AND value < ?2 LIMIT ?3)",
        )?
        .query_row(
            params![wanted.name, wanted.name_end, GATHERED.saturating_add(1)],
            |row| row.get(0),
        )?;
    Ok(matching > GATHERED)
}

fn sql_all() -> String {
    format!(
        "SELECT {COLUMNS} FROM certificates c WHERE c.state = 1
         ORDER BY c.issued_at DESC, c.id DESC LIMIT ?1 OFFSET ?2"
    )
}

/// CROSS JOIN keeps the planner from walking through all certificates in their order.
fn sql_narrow() -> String {
    format!(
        "WITH found (id) AS (
             SELECT id FROM certificates WHERE serial = ?1
             UNION SELECT id FROM certificates WHERE sha256 = ?2
             UNION SELECT id FROM certificates WHERE public_key = ?2
             UNION SELECT id FROM certificates WHERE device_id = ?3 AND device_id <> ''
             UNION SELECT id FROM certificates WHERE transaction_id = ?3 AND transaction_id <> ''
             UNION SELECT certificate FROM names WHERE value >= ?4 AND value < ?5)
         SELECT {COLUMNS} FROM found CROSS JOIN certificates c ON c.id = found.id
         WHERE c.state = 1 ORDER BY c.issued_at DESC, c.id DESC LIMIT ?6 OFFSET ?7"
    )
}

fn sql_broad() -> String {
    format!(
        "SELECT {COLUMNS} FROM certificates c
         WHERE c.state = 1
           AND (EXISTS (SELECT 1 FROM names n
                        WHERE n.certificate = c.id AND n.value >= ?4 AND n.value < ?5)
                OR c.device_id = ?3 OR c.transaction_id = ?3
                OR c.serial = ?1 OR c.sha256 = ?2 OR c.public_key = ?2)
         ORDER BY c.issued_at DESC, c.id DESC LIMIT ?6 OFFSET ?7"
    )
}

fn sql_show() -> String {
    format!(
        "WITH found (id) AS (
             SELECT id FROM certificates WHERE serial = ?1
             UNION SELECT id FROM certificates WHERE sha256 = ?2)
         SELECT {COLUMNS}, c.certificate AS certificate
         FROM found CROSS JOIN certificates c ON c.id = found.id WHERE c.state = 1 LIMIT 2"
    )
}

/// Takes up to `limit` rows, fewer if they would not fit in a packet, but at least one.
fn collect(mut found: rusqlite::Rows<'_>, limit: u32) -> Result<Found, StoreError> {
    let mut rows = Vec::new();
    let mut octets = Length::ZERO;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    while let Some(next) = found.next()? {
        let row = row(next)?;
        octets = (octets + row.encoded_len()?)?;
        let full = octets > Length::from(FOUND_OCTETS) && !rows.is_empty();
        if rows.len() == limit || full {
            return Ok(Found { rows, more: true });
        }
        rows.push(row);
    }
    Ok(Found { rows, more: false })
}

fn row(row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
    let sans: String = row.get(3)?;
    let digest: Digest = Octets(row.get(9)?);
    Ok(Row {
        ca: row.get(0)?,
        serial: hex::encode(&row.get::<_, Vec<u8>>(1)?),
        subject: row.get(2)?,
        sans: sans.lines().map(str::to_owned).collect(),
        not_before: from_row(row.get(4)?)?,
        not_after: from_row(row.get(5)?)?,
        status: match row.get::<_, Option<i64>>(6)? {
            None => CertificateStatus::Valid,
            Some(_) => CertificateStatus::Revoked,
        },
        profile: row.get(7)?,
        device_id: row.get(8)?,
        sha256: digest,
    })
}

#[cfg(test)]
mod tests;
