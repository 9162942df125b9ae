//! Takes hostile CMS and PKCS#10 apart, and answers with numbers only.
//!
//! Run by `chancery-parser`, once a blob, in a child that holds nothing and dies with its answer.
//! Trusted with nothing: whoever asked proves the node tables over the octets, which it kept
//! (crate `chancery-message`). Hence the grammars here look at structure alone, so that a
//! hopeless message dies early; they judge no value.
//!
//! No cryptography, and no I/O but the one socket in [`main`]. Nothing here recurses, and no
//! allocation follows a claimed length.
#![forbid(unsafe_code)]

mod certificate;
mod cursor;
mod node;
mod pki_message;
mod process;
mod table;
mod tag;

pub use cursor::{Cursor, Extent, Fault, Header, Malformed};
pub use process::main;
pub use table::expand;

use chancery_protocol::ipc::parse::{Reply, Request, Tables};
use chancery_protocol::node::{MAX_RECORDS, Record, encode_table};
use der::asn1::{Null, OctetString};
use node::Node;

/// Answers one request.
#[must_use]
pub fn take_apart(request: &Request) -> Reply {
    let tables = match request {
        Request::Message(message) => table_of_message(message.as_bytes()).map(|found| {
            core::iter::once(found.message)
                .chain(found.content)
                .collect()
        }),
        Request::CertificationRequest(plaintext) => {
            table_of_certification_request(plaintext.as_bytes()).map(|table| vec![table])
        }
    };
    tables
        .ok()
        .and_then(|tables| reply(&tables))
        .unwrap_or(Reply::Malformed(Null))
}

/// The node tables of a pkiMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageTables {
    /// Of the message itself: ContentInfo and SignedData.
    pub message: Vec<Record>,
    /// Of its joined eContent, where there is one: ContentInfo and EnvelopedData.
    pub content: Option<Vec<Record>>,
}

/// Takes apart a pkiMessage (RFC 8894 §3): a ContentInfo of SignedData and, as its eContent, a
/// ContentInfo of EnvelopedData, in BER. In certificates, the values of subjectAltName and the
/// keys of rsaEncryption are opened.
///
/// # Errors
/// [`Malformed`] if `message` is not of this grammar or exceeds a limit.
pub fn table_of_message(message: &[u8]) -> Result<MessageTables, Malformed> {
    let flat = expand(message, &[], MAX_RECORDS)?;
    let mut open = Vec::new();
    let content = pki_message::signed_data(root(message, &flat)?, &mut open)?;
    let message = expand(message, &open, MAX_RECORDS)?;
    let Some(content) = content else {
        return Ok(MessageTables {
            message,
            content: None,
        });
    };
    let table = expand(&content, &[], MAX_RECORDS - message.len())?;
    pki_message::enveloped_data(root(&content, &table)?)?;
    Ok(MessageTables {
        message,
        content: Some(table),
    })
}

/// Takes apart a PKCS#10 CertificationRequest (RFC 2986). The value of a requested subjectAltName
/// (in an extensionRequest, also by Microsoft's name) and a key of rsaEncryption are opened.
///
/// # Errors
/// [`Malformed`] if `plaintext` is not of this grammar or exceeds a limit.
pub fn table_of_certification_request(plaintext: &[u8]) -> Result<Vec<Record>, Malformed> {
    let flat = expand(plaintext, &[], MAX_RECORDS)?;
    let mut open = Vec::new();
    certificate::certification_request(root(plaintext, &flat)?, &mut open)?;
    expand(plaintext, &open, MAX_RECORDS)
}

fn root<'t>(buffer: &'t [u8], table: &'t [Record]) -> Result<Node<'t>, Malformed> {
    Node::root(buffer, table).ok_or(Fault::Truncated.at(0))
}

fn reply(tables: &[Vec<Record>]) -> Option<Reply> {
    let octets = |table: &Vec<Record>| OctetString::new(encode_table(table)).ok();
    Some(Reply::Tables(Tables {
        tables: tables.iter().map(octets).collect::<Option<_>>()?,
    }))
}
