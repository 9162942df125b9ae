//! The RA's own certificates: two for each issuing CA, one of the decryption key and one of the
//! signing key.
//!
//! The CA issues them and is asked again every hour. Every decryption certificate that was ever in
//! use is kept in the state folder, since a client may have fetched its copy long ago and the key
//! is still the same. What the folder holds is no secret and no authority: a certificate in it
//! only says by which name our key may be addressed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use chancery_config::Profile;
use chancery_host::ipc::{CallError, Channel};
use chancery_host::process::Stop;
use chancery_protocol::hex;
use chancery_protocol::ipc::enrol;

use crate::x509::Certificate;

/// How often the CA is asked for newer ones.
const REFRESH: Duration = Duration::from_secs(30);

/// How often it is asked while it does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Most decryption certificates kept for one CA; the CA renews them about once a year.
const MAX_KEPT: usize = 64;

/// The certificates of one issuing CA.
#[derive(Clone, Debug)]
pub(crate) struct RaCertificates {
    /// Of the decryption key, the newest first.
    decryption: Vec<Certificate>,
    /// Of the signing key, as it goes into each CertRep.
    signing: Certificate,
}

impl RaCertificates {
    /// The certificate of the key that signs CertReps.
    pub(crate) fn signing(&self) -> &Certificate {
        &self.signing
    }

    /// Whether issuer and serial number, each a whole element in DER, name our decryption key.
    pub(crate) fn is_ours(&self, issuer: &[u8], serial: &[u8]) -> bool {
        self.decryption
            .iter()
            .any(|own| own.issuer() == issuer && own.serial() == serial)
    }

    /// Whether a subjectKeyIdentifier names our decryption key.
    pub(crate) fn is_our_key(&self, identifier: &[u8]) -> bool {
        self.decryption
            .iter()
            .any(|own| own.subject_key_identifier() == Some(identifier))
    }
}

/// The certificates of every issuing CA that a profile names.
#[derive(Debug)]
pub(crate) struct Certificates {
    keys: PinnedKeys,
    folder: PathBuf,
    /// Profiles and the id of their issuing CA.
    issuing: BTreeMap<String, String>,
    /// By the id of the CA. The lock guards this map; what it holds is never changed, but replaced.
    current: RwLock<BTreeMap<String, Arc<RaCertificates>>>,
}

/// The public keys that the certificates must be for: SubjectPublicKeyInfo in DER.
#[derive(Clone, Debug)]
pub(crate) struct PinnedKeys {
    pub(crate) decryption: Vec<u8>,
    pub(crate) signing: Vec<u8>,
}

impl Certificates {
    /// None yet. `folder` is where earlier decryption certificates are kept; it need not exist.
    pub(crate) fn new(keys: PinnedKeys, folder: PathBuf, profiles: &[Profile]) -> Self {
        let issuing = profiles
            .iter()
            .map(|p| (p.name.clone(), p.ca.clone()))
            .collect();
        Self {
            keys,
            folder,
            issuing,
            current: RwLock::default(),
        }
    }

    /// Whether there is such a profile.
    pub(crate) fn has_profile(&self, profile: &str) -> bool {
        self.issuing.contains_key(profile)
    }

    /// Those of a profile's issuing CA, once the CA has answered.
    pub(crate) fn of(&self, profile: &str) -> Option<Arc<RaCertificates>> {
        let ca = self.issuing.get(profile)?;
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(ca)
            .cloned()
    }

    /// Asks the CA until the stop: every hour, and often while it does not answer. Calls `complete`
    /// once, as soon as the certificates of every CA are there.
    pub(crate) fn keep_current(&self, ca: &Channel, stop: &Stop, complete: impl FnOnce()) {
        let mut complete = Some(complete);
        let mut failing = BTreeMap::new();
        loop {
            self.refresh(ca, &mut failing);
            if self.is_complete()
                && let Some(complete) = complete.take()
            {
                complete();
            }
            if stop.wait(if failing.is_empty() { REFRESH } else { RETRY }) {
                return;
            }
        }
    }

    /// Asks for the certificates of every CA once. `failing` holds why it did not work, by the id
    /// of the CA: an outage is logged when it begins or changes, and when it ends.
    fn refresh(&self, channel: &Channel, failing: &mut BTreeMap<String, String>) {
        // One profile stands for all of its CA.
        let by_ca: BTreeMap<&String, &String> =
            self.issuing.iter().map(|(p, ca)| (ca, p)).collect();
        for (ca, profile) in by_ca {
            match ask(channel, profile).and_then(|chain| self.adopt(ca, &chain)) {
                Ok(()) => {
                    if failing.remove(ca).is_some() {
                        tracing::info!(ca, "the CA has certificates for the RA again");
                    }
                }
                Err(error) => {
                    let cause = error.to_string();
                    if failing.insert(ca.clone(), cause.clone()).as_ref() != Some(&cause) {
                        tracing::warn!(ca, cause, "no certificates for the RA from its CA");
                    }
                }
            }
        }
    }

    fn is_complete(&self) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        self.issuing.values().all(|ca| current.contains_key(ca))
    }

    /// Takes over what the CA answered, after checking that it is for our keys.
    fn adopt(&self, ca: &str, chain: &enrol::RaChain) -> Result<(), CertificatesError> {
        let read = |octets: &[u8], key: &[u8], purpose| {
            let certificate = Certificate::read(octets)
                .map_err(|source| CertificatesError::Malformed { purpose, source })?;
            if certificate.public_key() == key {
                Ok(certificate)
            } else {
                Err(CertificatesError::OtherKey { purpose })
            }
        };
        let newest = read(
            chain.decryption.as_bytes(),
            &self.keys.decryption,
            "decryption",
        )?;
        let signing = read(chain.signing.as_bytes(), &self.keys.signing, "signing")?;
        let folder = self.folder.join(ca);
        if let Err(source) = keep(&folder, &newest) {
            // Only clients with an old copy would notice, and only after the next start.
            tracing::warn!(%source, "cannot keep the decryption certificate in {}", folder.display());
        }
        let mut decryption = vec![newest];
        let known = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(ca)
            .cloned();
        let earlier = match known {
            Some(known) => known.decryption.clone(),
            None => kept(&folder, &self.keys.decryption),
        };
        for certificate in earlier {
            if decryption.len() < MAX_KEPT && !decryption.contains(&certificate) {
                decryption.push(certificate);
            }
        }
        self.current
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(
                ca.to_owned(),
                Arc::new(RaCertificates {
                    decryption,
                    signing,
                }),
            );
        Ok(())
    }
}

fn ask(channel: &Channel, profile: &str) -> Result<enrol::RaChain, CertificatesError> {
    let request = enrol::Request::RaCertificates(enrol::RaCertificates {
        profile: profile.into(),
    });
    match channel.call_repeatable(&request)? {
        enrol::Reply::RaCertificates(chain) => Ok(chain),
        enrol::Reply::Unavailable(cause) => Err(CertificatesError::Unavailable(cause)),
        enrol::Reply::Issued(_) | enrol::Reply::Refused(_) => Err(CertificatesError::OtherAnswer),
    }
}

/// Writes a certificate under the name of its digest, whole or not at all.
fn keep(folder: &Path, certificate: &Certificate) -> io::Result<()> {
    let name = hex::encode(digest(&SHA256, certificate.der()).as_ref());
    let path = folder.join(format!("{name}.cer"));
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let unfinished = folder.join("unfinished");
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(certificate.der())?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}

/// The certificates in a folder that are for this key, those written last first.
fn kept(folder: &Path, public_key: &[u8]) -> Vec<Certificate> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "cer"))
        .filter_map(|entry| {
            let written = entry.metadata().and_then(|m| m.modified()).ok()?;
            let certificate = Certificate::read(&fs::read(entry.path()).ok()?).ok()?;
            (certificate.public_key() == public_key).then_some((written, certificate))
        })
        .collect();
    found.sort_by_key(|(written, _)| core::cmp::Reverse(*written));
    found
        .into_iter()
        .map(|(_, certificate)| certificate)
        .collect()
}

/// There are no certificates for the RA.
#[derive(Debug, thiserror::Error)]
enum CertificatesError {
    /// The CA does not answer.
    #[error("the CA cannot be asked: {0}")]
    Call(#[from] CallError),
    /// The CA cannot issue them now.
    #[error("the CA is not available: {0}")]
    Unavailable(String),
    /// The CA answered another question.
    #[error("the CA's answer is not one to this question; check that ra and ca are of one version")]
    OtherAnswer,
    /// No certificate.
    #[error("the {purpose} certificate is malformed: {source}")]
    Malformed {
        purpose: &'static str,
        source: der::Error,
    },
    /// A certificate for a key that the configuration does not pin for us.
    #[error(
        "the {purpose} certificate is for another key than the configuration pins; check that ra \
         and ca read the same configuration"
    )]
    OtherKey { purpose: &'static str },
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use chancery_config::ExtendedKeyUsage;
    use der::asn1::OctetString;
    use tempfile::TempDir;

    use super::*;

    /// Keys and certificates made by openssl, and a folder for state.
    struct World(TempDir);

    impl World {
        fn new() -> Self {
            let world = Self(tempfile::tempdir().unwrap());
            for name in ["decryption", "signing", "foreign"] {
                world.openssl(&format!("genrsa -out {name}.key 2048"));
            }
            world
        }

        fn openssl(&self, arguments: &str) -> Vec<u8> {
            let output = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(self.0.path())
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            output.stdout
        }

        /// A new certificate, with a serial number of its own.
        fn certificate(&self, key: &str) -> Certificate {
            let made = self.openssl(&format!(
                "req -x509 -new -key {key}.key -outform DER -subj /CN={key}"
            ));
            Certificate::read(&made).unwrap()
        }

        fn certificates(&self) -> Certificates {
            let keys = PinnedKeys {
                decryption: self.certificate("decryption").public_key().to_vec(),
                signing: self.certificate("signing").public_key().to_vec(),
            };
            let profiles = [profile("devices", "issuing"), profile("gear", "issuing")];
            Certificates::new(keys, self.0.path().join("state"), &profiles)
        }
    }

    fn profile(name: &str, ca: &str) -> Profile {
        Profile {
            name: name.into(),
            ca: ca.into(),
            validity_days: 1,
            backdate_seconds: 0,
            open_subject: Vec::new(),
            open_sans: Vec::new(),
            extended_key_usage: vec![ExtendedKeyUsage::ClientAuth],
            challenge_ttl_max: 60,
        }
    }

    fn chain(decryption: &Certificate, signing: &Certificate) -> enrol::RaChain {
        let octets = |c: &Certificate| OctetString::new(c.der()).unwrap();
        enrol::RaChain {
            decryption: octets(decryption),
            signing: octets(signing),
            authorities: Vec::new(),
        }
    }

    #[test]
    fn profiles_of_one_ca_share_its_certificates() {
        let world = World::new();
        let certificates = world.certificates();
        assert!(certificates.has_profile("gear") && !certificates.has_profile("other"));
        assert!(certificates.of("gear").is_none());
        let (decryption, signing) = (
            world.certificate("decryption"),
            world.certificate("signing"),
        );
        certificates
            .adopt("issuing", &chain(&decryption, &signing))
            .unwrap();
        let found = certificates.of("gear").unwrap();
        assert_eq!(found.signing(), &signing);
        assert!(found.is_ours(decryption.issuer(), decryption.serial()));
        assert!(found.is_our_key(decryption.subject_key_identifier().unwrap()));
        // Nobody encrypts for the signing key.
        assert!(!found.is_ours(signing.issuer(), signing.serial()));
        assert!(!found.is_ours(decryption.issuer(), signing.serial()));
        assert!(!found.is_our_key(signing.subject_key_identifier().unwrap()));
        assert!(certificates.of("other").is_none());
    }

    #[test]
    fn certificates_for_other_keys_are_refused() {
        let world = World::new();
        let certificates = world.certificates();
        let [decryption, signing, foreign] =
            ["decryption", "signing", "foreign"].map(|key| world.certificate(key));
        for (first, second, wrong) in [
            (&foreign, &signing, "decryption"),
            (&decryption, &foreign, "signing"),
            (&signing, &decryption, "decryption"),
        ] {
            let refused = certificates
                .adopt("issuing", &chain(first, second))
                .unwrap_err();
            assert!(
                matches!(refused, CertificatesError::OtherKey { purpose } if purpose == wrong),
                "{refused}"
            );
        }
        let mut broken = chain(&decryption, &signing);
        broken.signing = OctetString::new(&signing.der()[1..]).unwrap();
        let refused = certificates.adopt("issuing", &broken).unwrap_err();
        assert!(matches!(
            refused,
            CertificatesError::Malformed {
                purpose: "signing",
                ..
            }
        ));
        assert!(certificates.of("devices").is_none());
    }

    #[test]
    fn an_old_decryption_certificate_is_still_ours_after_a_restart() {
        let world = World::new();
        let signing = world.certificate("signing");
        let [first, second, third] = [(); 3].map(|()| world.certificate("decryption"));
        let before = world.certificates();
        before.adopt("issuing", &chain(&first, &signing)).unwrap();
        before.adopt("issuing", &chain(&second, &signing)).unwrap();
        assert!(
            before
                .of("devices")
                .unwrap()
                .is_ours(first.issuer(), first.serial())
        );

        let after = world.certificates();
        after.adopt("issuing", &chain(&third, &signing)).unwrap();
        let found = after.of("devices").unwrap();
        for own in [&first, &second, &third] {
            assert!(found.is_ours(own.issuer(), own.serial()));
        }
    }

    #[test]
    fn what_lies_in_the_folder_is_not_believed() {
        let world = World::new();
        let folder = world.0.path().join("state/issuing");
        let (decryption, signing) = (
            world.certificate("decryption"),
            world.certificate("signing"),
        );
        let foreign = world.certificate("foreign");
        keep(&folder, &foreign).unwrap();
        fs::write(folder.join("broken.cer"), b"no certificate").unwrap();
        let certificates = world.certificates();
        certificates
            .adopt("issuing", &chain(&decryption, &signing))
            .unwrap();
        let found = certificates.of("devices").unwrap();
        assert!(found.is_ours(decryption.issuer(), decryption.serial()));
        assert!(!found.is_ours(foreign.issuer(), foreign.serial()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_nothing_at_once() {
        let world = World::new();
        fs::write(world.0.path().join("state"), b"a file in the way").unwrap();
        let certificates = world.certificates();
        let (decryption, signing) = (
            world.certificate("decryption"),
            world.certificate("signing"),
        );
        certificates
            .adopt("issuing", &chain(&decryption, &signing))
            .unwrap();
        assert!(certificates.of("devices").is_some());
    }
}
