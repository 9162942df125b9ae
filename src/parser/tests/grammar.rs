//! The grammars, element by element: what must stand where, and which strings are opened.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_parser::{
    Fault, MessageTables, table_of_certification_request, table_of_message, take_apart,
};
use chancery_protocol::ipc::parse::{Reply, Request};
use chancery_protocol::node::{Form, MAX_RECORDS, Record};
use common::assert_tiles;
use common::element::{Content, Element, constructed, primitive};
use common::scep::{
    E_CONTENT, ENCRYPTED_CONTENT, ENVELOPED_DATA, SIGNED_DATA, bare_enveloped_data,
    bare_signed_data,
};
use der::asn1::{Null, OctetString};

const SAN: [u8; 3] = [0x55, 0x1d, 0x11];
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const CERT_EXTENSIONS: &[u8] = b"\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e";
const CHALLENGE_PASSWORD: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07";

fn sequence(elements: impl Into<Vec<Element>>) -> Element {
    constructed(0x30, elements)
}

fn oid(content: &[u8]) -> Element {
    primitive(0x06, content)
}

fn algorithm(content: &[u8]) -> Element {
    sequence([oid(content)])
}

fn name() -> Element {
    let pair = sequence([oid(&[0x55, 0x04, 0x03]), primitive(0x0c, *b"device")]);
    sequence([constructed(0x31, [pair])])
}

fn public_key(algorithm_oid: &[u8], key: &[u8]) -> Element {
    sequence([algorithm(algorithm_oid), primitive(0x03, key)])
}

/// An RSA key by its form: BIT STRING of `SEQUENCE { INTEGER, INTEGER }`.
fn rsa_key() -> Element {
    public_key(RSA, &[0, 0x30, 0x06, 0x02, 0x01, 0x23, 0x02, 0x01, 0x03])
}

fn extension(kind: &[u8], value: Element) -> Element {
    sequence([oid(kind), value])
}

/// GeneralNames with one dNSName.
fn san() -> Element {
    extension(&SAN, primitive(0x04, [0x30, 0x03, 0x82, 0x01, b'a']))
}

fn attribute(kind: &[u8], value: Element) -> Element {
    sequence([oid(kind), constructed(0x31, [value])])
}

fn request_with(key: Element, attributes: Option<Vec<Element>>) -> Element {
    let mut info = vec![primitive(0x02, [0]), name(), key];
    info.extend(attributes.map(|attributes| constructed(0xa0, attributes)));
    sequence([sequence(info), algorithm(RSA), primitive(0x03, [0, 1, 2])])
}

fn requesting(extensions: impl Into<Vec<Element>>) -> Element {
    let attributes = vec![attribute(EXTENSION_REQUEST, sequence(extensions))];
    request_with(public_key(EC, &[0, 4]), Some(attributes))
}

fn certificate_with(key: Element, extensions: impl Into<Vec<Element>>) -> Element {
    let validity = sequence([
        primitive(0x17, *b"260101000000Z"),
        primitive(0x18, *b"2051"),
    ]);
    let tbs = [
        constructed(0xa0, [primitive(0x02, [2])]),
        primitive(0x02, [1]),
        algorithm(RSA),
        name(),
        validity,
        name(),
        key,
        primitive(0x81, [0, 1]),
        primitive(0x82, [0, 1]),
        constructed(0xa3, [sequence(extensions)]),
    ];
    sequence([sequence(tbs), algorithm(RSA), primitive(0x03, [0, 1, 2])])
}

fn insert(parent: &mut Element, index: usize, element: Element) {
    let Content::Elements(elements) = &mut parent.content else {
        panic!("not constructed")
    };
    elements.insert(index, element);
}

fn remove(parent: &mut Element, index: usize) -> Element {
    let Content::Elements(elements) = &mut parent.content else {
        panic!("not constructed")
    };
    elements.remove(index)
}

/// A message with these certificates and no eContent.
fn message_with(certificates: impl Into<Vec<Element>>) -> Element {
    let mut message = bare_signed_data();
    insert(message.at(&[1, 0]), 3, constructed(0xa0, certificates));
    message
}

fn enveloping(content: Element) -> Element {
    let mut message = bare_signed_data();
    insert(message.at(&[1, 0, 2]), 1, constructed(0xa0, [content]));
    message
}

fn message(element: &Element) -> Result<MessageTables, Fault> {
    let octets = element.to_der();
    let tables = table_of_message(&octets).map_err(|m| m.fault)?;
    assert_tiles(&octets, &tables.message);
    Ok(tables)
}

fn request(element: &Element) -> Result<Vec<Record>, Fault> {
    let octets = element.to_der();
    let table = table_of_certification_request(&octets).map_err(|m| m.fault)?;
    assert_tiles(&octets, &table);
    Ok(table)
}

/// The first element inside each opened string, as octets of the buffer.
fn opened(element: &Element, table: &[Record]) -> Vec<Vec<u8>> {
    let octets = element.to_der();
    let child = |index: usize| {
        let record = table[index + 1];
        let end = record.start as usize + usize::from(record.header) + record.content as usize;
        octets[record.start as usize..end].to_vec()
    };
    let forms = table.iter().enumerate();
    forms
        .filter(|(_, record)| record.form == Form::Opened)
        .map(|(i, _)| child(i))
        .collect()
}

#[test]
fn signed_data_wants_its_fields() {
    assert_eq!(message(&bare_signed_data()).unwrap().content, None);
    for (parent, index, what) in [
        (&[][..], 0, "id-signedData"),
        (&[], 1, "the content of a ContentInfo"),
        (&[1], 0, "a SEQUENCE as content"),
        (&[1, 0], 0, "the version of a SignedData"),
        (&[1, 0], 1, "digestAlgorithms"),
        (&[1, 0], 2, "an encapContentInfo"),
        (&[1, 0, 2], 0, "an eContentType"),
        (&[1, 0], 3, "signerInfos"),
    ] {
        let mut changed = bare_signed_data();
        remove(changed.at(parent), index);
        assert_eq!(message(&changed), Err(Fault::Expected(what)));
    }
}

#[test]
fn signed_data_has_no_other_fields() {
    for (parent, index, what) in [
        (&[][..], 2, "the end of a ContentInfo"),
        (&[1], 1, "the end of the content"),
        (&[1, 0], 4, "the end of a SignedData"),
        (&[1, 0, 2], 1, "the end of an encapContentInfo"),
    ] {
        let mut changed = bare_signed_data();
        insert(changed.at(parent), index, primitive(0x05, []));
        assert_eq!(message(&changed), Err(Fault::Expected(what)));
    }
}

#[test]
fn signed_data_may_have_crls_after_certificates() {
    let crls = || constructed(0xa1, [sequence([])]);
    let mut accepted = message_with([]);
    insert(accepted.at(&[1, 0]), 4, crls());
    assert!(message(&accepted).is_ok());
    let mut refused = message_with([]);
    insert(refused.at(&[1, 0]), 3, crls());
    assert_eq!(message(&refused), Err(Fault::Expected("signerInfos")));
}

#[test]
fn the_content_type_is_signed_data() {
    for kind in [ENVELOPED_DATA.as_bytes(), &SIGNED_DATA.as_bytes()[1..], &[]] {
        let mut changed = bare_signed_data();
        *changed.at(&[0]) = oid(kind);
        assert_eq!(message(&changed), Err(Fault::Expected("id-signedData")));
    }
}

#[test]
fn enveloped_data_wants_its_fields() {
    let content = |changed: &Element| message(&enveloping(primitive(0x04, changed.to_der())));
    assert_eq!(
        content(&bare_enveloped_data())
            .unwrap()
            .content
            .unwrap()
            .len(),
        10
    );
    for (parent, index, what) in [
        (&[][..], 0, "id-envelopedData"),
        (&[], 1, "the content of a ContentInfo"),
        (&[1, 0], 0, "the version of an EnvelopedData"),
        (&[1, 0], 1, "recipientInfos"),
        (&[1, 0], 2, "an encryptedContentInfo"),
        (&[1, 0, 2], 0, "a contentType"),
        (&[1, 0, 2], 1, "a contentEncryptionAlgorithm"),
        (&[1, 0, 2, 1], 0, "an algorithm"),
    ] {
        let mut changed = bare_enveloped_data();
        remove(changed.at(parent), index);
        assert_eq!(content(&changed), Err(Fault::Expected(what)));
    }
    let mut changed = bare_enveloped_data();
    *changed.at(&[0]) = oid(SIGNED_DATA.as_bytes());
    assert_eq!(content(&changed), Err(Fault::Expected("id-envelopedData")));

    let mut full = bare_enveloped_data();
    insert(full.at(&[1, 0]), 3, constructed(0xa1, []));
    insert(full.at(&[1, 0]), 1, constructed(0xa0, []));
    assert!(content(&full).is_ok());
    insert(full.at(&[1, 0]), 5, primitive(0x05, []));
    assert_eq!(
        content(&full),
        Err(Fault::Expected("the end of an EnvelopedData"))
    );
}

#[test]
fn content_is_a_string_of_one_level() {
    let inner = bare_enveloped_data().to_der();
    let (first, second) = inner.split_at(5);
    let pieces = [
        primitive(0x04, first),
        primitive(0x04, []),
        primitive(0x04, second),
    ];
    let whole = message(&enveloping(primitive(0x04, inner.clone())))
        .unwrap()
        .content;
    assert!(whole.is_some());
    let chunked = constructed(0x24, pieces.clone());
    assert_eq!(
        message(&enveloping(chunked.clone())).unwrap().content,
        whole
    );

    let piece = Err(Fault::Expected("a primitive piece of an OCTET STRING"));
    assert_eq!(message(&enveloping(constructed(0x24, [chunked]))), piece);
    assert_eq!(
        message(&enveloping(constructed(0x24, [primitive(0x0c, first)]))),
        piece
    );
    assert_eq!(
        message(&enveloping(constructed(0x24, []))),
        Err(Fault::Truncated)
    );
    let other = Err(Fault::Expected("an eContent"));
    assert_eq!(message(&enveloping(constructed(0x30, pieces))), other);
    assert_eq!(message(&enveloping(primitive(0x0c, inner.clone()))), other);

    let mut two = enveloping(primitive(0x04, first));
    insert(two.at(&E_CONTENT[..4]), 1, primitive(0x04, second));
    assert_eq!(
        message(&two),
        Err(Fault::Expected("the end of an eContent"))
    );
}

#[test]
fn encrypted_content_is_a_string_of_one_level() {
    let with = |content: Element| {
        let mut enveloped = bare_enveloped_data();
        insert(enveloped.at(&ENCRYPTED_CONTENT[..3]), 2, content);
        message(&enveloping(primitive(0x04, enveloped.to_der())))
    };
    let piece = || primitive(0x04, [1, 2]);
    assert!(with(primitive(0x80, [1, 2])).is_ok());
    assert!(with(constructed(0xa0, [])).is_ok());
    assert!(with(constructed(0xa0, [piece(), piece()])).is_ok());
    let one_level = Err(Fault::Expected("a primitive piece of an OCTET STRING"));
    assert_eq!(
        with(constructed(0xa0, [constructed(0x24, [piece()])])),
        one_level
    );
    assert_eq!(with(piece()), Err(Fault::Expected("an encryptedContent")));
}

#[test]
fn chunks_elsewhere_are_just_elements() {
    let mut message_ = bare_signed_data();
    let nested = constructed(0x24, [constructed(0x24, [primitive(0x02, [1])])]);
    insert(message_.at(&[1, 0, 3]), 0, sequence([nested]));
    let records = message(&message_).unwrap().message;
    assert_eq!(records.len(), message_.count());
}

#[test]
fn certificates_want_their_fields() {
    let good = certificate_with(rsa_key(), [san()]);
    assert!(message(&message_with([good.clone()])).is_ok());
    for (parent, index, what) in [
        (&[][..], 0, "an AlgorithmIdentifier"),
        (&[], 1, "an AlgorithmIdentifier"),
        (&[], 2, "a signature"),
        (&[0, 0], 0, "a version"),
        (&[0], 1, "a serialNumber"),
        (&[0, 2], 0, "an algorithm"),
        (&[0], 3, "a RelativeDistinguishedName"),
        (&[0, 4], 0, "a Time"),
        (&[0, 4], 1, "a Time"),
        (&[0, 5, 0, 0], 0, "an attribute type"),
        (&[0, 5, 0, 0], 1, "an attribute value"),
        (&[0, 6], 0, "an AlgorithmIdentifier"),
        (&[0, 6], 1, "a subjectPublicKey"),
        (&[0, 9], 0, "Extensions"),
        (&[0, 9, 0, 0], 0, "an extnID"),
        (&[0, 9, 0, 0], 1, "an extnValue"),
    ] {
        let mut changed = good.clone();
        remove(changed.at(parent), index);
        assert_eq!(
            message(&message_with([changed])),
            Err(Fault::Expected(what))
        );
    }
    for (parent, index, what) in [
        (&[][..], 3, "the end after a signature"),
        (&[0], 10, "the end of a TBSCertificate"),
        (&[0, 0], 1, "the end of a version"),
        (&[0, 4], 2, "the end of a Validity"),
        (&[0, 5, 0, 0], 2, "the end of an AttributeTypeAndValue"),
        (&[0, 6], 2, "the end of a SubjectPublicKeyInfo"),
        (&[0, 9], 1, "the end of the extensions"),
        (&[0, 9, 0, 0], 2, "the end of an Extension"),
    ] {
        let mut changed = good.clone();
        insert(changed.at(parent), index, primitive(0x05, []));
        assert_eq!(
            message(&message_with([changed])),
            Err(Fault::Expected(what))
        );
    }
}

#[test]
fn optional_fields_of_a_certificate_may_be_absent() {
    for absent in [&[9][..], &[8], &[7], &[0], &[9, 8, 7, 0]] {
        let mut changed = certificate_with(rsa_key(), [san()]);
        for index in absent {
            remove(changed.at(&[0]), *index);
        }
        assert!(message(&message_with([changed])).is_ok(), "{absent:?}");
    }
}

#[test]
fn other_certificate_choices_are_not_read() {
    let other = |tag| constructed(tag, [primitive(0x05, [])]);
    assert!(message(&message_with([0xa0, 0xa1, 0xa2, 0xa3].map(other))).is_ok());
    for tag in [0xa4, 0x31] {
        assert_eq!(
            message(&message_with([other(tag)])),
            Err(Fault::Expected("a Certificate"))
        );
    }
}

#[test]
fn strings_of_every_certificate_are_opened() {
    let certificates = [
        certificate_with(
            rsa_key(),
            [san(), extension(&KEY_USAGE, primitive(0x04, [9]))],
        ),
        certificate_with(public_key(EC, &[0, 0x05, 0x00]), [san(), san()]),
    ];
    let message_ = message_with(certificates);
    let table = message(&message_).unwrap().message;
    let key = vec![0x30, 0x06, 0x02, 0x01, 0x23, 0x02, 0x01, 0x03];
    let names = vec![0x30, 0x03, 0x82, 0x01, b'a'];
    assert_eq!(
        opened(&message_, &table),
        [key, names.clone(), names.clone(), names]
    );
}

#[test]
fn strings_of_a_request_are_opened() {
    for kind in [EXTENSION_REQUEST, CERT_EXTENSIONS] {
        let challenge = attribute(CHALLENGE_PASSWORD, primitive(0x13, *b"secret"));
        let extensions = attribute(kind, sequence([san()]));
        let element = request_with(rsa_key(), Some(vec![challenge, extensions]));
        let table = request(&element).unwrap();
        let key = vec![0x30, 0x06, 0x02, 0x01, 0x23, 0x02, 0x01, 0x03];
        let names = vec![0x30, 0x03, 0x82, 0x01, b'a'];
        assert_eq!(opened(&element, &table), [key, names]);
    }
}

#[test]
fn nothing_else_is_opened() {
    // A key of another algorithm, another extension, and the same shape in another attribute.
    let other = extension(&KEY_USAGE, primitive(0x04, [0x05, 0x00]));
    let attributes = vec![
        attribute(CHALLENGE_PASSWORD, sequence([san()])),
        attribute(EXTENSION_REQUEST, sequence([other])),
    ];
    let element = request_with(public_key(EC, &[0, 0x05, 0x00]), Some(attributes));
    let table = request(&element).unwrap();
    assert_eq!(opened(&element, &table), Vec::<Vec<u8>>::new());
}

#[test]
fn what_is_opened_is_one_element() {
    let names = |octets: &[u8]| request(&requesting([extension(&SAN, primitive(0x04, octets))]));
    assert!(names(&[0x30, 0x00]).is_ok());
    assert_eq!(names(&[]), Err(Fault::Truncated));
    assert_eq!(names(&[0x30, 0x01]), Err(Fault::Truncated));
    assert_eq!(names(&[0x30, 0x00, 0x00]), Err(Fault::Trailing));
    let pieces = constructed(0x24, [primitive(0x04, [0x30, 0x00])]);
    assert_eq!(
        request(&requesting([extension(&SAN, pieces)])),
        Err(Fault::Expected("an extnValue"))
    );

    let key = |octets: &[u8]| request(&request_with(public_key(RSA, octets), None));
    assert!(key(&[0, 0x30, 0x00]).is_ok());
    assert_eq!(key(&[]), Err(Fault::NotOctets));
    assert_eq!(key(&[1, 0x30, 0x00]), Err(Fault::NotOctets));
    assert_eq!(key(&[0]), Err(Fault::Truncated));
    assert_eq!(key(&[0, 0x30, 0x00, 0x30, 0x00]), Err(Fault::Trailing));
}

#[test]
fn a_request_wants_its_fields() {
    let extensions = || {
        let critical = sequence([
            oid(&SAN),
            primitive(0x01, [0xff]),
            primitive(0x04, [0x30, 0x00]),
        ]);
        attribute(EXTENSION_REQUEST, sequence([critical]))
    };
    let good = request_with(rsa_key(), Some(vec![extensions()]));
    assert!(request(&good).is_ok());
    for (parent, index, what) in [
        (&[][..], 0, "an AlgorithmIdentifier"),
        (&[], 1, "an AlgorithmIdentifier"),
        (&[], 2, "a signature"),
        (&[0], 0, "the version of a CertificationRequestInfo"),
        (&[0], 2, "a SubjectPublicKeyInfo"),
        (&[0, 3, 0], 0, "an attribute type"),
        (&[0, 3, 0], 1, "attribute values"),
        (&[0, 3, 0, 1, 0, 0], 0, "an extnID"),
        (&[0, 3, 0, 1, 0, 0], 2, "an extnValue"),
    ] {
        let mut changed = good.clone();
        remove(changed.at(parent), index);
        assert_eq!(request(&changed), Err(Fault::Expected(what)));
    }
    for (parent, index, what) in [
        (&[][..], 3, "the end after a signature"),
        (&[0], 4, "the end of a CertificationRequestInfo"),
        (&[0, 3], 1, "an Attribute"),
        (&[0, 3, 0], 2, "the end of an Attribute"),
        (&[0, 3, 0, 1], 1, "Extensions"),
        (&[0, 3, 0, 1, 0], 1, "an Extension"),
        (&[0, 3, 0, 1, 0, 0], 3, "the end of an Extension"),
        (&[1], 2, "the end of an AlgorithmIdentifier"),
    ] {
        let mut changed = good.clone();
        if parent == [1] {
            insert(changed.at(parent), 1, primitive(0x05, []));
        }
        insert(changed.at(parent), index, primitive(0x05, []));
        assert_eq!(request(&changed), Err(Fault::Expected(what)));
    }
}

#[test]
fn attributes_may_be_absent_or_empty() {
    assert!(request(&request_with(rsa_key(), None)).is_ok());
    assert!(request(&request_with(rsa_key(), Some(vec![]))).is_ok());
}

#[test]
fn the_limit_on_records_is_of_both_tables() {
    let fits = |fillers: usize| {
        let mut enveloped = bare_enveloped_data();
        for _ in 0..1000 {
            insert(enveloped.at(&[1, 0, 1]), 0, primitive(0x05, []));
        }
        let mut message_ = enveloping(primitive(0x04, enveloped.to_der()));
        for _ in 0..fillers {
            insert(message_.at(&[1, 0, 1]), 0, primitive(0x05, []));
        }
        message(&message_).map(|t| t.message.len() + t.content.unwrap().len())
    };
    let most = MAX_RECORDS - fits(0).unwrap();
    assert_eq!(fits(most), Ok(MAX_RECORDS));
    assert_eq!(fits(most + 1), Err(Fault::TooMany));
}

#[test]
fn whoever_asks_says_which_grammar() {
    let octets = |element: Element| OctetString::new(element.to_der()).unwrap();
    let request = octets(request_with(rsa_key(), None));
    let message = octets(bare_signed_data());
    let tables = |request: &Request| match take_apart(request) {
        Reply::Tables(tables) => tables.tables.len(),
        Reply::Malformed(Null) => 0,
    };
    assert_eq!(tables(&Request::CertificationRequest(request.clone())), 1);
    assert_eq!(tables(&Request::Message(request)), 0);
    assert_eq!(tables(&Request::Message(message.clone())), 1);
    assert_eq!(tables(&Request::CertificationRequest(message)), 0);
    let inner = primitive(0x04, bare_enveloped_data().to_der());
    assert_eq!(tables(&Request::Message(octets(enveloping(inner)))), 2);
}
