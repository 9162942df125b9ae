//! The shipped sample is complete and loads; what is wrong is named.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeSet;
use std::path::Path;

use chancery_config::{Config, ConfigError, ExtendedKeyUsage, Peers, raw};
use chancery_protocol::ipc::socket;

const SAMPLE: &str = include_str!("../../../systemd/chancery.toml");

fn check(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(Path::new("/etc/chancery/chancery.toml"), text)
}

#[test]
fn the_sample_loads() {
    let config = check(SAMPLE).unwrap();
    assert!(!config.development);
    assert_eq!(config.ledger.origin, "ca.example.com/node-1/audit");
    assert_eq!(
        config.authority("issuing").unwrap().issuer.as_deref(),
        Some("root")
    );
    assert_eq!(
        config.authority("root").unwrap().certificate,
        Path::new("/etc/chancery/root.pem")
    );
    let profile = config.profile("devices").unwrap();
    assert_eq!(profile.extended_key_usage, [ExtendedKeyUsage::ClientAuth]);
    assert!(profile.open_subject.is_empty() && profile.open_sans.is_empty());
    assert_eq!(
        config.socket(socket::CA_ENROL),
        Path::new("/run/chancery/ca.enrol")
    );
    assert_eq!(
        config.peers(socket::CA_ENROL),
        Peers::Users(vec!["chancery-ra".into()])
    );
    assert_eq!(
        config.peers(socket::CA_OPERATOR),
        Peers::Users(vec!["root".into()])
    );
}

/// Every key that has a default stands in the sample with that default's place.
#[test]
fn the_sample_names_every_key() {
    fn keys(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let path = format!("{path}.{key}");
                    keys(value, &path, found);
                    found.insert(path);
                }
            }
            toml::Value::Array(list) => list.iter().for_each(|value| keys(value, path, found)),
            _ => {}
        }
    }
    let raw: raw::Config = toml::from_str(SAMPLE).unwrap();
    let mut complete = BTreeSet::new();
    keys(&toml::Value::try_from(&raw).unwrap(), "", &mut complete);
    let mut written = BTreeSet::new();
    keys(&toml::from_str(SAMPLE).unwrap(), "", &mut written);
    assert_eq!(written, complete);
    assert!(
        SAMPLE.contains("# serial ="),
        "the one optional key is mentioned"
    );
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "name = \"ca.example.com/node-1\"",
            "name = \"my node\"",
            "appliance.name",
        ),
        (
            "label = \"chancery-ca\"",
            "label = \"\"",
            "token \"ca\", label",
        ),
        ("token = \"ca\"", "token = \"elsewhere\"", "elsewhere"),
        (
            "checkpoint_seconds = 10",
            "checkpoint_seconds = 0",
            "audit.checkpoint_seconds",
        ),
        (
            "issuer = \"root\"",
            "issuer = \"issuing\"",
            "ca \"issuing\", issuer",
        ),
        ("name = \"devices\"", "name = \"Devices\"", "profile.name"),
        (
            "ca = \"issuing\"\n#",
            "ca = \"root\"\n#",
            "profile \"devices\", ca",
        ),
        (
            "extended_key_usage = [\"client\"]",
            "extended_key_usage = []",
            "extended_key_usage",
        ),
        (
            "run = \"/run/chancery\"",
            &format!("run = \"/{}\"", "x".repeat(100)),
            "appliance.run",
        ),
        (
            "key = \"audit\"",
            "key = \"issuing\"",
            "serves another purpose",
        ),
        ("key = \"challenge\"", "key = \"ra-signing\"", "check"),
        ("queue = 256", "queue = \"many\"", "queue"),
        ("[ledger]", "[ledger]\nsurprise = true", "surprise"),
    ];
    for (from, to, says) in cases {
        assert!(SAMPLE.contains(from), "{from}");
        let error = check(&SAMPLE.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/etc/chancery/chancery.toml"), "{error}");
        assert!(error.contains(says), "{says} is not in: {error}");
    }
}

#[test]
fn keys_of_the_ra_stay_out_of_the_cas_token() {
    let both = SAMPLE.replace("token = \"ra\"", "token = \"ca\"");
    let error = check(&both).unwrap_err().to_string();
    assert!(error.contains("cannot open"), "{error}");
}

#[test]
fn no_text_breaks_the_reader() {
    for cut in (0..SAMPLE.len())
        .step_by(37)
        .filter(|cut| SAMPLE.is_char_boundary(*cut))
    {
        let _ = check(&SAMPLE[..cut]);
    }
}
