//! The configuration file as written, key by key. Relative paths refer to the file's own folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[appliance]`
    pub appliance: Appliance,
    /// `[front]`
    #[serde(default)]
    pub front: Front,
    /// `[ra]`
    pub ra: Ra,
    /// `[challenge]`
    pub challenge: Challenge,
    /// `[audit]`
    pub audit: Audit,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[[token]]`
    pub token: Vec<Token>,
    /// `[[key]]`
    pub key: Vec<Key>,
    /// `[[ca]]`
    pub ca: Vec<Authority>,
    /// `[[profile]]`
    pub profile: Vec<Profile>,
}

/// `[appliance]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// Name of this appliance and node, for example `ca.example.com/node-1`; the audit log bears it.
    pub name: String,
    /// Folder of what roles keep between starts.
    #[serde(default = "state")]
    pub state: PathBuf,
    /// Folder of the IPC sockets.
    #[serde(default = "run")]
    pub run: PathBuf,
    /// journald's native socket.
    #[serde(default = "journal")]
    pub journal: PathBuf,
    /// All roles share one user: for developers and demonstrations, never in production.
    #[serde(default)]
    pub development: bool,
    /// Users who may use the operator's sockets.
    #[serde(default = "operators")]
    pub operators: Vec<String>,
}

fn state() -> PathBuf {
    "/var/lib/chancery".into()
}

fn run() -> PathBuf {
    "/run/chancery".into()
}

fn journal() -> PathBuf {
    "/run/systemd/journal/socket".into()
}

fn operators() -> Vec<String> {
    vec!["root".into()]
}

/// `[front]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Front {
    /// Addresses for HTTP, where `chancery run` binds them; systemd has them in a socket unit.
    pub listen: Vec<SocketAddr>,
    /// Most connections at once.
    pub connections: usize,
    /// Most connections at once from one address. Devices behind one NAT share it.
    pub per_peer: usize,
    /// Most messages waiting for the RA; above it devices are told to come back (503).
    pub queue: usize,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            connections: 4096,
            per_peer: 512,
            queue: 256,
        }
    }
}

/// `[ra]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ra {
    /// Name of the `[[key]]` that decrypts pkiMessages.
    pub decryption_key: String,
    /// Name of the `[[key]]` that signs CertReps.
    pub signing_key: String,
    /// Requests worked on at once, each with a token session of its own.
    #[serde(default = "workers")]
    pub workers: usize,
}

fn workers() -> usize {
    8
}

/// `[challenge]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// Name of the `[[key]]` that seals challenges.
    pub key: String,
}

/// `[audit]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Name of the `[[key]]` that signs checkpoints.
    pub key: String,
    /// Seconds between checkpoints while there is anything new, 1 to 3600.
    #[serde(default = "checkpoint_seconds")]
    pub checkpoint_seconds: u64,
    /// Enrolments that the CA works on at once, each with a token session of its own.
    #[serde(default = "workers")]
    pub ca_workers: usize,
}

fn checkpoint_seconds() -> u64 {
    10
}

/// `[ledger]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The SQLite file. Its folder belongs to the ledger alone (SQLite writes beside it).
    pub database: PathBuf,
}

/// `[[token]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its name in this file.
    pub name: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// Label of the token.
    pub label: String,
    /// Serial number of the token, where labels are not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// File that holds the user PIN, readable by its role only; a bare file name without a folder
    /// is that of a systemd credential.
    pub pin_file: PathBuf,
    /// Files and folders that the module reads and writes.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// Environment that the module wants.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// `[[key]]`: a key that the ceremony made and pinned.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name in this file.
    pub name: String,
    /// Name of its `[[token]]`.
    pub token: String,
    /// CKA_ID, hexadecimal.
    pub id: String,
    /// SubjectPublicKeyInfo, base64: of a key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Check value, hexadecimal: of a secret key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// `[[ca]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its id in URLs and in the database.
    pub id: String,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Id of the authority above; absent: self-signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Name of its `[[key]]`; absent: kept offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `[[profile]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in URLs: lower-case letters, digits, hyphens.
    pub name: String,
    /// Id of the issuing `[[ca]]`.
    pub ca: String,
    /// Days from issuance to expiry.
    #[serde(default = "validity_days")]
    pub validity_days: u32,
    /// Seconds that notBefore lies back, for devices with slow clocks.
    #[serde(default = "backdate_seconds")]
    pub backdate_seconds: u64,
    /// Subject attributes (short names as in `CN`) that a request fills where the challenge leaves
    /// the subject open. Empty, the default: a challenge that names no subject allows none.
    #[serde(default)]
    pub open_subject: Vec<String>,
    /// Kinds of subject alternative names (`dns`, `email`, `uri`, `ip`) that a request fills where
    /// the challenge leaves them open. Empty, the default: a challenge that names none allows none.
    #[serde(default)]
    pub open_sans: Vec<String>,
    /// Extended key usages: `client`, `server`.
    #[serde(default = "extended_key_usage")]
    pub extended_key_usage: Vec<String>,
    /// Longest life of a challenge in minutes.
    #[serde(default = "challenge_minutes_max")]
    pub challenge_minutes_max: u64,
}

fn validity_days() -> u32 {
    365
}

fn backdate_seconds() -> u64 {
    300
}

fn extended_key_usage() -> Vec<String> {
    vec!["client".into()]
}

fn challenge_minutes_max() -> u64 {
    7 * 24 * 60
}
