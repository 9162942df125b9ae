//! The wall is in the manifests: who may name whom. SECURITY.md prints this table.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

/// Our crates, and which of ours each names.
const OURS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("host", &["protocol"]),
    ("config", &["protocol"]),
    ("token", &["protocol"]),
    ("parser", &["host", "protocol"]),
    ("message", &["protocol"]),
    ("front", &["config", "host", "protocol"]),
    ("ledger", &["config", "host", "protocol"]),
    ("ra", &["config", "host", "message", "protocol", "token"]),
    ("ca", &["config", "host", "message", "protocol", "token"]),
    ("client", &["protocol"]),
    (
        "admin",
        &[
            "ca", "client", "config", "host", "message", "protocol", "token",
        ],
    ),
];

/// Foreign crates that only these of ours may name.
const GUARDED: &[(&str, &[&str])] = &[
    ("cryptoki", &["token"]),
    ("rusqlite", &["ledger"]),
    ("hyper", &["front", "client"]),
    ("tokio", &["front", "client", "admin"]),
    ("cms", &["ca", "client", "ra"]),
    ("landlock", &["host"]),
    ("seccompiler", &["host"]),
    ("nix", &["host"]),
];

/// Crates that do cryptography.
const CRYPTOGRAPHY: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "ring",
    "rsa",
    "p256",
    "p384",
    "ecdsa",
    "aes",
    "cbc",
    "des",
    "sha1",
    "sha2",
    "md-5",
    "hmac",
    "openssl",
    "openssl-sys",
    "rustls",
    "cryptoki",
    "cryptoki-sys",
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The dependencies that a crate names in its manifest, tests aside.
fn named(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| members.contains(package["id"].as_str().unwrap()))
        .map(|package| {
            let name = package["name"].as_str().unwrap();
            let dependencies = package["dependencies"].as_array().unwrap();
            let named = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (
                name.strip_prefix("chancery-").unwrap_or(name).to_owned(),
                named.collect(),
            )
        })
        .collect()
}

#[test]
fn each_crate_names_only_what_the_table_allows() {
    let metadata = metadata();
    let named = named(&metadata);
    let table: BTreeMap<&str, &[&str]> = OURS.iter().copied().collect();
    for (name, dependencies) in &named {
        if name == "chancery" || name == "bench" {
            continue;
        }
        let allowed = table
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        let ours: Vec<&str> = dependencies
            .iter()
            .filter_map(|dependency| dependency.strip_prefix("chancery-"))
            .collect();
        assert_eq!(ours, *allowed, "{name}");
        for (foreign, allowed) in GUARDED {
            assert!(
                !dependencies.contains(*foreign) || allowed.contains(&name.as_str()),
                "{name} names {foreign}"
            );
        }
    }
    assert_eq!(table.len(), named.len() - 2, "a crate of the table is gone");
}

#[test]
fn security_md_prints_the_table() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md")).unwrap();
    for (name, ours) in OURS {
        let ours = if ours.is_empty() {
            "–".to_owned()
        } else {
            ours.join(", ")
        };
        let row = format!("| {name} | {ours} |");
        assert!(text.contains(&row), "{row}");
    }
}

#[test]
fn the_parser_reaches_no_cryptography() {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let by_id: BTreeMap<&str, &Value> = nodes
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let name_of = |id: &str| -> String {
        let packages = metadata["packages"].as_array().unwrap();
        packages.iter().find(|package| package["id"] == id).unwrap()["name"]
            .as_str()
            .unwrap()
            .into()
    };
    let start = nodes
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .find(|id| name_of(id) == "chancery-parser")
        .unwrap();
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        if !reached.insert(id) {
            continue;
        }
        for dependency in by_id[id]["deps"].as_array().unwrap() {
            let normal = dependency["dep_kinds"]
                .as_array()
                .unwrap()
                .iter()
                .any(|kind| kind["kind"].is_null());
            if normal {
                open.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    let names: BTreeSet<String> = reached.into_iter().map(name_of).collect();
    assert!(names.len() > 5, "{names:?}");
    for crypto in CRYPTOGRAPHY
        .iter()
        .chain(&["tokio", "hyper", "rusqlite", "cms", "x509-cert"])
    {
        assert!(!names.contains(*crypto), "the parser reaches {crypto}");
    }
}

#[test]
fn the_parser_program_holds_no_cryptography() {
    let parser = fs::read(env!("CARGO_BIN_EXE_chancery-parser")).unwrap();
    let ca = fs::read(env!("CARGO_BIN_EXE_chancery-ca")).unwrap();
    let holds = |program: &[u8], text: &str| {
        program
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    // Symbols and messages that every program with the library in it has.
    for mark in ["aws_lc", "C_Initialize"] {
        assert!(holds(&ca, mark), "{mark} no longer marks the library");
        assert!(!holds(&parser, mark), "the parser holds {mark}");
    }
}

#[test]
fn each_main_names_its_own_crate_only() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin");
    let mut mains = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let role = name.strip_prefix("chancery-").unwrap_or("admin");
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("//"))
            .collect();
        let named: Vec<&str> = code
            .iter()
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .filter(|word| word.starts_with("chancery_"))
            .collect();
        assert_eq!(named, [format!("chancery_{role}")], "{name}");
        assert!(code.len() < 10, "{name} is more than a thin main");
        mains += 1;
    }
    assert_eq!(mains, 6);
}

#[test]
fn crates_without_need_of_it_forbid_unsafe_code() {
    for (name, _) in OURS
        .iter()
        .filter(|(name, _)| !["host", "token"].contains(name))
    {
        let file = format!("{}/src/{name}/src/lib.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(
            fs::read_to_string(&file)
                .unwrap()
                .contains("#![forbid(unsafe_code)]"),
            "{name}"
        );
    }
}
