//! The whole path of a message through the parser and this crate.

use chancery_message::{OpenError, Plaintext, ReadError, SignedMessage, Unproved, VerifiedMessage};
use chancery_parser::take_apart;
use chancery_protocol::ipc::parse::{Reply, Request};
use chancery_protocol::node::{MAX_RECORDS, encode_table};
use chancery_protocol::refusal::Refusal;
use chancery_protocol::wire::Secret;
use der::asn1::OctetString;

use crate::builder::Message;

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Opened(Box<Opened>),
    Refused(Refusal),
    /// No pkiMessage: the parser says so, or this crate does.
    Malformed,
    Unproved(Unproved),
}

/// What an opened message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) transaction_id: String,
    pub(crate) sender_nonce: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) subject: String,
    pub(crate) sans: Vec<String>,
    pub(crate) challenge: Option<Vec<u8>>,
}

/// The content-encryption key that the builder uses.
pub(crate) fn usual_key() -> Secret {
    Secret::new(vec![0x5a; 16])
}

/// Tables by the parser; `None` for "malformed".
pub(crate) fn tables(request: &Request) -> Option<Vec<Vec<u8>>> {
    match take_apart(request) {
        Reply::Tables(tables) => Some(tables.tables.iter().map(|t| t.as_bytes().into()).collect()),
        Reply::Malformed(_) => None,
    }
}

pub(crate) fn message_tables(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    tables(&Request::Message(OctetString::new(message).unwrap()))
}

pub(crate) fn request_table(plaintext: &[u8]) -> Option<Vec<u8>> {
    let request = Request::CertificationRequest(OctetString::new(plaintext).unwrap());
    tables(&request).map(|mut tables| tables.remove(0))
}

/// Runs a message whose content-encryption key is the usual one.
pub(crate) fn run(message: &[u8]) -> Outcome {
    run_with_key(message, &usual_key())
}

pub(crate) fn run_with_key(message: &[u8], key: &Secret) -> Outcome {
    match message_tables(message) {
        Some(tables) => run_with_tables(message, &tables, key),
        None => Outcome::Malformed,
    }
}

/// Runs a message with the tables of a child that may lie about it.
pub(crate) fn run_with_tables(message: &[u8], tables: &[Vec<u8>], key: &Secret) -> Outcome {
    let envelope_table = tables.get(1).map(Vec::as_slice);
    let message = match SignedMessage::read(message, &tables[0], envelope_table) {
        Ok(message) => message,
        Err(ReadError::Malformed(_)) => return Outcome::Malformed,
        Err(ReadError::Unproved(cause)) => return Outcome::Unproved(cause),
    };
    let message = match message.verify() {
        Ok(message) => message,
        Err(rejected) => {
            assert!(rejected.refusal.before_decryption());
            return Outcome::Refused(rejected.refusal);
        }
    };
    let plaintext = message.decrypt(key);
    let table = request_table(plaintext.as_bytes());
    finish(message, &plaintext, table.as_deref())
}

fn finish(message: VerifiedMessage<'_>, plaintext: &Plaintext, table: Option<&[u8]>) -> Outcome {
    match message.open(plaintext, table) {
        Ok(opened) => Outcome::Opened(Box::new(Opened {
            transaction_id: opened.transaction_id.as_str().into(),
            sender_nonce: opened.sender_nonce.as_bytes().into(),
            spki: opened.request.public_key.spki().into(),
            subject: opened.request.names.subject.to_string(),
            sans: opened
                .request
                .names
                .sans
                .iter()
                .map(ToString::to_string)
                .collect(),
            challenge: opened.request.challenge.map(|c| c.expose().to_vec()),
        })),
        Err(OpenError::Rejected(rejected)) => {
            assert!(!rejected.refusal.before_decryption());
            Outcome::Refused(rejected.refusal)
        }
        Err(OpenError::Unproved { cause, .. }) => Outcome::Unproved(cause),
    }
}

/// The table of a child that knows no grammar: every element, and the key of the device opened.
pub(crate) fn grammarless_table(buffer: &[u8]) -> Vec<u8> {
    let key = [0x03, 0x82, 0x01, 0x0f, 0x00];
    let offset = buffer.windows(key.len()).position(|w| w == key);
    let open: Vec<usize> = offset.into_iter().collect();
    encode_table(&chancery_parser::expand(buffer, &open, MAX_RECORDS).unwrap())
}

/// Runs a message whose tables, and that of its request, know no grammar.
pub(crate) fn run_grammarless(message: &[u8], content: &[u8]) -> Outcome {
    let tables = [grammarless_table(message), grammarless_table(content)];
    run_with_tables(message, &tables, &usual_key())
}

/// Runs the usual message around a plaintext whose table knows no grammar.
pub(crate) fn run_plaintext(plaintext: &[u8]) -> Outcome {
    let octets = Message::around(plaintext.into()).encode();
    let tables = message_tables(&octets).unwrap();
    let message = SignedMessage::read(&octets, &tables[0], Some(&tables[1])).unwrap();
    let message = message.verify().ok().unwrap();
    let decrypted = message.decrypt(&usual_key());
    finish(message, &decrypted, Some(&grammarless_table(plaintext)))
}

impl Outcome {
    /// The opened message.
    pub(crate) fn opened(self) -> Opened {
        match self {
            Self::Opened(opened) => *opened,
            other => panic!("{other:?}"),
        }
    }
}
