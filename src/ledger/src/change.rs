//! Writes: each applied once, whatever number of times it is asked for.

use chancery_protocol::audit::{Event, Kind, Outcome, Receipt, field};
use chancery_protocol::ipc::public::Blob;
use chancery_protocol::ipc::store::{Publish, PutCheckpoint, Recorded, Reply};
use chancery_protocol::wire::{self, Digest, Octets};
use der::asn1::OctetString;
use rusqlite::{Connection, OptionalExtension, params};

use crate::challenge;
use crate::check::Change;
use crate::error::{StoreError, from_row, to_row};
use crate::log::{self, Log, Pen, Written, sha256};
use crate::reservation::{self, LIFE};

/// A write, who asked for it, and the octets that it is recognised by.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The socket and the peer as the kernel names it.
    pub(crate) actor: String,
    /// SHA-256 of socket and packet.
    pub(crate) request: Digest,
    /// What to write.
    pub(crate) change: Change,
}

impl Order {
    pub(crate) fn new(socket: &str, peer: &str, packet: &[u8], change: Change) -> Self {
        Self {
            actor: format!("{socket} {peer}"),
            request: Octets(sha256(&[socket.as_bytes(), &[0], packet])),
            change,
        }
    }
}

/// What a write did.
pub(crate) enum Effect {
    /// It changed rows; its answer is kept for repetitions.
    Written(Reply),
    /// It changed nothing.
    None(Reply),
}

/// Applies a write within the transaction that is open on `connection`, or finds the answer that it
/// had before. On an error the caller rolls back what this began.
///
/// # Errors
/// [`StoreError::WriteId`] if the id named another request before; otherwise whatever keeps the
/// database from writing.
pub(crate) fn apply(
    connection: &Connection,
    log: &Log,
    now: u64,
    order: &Order,
) -> Result<Reply, StoreError> {
    if let Some(reply) = repeated(connection, order)? {
        return Ok(reply);
    }
    let mut pen = Pen::new(connection, log, &order.actor, now)?;
    let effect = match &order.change {
        Change::PutChallenge(put) => done(&challenge::put(&mut pen, put)?),
        Change::Reserve(reserve) => reservation::reserve(&mut pen, reserve)?,
        Change::Commit(commit) => reservation::commit(&mut pen, commit)?,
        Change::PutCheckpoint(put) => put_checkpoint(&mut pen, put)?,
        Change::Publish(blob) => publish(&mut pen, blob)?,
        Change::Append(append) => Effect::Written(Reply::Appended(Recorded {
            record: OctetString::new(pen.record(&append.event)?.record)?,
        })),
    };
    match effect {
        Effect::None(reply) => Ok(reply),
        Effect::Written(reply) => {
            remember(&pen, order, &reply)?;
            Ok(reply)
        }
    }
}

fn done(written: &Written) -> Effect {
    Effect::Written(Reply::Done(written.receipt))
}

fn repeated(connection: &Connection, order: &Order) -> Result<Option<Reply>, StoreError> {
    let id = order.change.id();
    let stored: Option<([u8; 32], Vec<u8>)> = connection
        .prepare_cached("SELECT request, reply FROM writes WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match stored {
        None => Ok(None),
        Some((request, _)) if Octets(request) != order.request => Err(StoreError::WriteId),
        Some((_, reply)) => wire::decode(&reply)
            .map(Some)
            .map_err(|_| StoreError::Damaged("a kept answer does not decode")),
    }
}

fn remember(pen: &Pen<'_>, order: &Order, reply: &Reply) -> Result<(), StoreError> {
    pen.connection
        .prepare_cached("INSERT INTO writes (id, request, reply, time) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            order.change.id().as_bytes(),
            order.request.as_bytes(),
            wire::encode(reply)?.as_slice(),
            to_row(pen.time)?
        ])?;
    Ok(())
}

/// Forgets up to `limit` answers older than a day. Returns how many.
pub(crate) fn prune(connection: &Connection, now: u64, limit: u32) -> Result<usize, StoreError> {
    Ok(connection
        .prepare_cached(
            "DELETE FROM writes WHERE rowid IN
                 (SELECT rowid FROM writes WHERE time <= ?1 LIMIT ?2)",
        )?
        .execute(params![to_row(now.saturating_sub(LIFE))?, limit])?)
}

/// Stores a head of the log, which extends the newest one and covers no record that is not there.
///
/// Its own record gives journald the head as a witness. A head that covers nothing new but that
/// record leaves none, or a resting log would grow with every checkpoint.
fn put_checkpoint(pen: &mut Pen<'_>, put: &PutCheckpoint) -> Result<Effect, StoreError> {
    let newest: Option<(i64, [u8; 32])> = pen
        .connection
        .prepare_cached("SELECT size, root FROM checkpoints ORDER BY size DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let head = log::newest(pen.connection)?.map(|newest| newest.receipt);
    let records = head.map_or(0, |head| head.seq.saturating_add(1));
    let size = newest
        .map(|(size, _)| from_row(size))
        .transpose()?
        .unwrap_or(0);
    if put.size < size || put.size > records {
        return Err(StoreError::Checkpoint {
            size: put.size,
            newest: size,
            records,
        });
    }
    if let Some((_, root)) = newest
        && put.size == size
    {
        return if Octets(root) == put.root {
            unrecorded(head)
        } else {
            Err(StoreError::Fork { size })
        };
    }
    pen.connection
        .prepare_cached("INSERT INTO checkpoints (size, root, note, time) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            to_row(put.size)?,
            put.root.as_bytes(),
            put.note,
            to_row(pen.time)?
        ])?;
    if covers_one_checkpoint(pen.connection, size, put.size)? {
        return unrecorded(head);
    }
    let event = Event::new(Kind::Checkpoint, Outcome::Success)
        .with(field::SIZE, put.size)
        .with(field::ROOT, put.root);
    Ok(done(&pen.record(&event)?))
}

/// Whether the records from `from` up to `to` are one, and that of a checkpoint.
fn covers_one_checkpoint(connection: &Connection, from: u64, to: u64) -> Result<bool, StoreError> {
    let first = log::entries(connection, from, 1)?;
    Ok(to.saturating_sub(from) == 1
        && first
            .iter()
            .any(|(record, _)| record.event.kind == Kind::Checkpoint))
}

/// The answer to a change that leaves no record of its own: where the log stands.
fn unrecorded(head: Option<Receipt>) -> Result<Effect, StoreError> {
    head.map(|head| Effect::Written(Reply::Done(head)))
        .ok_or(StoreError::Damaged("the audit log is empty"))
}

/// Publishes a blob in the place of the former. No record: what it holds was recorded when it was
/// issued, and front serves it to anybody.
fn publish(pen: &mut Pen<'_>, blob: &Publish) -> Result<Effect, StoreError> {
    pen.connection
        .prepare_cached(
            "INSERT INTO blobs (name, media_type, content) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET
                 media_type = excluded.media_type, content = excluded.content",
        )?
        .execute(params![blob.name, blob.media_type, blob.content.as_bytes()])?;
    unrecorded(log::newest(pen.connection)?.map(|newest| newest.receipt))
}

/// Finds a published blob.
pub(crate) fn blob(connection: &Connection, name: &str) -> Result<Option<Blob>, StoreError> {
    let row: Option<(String, Vec<u8>)> = connection
        .prepare_cached("SELECT media_type, content FROM blobs WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    row.map(|(media_type, content)| {
        Ok(Blob {
            media_type,
            content: OctetString::new(content)?,
        })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        Bench, NOW, append, commit, digest, id, octets, order, put_challenge, reserve,
    };

    fn checkpoint(write: u64, size: u64, root: &str) -> Change {
        Change::PutCheckpoint(PutCheckpoint {
            write: id(write),
            size,
            root: digest(root),
            note: format!("test/audit\n{size}\n{root}\n"),
        })
    }

    fn blob_change(write: u64, content: &[u8]) -> Change {
        Change::Publish(Publish {
            write: id(write),
            name: "cacert/devices".into(),
            media_type: "application/x-x509-ca-ra-cert".into(),
            content: octets(content),
        })
    }

    #[test]
    fn a_repeated_write_gets_its_first_answer_also_after_a_restart() {
        let mut bench = Bench::started();
        let orders = [
            order(put_challenge(1, "a")),
            order(Change::Reserve(reserve(2, "a", 1, "key", "host", &[1]))),
            order(commit(3, &[1], "certificate")),
            order(append(4, Kind::TokenReady)),
            order(blob_change(5, b"chain")),
            order(checkpoint(6, 3, "root")),
        ];
        let first: Vec<Reply> = orders
            .iter()
            .map(|order| bench.try_apply(NOW, order).unwrap())
            .collect();
        assert!(matches!(first[1], Reply::Reserved(_)));
        assert!(matches!(first[2], Reply::Committed(_)));
        let records = bench.kinds();
        bench.reopen();
        for (order, first) in orders.iter().zip(&first) {
            let again = bench.try_apply(NOW + 100, order).unwrap();
            assert_eq!(again, *first);
        }
        assert_eq!(bench.kinds(), records);
        assert_eq!(bench.count("SELECT count(*) FROM spends"), 1);
    }

    #[test]
    fn a_repeated_write_is_answered_while_the_clock_is_wrong() {
        let mut bench = Bench::started();
        let order = order(append(1, Kind::TokenReady));
        let first = bench.try_apply(NOW, &order).unwrap();
        assert_eq!(bench.try_apply(0, &order).unwrap(), first);
    }

    #[test]
    fn an_id_belongs_to_one_request() {
        let mut bench = Bench::started();
        bench.apply(NOW, append(1, Kind::TokenReady));
        let other = order(append(1, Kind::SealBroken));
        assert!(matches!(
            bench.try_apply(NOW, &other),
            Err(StoreError::WriteId)
        ));
        let change = append(1, Kind::TokenReady);
        let packet = format!("{change:?}");
        let elsewhere = Order::new("ledger.append-ra", "uid=1 pid=2", packet.as_bytes(), change);
        assert!(matches!(
            bench.try_apply(NOW, &elsewhere),
            Err(StoreError::WriteId)
        ));
    }

    #[test]
    fn answers_are_kept_for_a_day() {
        let mut bench = Bench::started();
        bench.apply(NOW, append(1, Kind::TokenReady));
        bench.apply(NOW + 10, append(2, Kind::TokenReady));
        assert_eq!(prune(&bench.connection, NOW + LIFE - 1, 10).unwrap(), 0);
        assert_eq!(prune(&bench.connection, NOW + LIFE + 9, 10).unwrap(), 1);
        assert_eq!(bench.count("SELECT count(*) FROM writes"), 1);
        assert_eq!(prune(&bench.connection, NOW + LIFE + 10, 10).unwrap(), 1);
        assert_eq!(prune(&bench.connection, 0, 10).unwrap(), 0);
    }

    #[test]
    fn the_actor_is_recorded() {
        let mut bench = Bench::new();
        bench.apply(NOW, append(1, Kind::TokenReady));
        let entries = log::entries(&bench.connection, 0, 1).unwrap();
        assert_eq!(entries[0].0.actor, "ledger.store uid=1 pid=2");
    }

    #[test]
    fn a_checkpoint_extends_the_newest_and_covers_what_is_there() {
        let mut bench = Bench::started();
        for n in 1..=4 {
            bench.apply(NOW, append(n, Kind::TokenReady));
        }
        let mut refused = |change| bench.try_apply(NOW, &order(change)).unwrap_err();
        assert!(matches!(
            refused(checkpoint(10, 6, "ahead")),
            StoreError::Checkpoint {
                size: 6,
                newest: 0,
                records: 5
            }
        ));
        bench.apply(NOW, checkpoint(11, 4, "four"));
        let mut refused = |change| bench.try_apply(NOW, &order(change)).unwrap_err();
        assert!(matches!(
            refused(checkpoint(12, 3, "three")),
            StoreError::Checkpoint {
                size: 3,
                newest: 4,
                records: 6
            }
        ));
        assert!(matches!(
            refused(checkpoint(13, 4, "other")),
            StoreError::Fork { size: 4 }
        ));
        assert!(matches!(
            refused(checkpoint(14, u64::MAX, "max")),
            StoreError::Checkpoint { .. }
        ));
        bench.apply(NOW, checkpoint(15, 4, "four"));
        assert_eq!(bench.count("SELECT count(*) FROM checkpoints"), 1);
        assert_eq!(*bench.kinds().last().unwrap(), Kind::Checkpoint);
        let (record, _) = log::entries(&bench.connection, 5, 1).unwrap().remove(0);
        assert_eq!(record.event.value(field::SIZE), Some("4"));
        assert_eq!(
            record.event.value(field::ROOT),
            Some(digest("four").to_string().as_str())
        );
    }

    #[test]
    fn checkpoints_of_a_resting_log_come_to_an_end() {
        let mut bench = Bench::started();
        bench.apply(NOW, checkpoint(1, 1, "one"));
        assert_eq!(bench.kinds(), [Kind::ServiceStarted, Kind::Checkpoint]);
        let reply = bench.apply(NOW, checkpoint(2, 2, "two"));
        assert!(matches!(reply, Reply::Done(receipt) if receipt.seq == 1));
        assert_eq!(bench.kinds().len(), 2);
        assert_eq!(bench.count("SELECT max(size) FROM checkpoints"), 2);
        bench.apply(NOW, append(3, Kind::TokenReady));
        bench.apply(NOW, checkpoint(4, 3, "three"));
        assert_eq!(bench.kinds().len(), 4);
    }

    #[test]
    fn the_newest_blob_is_served() {
        let mut bench = Bench::started();
        assert_eq!(blob(&bench.connection, "cacert/devices").unwrap(), None);
        for (write, content) in [(1, b"old".as_slice()), (2, b"new")] {
            bench.apply(NOW, blob_change(write, content));
            let found = blob(&bench.connection, "cacert/devices").unwrap().unwrap();
            assert_eq!(found.content.as_bytes(), content);
            assert_eq!(found.media_type, "application/x-x509-ca-ra-cert");
        }
        assert_eq!(bench.kinds().len(), 1);
    }
}
