//! The one configuration file: read, checked once, passed on as values that need no further check.
//!
//! Every role but the parser reads it; it holds no secret (PINs are files or credentials that it
//! names). [`raw`] is the file as written, key by key; this module is what the roles get. Unknown
//! keys are errors, and so is whatever a role would trip over later.
#![forbid(unsafe_code)]

mod check;
mod error;
pub mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chancery_protocol::ipc::socket;
use chancery_protocol::name::AttributeKind;

pub use crate::error::ConfigError;

/// The longest path of a socket: what `bind(2)` takes for `AF_UNIX`, less one octet in reserve for
/// programs that count a closing zero twice.
pub const MAX_SOCKET_PATH: usize = 106;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it came from, absolute.
    pub path: PathBuf,
    /// Name of the appliance and node.
    pub name: String,
    /// Whether all roles share one user: for developers and demonstrations.
    pub development: bool,
    /// Users besides the roles that may use the operator's sockets.
    pub operators: Vec<String>,
    /// Folder of the IPC sockets.
    pub run: PathBuf,
    /// Folder of what roles keep between starts.
    pub state: PathBuf,
    /// journald's native socket.
    pub journal: PathBuf,
    /// PKCS#11 tokens.
    pub tokens: Vec<Token>,
    /// Certification authorities.
    pub authorities: Vec<Authority>,
    /// The registration authority.
    pub ra: Ra,
    /// The key that seals challenges and rows.
    pub challenge_key: SecretKeyRef,
    /// The audit log.
    pub audit: Audit,
    /// Enrolment profiles.
    pub profiles: Vec<Profile>,
    /// Device-facing listeners.
    pub front: Front,
    /// The database.
    pub ledger: Ledger,
}

/// A PKCS#11 token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its name in this file.
    pub name: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// CKA label of the token.
    pub label: String,
    /// Serial number of the token, where labels are not unique.
    pub serial: Option<String>,
    /// File that holds the user PIN.
    pub pin_file: PathBuf,
    /// Environment that the module wants, set before it is loaded.
    pub environment: Vec<(String, String)>,
    /// Files and folders that the module reads and writes.
    pub files: Vec<PathBuf>,
}

/// A key pair that the ceremony made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Name of its token in this file.
    pub token: String,
    /// CKA_ID.
    pub pinned_id: Vec<u8>,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

/// A secret key that the ceremony made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKeyRef {
    /// Name of its token in this file.
    pub token: String,
    /// CKA_ID.
    pub pinned_id: Vec<u8>,
    /// HMAC of a fixed text, by which the key is recognised.
    pub check: [u8; 32],
}

/// A certification authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its id in this file, in URLs and in the database.
    pub id: String,
    /// Its certificate, a PEM file.
    pub certificate: PathBuf,
    /// The authority above; none: self-signed.
    pub issuer: Option<String>,
    /// Its key; none: kept offline.
    pub key: Option<KeyRef>,
}

/// The registration authority.
#[derive(Clone, Debug)]
pub struct Ra {
    /// Decrypts pkiMessages.
    pub decryption: KeyRef,
    /// Signs CertReps.
    pub signing: KeyRef,
    /// Requests worked on at once, each with a token session of its own.
    pub workers: usize,
}

/// The audit log.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Signs checkpoints.
    pub key: KeyRef,
    /// Seconds between checkpoints while there is anything new.
    pub checkpoint_seconds: u64,
    /// Enrolments that the CA works on at once, each with a token session of its own.
    pub workers: usize,
}

/// What an enrolment may become.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name in URLs.
    pub name: String,
    /// Id of the issuing authority.
    pub ca: String,
    /// Days from issuance to expiry.
    pub validity_days: u32,
    /// Seconds that notBefore lies back, for devices with slow clocks.
    pub backdate_seconds: u64,
    /// Subject attributes that a request fills where the challenge leaves the subject open; empty:
    /// the subject is never open.
    pub open_subject: Vec<&'static AttributeKind>,
    /// Kinds of subject alternative names that a request fills where the challenge leaves them
    /// open; empty: they are never open.
    pub open_sans: Vec<String>,
    /// Extended key usages.
    pub extended_key_usage: Vec<ExtendedKeyUsage>,
    /// Longest life of a challenge in seconds.
    pub challenge_ttl_max: u64,
}

/// An extended key usage that a profile may grant (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedKeyUsage {
    /// id-kp-clientAuth.
    ClientAuth,
    /// id-kp-serverAuth.
    ServerAuth,
}

/// Device-facing listeners.
#[derive(Clone, Debug)]
pub struct Front {
    /// Addresses for HTTP, where the appliance binds them itself.
    pub listen: Vec<SocketAddr>,
    /// Most connections at once.
    pub connections: usize,
    /// Most connections at once from one address.
    pub per_peer: usize,
    /// Most messages waiting for the RA.
    pub queue: usize,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The SQLite file.
    pub database: PathBuf,
    /// Name of the audit log, as in its checkpoints.
    pub origin: String,
}

/// Who may talk to a socket, checked by SO_PEERCRED besides the file's own permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The user that the role itself runs as: development.
    SameUser,
    /// These users.
    Users(Vec<String>),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`]: the file, the key, the cause and the remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = std::path::absolute(path).map_err(|source| ConfigError::Read {
            file: path.into(),
            source,
        })?;
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            file: path.clone(),
            source,
        })?;
        Self::from_text(&path, &text)
    }

    /// Checks the text of a file; `path` (absolute) is what relative paths in it refer to.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: raw::Config = toml::from_str(text).map_err(|source| ConfigError::Syntax {
            file: path.into(),
            source: Box::new(source),
        })?;
        check::check(path, raw)
    }

    /// A token by its name in this file.
    #[must_use]
    pub fn token(&self, name: &str) -> Option<&Token> {
        self.tokens.iter().find(|token| token.name == name)
    }

    /// An authority by its id.
    #[must_use]
    pub fn authority(&self, id: &str) -> Option<&Authority> {
        self.authorities.iter().find(|authority| authority.id == id)
    }

    /// A profile by its name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// The path of an IPC socket, by its name in [`socket`].
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// The folder of what a role keeps between starts.
    #[must_use]
    pub fn state_dir(&self, role: &str) -> PathBuf {
        self.state.join(role)
    }

    /// Who may talk to a socket, by its name in [`socket`].
    #[must_use]
    pub fn peers(&self, name: &str) -> Peers {
        if self.development {
            return Peers::SameUser;
        }
        let roles: &[&str] = match name {
            socket::RA_MESSAGE | socket::LEDGER_PUBLIC | socket::LEDGER_APPEND_FRONT => {
                &["chancery-front"]
            }
            socket::CA_ENROL | socket::PARSER_PARSE | socket::LEDGER_APPEND_RA => &["chancery-ra"],
            socket::LEDGER_STORE => &["chancery-ca"],
            _ => return Peers::Users(self.operators.clone()),
        };
        Peers::Users(roles.iter().map(ToString::to_string).collect())
    }
}

/// Every IPC socket, with the role that listens on it.
pub const SOCKETS: &[(&str, &str)] = &[
    ("ledger", socket::LEDGER_STORE),
    ("ledger", socket::LEDGER_PUBLIC),
    ("ledger", socket::LEDGER_QUERY),
    ("ledger", socket::LEDGER_APPEND_RA),
    ("ledger", socket::LEDGER_APPEND_FRONT),
    ("ca", socket::CA_ENROL),
    ("ca", socket::CA_OPERATOR),
    ("parser", socket::PARSER_PARSE),
    ("ra", socket::RA_MESSAGE),
];
