//! Octets that were changed on the way.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::asn1::Encoding;
use crate::builder::{Envelope, Message, Request};
use crate::keys::DEVICE;
use crate::run::{Opened, Outcome, message_tables, request_table, run, run_with_tables, usual_key};

struct Sample {
    octets: Vec<u8>,
    tables: Vec<Vec<u8>>,
    opened: Opened,
}

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    [Encoding::Der, Encoding::IndefinitePieces(200)]
        .map(|encoding| {
            let envelope = Envelope {
                encoding,
                ..Envelope::new(Request::new(&DEVICE).encode())
            };
            let message = Message {
                encoding,
                ..Message::new(&DEVICE, envelope.encode())
            };
            let octets = message.encode();
            Sample {
                tables: message_tables(&octets).unwrap(),
                opened: run(&octets).opened(),
                octets,
            }
        })
        .into()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever still opens says what the sender said.
    #[test]
    fn a_changed_message_never_says_something_else(
        which in 0usize..2,
        changes in proptest::collection::vec((any::<usize>(), 1u8..), 1..4),
        old_tables: bool,
    ) {
        let sample = &SAMPLES[which];
        let mut octets = sample.octets.clone();
        for (place, mask) in changes {
            let place = place % octets.len();
            octets[place] ^= mask;
        }
        let outcome = if old_tables {
            run_with_tables(&octets, &sample.tables, &usual_key())
        } else {
            run(&octets)
        };
        if let Outcome::Opened(opened) = outcome {
            prop_assert_eq!(*opened, sample.opened.clone());
        }
    }

    #[test]
    fn a_shortened_or_lengthened_message_is_malformed(which in 0usize..2, place: usize, octets in proptest::collection::vec(any::<u8>(), 0..5)) {
        let sample = &SAMPLES[which];
        let shortened = &sample.octets[..place % sample.octets.len()];
        prop_assert_eq!(run(shortened), Outcome::Malformed);
        prop_assert!(matches!(run_with_tables(shortened, &sample.tables, &usual_key()), Outcome::Unproved(_)));
        if !octets.is_empty() {
            let lengthened = [sample.octets.as_slice(), &octets].concat();
            prop_assert_eq!(run(&lengthened), Outcome::Malformed);
        }
    }

    /// The request, changed and wrapped again by somebody who has the signer's key.
    #[test]
    fn a_changed_request_never_opens(place: usize, mask in 1u8..) {
        let mut request = Request::new(&DEVICE).encode();
        let place = place % request.len();
        request[place] ^= mask;
        let outcome = run(&Message::around(request).encode());
        prop_assert!(matches!(outcome, Outcome::Refused(_)), "{:?}", outcome);
    }

    #[test]
    fn any_octets_and_tables_are_judged(
        message in proptest::collection::vec(any::<u8>(), 0..100),
        table in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let outcome = run_with_tables(&message, &[table], &usual_key());
        prop_assert!(matches!(outcome, Outcome::Unproved(_) | Outcome::Malformed));
    }

    /// A child that lies about the plaintext.
    #[test]
    fn a_changed_table_of_the_request_never_says_something_else(place: usize, mask in 1u8..) {
        let sample = &SAMPLES[0];
        let read = chancery_message::SignedMessage::read(&sample.octets, &sample.tables[0], Some(&sample.tables[1])).unwrap();
        let verified = read.verify().ok().unwrap();
        let plaintext = verified.decrypt(&usual_key());
        let mut table = request_table(plaintext.as_bytes()).unwrap();
        let place = place % table.len();
        table[place] ^= mask;
        let error = verified.open(&plaintext, Some(&table)).err().unwrap();
        let unproved = matches!(error, chancery_message::OpenError::Unproved { .. });
        prop_assert!(unproved);
        prop_assert_eq!(error.into_rejected().refusal, chancery_protocol::refusal::Refusal::Plaintext);
    }
}
