//! The authorities that this process issues for: certificate, chain and key, checked against each
//! other before anything is served.

use std::path::{Path, PathBuf};

use chancery_config::Config;
use chancery_message::verify_signature;
use chancery_token::{Issue, Key, KeyError, Pinned, PinnedKey, Token};
use der::{Encode, pem};
use x509_cert::ext::pkix::{BasicConstraints, SubjectKeyIdentifier};

use crate::certificate::{self, Issuer, message_algorithm, message_algorithm_of};

/// An authority cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate's file cannot be read.
    #[error("ca {id}: {}: {cause}", file.display())]
    Read {
        /// The authority.
        id: String,
        /// The file.
        file: PathBuf,
        /// The cause.
        cause: String,
    },
    /// The certificate is not what an authority needs.
    #[error("ca {id}: its certificate {cause}; check the ceremony's transcript")]
    Certificate {
        /// The authority.
        id: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The key cannot be used.
    #[error("ca {id}: {source}")]
    Key {
        /// The authority.
        id: String,
        /// The cause.
        source: Box<KeyError>,
    },
}

/// A certificate on the path to a root.
#[derive(Clone, Debug)]
pub(crate) struct PathCertificate {
    pub(crate) id: String,
    pub(crate) der: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) key_identifier: Vec<u8>,
    pub(crate) not_after: u64,
}

/// An issuing authority.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) certificate: PathCertificate,
    /// Those above, nearest first.
    pub(crate) above: Vec<PathCertificate>,
    pub(crate) key: Key<Issue>,
}

impl Authority {
    /// Who issues, for a new certificate.
    pub(crate) fn issuer(&self) -> Issuer<'_> {
        Issuer {
            subject: &self.certificate.subject,
            key_identifier: Some(&self.certificate.key_identifier),
            algorithm: self.key.signature_algorithm(),
        }
    }

    /// Whether `certificate` bears this authority's signature over exactly `tbs`.
    pub(crate) fn has_signed(&self, certificate: &[u8], tbs: &[u8]) -> bool {
        certificate::split(certificate)
            .is_ok_and(|(signed, signature)| signed == tbs && self.verifies(tbs, signature))
    }

    /// Whether `signature` is this authority's over `tbs`.
    pub(crate) fn verifies(&self, tbs: &[u8], signature: &[u8]) -> bool {
        let algorithm = message_algorithm(self.key.signature_algorithm());
        verify_signature(&self.certificate.public_key, algorithm, tbs, signature).is_ok()
    }
}

/// Every certificate that the configuration names, whether we hold its key or not.
pub(crate) fn read_certificates(config: &Config) -> Result<Vec<PathCertificate>, AuthorityError> {
    config
        .authorities
        .iter()
        .map(|authority| {
            let der = read_pem(&authority.id, &authority.certificate)?;
            describe(&authority.id, der)
        })
        .collect()
}

/// The issuing authorities, their keys found and tested.
pub(crate) fn open(
    config: &Config,
    certificates: &[PathCertificate],
    token: &Token,
    now: u64,
) -> Result<Vec<Authority>, AuthorityError> {
    let mut authorities = Vec::new();
    for authority in &config.authorities {
        let Some(pinned) = &authority.key else {
            continue;
        };
        let path = path_to_root(config, certificates, &authority.id)?;
        let wrong = |cause| AuthorityError::Certificate {
            id: authority.id.clone(),
            cause,
        };
        let (certificate, above) = path.split_first().ok_or_else(|| wrong("is missing"))?;
        if certificate.public_key != pinned.public_key {
            return Err(wrong("is for another key than the pinned one"));
        }
        if certificate.not_after <= now {
            return Err(wrong("has expired"));
        }
        verify_path(&path, &wrong)?;
        let key = token
            .key(&PinnedKey {
                id: pinned.pinned_id.clone(),
                material: Pinned::Public(pinned.public_key.clone()),
            })
            .map_err(|source| AuthorityError::Key {
                id: authority.id.clone(),
                source: source.into(),
            })?;
        authorities.push(Authority {
            certificate: certificate.clone(),
            above: above.to_vec(),
            key,
        });
    }
    Ok(authorities)
}

/// Each certificate bears the signature of the one above it, the last its own.
fn verify_path(
    path: &[PathCertificate],
    wrong: &impl Fn(&'static str) -> AuthorityError,
) -> Result<(), AuthorityError> {
    for (position, certificate) in path.iter().enumerate() {
        let issuer = path.get(position + 1).unwrap_or(certificate);
        let decoded = certificate::decode(&certificate.der).map_err(|_| wrong("is malformed"))?;
        let (tbs, signature) =
            certificate::split(&certificate.der).map_err(|_| wrong("is malformed"))?;
        let algorithm = message_algorithm_of(&decoded.signature_algorithm().oid)
            .ok_or_else(|| wrong("is signed with an algorithm that is not supported"))?;
        verify_signature(&issuer.public_key, algorithm, tbs, signature)
            .map_err(|_| wrong("is not signed by the authority above it"))?;
    }
    Ok(())
}

fn path_to_root(
    config: &Config,
    certificates: &[PathCertificate],
    id: &str,
) -> Result<Vec<PathCertificate>, AuthorityError> {
    let mut path: Vec<PathCertificate> = Vec::new();
    let mut next = Some(id);
    while let Some(id) = next {
        let wrong = |cause| AuthorityError::Certificate {
            id: id.into(),
            cause,
        };
        if path.iter().any(|certificate| certificate.id == id) {
            return Err(wrong("is its own issuer's issuer"));
        }
        let certificate = certificates
            .iter()
            .find(|c| c.id == id)
            .ok_or_else(|| wrong("is missing"))?;
        path.push(certificate.clone());
        next = config
            .authority(id)
            .and_then(|authority| authority.issuer.as_deref());
    }
    Ok(path)
}

fn read_pem(id: &str, file: &Path) -> Result<Vec<u8>, AuthorityError> {
    let failed = |cause: String| AuthorityError::Read {
        id: id.into(),
        file: file.into(),
        cause,
    };
    let text = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    match pem::decode_vec(&text) {
        Ok(("CERTIFICATE", der)) => Ok(der),
        Ok(_) => Err(failed("is not a CERTIFICATE in PEM".into())),
        Err(error) => Err(failed(format!("is not PEM: {error}"))),
    }
}

fn describe(id: &str, der: Vec<u8>) -> Result<PathCertificate, AuthorityError> {
    let wrong = |cause| AuthorityError::Certificate {
        id: id.into(),
        cause,
    };
    let decoded = certificate::decode(&der).map_err(|_| wrong("is malformed"))?;
    let tbs = decoded.tbs_certificate();
    let is_ca = matches!(tbs.get_extension::<BasicConstraints>(), Ok(Some((true, constraints))) if constraints.ca);
    if !is_ca {
        return Err(wrong("has no critical basicConstraints with cA"));
    }
    let Ok(Some((_, identifier))) = tbs.get_extension::<SubjectKeyIdentifier>() else {
        return Err(wrong("has no subjectKeyIdentifier"));
    };
    let malformed = |_: der::Error| wrong("is malformed");
    Ok(PathCertificate {
        id: id.into(),
        subject: tbs.subject().to_der().map_err(malformed)?,
        public_key: tbs.subject_public_key_info().to_der().map_err(malformed)?,
        key_identifier: identifier.0.as_bytes().to_vec(),
        not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
        der,
    })
}
