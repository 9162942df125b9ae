//! Every file in `tests/vectors`: accepted or refused, as its folder says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_parser::{table_of_certification_request, table_of_message};
use common::assert_tiles;
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(folder);
    let entries = std::fs::read_dir(folder).unwrap();
    let files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn messages() {
    for (path, octets) in files("message/accepted") {
        let tables =
            table_of_message(&octets).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_tiles(&octets, &tables.message);
    }
    for (path, octets) in files("message/refused") {
        assert!(table_of_message(&octets).is_err(), "{}", path.display());
    }
}

#[test]
fn requests() {
    for (path, octets) in files("request/accepted") {
        let table = table_of_certification_request(&octets)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_tiles(&octets, &table);
    }
    for (path, octets) in files("request/refused") {
        assert!(
            table_of_certification_request(&octets).is_err(),
            "{}",
            path.display()
        );
    }
}
