//! Challenges (design: a random 128-bit handle; behind it a row that our token has sealed).

use chancery_config::Profile;
use chancery_protocol::hex;
use chancery_protocol::ipc::operator::NewChallenge;
use chancery_protocol::seal::{Claims, SealKind, SealedContent, SealedRow};
use chancery_protocol::wire::{self, Digest, Octets, Secret, WireError};
use chancery_token::{Authenticate, Key, Session, TokenError};
use der::asn1::OctetString;
use zeroize::Zeroizing;

use crate::digest::sha256;

/// Most uses of one challenge.
pub(crate) const MAX_USES: u32 = 1_000_000;

/// Octets of a device id.
const MAX_DEVICE_ID: usize = 256;

/// Octets of all names of a challenge together.
const MAX_NAMES_SIZE: usize = 8192;

/// Seals rows, and recognises them again.
#[derive(Clone)]
pub(crate) struct Sealer {
    key: Key<Authenticate>,
    key_id: Vec<u8>,
}

/// A row cannot be sealed or checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// The token does not answer.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The row is too large.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A part does not encode.
    #[error(transparent)]
    Encode(#[from] der::Error),
}

impl Sealer {
    pub(crate) fn new(key: Key<Authenticate>, key_id: Vec<u8>) -> Self {
        Self { key, key_id }
    }

    /// The key, for its self-test.
    pub(crate) fn key(&self) -> &Key<Authenticate> {
        &self.key
    }

    /// Seals `body` under `id`.
    pub(crate) fn seal(
        &self,
        session: &mut Session,
        kind: SealKind,
        id: Digest,
        body: &[u8],
    ) -> Result<SealedRow, SealError> {
        let content = SealedContent {
            kind,
            key_id: OctetString::new(self.key_id.as_slice())?,
            id,
            body: OctetString::new(body)?,
        };
        let mac = self.key.authenticate(session, &wire::encode(&content)?)?;
        Ok(SealedRow {
            key_id: content.key_id,
            id,
            body: content.body,
            mac: Octets(mac),
        })
    }

    /// Whether `row` was sealed by us, as this kind, under this id.
    pub(crate) fn is_ours(
        &self,
        session: &mut Session,
        kind: SealKind,
        id: Digest,
        row: &SealedRow,
    ) -> Result<bool, SealError> {
        if row.id != id || row.key_id.as_bytes() != self.key_id {
            return Ok(false);
        }
        let content = SealedContent {
            kind,
            key_id: row.key_id.clone(),
            id,
            body: row.body.clone(),
        };
        Ok(self
            .key
            .verify(session, &wire::encode(&content)?, row.mac.as_bytes())?)
    }
}

/// A new handle: 128 random bits as 32 upper-case hexadecimal digits.
pub(crate) fn new_handle(session: &mut Session) -> Result<Secret, TokenError> {
    let octets = Zeroizing::new(session.random(16)?);
    Ok(Secret::new(
        hex::encode(&octets).to_ascii_uppercase().into_bytes(),
    ))
}

/// What a challenge is found by.
pub(crate) fn id_of(handle: &[u8]) -> Digest {
    Octets(sha256(&[handle]))
}

/// The claims of a new challenge, or the reason against it.
pub(crate) fn claims_for(
    request: &NewChallenge,
    profile: &Profile,
    now: u64,
    minted_by: String,
) -> Result<Claims, String> {
    if request.ttl == 0 || request.ttl > profile.challenge_ttl_max {
        return Err(format!(
            "a challenge for profile \"{}\" lives at most {} minutes; ask for less, or raise \
             challenge_minutes_max",
            profile.name,
            profile.challenge_ttl_max / 60
        ));
    }
    if request.uses == 0 || request.uses > MAX_USES {
        return Err(format!("uses must be 1 to {MAX_USES}"));
    }
    let names_fit = request
        .subject
        .as_ref()
        .is_none_or(|subject| subject.is_valid())
        && request
            .sans
            .iter()
            .flatten()
            .all(chancery_protocol::name::GeneralName::is_valid)
        && request
            .sans
            .as_ref()
            .is_none_or(|sans| sans.len() <= chancery_protocol::name::MAX_NAMES);
    if !names_fit {
        return Err("a name is malformed".into());
    }
    let device_fits = request.device_id.as_ref().is_none_or(|id| {
        (1..=MAX_DEVICE_ID).contains(&id.len()) && !id.chars().any(char::is_control)
    });
    if !device_fits {
        return Err(format!(
            "a device id has 1 to {MAX_DEVICE_ID} octets and no control characters"
        ));
    }
    let size = request
        .subject
        .as_ref()
        .map_or(0, |subject| subject.to_string().len())
        + request
            .sans
            .iter()
            .flatten()
            .map(|san| san.to_string().len())
            .sum::<usize>();
    if size > MAX_NAMES_SIZE {
        return Err(format!(
            "the names have more than {MAX_NAMES_SIZE} octets together"
        ));
    }
    let subject = match &request.subject {
        None if profile.open_subject.is_empty() => Some(Default::default()),
        given => given.clone(),
    };
    let sans = match &request.sans {
        None if profile.open_sans.is_empty() => Some(Vec::new()),
        given => given.clone(),
    };
    let nameless =
        subject.as_ref().is_some_and(|s| s.is_empty()) && sans.as_ref().is_some_and(Vec::is_empty);
    if nameless {
        return Err(format!(
            "profile \"{}\" leaves no name open: give --subject or --san",
            profile.name
        ));
    }
    Ok(Claims {
        profile: profile.name.clone(),
        issued_at: now,
        expires: now.saturating_add(request.ttl),
        uses: request.uses,
        subject,
        sans,
        device_id: request.device_id.clone(),
        minted_by,
    })
}

#[cfg(test)]
mod tests {
    use chancery_protocol::name::{AttributeKind, DistinguishedName, GeneralName};

    use super::*;

    fn profile(open: bool) -> Profile {
        Profile {
            name: "devices".into(),
            ca: "issuing".into(),
            validity_days: 365,
            backdate_seconds: 0,
            open_subject: AttributeKind::by_short("CN")
                .filter(|_| open)
                .into_iter()
                .collect(),
            open_sans: if open { vec!["dns".into()] } else { Vec::new() },
            extended_key_usage: Vec::new(),
            challenge_ttl_max: 3600,
        }
    }

    fn asked() -> NewChallenge {
        NewChallenge {
            profile: "devices".into(),
            ttl: 60,
            uses: 1,
            subject: Some(DistinguishedName::parse("CN=a").unwrap()),
            sans: None,
            device_id: None,
        }
    }

    fn claims(asked: &NewChallenge, open: bool) -> Result<Claims, String> {
        claims_for(asked, &profile(open), 1000, "operator".into())
    }

    #[test]
    fn what_the_profile_does_not_leave_open_is_fixed_to_nothing() {
        let claims = claims(&asked(), false).unwrap();
        assert_eq!(claims.sans, Some(Vec::new()));
        assert_eq!((claims.issued_at, claims.expires), (1000, 1060));
        let nameless = NewChallenge {
            subject: None,
            ..asked()
        };
        assert!(
            self::claims(&nameless, false)
                .unwrap_err()
                .contains("--subject or --san")
        );
    }

    #[test]
    fn what_the_profile_leaves_open_stays_open_unless_fixed() {
        assert_eq!(claims(&asked(), true).unwrap().sans, None);
        let open = NewChallenge {
            subject: None,
            ..asked()
        };
        assert_eq!(claims(&open, true).unwrap().subject, None);
    }

    #[test]
    fn limits() {
        for (ttl, uses) in [(0, 1), (3601, 1), (60, 0), (60, MAX_USES + 1)] {
            assert!(
                claims(
                    &NewChallenge {
                        ttl,
                        uses,
                        ..asked()
                    },
                    true
                )
                .is_err(),
                "{ttl} {uses}"
            );
        }
        for device in ["", "a\tb", &"x".repeat(257)] {
            let device_id = Some(device.to_owned());
            assert!(
                claims(
                    &NewChallenge {
                        device_id,
                        ..asked()
                    },
                    true
                )
                .is_err(),
                "{device:?}"
            );
        }
        let unchecked = Some(vec![GeneralName::Dns("not a name".into())]);
        assert!(
            claims(
                &NewChallenge {
                    sans: unchecked,
                    ..asked()
                },
                true
            )
            .is_err()
        );
    }
}
