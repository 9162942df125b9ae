//! Tables of a child that was taken over.

use chancery_message::{Unproved, prove};
use chancery_protocol::node::{Form, MAX_DEPTH, MAX_RECORDS, Record, decode_table, encode_table};
use proptest::prelude::*;

use crate::asn1::{Encoding, Tree, attribute, octet_string, printable};
use crate::builder::{Message, Request, SENDER_NONCE, TRANSACTION_ID};
use crate::keys::DEVICE;
use crate::run::{Outcome, message_tables, request_table, run_with_tables, usual_key};

fn record(parent: u16, start: u32, header: u8, content: u32, form: Form) -> Record {
    Record {
        parent,
        start,
        header,
        content,
        form,
    }
}

fn lie(buffer: &[u8], records: &[Record]) -> Unproved {
    prove(buffer, &encode_table(records)).unwrap_err()
}

/// SEQUENCE { NULL, SET { BOOLEAN }, [0] indefinite { INTEGER }, OCTET STRING (opened) { NULL } }
const BUFFER: &[u8] = &[
    0x30, 0x12, 0x05, 0x00, 0x31, 0x03, 0x01, 0x01, 0xff, 0xa0, 0x80, 0x02, 0x01, 0x05, 0x00, 0x00,
    0x04, 0x02, 0x05, 0x00,
];

fn truth() -> Vec<Record> {
    vec![
        record(0, 0, 2, 18, Form::Definite),
        record(0, 2, 2, 0, Form::Primitive),
        record(0, 4, 2, 3, Form::Definite),
        record(2, 6, 2, 1, Form::Primitive),
        record(0, 9, 2, 3, Form::Indefinite),
        record(4, 11, 2, 1, Form::Primitive),
        record(0, 16, 2, 2, Form::Opened),
        record(6, 18, 2, 0, Form::Primitive),
    ]
}

#[test]
fn the_truth_is_proved() {
    prove(BUFFER, &encode_table(&truth())).unwrap();
}

#[test]
fn each_rule_has_its_lie() {
    let changed = |index: usize, change: &dyn Fn(&mut Record)| {
        let mut records = truth();
        change(&mut records[index]);
        lie(BUFFER, &records)
    };
    assert_eq!(changed(0, &|r| r.parent = 1), Unproved::Parent(0));
    assert_eq!(changed(0, &|r| r.start = 1), Unproved::Start(0));
    assert_eq!(changed(0, &|r| r.content = 17), Unproved::Beyond(0));
    assert_eq!(changed(0, &|r| r.content = 19), Unproved::Beyond(0));
    assert_eq!(changed(1, &|r| r.parent = 1), Unproved::Parent(1));
    assert_eq!(changed(1, &|r| r.start = 3), Unproved::Start(1));
    assert_eq!(changed(1, &|r| r.header = 3), Unproved::Header(1));
    assert_eq!(changed(1, &|r| r.header = 0), Unproved::Header(1));
    assert_eq!(changed(1, &|r| r.content = 1), Unproved::Header(1));
    assert_eq!(changed(1, &|r| r.form = Form::Definite), Unproved::Form(1));
    assert_eq!(changed(1, &|r| r.form = Form::Opened), Unproved::Form(1));
    assert_eq!(changed(2, &|r| r.form = Form::Primitive), Unproved::Form(2));
    assert_eq!(changed(3, &|r| r.parent = 0), Unproved::Unfilled(2));
    assert_eq!(changed(3, &|r| r.parent = 1), Unproved::Parent(3));
    assert_eq!(
        changed(4, &|r| r.form = Form::Definite),
        Unproved::Header(4)
    );
    assert_eq!(changed(4, &|r| r.content = 2), Unproved::Beyond(5));
    assert_eq!(changed(4, &|r| r.content = 4), Unproved::Unfilled(4));
    assert_eq!(
        changed(6, &|r| r.form = Form::Primitive),
        Unproved::Parent(7)
    );
    assert_eq!(changed(7, &|r| r.start = 16), Unproved::Start(7));
}

#[test]
fn a_child_beyond_its_parent() {
    // SEQUENCE { SET { }, NULL }: the NULL is claimed for the SET.
    let buffer = [0x30, 0x04, 0x31, 0x00, 0x05, 0x00];
    let records = [
        record(0, 0, 2, 4, Form::Definite),
        record(0, 2, 2, 0, Form::Definite),
        record(1, 4, 2, 0, Form::Primitive),
    ];
    assert_eq!(lie(&buffer, &records), Unproved::Beyond(2));
}

#[test]
fn an_element_that_was_left_out_or_added() {
    for index in 0..truth().len() {
        let mut records = truth();
        records.remove(index);
        lie(BUFFER, &records);
    }
    let mut records = truth();
    records.push(record(0, 20, 2, 0, Form::Primitive));
    assert_eq!(lie(BUFFER, &records), Unproved::Beyond(8));
}

#[test]
fn strings_are_opened_for_one_element_only() {
    let two = [0x04, 0x04, 0x05, 0x00, 0x05, 0x00];
    let records = [
        record(0, 0, 2, 4, Form::Opened),
        record(0, 2, 2, 0, Form::Primitive),
        record(0, 4, 2, 0, Form::Primitive),
    ];
    assert_eq!(lie(&two, &records), Unproved::Unfilled(0));
    assert_eq!(lie(&two, &records[..2]), Unproved::Unfilled(0));
    let empty = [record(0, 0, 2, 0, Form::Opened)];
    assert_eq!(lie(&[0x04, 0x00], &empty), Unproved::Unfilled(0));
    // A BIT STRING of nothing but its count, with unused bits, or without even the count.
    let bits = |content| [record(0, 0, 2, content, Form::Opened)];
    assert_eq!(lie(&[0x03, 0x01, 0x00], &bits(1)), Unproved::Unfilled(0));
    assert_eq!(lie(&[0x03, 0x00], &bits(0)), Unproved::Form(0));
    let unused = [
        record(0, 0, 2, 3, Form::Opened),
        record(0, 3, 2, 0, Form::Primitive),
    ];
    assert_eq!(
        lie(&[0x03, 0x03, 0x01, 0x05, 0x00], &unused),
        Unproved::Form(0)
    );
    prove(&[0x03, 0x03, 0x00, 0x05, 0x00], &encode_table(&unused)).unwrap();
    // Neither is any other primitive.
    let text = [
        record(0, 0, 2, 2, Form::Opened),
        record(0, 2, 2, 0, Form::Primitive),
    ];
    assert_eq!(lie(&[0x0c, 0x02, 0x05, 0x00], &text), Unproved::Form(0));
}

#[test]
fn headers_that_are_not_the_one_encoding() {
    let primitive = |header, content| [record(0, 0, header, content, Form::Primitive)];
    assert_eq!(
        lie(&[0x04, 0x81, 0x01, 0xff], &primitive(3, 1)),
        Unproved::Header(0)
    );
    assert_eq!(
        lie(&[0x1f, 0x01, 0xff], &primitive(2, 1)),
        Unproved::Header(0)
    );
    assert_eq!(lie(&[0x00, 0x00], &primitive(2, 0)), Unproved::Header(0));
    assert_eq!(
        lie(&[0x20, 0x00], &[record(0, 0, 2, 0, Form::Definite)]),
        Unproved::Header(0)
    );
    for length in [0x7fu32, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
        let value = vec![7; length as usize];
        let string = octet_string(&value).der();
        let header = u8::try_from(string.len() - value.len()).unwrap();
        prove(&string, &encode_table(&primitive(header, length))).unwrap();
        let shorter = lie(&string, &primitive(header, length - 1));
        assert_eq!(shorter, Unproved::Beyond(0));
        assert_eq!(
            lie(&string, &primitive(header - 1, length + 1)),
            Unproved::Header(0)
        );
    }
}

#[test]
fn an_indefinite_length_ends_where_it_ends() {
    // SEQUENCE indefinite { NULL, OCTET STRING 00 00 }
    let buffer = [0x30, 0x80, 0x05, 0x00, 0x04, 0x02, 0, 0, 0, 0];
    let children = [
        record(0, 2, 2, 0, Form::Primitive),
        record(0, 4, 2, 2, Form::Primitive),
    ];
    let with = |content| {
        let root = record(0, 0, 2, content, Form::Indefinite);
        encode_table(&[&[root][..], &children].concat())
    };
    prove(&buffer, &with(6)).unwrap();
    for content in [0, 2, 4, 5, 7, 8] {
        assert!(prove(&buffer, &with(content)).is_err(), "{content}");
    }
    let open = [0x30, 0x80, 0x05, 0x00, 0x05, 0x00];
    let records = [
        record(0, 0, 2, 2, Form::Indefinite),
        record(0, 2, 2, 0, Form::Primitive),
    ];
    assert_eq!(lie(&open, &records), Unproved::Unclosed(0));
    // The end of contents as an element of its own.
    let buffer = [0x30, 0x80, 0x00, 0x00, 0x00, 0x00];
    let records = [
        record(0, 0, 2, 2, Form::Indefinite),
        record(0, 2, 2, 0, Form::Primitive),
    ];
    assert_eq!(lie(&buffer, &records), Unproved::Header(1));
}

#[test]
fn tables_are_bounded() {
    assert_eq!(prove(&[5, 0], &[]).unwrap_err(), Unproved::Table);
    assert_eq!(prove(&[5, 0], &[0; 11]).unwrap_err(), Unproved::Table);
    assert_eq!(prove(&[5, 0], &[9; 10]).unwrap_err(), Unproved::Table);

    let nested = |depth: usize| {
        let mut tree = Tree::Constructed(0x30, vec![]);
        for _ in 1..depth {
            tree = Tree::Constructed(0x30, vec![tree]);
        }
        let records: Vec<Record> = (0..depth)
            .map(|level| {
                let start = u32::try_from(2 * level).unwrap();
                let content = u32::try_from(2 * (depth - level - 1)).unwrap();
                let parent = u16::try_from(level.saturating_sub(1)).unwrap();
                record(parent, start, 2, content, Form::Definite)
            })
            .collect();
        prove(&tree.der(), &encode_table(&records))
    };
    nested(MAX_DEPTH).unwrap();
    assert_eq!(
        nested(MAX_DEPTH + 1).unwrap_err(),
        Unproved::Depth(MAX_DEPTH)
    );

    let wide = |count: usize| {
        let tree = Tree::Constructed(0x30, vec![Tree::Primitive(5, vec![]); count - 1]);
        let mut records = vec![record(
            0,
            0,
            4,
            u32::try_from(2 * count - 2).unwrap(),
            Form::Definite,
        )];
        records.extend((1..count).map(|index| {
            record(
                0,
                u32::try_from(2 + 2 * index).unwrap(),
                2,
                0,
                Form::Primitive,
            )
        }));
        prove(&tree.der(), &encode_table(&records))
    };
    wide(MAX_RECORDS).unwrap();
    assert_eq!(wide(MAX_RECORDS + 1).unwrap_err(), Unproved::Table);
}

#[test]
fn tables_of_another_number() {
    let message = Message::usual().encode();
    let tables = message_tables(&message).unwrap();
    assert_eq!(
        run_with_tables(&message, &tables[..1], &usual_key()),
        Outcome::Unproved(Unproved::Count)
    );
    let mut empty = Message::usual();
    empty.content = None;
    let empty = empty.encode();
    let mut of_empty = message_tables(&empty).unwrap();
    of_empty.push(tables[1].clone());
    assert_eq!(
        run_with_tables(&empty, &of_empty, &usual_key()),
        Outcome::Unproved(Unproved::Count)
    );
}

/// Both tables together may not be larger than what one request may have.
#[test]
fn both_tables_share_one_limit() {
    let mut message = Message::usual();
    let filler = vec![Tree::Primitive(5, vec![]); 2100];
    message.attributes.push(attribute(
        "1.2.3.4",
        [Tree::Constructed(0x30, filler.clone())],
    ));
    let mut envelope = Tree::parse(message.content.as_ref().unwrap());
    envelope.children()[1].children()[0]
        .children()
        .push(Tree::Constructed(0xa1, filler));
    message.content = Some(envelope.der());
    let octets = message.encode();
    let everything = |octets: &[u8], open: &[usize]| {
        encode_table(&chancery_parser::expand(octets, open, MAX_RECORDS).unwrap())
    };
    let tables = [
        everything(&octets, &[]),
        everything(message.content.as_ref().unwrap(), &[]),
    ];
    assert_eq!(
        run_with_tables(&octets, &tables, &usual_key()),
        Outcome::Unproved(Unproved::Table)
    );
}

/// A key that stays closed cannot be read, and is not guessed.
#[test]
fn strings_left_closed() {
    let message = Message::usual().encode();
    let mut tables = message_tables(&message).unwrap();
    tables[0] = encode_table(&chancery_parser::expand(&message, &[], MAX_RECORDS).unwrap());
    assert_eq!(
        run_with_tables(&message, &tables, &usual_key()),
        Outcome::Unproved(Unproved::Unopened)
    );
}

/// The attack on promise 3: other signedAttrs than the signed ones, in a place where the sender
/// may write anything. Their table is true for a message that has them in the right place.
#[test]
fn signed_attributes_from_elsewhere() {
    let decoys = vec![
        attribute(SENDER_NONCE, [octet_string([0x22; 16])]),
        attribute(TRANSACTION_ID, [printable("transaction-2")]),
    ];
    let mut with_decoys = Message::usual();
    with_decoys.unsigned_attributes = decoys.clone();
    let victim = with_decoys.encode();
    let mut rearranged = Message::usual();
    rearranged.attributes.extend(decoys);
    let tables = message_tables(&rearranged.encode()).unwrap();
    assert!(matches!(
        run_with_tables(&victim, &tables, &usual_key()),
        Outcome::Unproved(_)
    ));
    let opened = run_with_tables(&victim, &message_tables(&victim).unwrap(), &usual_key());
    assert_eq!(opened.opened().transaction_id, "transaction-1");
}

fn buffers() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut message = Message::usual();
    message.encoding = Encoding::IndefinitePieces(300);
    let der = Message::usual().encode();
    let ber = message.encode();
    let request = Request::new(&DEVICE).encode();
    vec![
        (BUFFER.to_vec(), encode_table(&truth())),
        (der.clone(), message_tables(&der).unwrap().remove(0)),
        (ber.clone(), message_tables(&ber).unwrap().remove(0)),
        (request.clone(), request_table(&request).unwrap()),
    ]
}

/// One change of a table.
#[derive(Clone, Debug)]
enum Lie {
    Parent(u16),
    Start(i32),
    Header(i8),
    Content(i32),
    Form(u8),
    Delete,
    Double,
    Swap(usize),
    Replace(Vec<u8>),
}

fn lies() -> impl Strategy<Value = Lie> {
    prop_oneof![
        (0u16..200).prop_map(Lie::Parent),
        prop_oneof![-4i32..5, any::<i32>()].prop_map(Lie::Start),
        any::<i8>().prop_map(Lie::Header),
        prop_oneof![-4i32..5, any::<i32>()].prop_map(Lie::Content),
        (0u8..5).prop_map(Lie::Form),
        Just(Lie::Delete),
        Just(Lie::Double),
        any::<usize>().prop_map(Lie::Swap),
        proptest::collection::vec(any::<u8>(), 10).prop_map(Lie::Replace),
    ]
}

fn apply(lie: &Lie, records: &mut Vec<[u8; 10]>, index: usize) {
    let index = index % records.len();
    let change = |octets: &mut [u8], by: i32| {
        let mut value = [0; 4];
        value[4 - octets.len()..].copy_from_slice(octets);
        let value = u32::from_be_bytes(value).wrapping_add_signed(by);
        octets.copy_from_slice(&value.to_be_bytes()[4 - octets.len()..]);
    };
    match lie {
        Lie::Parent(parent) => records[index][..2].copy_from_slice(&parent.to_be_bytes()),
        Lie::Start(by) => change(&mut records[index][2..5], *by),
        Lie::Header(by) => change(&mut records[index][5..6], i32::from(*by)),
        Lie::Content(by) => change(&mut records[index][6..9], *by),
        Lie::Form(form) => records[index][9] = *form,
        Lie::Delete => {
            records.remove(index);
        }
        Lie::Double => records.insert(index, records[index]),
        Lie::Swap(other) => {
            let other = other % records.len();
            records.swap(index, other);
        }
        Lie::Replace(octets) => records[index].copy_from_slice(octets),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Of one buffer there is one table, but for what is opened, which no single change can alter.
    #[test]
    fn a_changed_table_is_the_same_or_refused(
        which in 0usize..4,
        changes in proptest::collection::vec((lies(), any::<usize>()), 1..3),
    ) {
        use std::sync::LazyLock;
        static BUFFERS: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(buffers);
        let (buffer, table) = &BUFFERS[which];
        let truth = prove(buffer, table).unwrap();
        let mut records = table.as_chunks::<10>().0.to_vec();
        for (change, index) in &changes {
            apply(change, &mut records, *index);
        }
        if let Ok(proved) = prove(buffer, &records.concat()) {
            prop_assert!(decode_table(&records.concat()).is_some());
            prop_assert_eq!(proved, truth);
        }
    }

    #[test]
    fn any_table_over_any_octets_is_judged(
        buffer in proptest::collection::vec(any::<u8>(), 0..60),
        table in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(nodes) = prove(&buffer, &table) {
            prop_assert!(!buffer.is_empty());
            prop_assert_eq!(prove(&buffer, &table).unwrap(), nodes);
        }
    }

    /// Small buffers and records near the truth, so that the rules behind the first are reached.
    #[test]
    fn what_the_parser_says_is_proved(octets in proptest::collection::vec(
        prop_oneof![Just(0x30u8), Just(0x80), Just(0x00), Just(0x05), Just(0x04), 0u8..8], 2..24)) {
        if let Ok(records) = chancery_parser::expand(&octets, &[], MAX_RECORDS) {
            prop_assert!(prove(&octets, &encode_table(&records)).is_ok());
        }
    }
}
