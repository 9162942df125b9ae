//! The way to the parser: one blob, one child, one answer, which nobody believes yet.

use std::path::PathBuf;
use std::time::Duration;

use chancery_host::ipc::{CallError, ask_once};
use chancery_protocol::ipc::parse;
use chancery_protocol::wire;
use der::asn1::{AnyRef, ContextSpecificRef};
use der::{Tag, TagMode, TagNumber};
use zeroize::Zeroizing;

/// A child's life: its alarm ends it after 5 seconds.
const DEADLINE: Duration = Duration::from_secs(6);

/// Asks the parser's children.
#[derive(Debug)]
pub(crate) struct ParserPort {
    socket: PathBuf,
}

impl ParserPort {
    /// By the socket `parser.parse`.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Has a pkiMessage taken apart. The answer is the table of the message and, where it has an
    /// eContent, that of the joined eContent.
    ///
    /// # Errors
    /// [`NoTables`]
    pub(crate) fn message(&self, message: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), NoTables> {
        let mut tables = self.ask(TagNumber(0), message)?.into_iter();
        match (tables.next(), tables.next(), tables.next()) {
            (Some(message), content, None) => Ok((message, content)),
            _ => Err(NoTables::Lied),
        }
    }

    /// Has a decrypted plaintext taken apart, by a child that never sees anything else.
    ///
    /// # Errors
    /// [`NoTables`]
    pub(crate) fn certification_request(&self, plaintext: &[u8]) -> Result<Vec<u8>, NoTables> {
        let mut tables = self.ask(TagNumber(1), plaintext)?.into_iter();
        match (tables.next(), tables.next()) {
            (Some(table), None) => Ok(table),
            _ => Err(NoTables::Lied),
        }
    }

    fn ask(&self, grammar: TagNumber, blob: &[u8]) -> Result<Vec<Vec<u8>>, NoTables> {
        let packet = encode(grammar, blob).map_err(|_| NoTables::Malformed)?;
        let answer = match ask_once(&self.socket, DEADLINE, &packet) {
            Ok(answer) => answer,
            Err(CallError::Unavailable(source)) => return Err(NoTables::Unavailable(source)),
            Err(CallError::Closed | CallError::Deadline) => return Err(NoTables::Died),
            Err(CallError::Wire(_)) => return Err(NoTables::Lied),
        };
        match wire::decode::<parse::Reply>(&answer) {
            Ok(parse::Reply::Tables(found)) => Ok(found
                .tables
                .into_iter()
                .map(|table| table.into_bytes().into_vec())
                .collect()),
            Ok(parse::Reply::Malformed(_)) => Err(NoTables::Malformed),
            Err(_) => Err(NoTables::Lied),
        }
    }
}

/// A [`parse::Request`] over borrowed octets: the packet, which is wiped, is the only copy of a
/// plaintext that is made.
fn encode(grammar: TagNumber, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, wire::WireError> {
    wire::encode(&ContextSpecificRef {
        tag_number: grammar,
        tag_mode: TagMode::Explicit,
        value: &AnyRef::new(Tag::OctetString, blob)?,
    })
}

/// A child answered without tables, or not at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTables {
    /// The blob is not of this grammar, or beyond a limit.
    #[error("not of the expected grammar")]
    Malformed,
    /// The child ended, or was ended, without an answer.
    #[error("a parser child ended without an answer")]
    Died,
    /// The answer is none that the grammar allows.
    #[error("a parser child gave an answer that cannot be")]
    Lied,
    /// There is no parser.
    #[error("the parser cannot be reached: {0}; check that chancery-parser runs")]
    Unavailable(std::io::Error),
}

#[cfg(test)]
mod tests {
    use der::asn1::OctetString;

    use super::*;

    #[test]
    fn requests_are_those_of_the_contract() {
        let blob = [7; 300];
        let owned = OctetString::new(blob).unwrap();
        assert_eq!(
            encode(TagNumber(0), &blob).unwrap(),
            wire::encode(&parse::Request::Message(owned.clone())).unwrap()
        );
        assert_eq!(
            encode(TagNumber(1), &blob).unwrap(),
            wire::encode(&parse::Request::CertificationRequest(owned)).unwrap()
        );
    }

    #[test]
    fn without_a_parser_there_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let port = ParserPort::new(folder.path().join("parser.parse"));
        assert!(matches!(port.message(b"x"), Err(NoTables::Unavailable(_))));
    }
}
