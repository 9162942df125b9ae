//! A call that hangs ends the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chancery_token::{Issue, KeyAlgorithm};
use common::{Fixture, token_folder};

const CHILD: &str = "CHANCERY_TEST_HANG";

#[test]
fn a_call_that_hangs_aborts_the_process() {
    if std::env::var_os(CHILD).is_some() {
        hang();
        panic!("the call came back");
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_call_that_hangs_aborts_the_process"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    const SIGABRT: i32 = 6;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.signal(),
        Some(SIGABRT),
        "{}: {said}",
        output.status
    );
}

/// The module's files become pipes without a writer, and opening one waits for ever.
fn hang() {
    let fixture = Fixture::new();
    let pinned = fixture
        .ceremony()
        .generate_pair::<Issue>("ca", KeyAlgorithm::P256)
        .unwrap();
    let token = fixture.token();
    let key = token.key::<Issue>(&pinned).unwrap();
    let mut session = token.session().unwrap();
    token.watch(Duration::from_millis(500)).unwrap();
    key.issue(&mut session, b"text").unwrap();
    for file in files(&token_folder()) {
        std::fs::remove_file(&file).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(&file)
                .status()
                .unwrap()
                .success()
        );
    }
    let _ = session.self_test(&key);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
