//! Who may have a certificate: the only place that makes an [`Authorised`].

use chancery_config::{Config, Profile};
use chancery_message::OpenedMessage;
use chancery_protocol::ipc::store::{FindChallenge, Reply, Request, Spend};
use chancery_protocol::name::{DistinguishedName, Names};
use chancery_protocol::refusal::Refusal;
use chancery_protocol::seal::{Claims, InfrastructureIdentity, RetryIdentity, SealKind};
use chancery_protocol::wire::{self, Digest, Id, Octets};
use chancery_token::Session;

use crate::certificate::Kind;
use crate::challenge::{Sealer, id_of};
use crate::digest::sha256;
use crate::failure::Failure;
use crate::ledger::{Ledger, LedgerError};
use crate::{key_quality, names};

/// Proof that a certificate may be issued, and everything that decides what it says. Made only by
/// this module, from a genuine challenge or from a key that the ceremony pinned.
#[derive(Debug)]
pub(crate) struct Authorised {
    pub(crate) request: Id,
    /// Index of the issuing authority's id.
    pub(crate) ca: String,
    /// Profile, or the purpose of one of our own keys.
    pub(crate) profile: String,
    pub(crate) kind: Kind,
    pub(crate) names: Names,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// What a repetition of the same enrolment is found by.
    pub(crate) retry: Digest,
    pub(crate) device_id: String,
    pub(crate) transaction: String,
    pub(crate) peer: String,
    /// What is spent; none for our own keys.
    pub(crate) spend: Option<Spend>,
    /// Why nothing new may be issued: only a repetition may be answered.
    pub(crate) only_repetition: Option<Refusal>,
    /// Whether nothing may be signed at all: only what was signed may be given out.
    pub(crate) revoked: bool,
}

/// What stands beside a message.
pub(crate) struct Circumstances<'a> {
    pub(crate) request: Id,
    pub(crate) peer: &'a str,
    pub(crate) profile: &'a Profile,
    pub(crate) now: u64,
}

/// A request that a challenge authenticates.
pub(crate) struct ByChallenge<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) sealer: &'a Sealer,
    /// Public keys of our own authorities and of the RA.
    pub(crate) own_keys: &'a [Vec<u8>],
}

impl ByChallenge<'_> {
    /// Decides by the challenge in the message.
    ///
    /// # Errors
    /// [`Failure::Refused`] with the reason, or [`Failure`] of ledger or token.
    pub(crate) fn authorise(
        &self,
        session: &mut Session,
        message: &OpenedMessage<'_>,
        at: &Circumstances<'_>,
    ) -> Result<Authorised, Failure> {
        let key = &message.request.public_key;
        if !key_quality::is_acceptable(key) {
            return Err(Refusal::KeyQuality.into());
        }
        if self.own_keys.iter().any(|own| own == key.spki()) {
            return Err(Refusal::KeyOfAuthority.into());
        }
        let handle = message
            .request
            .challenge
            .as_ref()
            .ok_or(Refusal::ChallengeMissing)?;
        let id = id_of(handle.expose());
        let found = match self
            .ledger
            .ask(&Request::FindChallenge(FindChallenge { challenge: id }))?
        {
            Reply::Challenge(found) => found,
            Reply::Absent(_) => return Err(Refusal::ChallengeUnknown.into()),
            _ => return Err(LedgerError::Untimely("find challenge").into()),
        };
        if !self
            .sealer
            .is_ours(session, SealKind::Challenge, id, &found.row)?
        {
            return Err(Failure::BrokenSeal {
                what: "challenge",
                id,
            });
        }
        let claims: Claims = wire::decode(found.row.body.as_bytes())?;
        if claims.profile != at.profile.name {
            return Err(Failure::recorded(Refusal::ChallengeProfile, id));
        }
        let names = names::allowed(&claims, at.profile, &message.request.names)
            .ok_or_else(|| Failure::recorded(Refusal::ChallengeNames, id))?;
        let only_repetition = if found.revoked || claims.expires <= at.now {
            Some(Refusal::ChallengeExpired)
        } else if found.spent >= claims.uses {
            Some(Refusal::ChallengeSpent)
        } else {
            None
        };
        let public_key = Octets(sha256(&[key.spki()]));
        let retry = RetryIdentity {
            challenge: id,
            public_key,
            profile: claims.profile.clone(),
            subject: names.subject.clone(),
            sans: names.sans.clone(),
        };
        let held = names::identities(&names);
        let day = u64::from(at.profile.validity_days).saturating_mul(86_400);
        Ok(Authorised {
            request: at.request,
            ca: at.profile.ca.clone(),
            profile: at.profile.name.clone(),
            kind: Kind::EndEntity(at.profile.extended_key_usage.clone()),
            names,
            public_key: key.spki().to_vec(),
            not_before: at.now.saturating_sub(at.profile.backdate_seconds),
            not_after: at.now.saturating_add(day),
            retry: Octets(sha256(&[&wire::encode(&retry)?])),
            device_id: claims.device_id.unwrap_or_default(),
            transaction: message.transaction_id.as_str().into(),
            peer: at.peer.into(),
            spend: Some(Spend {
                challenge: id,
                uses: claims.uses,
                names: held
                    .iter()
                    .map(|name| Octets(sha256(&[name.as_bytes()])))
                    .collect(),
            }),
            only_repetition,
            revoked: found.revoked,
        })
    }
}

/// Which of the RA's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RaKey {
    /// Decrypts pkiMessages.
    Decryption,
    /// Signs CertReps.
    Signing,
}

impl RaKey {
    /// Its purpose in the database and in audit records.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Decryption => "ra-decryption",
            Self::Signing => "ra-signing",
        }
    }
}

/// Days that an RA certificate lives.
pub(crate) const RA_DAYS: u64 = 730;

/// An RA certificate, for the key that the ceremony pinned and no other.
pub(crate) fn for_ra(
    config: &Config,
    key: RaKey,
    ca: &str,
    ca_certificate: &[u8],
    predecessor: Option<Digest>,
    request: Id,
    now: u64,
) -> Result<Authorised, Failure> {
    let (pinned, label, kind) = match key {
        RaKey::Decryption => (&config.ra.decryption, "RA decryption", Kind::RaDecryption),
        RaKey::Signing => (&config.ra.signing, "RA signing", Kind::RaSigning),
    };
    let identity = InfrastructureIdentity {
        ca: ca.into(),
        purpose: key.purpose().into(),
        public_key: Octets(sha256(&[&pinned.public_key])),
        issuer: Octets(sha256(&[ca_certificate])),
        predecessor,
    };
    let subject = DistinguishedName::parse(&format!("CN=Chancery {label} ({ca})"))
        .map_err(|error| Failure::Internal(error.to_string()))?;
    Ok(Authorised {
        request,
        ca: ca.into(),
        profile: key.purpose().into(),
        kind,
        names: Names {
            subject,
            sans: Vec::new(),
        },
        public_key: pinned.public_key.clone(),
        not_before: now.saturating_sub(300),
        not_after: now.saturating_add(RA_DAYS * 86_400),
        retry: Octets(sha256(&[&wire::encode(&identity)?])),
        device_id: String::new(),
        transaction: String::new(),
        peer: String::new(),
        spend: None,
        only_repetition: None,
        revoked: false,
    })
}
