//! The messages of every socket. One socket, one module, one set of verbs.

pub mod append;
pub mod enrol;
pub mod message;
pub mod operator;
pub mod parse;
pub mod public;
pub mod query;
pub mod store;

/// Names of the sockets: in LISTEN_FDNAMES, and of the files in the run folder.
pub mod socket {
    /// front → ra.
    pub const RA_MESSAGE: &str = "ra.message";
    /// ra → parser.
    pub const PARSER_PARSE: &str = "parser.parse";
    /// ra → ca.
    pub const CA_ENROL: &str = "ca.enrol";
    /// command line → ca.
    pub const CA_OPERATOR: &str = "ca.operator";
    /// ca → ledger.
    pub const LEDGER_STORE: &str = "ledger.store";
    /// front → ledger.
    pub const LEDGER_PUBLIC: &str = "ledger.public";
    /// command line → ledger.
    pub const LEDGER_QUERY: &str = "ledger.query";
    /// ra → ledger.
    pub const LEDGER_APPEND_RA: &str = "ledger.append-ra";
    /// front → ledger.
    pub const LEDGER_APPEND_FRONT: &str = "ledger.append-front";
    /// Device-facing TCP listeners of front.
    pub const FRONT_HTTP: &str = "front.http";
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use der::asn1::{Null, OctetString};
    use proptest::prelude::*;

    use super::*;
    use crate::audit::{Event, Kind, Outcome};
    use crate::refusal::Refusal;
    use crate::seal::SealedRow;
    use crate::wire::{self, Octets, Secret};

    fn round_trip<T>(value: &T)
    where
        T: der::Encode + for<'a> Decode<'a, Error = der::Error>,
    {
        let packet = wire::encode(value).unwrap();
        let decoded: T = wire::decode(&packet).unwrap();
        assert_eq!(*wire::encode(&decoded).unwrap(), *packet);
    }

    #[test]
    fn messages_survive_their_encoding() {
        let octets = |n: u8| OctetString::new(vec![n; 4]).unwrap();
        round_trip(&parse::Request::Message(octets(1)));
        round_trip(&parse::Reply::Tables(parse::Tables {
            tables: vec![octets(1), octets(2)],
        }));
        round_trip(&parse::Reply::Malformed(Null));
        round_trip(&message::Reply::Unavailable(5));
        round_trip(&enrol::Request::Issue(enrol::Issue {
            request: Octets([1; 16]),
            peer: "127.0.0.1:1".into(),
            profile: "devices".into(),
            message: octets(3),
            tables: vec![octets(4)],
            content_key: Secret::new(vec![5; 16]),
        }));
        round_trip(&enrol::Reply::Refused(enrol::Refused {
            refusal: Refusal::ChallengeSpent,
        }));
        let row = SealedRow {
            key_id: octets(1),
            id: Octets([2; 32]),
            body: octets(3),
            mac: Octets([4; 32]),
        };
        let index = store::CertificateIndex {
            ca: "issuing".into(),
            serial: octets(9),
            profile: "devices".into(),
            subject: "CN=a".into(),
            sans: vec!["dns:a.example".into()],
            device_id: String::new(),
            public_key: Octets([7; 32]),
            not_before: 1,
            not_after: 2,
            transaction: String::new(),
        };
        for spend in [
            None,
            Some(store::Spend {
                challenge: Octets([1; 32]),
                uses: 1,
                names: vec![Octets([2; 32])],
            }),
        ] {
            round_trip(&store::Request::Reserve(store::Reserve {
                write: Octets([1; 16]),
                row: row.clone(),
                spend,
                index: index.clone(),
                event: Event::new(Kind::IssueIntent, Outcome::Success).of_request(Octets([1; 16])),
            }));
        }
        round_trip(&store::Reply::Reservation(store::Reservation {
            row,
            state: store::ReservationState::Issued,
            ca: "issuing".into(),
            serial: octets(9),
            certificate: Some(octets(8)),
        }));
        round_trip(&store::Reply::Unavailable("disk full".into()));
    }

    proptest! {
        #[test]
        fn no_packet_breaks_a_decoder(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = wire::decode::<parse::Request>(&packet);
            let _ = wire::decode::<parse::Reply>(&packet);
            let _ = wire::decode::<message::Request>(&packet);
            let _ = wire::decode::<message::Reply>(&packet);
            let _ = wire::decode::<enrol::Request>(&packet);
            let _ = wire::decode::<enrol::Reply>(&packet);
            let _ = wire::decode::<store::Request>(&packet);
            let _ = wire::decode::<store::Reply>(&packet);
            let _ = wire::decode::<public::Request>(&packet);
            let _ = wire::decode::<public::Reply>(&packet);
            let _ = wire::decode::<append::Request>(&packet);
            let _ = wire::decode::<append::Reply>(&packet);
            let _ = wire::decode::<operator::Request>(&packet);
            let _ = wire::decode::<operator::Reply>(&packet);
            let _ = wire::decode::<query::Request>(&packet);
            let _ = wire::decode::<query::Reply>(&packet);
        }

        /// Whatever decodes is canonical: it encodes to the same octets.
        #[test]
        fn a_changed_packet_is_refused_or_canonical(position in 0usize..200, octet: u8) {
            let request = store::Request::PutChallenge(store::PutChallenge {
                write: Octets([1; 16]),
                row: SealedRow {
                    key_id: OctetString::new(vec![1; 16]).unwrap(),
                    id: Octets([2; 32]),
                    body: OctetString::new(vec![3; 20]).unwrap(),
                    mac: Octets([4; 32]),
                },
                profile: "devices".into(),
                expires: 1 << 40,
                event: Event::new(Kind::ChallengeMinted, Outcome::Success).with("profile", "devices"),
            });
            let mut packet = wire::encode(&request).unwrap().to_vec();
            let position = position % packet.len();
            packet[position] = octet;
            if let Ok(decoded) = wire::decode::<store::Request>(&packet) {
                prop_assert_eq!(wire::encode(&decoded).unwrap().to_vec(), packet);
            }
        }
    }
}
