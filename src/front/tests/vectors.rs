//! Runs every file of `tests/vectors`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::Path;

use chancery_front::request::{Operation, Refusal, operation};
use chancery_protocol::hex;

fn outcome(query: &str) -> String {
    match operation(b"GET", query.as_bytes()) {
        Ok(Operation::GetCaCaps) => "GetCACaps".into(),
        Ok(Operation::GetCaCert) => "GetCACert".into(),
        Ok(Operation::PkiOperationGet(message)) => format!("message {}", hex::encode(&message)),
        Ok(Operation::PkiOperationPost { .. }) => "post".into(),
        Err(Refusal::Operation) => "refused operation".into(),
        Err(Refusal::Message) => "refused message".into(),
        Err(Refusal::Method) => "refused method".into(),
        Err(Refusal::TooLong) => "refused length".into(),
    }
}

/// Returns how many queries the file holds.
fn run(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    let name = file.display();
    let mut expected = None;
    let mut queries = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(outcome) = line.strip_prefix("outcome: ") {
            assert!(expected.replace(outcome).is_none(), "{name}: two outcomes");
        } else if let Some(query) = line.strip_prefix("query: ") {
            let expected = expected.expect("the outcome stands before the queries");
            assert_eq!(outcome(query), expected, "{name}: {query}");
            queries += 1;
        } else {
            panic!("{name}: not a line of a vector: {line}");
        }
    }
    queries
}

#[test]
fn every_vector_has_its_outcome() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            assert!(run(&path) > 0, "{} has no query", path.display());
            files += 1;
        }
    }
    assert!(files >= 14, "only {files} files were found");
}
