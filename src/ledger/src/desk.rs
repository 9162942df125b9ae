//! Answers packets: reads by itself, hands writes to the writer.

use chancery_host::ipc::server::{Answer, Call, Worker};
use chancery_protocol::audit::{Receipt, Record};
use chancery_protocol::ipc::{append, public, query, socket, store};
use chancery_protocol::tree;
use chancery_protocol::wire;
use der::Encode;
use der::asn1::Null;
use rusqlite::Connection;

use crate::change::{self, Order};
use crate::check::{self, Asked, Change, Read, Violation};
use crate::error::StoreError;
use crate::writer::{Clock, Counter};
use crate::{challenge, log, reservation, search};

/// One worker: a connection to read by and the way to the writer.
pub(crate) struct Desk {
    reader: Connection,
    counter: Counter,
    clock: Clock,
}

impl Worker for Desk {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        match self.handle(call.socket, &call.peer.to_string(), call.packet) {
            Ok(answer) => answer,
            Err(violation) => {
                tracing::warn!(
                    socket = call.socket,
                    peer = %call.peer,
                    %violation,
                    "a packet broke the rules; its connection is closed"
                );
                Answer::Close
            }
        }
    }
}

impl Desk {
    pub(crate) fn new(reader: Connection, counter: Counter, clock: Clock) -> Self {
        Self {
            reader,
            counter,
            clock,
        }
    }

    /// What a packet may ask is decided by the socket that it came by.
    fn handle(&self, name: &str, peer: &str, packet: &[u8]) -> Result<Answer, Violation> {
        match name {
            socket::LEDGER_STORE => match check::store(wire::decode(packet)?)? {
                Asked::Change(change) => now(&self.write(name, peer, packet, change)?),
                Asked::Read(read) => now(&self.read(read)),
            },
            socket::LEDGER_PUBLIC => now(&self.public(&wire::decode(packet)?)),
            socket::LEDGER_QUERY => now(&self.query(&check::query(wire::decode(packet)?)?)),
            socket::LEDGER_APPEND_RA | socket::LEDGER_APPEND_FRONT => {
                let change = check::append(name, wire::decode(packet)?)?;
                now(&match self.write(name, peer, packet, change)? {
                    store::Reply::Appended(recorded) => append::Reply::Done(receipt(&recorded)?),
                    store::Reply::Unavailable(text) => append::Reply::Unavailable(text),
                    _ => return Err(Violation::WriteId),
                })
            }
            _ => Err(Violation::Socket),
        }
    }

    fn write(
        &self,
        name: &str,
        peer: &str,
        packet: &[u8],
        change: Change,
    ) -> Result<store::Reply, Violation> {
        self.counter.submit(Order::new(name, peer, packet, change))
    }

    fn read(&self, read: Read) -> store::Reply {
        self.find(read)
            .unwrap_or_else(|error| store::Reply::Unavailable(told(&error)))
    }

    fn find(&self, read: Read) -> Result<store::Reply, StoreError> {
        let found = match read {
            Read::Challenge(challenge) => {
                challenge::find(&self.reader, &challenge)?.map(store::Reply::Challenge)
            }
            Read::Reservation(retry) => reservation::find(&self.reader, &retry, (self.clock)())?
                .map(store::Reply::Reservation),
            Read::Records(from) => Some(store::Reply::Records(store::RecordsFound {
                records: log::records(&self.reader, from)?,
            })),
        };
        Ok(found.unwrap_or(store::Reply::Absent(Null)))
    }

    fn public(&self, request: &public::Request) -> public::Reply {
        match change::blob(&self.reader, &request.name) {
            Ok(Some(blob)) => public::Reply::Blob(blob),
            Ok(None) => public::Reply::Absent(Null),
            Err(error) => {
                told(&error);
                public::Reply::Unavailable(Null)
            }
        }
    }

    fn query(&self, request: &query::Request) -> query::Reply {
        let answer = match request {
            query::Request::Find(find) => search::find(&self.reader, find).map(query::Reply::Found),
            query::Request::Show(show) => search::show(&self.reader, show),
            query::Request::Status(_) => search::status(&self.reader).map(query::Reply::Status),
        };
        answer.unwrap_or_else(|error| query::Reply::Unavailable(told(&error)))
    }
}

/// A role other than the CA keeps no record; it learns where its event stands.
fn receipt(recorded: &store::Recorded) -> Result<Receipt, Violation> {
    let record: Record = wire::decode(recorded.record.as_bytes())?;
    let leaf = tree::leaf(log::sha256, recorded.record.as_bytes());
    Ok(Receipt {
        seq: record.seq,
        leaf,
    })
}

fn now<T: Encode>(reply: &T) -> Result<Answer, Violation> {
    Ok(Answer::Now(wire::encode(reply)?))
}

/// The text of an error for whoever asked, logged here too.
fn told(error: &StoreError) -> String {
    tracing::error!(%error, "a request could not be answered");
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chancery_protocol::audit::{Event, Kind, Outcome};
    use chancery_protocol::wire::Octets;
    use der::Decode;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{
        Bench, NOW, Writing, append as append_change, commit, digest, id, octets, put_challenge,
        reserve,
    };

    const PEER: &str = "uid=1 pid=2";

    fn desk() -> (Desk, Writing) {
        let writing = Bench::started().write(NOW);
        let desk = Desk::new(writing.reader(), writing.counter.clone(), Arc::new(|| NOW));
        (desk, writing)
    }

    fn ask<Q: Encode, R: for<'a> Decode<'a, Error = der::Error>>(
        desk: &Desk,
        name: &str,
        request: &Q,
    ) -> Result<R, Violation> {
        let packet = wire::encode(request).unwrap();
        match desk.handle(name, PEER, &packet)? {
            Answer::Now(reply) => Ok(wire::decode(&reply).unwrap()),
            _ => panic!("no answer"),
        }
    }

    fn store(desk: &Desk, request: &store::Request) -> store::Reply {
        ask(desk, socket::LEDGER_STORE, request).unwrap()
    }

    fn request_of(change: Change) -> store::Request {
        match change {
            Change::PutChallenge(put) => store::Request::PutChallenge(put),
            Change::Reserve(reserve) => store::Request::Reserve(reserve),
            Change::Commit(commit) => store::Request::Commit(commit),
            Change::Append(append) => store::Request::Append(append),
            Change::Publish(publish) => store::Request::Publish(publish),
            Change::PutCheckpoint(put) => store::Request::PutCheckpoint(put),
        }
    }

    #[test]
    fn an_enrolment_passes_through_the_store_socket() {
        let (desk, _writing) = desk();
        let find = store::Request::FindChallenge(store::FindChallenge {
            challenge: digest("a"),
        });
        assert_eq!(store(&desk, &find), store::Reply::Absent(Null));
        store(&desk, &request_of(put_challenge(1, "a")));
        assert!(matches!(store(&desk, &find), store::Reply::Challenge(found) if found.spent == 0));

        let reservation = reserve(2, "a", 1, "key", "host", &[1]);
        let find = store::Request::FindReservation(store::FindReservation {
            retry: reservation.row.id,
        });
        assert_eq!(store(&desk, &find), store::Reply::Absent(Null));
        let request = request_of(Change::Reserve(reservation));
        let reserved = store(&desk, &request);
        assert!(matches!(reserved, store::Reply::Reserved(_)));
        assert_eq!(store(&desk, &request), reserved);
        let open = store(&desk, &find);
        assert!(matches!(open, store::Reply::Reservation(found)
            if found.state == store::ReservationState::Open));

        store(&desk, &request_of(commit(3, &[1], "certificate")));
        let issued = store(&desk, &find);
        assert!(matches!(issued, store::Reply::Reservation(found)
            if found.certificate.as_ref().unwrap().as_bytes() == b"certificate"));

        let records = store::Request::Records(store::Records { from: 1 });
        let store::Reply::Records(found) = store(&desk, &records) else {
            panic!()
        };
        assert_eq!(found.records.len(), 3);

        let find = query::Request::Find(query::Find {
            text: "host".into(),
            offset: 0,
            limit: 10,
        });
        let found = ask(&desk, socket::LEDGER_QUERY, &find).unwrap();
        assert!(matches!(found, query::Reply::Found(found) if found.rows.len() == 1));
        let show = query::Request::Show(query::Show { id: "01".into() });
        let shown = ask(&desk, socket::LEDGER_QUERY, &show).unwrap();
        assert!(matches!(shown, query::Reply::Certificate(_)));
        let status = ask(&desk, socket::LEDGER_QUERY, &query::Request::Status(Null)).unwrap();
        assert!(matches!(status, query::Reply::Status(status) if status.records == 4));
    }

    #[test]
    fn a_blob_is_published_and_fetched() {
        let (desk, _writing) = desk();
        let request = public::Request {
            name: public::cacert("devices"),
        };
        let reply: public::Reply = ask(&desk, socket::LEDGER_PUBLIC, &request).unwrap();
        assert_eq!(reply, public::Reply::Absent(Null));
        store(
            &desk,
            &store::Request::Publish(store::Publish {
                write: id(1),
                name: request.name.clone(),
                media_type: "application/x-x509-ca-ra-cert".into(),
                content: octets(b"chain"),
            }),
        );
        let reply: public::Reply = ask(&desk, socket::LEDGER_PUBLIC, &request).unwrap();
        assert!(matches!(reply, public::Reply::Blob(blob) if blob.content.as_bytes() == b"chain"));
    }

    #[test]
    fn roles_append_by_their_own_sockets() {
        let (desk, _writing) = desk();
        let request = |write, kind| append::Request {
            write: id(write),
            event: Event::new(kind, Outcome::Failure),
        };
        let died = request(1, Kind::ParserDied);
        for _ in 0..2 {
            let reply: append::Reply = ask(&desk, socket::LEDGER_APPEND_RA, &died).unwrap();
            assert!(matches!(reply, append::Reply::Done(receipt) if receipt.seq == 1));
        }
        let refused = ask::<_, append::Reply>(&desk, socket::LEDGER_APPEND_FRONT, &died);
        assert!(matches!(refused, Err(Violation::Kind("parser.died"))));
        let forged = request(2, Kind::IssueDone);
        let refused = ask::<_, append::Reply>(&desk, socket::LEDGER_APPEND_RA, &forged);
        assert!(matches!(refused, Err(Violation::Kind("issue.done"))));
        let reused = request(1, Kind::TokenReady);
        let refused = ask::<_, append::Reply>(&desk, socket::LEDGER_APPEND_RA, &reused);
        assert!(matches!(refused, Err(Violation::WriteId)));
        let entries = log::entries(&desk.reader, 1, 9).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].0.actor, "ledger.append-ra uid=1 pid=2");
    }

    #[test]
    fn a_packet_that_breaks_the_rules_closes_the_connection() {
        let (mut desk, _writing) = desk();
        let too_many = query::Request::Find(query::Find {
            text: String::new(),
            offset: 0,
            limit: query::MAX_ROWS + 1,
        });
        let mut bad_names = reserve(2, "a", 1, "key", "host", &[1]);
        bad_names.index.subject = "host".into();
        let publish = request_of(append_change(1, Kind::TokenReady));
        let cases = [
            (
                socket::LEDGER_QUERY,
                wire::encode(&too_many).unwrap().to_vec(),
            ),
            (
                socket::LEDGER_STORE,
                wire::encode(&request_of(Change::Reserve(bad_names)))
                    .unwrap()
                    .to_vec(),
            ),
            (
                socket::LEDGER_PUBLIC,
                wire::encode(&publish).unwrap().to_vec(),
            ),
            ("ledger.other", wire::encode(&publish).unwrap().to_vec()),
            (socket::LEDGER_STORE, Vec::new()),
            (socket::LEDGER_STORE, b"\xff\xff\xff".to_vec()),
        ];
        for (name, packet) in cases {
            let answer = desk.answer(Call {
                socket: name,
                peer: chancery_host::ipc::server::Peer {
                    uid: 1,
                    gid: 1,
                    pid: 2,
                },
                packet: &packet,
                arrived: std::time::Instant::now(),
            });
            assert!(matches!(answer, Answer::Close), "{name} {packet:?}");
        }
        assert_eq!(log::entries(&desk.reader, 0, 9).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_database_is_unavailable() {
        let bench = Bench::started();
        let page = |name: &str| -> u64 {
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            let page: i64 = bench
                .connection
                .query_row(sql, [name], |row| row.get(0))
                .unwrap();
            page.try_into().unwrap()
        };
        let pages = [
            page("sqlite_autoindex_blobs_1"),
            page("sqlite_autoindex_challenges_1"),
            page("certificates_state"),
        ];
        bench
            .connection
            .pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))
            .unwrap();
        let mut content = std::fs::read(&bench.path).unwrap();
        for page in pages {
            let start = usize::try_from((page - 1) * 4096).unwrap();
            content[start..start + 4096].fill(0xa5);
        }
        std::fs::write(&bench.path, content).unwrap();
        let writing = bench.write(NOW);
        let desk = Desk::new(writing.reader(), writing.counter.clone(), Arc::new(|| NOW));
        let find = store::Request::FindChallenge(store::FindChallenge {
            challenge: Octets([0; 32]),
        });
        let mint = request_of(put_challenge(1, "a"));
        for request in [find, mint] {
            let reply = store(&desk, &request);
            assert!(
                matches!(&reply, store::Reply::Unavailable(text) if text.contains("restore a backup")),
                "{reply:?}"
            );
        }
        let name = String::new();
        let reply: public::Reply =
            ask(&desk, socket::LEDGER_PUBLIC, &public::Request { name }).unwrap();
        assert_eq!(reply, public::Reply::Unavailable(Null));
        let reply = ask(&desk, socket::LEDGER_QUERY, &query::Request::Status(Null)).unwrap();
        assert!(matches!(reply, query::Reply::Unavailable(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Octets of a packet changed at will: an answer or a closed connection, and never a record
        /// that breaks the rules.
        #[test]
        fn no_packet_stops_the_desk(
            socket in 0..5usize,
            changes in proptest::collection::vec((0..1000usize, any::<u8>()), 0..4),
        ) {
            thread_local! {
                static DESK: (Desk, Writing) = desk();
            }
            let name = crate::process::SOCKETS[socket];
            let request = request_of(Change::Reserve(reserve(2, "a", 1, "key", "host", &[1])));
            let append = append::Request {
                write: id(1),
                event: Event::new(Kind::ServiceStarted, Outcome::Success).with("role", "ra"),
            };
            let mut packet = match socket {
                0 => wire::encode(&request),
                1 | 2 => wire::encode(&query::Request::Show(query::Show { id: "ab".into() })),
                _ => wire::encode(&append),
            }
            .unwrap()
            .to_vec();
            for (position, octet) in changes {
                let position = position % packet.len();
                packet[position] = octet;
            }
            DESK.with(|(desk, _)| {
                let _ = desk.handle(name, PEER, &packet);
                for (record, _) in log::entries(&desk.reader, 0, 1000).unwrap() {
                    assert!(record.event.is_valid());
                }
            });
        }
    }
}
