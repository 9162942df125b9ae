//! What anybody may have: the GetCACert answers, kept ready and renewed in the background.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use chancery_host::ipc::Channel;
use chancery_protocol::ipc::public::{Blob, Reply, Request, cacert};

/// Between two looks at the ledger.
const REFRESH: Duration = Duration::from_secs(30);

/// The same, while a profile has nothing to serve yet.
const FIRST: Duration = Duration::from_millis(200);

/// For one answer of the ledger.
const DEADLINE: Duration = Duration::from_secs(5);

/// The media types of a GetCACert answer (RFC 8894 §4.2.1): one CA certificate, or RA and chain.
const MEDIA_TYPES: [&str; 2] = [
    "application/x-x509-ca-cert",
    "application/x-x509-ca-ra-cert",
];

/// A GetCACert answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaCert {
    /// One of two.
    pub(crate) media_type: &'static str,
    /// The body.
    pub(crate) content: Bytes,
}

/// The last good GetCACert answer of each profile.
#[derive(Debug)]
pub(crate) struct Blobs {
    channel: Channel,
    profiles: Vec<String>,
    // Guards the answers had so far, by profile.
    held: RwLock<BTreeMap<String, CaCert>>,
}

impl Blobs {
    pub(crate) fn new(socket: &Path, profiles: Vec<String>) -> Self {
        Self {
            channel: Channel::new(socket, DEADLINE),
            profiles,
            held: RwLock::default(),
        }
    }

    /// The answer of a profile, once there has been one.
    pub(crate) fn cacert(&self, profile: &str) -> Option<CaCert> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(profile).cloned()
    }

    /// Renews the answers for ever. A profile whose answer cannot be had keeps the one it has.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let mut trouble = Vec::new();
        loop {
            let blobs = Arc::clone(&self);
            let before = std::mem::take(&mut trouble);
            trouble = tokio::task::spawn_blocking(move || blobs.refresh(&before))
                .await
                .unwrap_or_default();
            let complete = {
                let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
                held.len() == self.profiles.len()
            };
            tokio::time::sleep(if complete { REFRESH } else { FIRST }).await;
        }
    }

    /// Asks once for every profile. Returns the profiles without a new answer; those of `before`
    /// are logged already.
    fn refresh(&self, before: &[String]) -> Vec<String> {
        let mut trouble = Vec::new();
        for profile in &self.profiles {
            let cause = match self.ask(profile) {
                Ok(answer) => {
                    self.keep(profile, answer);
                    continue;
                }
                Err(cause) => cause,
            };
            if before.contains(profile) {
                // Said already.
            } else if self.cacert(profile).is_some() {
                tracing::warn!(profile, %cause, "GetCACert answer not renewed, the last one stays");
            } else {
                tracing::info!(profile, %cause, "no GetCACert answer yet, trying on");
            }
            trouble.push(profile.clone());
        }
        trouble
    }

    fn ask(&self, profile: &str) -> Result<CaCert, Trouble> {
        let request = Request {
            name: cacert(profile),
        };
        match self.channel.call(&request)? {
            Reply::Blob(blob) => checked(blob),
            Reply::Absent(_) => Err(Trouble::Absent),
            Reply::Unavailable(_) => Err(Trouble::Database),
        }
    }

    fn keep(&self, profile: &str, answer: CaCert) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let octets = answer.content.len();
        if held.get(profile) != Some(&answer) {
            tracing::info!(profile, octets, "new GetCACert answer");
            held.insert(profile.to_owned(), answer);
        }
    }
}

/// Takes only what GetCACert can be: the media type becomes a header of ours.
fn checked(blob: Blob) -> Result<CaCert, Trouble> {
    let media_type = MEDIA_TYPES
        .into_iter()
        .find(|known| *known == blob.media_type)
        .ok_or(Trouble::MediaType)?;
    let content = Bytes::from(Vec::from(blob.content));
    if content.is_empty() {
        return Err(Trouble::Empty);
    }
    Ok(CaCert {
        media_type,
        content,
    })
}

/// Why there is no new answer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Call(#[from] chancery_host::ipc::CallError),
    #[error("the CA has not published one yet; check that the CA runs and serves this profile")]
    Absent,
    #[error("the database does not answer; see the ledger's log")]
    Database,
    #[error("its media type is not one of GetCACert")]
    MediaType,
    #[error("it is empty")]
    Empty,
}

#[cfg(test)]
mod tests {
    use der::asn1::OctetString;

    use super::*;

    fn blob(media_type: &str, content: &[u8]) -> Blob {
        Blob {
            media_type: media_type.into(),
            content: OctetString::new(content).unwrap(),
        }
    }

    #[test]
    fn only_answers_of_getcacert_are_kept() {
        for media_type in MEDIA_TYPES {
            assert!(checked(blob(media_type, b"x")).is_ok());
        }
        assert!(checked(blob("text/html", b"x")).is_err());
        assert!(checked(blob("application/x-x509-ca-cert\r\nx: y", b"x")).is_err());
        assert!(checked(blob(MEDIA_TYPES[0], b"")).is_err());
    }

    #[test]
    fn the_last_good_answer_stays() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(&folder.path().join("absent"), vec!["devices".into()]);
        assert_eq!(blobs.cacert("devices"), None);
        let good = checked(blob(MEDIA_TYPES[1], b"chain")).unwrap();
        blobs.keep("devices", good.clone());
        assert_eq!(blobs.refresh(&[]), ["devices"]);
        assert_eq!(blobs.cacert("devices"), Some(good));
        assert_eq!(blobs.cacert("other"), None);
    }
}
