//! The audit log: numbered records, their leaf hashes, and the time that never goes back.

use chancery_protocol::audit::{Event, Receipt, Record};
use chancery_protocol::tree;
use chancery_protocol::wire::{self, Digest, Id};
use der::asn1::OctetString;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{StoreError, from_row, to_row};

/// How far the clock may lie behind the newest record: what time daemons step back. Within it the
/// newest record's time stands in.
const CLOCK_SLACK: u64 = 60;

/// Octets of records in one answer, well below a packet.
const RECORDS_OCTETS: usize = 150 * 1024;

/// The log that this process writes.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Name of appliance and node.
    pub(crate) origin: String,
    /// The boot of the machine.
    pub(crate) boot: Id,
}

/// The right to record within the transaction that is open on a connection.
pub(crate) struct Pen<'a> {
    /// The connection, for the change that the record is about.
    pub(crate) connection: &'a Connection,
    /// The time of the change and its record, at or after the newest record's.
    pub(crate) time: u64,
    log: &'a Log,
    actor: &'a str,
    next: u64,
}

/// A record as written.
pub(crate) struct Written {
    pub(crate) receipt: Receipt,
    pub(crate) record: Vec<u8>,
}

impl<'a> Pen<'a> {
    /// Takes the pen for what `actor` wants to change at `now`.
    ///
    /// # Errors
    /// [`StoreError::Clock`] if `now` lies more than a minute before the newest record.
    pub(crate) fn new(
        connection: &'a Connection,
        log: &'a Log,
        actor: &'a str,
        now: u64,
    ) -> Result<Self, StoreError> {
        let newest = newest(connection)?;
        let mark = newest.as_ref().map_or(0, |newest| newest.time);
        if mark.saturating_sub(now) > CLOCK_SLACK {
            return Err(StoreError::Clock { now, mark });
        }
        Ok(Self {
            connection,
            time: now.max(mark),
            log,
            actor,
            next: newest.map_or(0, |newest| newest.receipt.seq.saturating_add(1)),
        })
    }

    /// Writes one record.
    pub(crate) fn record(&mut self, event: &Event) -> Result<Written, StoreError> {
        let record = Record {
            origin: self.log.origin.clone(),
            seq: self.next,
            time: self.time,
            boot: self.log.boot,
            actor: self.actor.into(),
            event: event.clone(),
        };
        let record = wire::encode(&record)?.to_vec();
        let leaf = tree::leaf(sha256, &record);
        self.connection
            .prepare_cached(
                "INSERT INTO records (seq, time, record, leaf) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                to_row(self.next)?,
                to_row(self.time)?,
                record,
                leaf.as_bytes()
            ])?;
        let receipt = Receipt {
            seq: self.next,
            leaf,
        };
        self.next = self.next.saturating_add(1);
        Ok(Written { receipt, record })
    }
}

/// The newest record.
pub(crate) struct Newest {
    pub(crate) receipt: Receipt,
    pub(crate) time: u64,
}

/// Finds the newest record; `None` in an empty log.
pub(crate) fn newest(connection: &Connection) -> Result<Option<Newest>, StoreError> {
    let row = connection
        .prepare_cached("SELECT seq, time, leaf FROM records ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    row.map(|(seq, time, leaf)| {
        Ok(Newest {
            receipt: Receipt {
                seq: from_row(seq)?,
                leaf: wire::Octets(leaf),
            },
            time: from_row(time)?,
        })
    })
    .transpose()
}

/// The records from position `from` on, as many as fit in an answer and at least one.
pub(crate) fn records(connection: &Connection, from: u64) -> Result<Vec<OctetString>, StoreError> {
    let Ok(from) = to_row(from) else {
        return Ok(Vec::new());
    };
    let mut statement = connection
        .prepare_cached("SELECT record FROM records WHERE seq >= ?1 ORDER BY seq LIMIT 1000")?;
    let mut rows = statement.query([from])?;
    let mut found = Vec::new();
    let mut octets = 0usize;
    while let Some(row) = rows.next()? {
        let record: Vec<u8> = row.get(0)?;
        octets = octets.saturating_add(record.len());
        if octets > RECORDS_OCTETS && !found.is_empty() {
            break;
        }
        found.push(OctetString::new(record)?);
    }
    Ok(found)
}

/// Up to `limit` records from position `from` on with their leaf hashes, for the mirror.
pub(crate) fn entries(
    connection: &Connection,
    from: u64,
    limit: u32,
) -> Result<Vec<(Record, Digest)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT record, leaf FROM records WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = statement.query(params![to_row(from)?, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let record = wire::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
            .map_err(|_| StoreError::Damaged("an audit record does not decode"))?;
        found.push((record, wire::Octets(row.get(1)?)));
    }
    Ok(found)
}

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use chancery_protocol::audit::{Kind, Outcome};
    use chancery_protocol::tree::CompactRange;

    use super::*;
    use crate::testing::{Bench, NOW};

    fn event() -> Event {
        Event::new(Kind::TokenReady, Outcome::Success)
    }

    #[test]
    fn records_are_numbered_and_hashed_into_the_tree() {
        let bench = Bench::new();
        let mut expected = CompactRange::default();
        for n in 0..20u64 {
            let mut pen = bench.pen(NOW + n);
            let written = pen.record(&event().with("count", n)).unwrap();
            assert_eq!(written.receipt.seq, n);
            expected.append(sha256, tree::leaf(sha256, &written.record));
        }
        let mut stored = CompactRange::default();
        for (seq, (record, leaf)) in entries(&bench.connection, 0, 100)
            .unwrap()
            .into_iter()
            .enumerate()
        {
            assert_eq!(record.seq, seq as u64);
            assert_eq!(record.time, NOW + record.seq);
            assert_eq!(record.origin, "test/audit");
            assert_eq!(record.actor, "tests");
            assert_eq!(leaf, tree::leaf(sha256, &wire::encode(&record).unwrap()));
            stored.append(sha256, leaf);
        }
        assert_eq!(stored, expected);
        assert_eq!(stored.size(), 20);
    }

    #[test]
    fn the_hash_is_sha256() {
        assert_eq!(
            wire::Octets(sha256(&[b"a", b"bc"])).to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn time_never_goes_back() {
        let bench = Bench::new();
        bench.pen(NOW).record(&event()).unwrap();
        let mut clamped = bench.pen(NOW - 60);
        assert_eq!(clamped.time, NOW);
        clamped.record(&event()).unwrap();
        let refused = Pen::new(&bench.connection, &bench.log, "tests", NOW - 61);
        assert!(matches!(
            refused.err(),
            Some(StoreError::Clock { now, mark }) if now == NOW - 61 && mark == NOW
        ));
        assert_eq!(bench.pen(NOW + 1).time, NOW + 1);
    }

    #[test]
    fn an_answer_holds_as_many_records_as_fit() {
        let bench = Bench::new();
        let long = (0..32).fold(event(), |event, _| event.with("detail", "x".repeat(1024)));
        let count = 12u64;
        for _ in 0..count {
            bench.pen(NOW).record(&long).unwrap();
        }
        let mut next = 0;
        let mut answers = 0;
        while next < count {
            let found = records(&bench.connection, next).unwrap();
            assert!(!found.is_empty());
            let octets: usize = found.iter().map(|record| record.as_bytes().len()).sum();
            assert!(octets <= RECORDS_OCTETS);
            for record in &found {
                let record: Record = wire::decode(record.as_bytes()).unwrap();
                assert_eq!(record.seq, next);
                next += 1;
            }
            answers += 1;
        }
        assert!(answers > 1);
        assert!(records(&bench.connection, count).unwrap().is_empty());
        assert!(records(&bench.connection, u64::MAX).unwrap().is_empty());
    }
}
