//! `chancery enroll`: one enrolment into a folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::wire::{Digest, Secret};
use zeroize::Zeroizing;

use crate::certificate::{Certificate, CertificateError};
use crate::enrol::{EnrolError, EnrolRequest, Enrolled, enroll};
use crate::http::Url;
use crate::key::{ClientKey, KeyError, KeyKind};
use crate::path::Trust;
use crate::server::Server;

/// Where the challenge comes from. Never from the command line or the environment, where others
/// can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The first line of a file.
    File(PathBuf),
    /// The first line of the standard input.
    StandardInput,
}

/// What `chancery enroll` is told.
#[derive(Clone, Debug)]
pub struct EnrollOptions {
    /// The server.
    pub url: Url,
    /// The subject.
    pub subject: DistinguishedName,
    /// The subject alternative names.
    pub sans: Vec<GeneralName>,
    /// The root to trust; without it, the one that the server serves.
    pub root_sha256: Option<Digest>,
    /// The key to make, unless the folder has one.
    pub key: KeyKind,
    /// The folder for key.pem, cert.pem and chain.pem; made if it is not there.
    pub out: PathBuf,
}

/// A command that did not bring a certificate, or could not keep it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A file cannot be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder holds a certificate already.
    #[error("{} is there already and is not overwritten, choose another folder", .0.display())]
    Enrolled(PathBuf),
    /// The folder's key is of another kind than asked for.
    #[error("{} is a {found} key, not {wanted}; ask for {found} or choose another folder", path.display())]
    OtherKind {
        /// The key's file.
        path: PathBuf,
        /// Its kind.
        found: KeyKind,
        /// The kind asked for.
        wanted: KeyKind,
    },
    /// Others can read the folder's key.
    #[error("others can read {}, so its key is not used; choose another folder", .0.display())]
    OpenKey(PathBuf),
    /// The folder's key cannot be read, or none could be made.
    #[error("{}: {source}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The challenge has no first line, or one that is too long.
    #[error("the challenge is empty or longer than {MAX_CHALLENGE} octets, expected one line")]
    Challenge,
    /// The enrolment brought no certificate.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// A certificate cannot be written as PEM.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The runtime did not start.
    #[error("cannot start the network runtime: {0}")]
    Runtime(io::Error),
}

/// Longest challenge, in octets (RFC 2985 §5.4.1: pkcs-9-ub-challengePassword).
const MAX_CHALLENGE: usize = 255;

/// Runs `chancery enroll` to its end, with the challenge read from its source, on a runtime of its
/// own. Not to be called from async code.
///
/// # Errors
/// [`CommandError`].
pub fn enroll_command(
    options: &EnrollOptions,
    challenge: &Challenge,
) -> Result<Enrolled, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    let challenge = read_challenge(challenge)?;
    runtime.block_on(enroll_to_folder(options, challenge))
}

/// Enrols and writes key.pem (mode 0600, before anything is sent), chain.pem (the issuers, root
/// last) and cert.pem. A folder with a key but no certificate is an enrolment that did not come
/// to its end: it goes on with that key, so that a lost answer costs no second challenge. Nothing
/// is ever overwritten but an unfinished chain.pem.
///
/// # Errors
/// [`CommandError`].
pub async fn enroll_to_folder(
    options: &EnrollOptions,
    challenge: Secret,
) -> Result<Enrolled, CommandError> {
    let certificate_path = options.out.join("cert.pem");
    if certificate_path.symlink_metadata().is_ok() {
        return Err(CommandError::Enrolled(certificate_path));
    }
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700);
    folder
        .create(&options.out)
        .map_err(|source| file_error("make", &options.out, source))?;
    let key = key_of_folder(&options.out.join("key.pem"), options.key)?;
    let request = EnrolRequest {
        sans: options.sans.clone(),
        trust: options
            .root_sha256
            .map_or(Trust::AsServed, Trust::RootSha256),
        ..EnrolRequest::new(&key, options.subject.clone(), challenge)
    };
    let enrolled = enroll(&Server::new(options.url.clone()), &request).await?;
    let pem = |der: &Vec<u8>| Certificate::from_der(der)?.to_pem();
    let chain = enrolled
        .chain
        .iter()
        .map(pem)
        .collect::<Result<String, CertificateError>>()?;
    write_whole(&options.out.join("chain.pem"), &chain)?;
    // Last: its presence says that the folder is complete.
    write_whole(&certificate_path, &pem(&enrolled.certificate)?)?;
    Ok(enrolled)
}

fn read_challenge(from: &Challenge) -> Result<Secret, CommandError> {
    let (path, opened): (_, io::Result<Box<dyn Read>>) = match from {
        Challenge::File(path) => (
            path.as_path(),
            File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
        ),
        Challenge::StandardInput => (Path::new("-"), Ok(Box::new(io::stdin()))),
    };
    let failed = |source| file_error("read the challenge from", path, source);
    let source = opened.map_err(failed)?;
    // One allocation, so that growing leaves no copies behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(2 * MAX_CHALLENGE));
    let mut bounded = source.take(2 * MAX_CHALLENGE as u64);
    bounded.read_to_end(&mut octets).map_err(failed)?;
    let line = octets
        .split(|octet| *octet == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.len() > MAX_CHALLENGE || core::str::from_utf8(line).is_err() {
        return Err(CommandError::Challenge);
    }
    Ok(Secret::new(line.to_vec()))
}

fn key_of_folder(path: &Path, kind: KeyKind) -> Result<ClientKey, CommandError> {
    let key_error = |source| CommandError::Key {
        path: path.into(),
        source,
    };
    if path.symlink_metadata().is_ok() {
        let key = read_key(path)?;
        return match key.kind() {
            found if found == kind => Ok(key),
            found => Err(CommandError::OtherKind {
                path: path.into(),
                found,
                wanted: kind,
            }),
        };
    }
    let key = ClientKey::generate(kind).map_err(key_error)?;
    let pem = key.to_pkcs8_pem().map_err(key_error)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(pem.as_bytes())?;
            file.sync_all()
        })
        .map_err(|source| file_error("write", path, source))?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<ClientKey, CommandError> {
    let failed = |source| file_error("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(CommandError::OpenKey(path.into()));
    }
    let length = usize::try_from(metadata.len()).unwrap_or_default();
    let mut pem = Zeroizing::new(String::with_capacity(length + 1));
    file.read_to_string(&mut pem).map_err(failed)?;
    ClientKey::from_pkcs8_pem(&pem).map_err(|source| CommandError::Key {
        path: path.into(),
        source,
    })
}

/// Writes beside and renames, so that the file is whole or absent.
fn write_whole(path: &Path, text: &str) -> Result<(), CommandError> {
    let beside = path.with_extension("pem.new");
    File::create(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| file_error("write", path, source))
}

fn file_error(verb: &'static str, path: &Path, source: io::Error) -> CommandError {
    CommandError::File {
        verb,
        path: path.into(),
        source,
    }
}
