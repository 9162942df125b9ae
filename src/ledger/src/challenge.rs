//! Challenges and their uses.

use chancery_protocol::ipc::store::{ChallengeFound, PutChallenge, Spend};
use chancery_protocol::seal::SealedRow;
use chancery_protocol::wire::{Digest, Octets};
use der::asn1::OctetString;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{StoreError, to_row};
use crate::log::{Pen, Written};

/// Stores a new challenge and its record.
pub(crate) fn put(pen: &mut Pen<'_>, put: &PutChallenge) -> Result<Written, StoreError> {
    let inserted = pen
        .connection
        .prepare_cached(
            "INSERT INTO challenges (id, key_id, body, mac, profile, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            put.row.id.as_bytes(),
            put.row.key_id.as_bytes(),
            put.row.body.as_bytes(),
            put.row.mac.as_bytes(),
            put.profile,
            to_row(put.expires)?,
        ])?;
    if inserted == 0 {
        return Err(StoreError::ChallengeExists);
    }
    pen.record(&put.event)
}

/// Finds a challenge and how often it is spent.
pub(crate) fn find(
    connection: &Connection,
    challenge: &Digest,
) -> Result<Option<ChallengeFound>, StoreError> {
    let row = connection
        .prepare_cached(
            "SELECT key_id, body, mac, revoked,
                    (SELECT coalesce(max(n), 0) FROM spends WHERE challenge = challenges.id)
             FROM challenges WHERE id = ?1",
        )?
        .query_row([challenge.as_bytes()], |row| {
            Ok((
                row.get::<_, Vec<u8>>(0)?,
                row.get::<_, Vec<u8>>(1)?,
                row.get::<_, [u8; 32]>(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .optional()?;
    row.map(|(key_id, body, mac, revoked, spent)| {
        Ok(ChallengeFound {
            row: SealedRow {
                key_id: OctetString::new(key_id)?,
                id: *challenge,
                body: OctetString::new(body)?,
                mac: Octets(mac),
            },
            revoked,
            spent,
        })
    })
    .transpose()
}

/// Whether a challenge can be used once more, and by whom.
pub(crate) enum Use {
    /// It can: this use would be the `n`th.
    Free { n: u32 },
    /// It is unknown, revoked, or used up.
    Spent,
    /// A name belongs to another key.
    Held,
}

/// Looks at the uses of a challenge. They are numbered from 1 without gaps and never deleted: the
/// highest number is their count, found without walking through the thousands of a static challenge.
/// A name belongs to its first key, also where that one's reservation was abandoned: until then
/// another key may have learnt the challenge from the same message.
pub(crate) fn usable(
    connection: &Connection,
    spend: &Spend,
    public_key: &Digest,
) -> Result<Use, StoreError> {
    let (known, spent): (bool, u32) = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM challenges WHERE id = ?1 AND revoked = 0),
                    (SELECT coalesce(max(n), 0) FROM spends WHERE challenge = ?1)",
        )?
        .query_row([spend.challenge.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if !known || spent >= spend.uses {
        return Ok(Use::Spent);
    }
    for name in &spend.names {
        if holder(connection, &spend.challenge, name)?.is_some_and(|holder| holder != *public_key) {
            return Ok(Use::Held);
        }
    }
    Ok(Use::Free {
        n: spent.saturating_add(1),
    })
}

/// The key that a name belongs to under a challenge.
fn holder(
    connection: &Connection,
    challenge: &Digest,
    name: &Digest,
) -> Result<Option<Digest>, StoreError> {
    let holder: Option<[u8; 32]> = connection
        .prepare_cached("SELECT public_key FROM holdings WHERE challenge = ?1 AND name = ?2")?
        .query_row([challenge.as_bytes(), name.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(holder.map(Octets))
}

/// Writes the `n`th use. A second one of the same number is refused by the table itself.
pub(crate) fn spend(
    connection: &Connection,
    spend: &Spend,
    n: u32,
    retry: &Digest,
    public_key: &Digest,
    certificate: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO spends (challenge, n, retry, public_key, certificate)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            spend.challenge.as_bytes(),
            n,
            retry.as_bytes(),
            public_key.as_bytes(),
            certificate
        ])?;
    // Nobody can come second to a challenge of one use.
    for name in spend.names.iter().filter(|_| spend.uses > 1) {
        connection
            .prepare_cached(
                "INSERT INTO holdings (challenge, name, public_key) VALUES (?1, ?2, ?3)
                 ON CONFLICT (challenge, name) DO NOTHING",
            )?
            .execute(params![
                spend.challenge.as_bytes(),
                name.as_bytes(),
                public_key.as_bytes()
            ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chancery_protocol::audit::Kind;
    use chancery_protocol::ipc::store::Reply;

    use super::*;
    use crate::check::Change;
    use crate::testing::{Bench, NOW, digest, order, put_challenge, reserve};

    #[test]
    fn a_challenge_is_found_as_it_was_put() {
        let mut bench = Bench::new();
        let Change::PutChallenge(put) = put_challenge(1, "a") else {
            unreachable!()
        };
        let reply = bench.apply(NOW, Change::PutChallenge(put.clone()));
        assert!(matches!(reply, Reply::Done(receipt) if receipt.seq == 0));
        assert_eq!(bench.kinds(), [Kind::ChallengeMinted]);
        let found = find(&bench.connection, &digest("a")).unwrap().unwrap();
        assert_eq!(found.row, put.row);
        assert_eq!((found.revoked, found.spent), (false, 0));
        assert_eq!(find(&bench.connection, &digest("b")).unwrap(), None);
    }

    #[test]
    fn a_challenge_is_not_put_twice() {
        let mut bench = Bench::new();
        bench.apply(NOW, put_challenge(1, "a"));
        let error = bench
            .try_apply(NOW, &order(put_challenge(2, "a")))
            .unwrap_err();
        assert!(matches!(error, StoreError::ChallengeExists));
        assert_eq!(bench.kinds().len(), 1);
    }

    #[test]
    fn uses_are_counted() {
        let mut bench = Bench::new();
        bench.apply(NOW, put_challenge(1, "a"));
        for n in 1..=3u8 {
            let names = format!("host-{n}");
            let reserve = reserve(10 + u64::from(n), "a", 5, "key", &names, &[n]);
            let reply = bench.apply(NOW, Change::Reserve(reserve));
            assert!(matches!(reply, Reply::Reserved(_)));
            let found = find(&bench.connection, &digest("a")).unwrap().unwrap();
            assert_eq!(found.spent, u32::from(n));
        }
        assert_eq!(bench.count("SELECT count(DISTINCT n) FROM spends"), 3);
    }
}
