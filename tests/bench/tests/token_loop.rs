//! The bare token loop against SoftHSM, as the bench starts it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::process::Command;

const BENCH: &str = env!("CARGO_BIN_EXE_chancery-bench");
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

#[test]
fn every_number_of_threads_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let objects = folder.path().join("objects");
    fs::create_dir(&objects).unwrap();
    let configuration = folder.path().join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        objects.display()
    );
    fs::write(&configuration, text).unwrap();
    let output = Command::new(BENCH)
        .args(["--token-loop", "1,2", "--module", MODULE])
        .env("SOFTHSM2_CONF", configuration)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", output.status);
    let lines: Vec<Vec<u64>> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            line.split(' ')
                .map(|field| field.parse().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(lines.len(), 2);
    for (line, threads) in lines.iter().zip([1, 2]) {
        assert_eq!((line.len(), line[0]), (4, threads));
        assert!(line[1..].iter().all(|number| *number > 0), "{line:?}");
    }
}

#[test]
fn no_token_is_made_in_a_store_that_may_be_somebodys() {
    let output = Command::new(BENCH)
        .args(["--token-loop", "1", "--module", MODULE])
        .env_remove("SOFTHSM2_CONF")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("SOFTHSM2_CONF"), "{errors}");
}
