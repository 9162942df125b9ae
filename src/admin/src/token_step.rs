//! One token's part of a ceremony, in a process of its own: a PKCS#11 module is loaded once a
//! process, with the environment of one token. The plan comes on standard input, the result goes
//! to standard output; neither holds a secret, PINs are read from their files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_ca::certificate::{self, Fields, Issuer, Kind, message_algorithm};
use chancery_message::verify_signature;
use chancery_protocol::hex;
use chancery_protocol::name::DistinguishedName;
use chancery_token::ceremony::{Ceremony, initialise_token};
use chancery_token::{
    Authenticate, Checkpoint, Decrypt, Issue, Key, KeyAlgorithm, Pinned, PinnedKey, Respond,
    Session, TokenConfig, read_pin,
};
use serde::{Deserialize, Serialize};

use crate::end::End;

/// What to do with one token.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// The PKCS#11 module.
    pub(crate) module: PathBuf,
    /// The label that it gets.
    pub(crate) label: String,
    /// File of the security officer's PIN.
    pub(crate) so_pin_file: PathBuf,
    /// File of the user PIN.
    pub(crate) pin_file: PathBuf,
    /// Keys to generate.
    pub(crate) keys: Vec<KeyPlan>,
    /// What the first key signs.
    pub(crate) certify: Option<CertifyPlan>,
}

/// A key to generate.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPlan {
    /// Its name in the configuration, and CKA_LABEL.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Its algorithm; none for a secret key.
    pub(crate) algorithm: Option<String>,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    /// Signs certificates.
    Issue,
    /// Decrypts pkiMessages.
    Decrypt,
    /// Signs CertReps.
    Respond,
    /// Seals challenges.
    Authenticate,
    /// Signs checkpoints of the audit log.
    Checkpoint,
}

/// A root and an issuing CA certificate, both signed by the root key.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertifyPlan {
    /// RFC 4514.
    pub(crate) root_subject: String,
    /// RFC 4514.
    pub(crate) issuing_subject: String,
    /// SubjectPublicKeyInfo of the issuing CA's key, base64.
    pub(crate) issuing_public_key: String,
    /// Unix seconds.
    pub(crate) not_before: u64,
    /// Unix seconds.
    pub(crate) root_not_after: u64,
    /// Unix seconds.
    pub(crate) issuing_not_after: u64,
    /// Where the transcript goes, before anything is signed.
    pub(crate) transcript: PathBuf,
}

/// What was made.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Made {
    /// Serial number of the token.
    pub(crate) token_serial: String,
    /// The keys, in the order of the plan.
    pub(crate) keys: Vec<MadeKey>,
    /// The certificates, DER in base64: root, issuing.
    pub(crate) certificates: Vec<String>,
}

/// A key that was made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct MadeKey {
    /// Its name.
    pub(crate) name: String,
    /// CKA_ID, hexadecimal.
    pub(crate) id: String,
    /// SubjectPublicKeyInfo, base64.
    pub(crate) public_key: Option<String>,
    /// Check value, hexadecimal.
    pub(crate) check: Option<String>,
}

/// What is written down before anything is signed.
#[derive(Debug, Serialize)]
struct Transcript<'a> {
    token_label: &'a str,
    token_serial: &'a str,
    keys: &'a [MadeKey],
    root_tbs_sha256: String,
    issuing_tbs_sha256: String,
}

/// Reads a plan, carries it out, prints the result.
pub(crate) fn main() -> Result<(), End> {
    let mut text = String::new();
    io::stdin()
        .take(1 << 20)
        .read_to_string(&mut text)
        .map_err(End::cannot("read the plan from standard input"))?;
    let plan: Plan = serde_json::from_str(&text).map_err(|error| End::Usage(error.to_string()))?;
    let made = carry_out(&plan)?;
    let text = serde_json::to_string(&made).map_err(failed)?;
    println!("{text}");
    Ok(())
}

fn carry_out(plan: &Plan) -> Result<Made, End> {
    let pin = read_pin(&plan.pin_file).map_err(failed)?;
    let so_pin = read_pin(&plan.so_pin_file).map_err(failed)?;
    let info = initialise_token(&plan.module, &plan.label, &so_pin, &pin).map_err(failed)?;
    let config = TokenConfig {
        name: plan.name.clone(),
        module: plan.module.clone(),
        label: plan.label.clone(),
        serial: None,
    };
    let ceremony = Ceremony::open(&config, &pin).map_err(failed)?;
    let mut pinned = Vec::new();
    for key in &plan.keys {
        pinned.push(generate(&ceremony, key)?);
    }
    let keys: Vec<MadeKey> = plan
        .keys
        .iter()
        .zip(&pinned)
        .map(|(key, pinned)| describe(&key.name, pinned))
        .collect();
    let certificates = match (&plan.certify, pinned.first()) {
        (Some(certify), Some(root)) => {
            let signer: Key<Issue> = ceremony.token().key(root).map_err(failed)?;
            let mut session = ceremony.token().session().map_err(failed)?;
            let note = |root_tbs: &[u8], issuing_tbs: &[u8]| {
                write_transcript(
                    &certify.transcript,
                    &Transcript {
                        token_label: &plan.label,
                        token_serial: &info.serial,
                        keys: &keys,
                        root_tbs_sha256: sha256_hex(root_tbs),
                        issuing_tbs_sha256: sha256_hex(issuing_tbs),
                    },
                )
            };
            sign_hierarchy(&signer, &mut session, certify, note)?
        }
        _ => Vec::new(),
    };
    Ok(Made {
        token_serial: info.serial,
        keys,
        certificates,
    })
}

fn generate(ceremony: &Ceremony, plan: &KeyPlan) -> Result<PinnedKey, End> {
    let algorithm = || -> Result<KeyAlgorithm, End> {
        let name = plan.algorithm.as_deref().unwrap_or_default();
        name.parse().map_err(failed)
    };
    let made = match plan.purpose {
        Purpose::Issue => ceremony.generate_pair::<Issue>(&plan.name, algorithm()?),
        Purpose::Decrypt => ceremony.generate_pair::<Decrypt>(&plan.name, algorithm()?),
        Purpose::Respond => ceremony.generate_pair::<Respond>(&plan.name, algorithm()?),
        Purpose::Checkpoint => ceremony.generate_pair::<Checkpoint>(&plan.name, algorithm()?),
        Purpose::Authenticate => ceremony.generate_secret::<Authenticate>(&plan.name),
    };
    made.map_err(failed)
}

fn describe(name: &str, pinned: &PinnedKey) -> MadeKey {
    let (public_key, check) = match &pinned.material {
        Pinned::Public(spki) => (Some(STANDARD.encode(spki)), None),
        Pinned::Check(check) => (None, Some(hex::encode(check))),
    };
    MadeKey {
        name: name.into(),
        id: hex::encode(&pinned.id),
        public_key,
        check,
    }
}

fn sign_hierarchy(
    signer: &Key<Issue>,
    session: &mut Session,
    plan: &CertifyPlan,
    note: impl FnOnce(&[u8], &[u8]) -> Result<(), End>,
) -> Result<Vec<String>, End> {
    let root_key = signer.public_key().unwrap_or_default();
    let issuing_key = STANDARD.decode(&plan.issuing_public_key).map_err(failed)?;
    let root_name = DistinguishedName::parse(&plan.root_subject).map_err(failed)?;
    let issuing_name = DistinguishedName::parse(&plan.issuing_subject).map_err(failed)?;
    let root_subject =
        der::Encode::to_der(&certificate::encode_subject(&root_name).map_err(failed)?)
            .map_err(failed)?;
    let root_identifier = certificate::key_identifier(root_key).map_err(failed)?;
    let algorithm = signer.signature_algorithm();
    let root = Fields {
        serial: &certificate::new_serial(session).map_err(failed)?,
        issuer: Issuer {
            subject: &root_subject,
            key_identifier: None,
            algorithm,
        },
        not_before: plan.not_before,
        not_after: plan.root_not_after,
        subject: &root_name,
        sans: &[],
        public_key: root_key,
        kind: &Kind::Root,
    };
    let issuing = Fields {
        serial: &certificate::new_serial(session).map_err(failed)?,
        issuer: Issuer {
            subject: &root_subject,
            key_identifier: Some(&root_identifier),
            algorithm,
        },
        not_after: plan.issuing_not_after,
        subject: &issuing_name,
        public_key: &issuing_key,
        kind: &Kind::Issuing,
        ..root.clone()
    };
    let root_tbs = certificate::tbs_certificate(&root).map_err(failed)?;
    let issuing_tbs = certificate::tbs_certificate(&issuing).map_err(failed)?;
    note(&root_tbs, &issuing_tbs)?;
    [root_tbs, issuing_tbs]
        .iter()
        .map(|tbs| {
            let signature = signer.issue(session, tbs).map_err(failed)?;
            verify_signature(root_key, message_algorithm(algorithm), tbs, &signature)
                .map_err(failed)?;
            let der = certificate::assemble(tbs, algorithm, &signature).map_err(failed)?;
            Ok(STANDARD.encode(der))
        })
        .collect()
}

fn write_transcript(path: &Path, transcript: &Transcript<'_>) -> Result<(), End> {
    let text = serde_json::to_string_pretty(transcript).map_err(failed)?;
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(End::cannot(format!("write {}", path.display())))
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(octets: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, octets).as_ref())
}

fn failed(error: impl core::fmt::Display) -> End {
    End::Failed(error.to_string())
}
