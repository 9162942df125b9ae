//! What holds for every input: no panic, nothing beyond the limits, tables that tile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_parser::{expand, table_of_certification_request, table_of_message, take_apart};
use chancery_protocol::ipc::parse::{Reply, Request};
use chancery_protocol::node::{Form, MAX_RECORDS, Record, decode_table};
use chancery_protocol::wire::{self, MAX_PACKET};
use common::assert_tiles;
use common::element::{Content, Element, change, constructed, primitive};
use common::scep::{
    E_CONTENT, ENCRYPTED_CONTENT, certification_request, enveloped_data, enveloping_message,
    message,
};
use der::asn1::OctetString;
use proptest::prelude::*;

/// Checks an answer against its buffers; true if there are tables.
fn check_message(octets: &[u8], content: Option<&[u8]>) -> bool {
    let Ok(tables) = table_of_message(octets) else {
        return false;
    };
    assert_tiles(octets, &tables.message);
    let inner = tables.content.as_deref().unwrap_or_default();
    if let (Some(content), false) = (content, inner.is_empty()) {
        assert_tiles(content, inner);
    }
    assert!(tables.message.len() + inner.len() <= MAX_RECORDS);
    true
}

/// Octets that look like elements more often than chance would have it.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        prop::sample::select(vec![
            0x00, 0x02, 0x03, 0x04, 0x06, 0x24, 0x30, 0x31, 0x80, 0x81, 0x82, 0xa0, 0xa1,
        ]),
        0u8..8,
        any::<u8>(),
    ];
    prop::collection::vec(octet, 0..120)
}

fn forms(table: &[Record]) -> Vec<(u16, bool)> {
    table
        .iter()
        .map(|r| (r.parent, r.form == Form::Opened))
        .collect()
}

proptest! {
    // A failure prints its input; nothing is written into the source tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_taken_apart_or_refused(octets in noise(), open in prop::collection::btree_set(0usize..120, 0..6)) {
        let open: Vec<usize> = open.into_iter().collect();
        if let Ok(table) = expand(&octets, &open, MAX_RECORDS) {
            assert_tiles(&octets, &table);
        }
        if let Ok(table) = table_of_certification_request(&octets) {
            assert_tiles(&octets, &table);
        }
        check_message(&octets, None);
    }

    #[test]
    fn a_budget_is_kept(octets in noise(), budget in 0usize..20) {
        match (expand(&octets, &[], budget), expand(&octets, &[], MAX_RECORDS)) {
            (Ok(within), Ok(all)) => prop_assert_eq!(within, all),
            (Err(_), Ok(all)) => prop_assert!(all.len() > budget),
            (within, Err(_)) => prop_assert!(within.is_err()),
        }
    }

    #[test]
    fn certification_requests_are_accepted(octets in certification_request()) {
        assert_tiles(&octets, &table_of_certification_request(&octets).unwrap());
        prop_assert!(table_of_message(&octets).is_err());
    }

    #[test]
    fn messages_are_accepted((octets, content) in enveloping_message()) {
        prop_assert!(check_message(&octets, Some(&content)));
        prop_assert!(table_of_certification_request(&octets).is_err());
    }

    #[test]
    fn messages_without_content_have_one_table(octets in message()) {
        prop_assert!(check_message(&octets, None));
    }

    #[test]
    fn changed_octets_are_taken_apart_or_refused(
        (mut octets, _) in enveloping_message(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (place, octet) in changes {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        check_message(&octets, None);
        octets.truncate(cut.index(octets.len()));
        prop_assert!(!check_message(&octets, None));
    }

    #[test]
    fn changed_elements_are_taken_apart_or_refused(
        octets in certification_request(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut element = Element::from_der(&octets);
        for change in &changes {
            element.change(change);
        }
        for octets in [element.to_der(), element.to_ber()] {
            if let Ok(table) = table_of_certification_request(&octets) {
                assert_tiles(&octets, &table);
            }
        }
    }

    /// An indefinite length changes where things are, not what they are.
    #[test]
    fn indefinite_lengths_make_the_same_tree((octets, content) in enveloping_message()) {
        let indefinite = Element::from_der(&octets).to_ber();
        let definite = table_of_message(&octets).unwrap();
        let table = table_of_message(&indefinite).unwrap();
        assert_tiles(&indefinite, &table.message);
        prop_assert_eq!(forms(&definite.message), forms(&table.message));
        prop_assert_eq!(&definite.content, &table.content);
        assert_tiles(&content, &table.content.unwrap());
    }

    /// However the eContent is cut into pieces, what is inside it is the same.
    #[test]
    fn chunked_content_is_joined(
        (octets, content) in enveloping_message(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut message = Element::from_der(&octets);
        *message.at(&E_CONTENT) = chunked(0x24, &content, cuts);
        let expected = table_of_message(&octets).unwrap().content;
        for octets in [message.to_der(), message.to_ber()] {
            let table = table_of_message(&octets).unwrap();
            assert_tiles(&octets, &table.message);
            prop_assert_eq!(&table.content, &expected);
        }
    }

    #[test]
    fn chunked_encrypted_content_is_accepted(
        (octets, _) in enveloping_message(),
        content in enveloped_data(),
        ciphertext in prop::collection::vec(any::<u8>(), 1..50),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut content = Element::from_der(&content);
        let Content::Elements(fields) = &mut content.at(&[1, 0, 2]).content else {
            panic!("an encryptedContentInfo is constructed")
        };
        fields.truncate(2);
        fields.push(constructed(0xa0, []));
        *content.at(&ENCRYPTED_CONTENT) = chunked(0xa0, &ciphertext, cuts);
        for content in [content.to_der(), content.to_ber()] {
            let mut message = Element::from_der(&octets);
            *message.at(&E_CONTENT) = primitive(0x04, content.clone());
            prop_assert!(check_message(&message.to_der(), Some(&content)));
        }
    }

    #[test]
    fn an_answer_fits_its_packet(octets in prop_oneof![message(), certification_request(), noise()]) {
        let string = || OctetString::new(octets.clone()).unwrap();
        for request in [Request::Message(string()), Request::CertificationRequest(string())] {
            let reply = take_apart(&request);
            let packet = wire::encode(&reply).unwrap();
            prop_assert!(packet.len() <= MAX_PACKET);
            prop_assert_eq!(&wire::decode::<Reply>(&packet).unwrap(), &reply);
            let expected: Option<Vec<_>> = match &request {
                Request::Message(_) => table_of_message(&octets)
                    .ok()
                    .map(|t| std::iter::once(t.message).chain(t.content).collect()),
                Request::CertificationRequest(_) => {
                    table_of_certification_request(&octets).ok().map(|t| vec![t])
                }
            };
            let answered = match &reply {
                Reply::Tables(tables) => Some(
                    tables.tables.iter().map(|t| decode_table(t.as_bytes()).unwrap()).collect(),
                ),
                Reply::Malformed(_) => None,
            };
            prop_assert_eq!(answered, expected);
        }
    }
}

fn chunked(tag: u8, octets: &[u8], cuts: Vec<prop::sample::Index>) -> Element {
    let mut cuts: Vec<usize> = cuts
        .into_iter()
        .map(|c| c.index(octets.len() + 1))
        .collect();
    cuts.extend([0, octets.len()]);
    cuts.sort_unstable();
    let pieces: Vec<Element> = cuts
        .windows(2)
        .map(|pair| primitive(0x04, &octets[pair[0]..pair[1]]))
        .collect();
    constructed(tag, pieces)
}
