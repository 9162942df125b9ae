//! The certificates of our own RA, and what front serves as GetCACert.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chancery_config::Config;
use chancery_protocol::ipc::enrol::RaChain;
use chancery_protocol::ipc::public;
use chancery_protocol::ipc::store::{Publish, Reply, Request};
use chancery_protocol::wire::Octets;
use chancery_token::Session;
use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::SetOfVec;
use der::{Any, Encode};

use crate::authorise::{RA_DAYS, RaKey, for_ra};
use crate::authority::Authority;
use crate::certificate;
use crate::challenge::Sealer;
use crate::digest::sha256;
use crate::failure::{Failure, octets};
use crate::issue::Issuer;
use crate::ledger::{Ledger, LedgerError, new_id};
use crate::witness::{Witness, write_durably};

/// An RA certificate that ends sooner than this, in seconds, is followed by a new one: a third of
/// its life, so that clients that keep GetCACert for long meet it.
const LEAST_LIFE: u64 = RA_DAYS * 86_400 / 3;

/// More RA certificates than one authority has in its life.
const MOST_GENERATIONS: usize = 64;

/// The RA's certificates by issuing authority.
pub(crate) type RaChains = BTreeMap<String, RaChain>;

/// What is needed to issue for our own keys.
pub(crate) struct Infrastructure<'a> {
    pub(crate) config: &'a Config,
    pub(crate) authorities: &'a [Authority],
    pub(crate) ledger: &'a Ledger,
    pub(crate) sealer: &'a Sealer,
    pub(crate) witness: &'a Witness,
}

impl Infrastructure<'_> {
    /// Finds or issues the RA's certificates of every authority, and publishes the GetCACert of
    /// each profile for which they are others than `before`.
    pub(crate) fn prepare(
        &self,
        session: &mut Session,
        before: &RaChains,
        now: u64,
    ) -> Result<RaChains, Failure> {
        let mut chains = RaChains::new();
        for authority in self.authorities {
            let chain = self.chain(session, authority, now)?;
            chains.insert(authority.certificate.id.clone(), chain);
        }
        for profile in &self.config.profiles {
            let known = before.get(&profile.ca);
            if let Some(chain) = chains
                .get(&profile.ca)
                .filter(|chain| Some(*chain) != known)
            {
                self.publish(&profile.name, chain)?;
            }
        }
        Ok(chains)
    }

    fn chain(
        &self,
        session: &mut Session,
        authority: &Authority,
        now: u64,
    ) -> Result<RaChain, Failure> {
        let path = std::iter::once(&authority.certificate).chain(&authority.above);
        Ok(RaChain {
            decryption: octets(&self.certificate(session, authority, RaKey::Decryption, now)?)?,
            signing: octets(&self.certificate(session, authority, RaKey::Signing, now)?)?,
            authorities: path
                .map(|certificate| octets(&certificate.der))
                .collect::<Result<_, _>>()?,
        })
    }

    fn certificate(
        &self,
        session: &mut Session,
        authority: &Authority,
        key: RaKey,
        now: u64,
    ) -> Result<Vec<u8>, Failure> {
        let folder = self.config.state_dir("ca");
        let name = format!("{}-{}.der", key.purpose(), authority.certificate.id);
        let pinned = match key {
            RaKey::Decryption => &self.config.ra.decryption.public_key,
            RaKey::Signing => &self.config.ra.signing.public_key,
        };
        if let Some(kept) = kept(&folder.join(&name), authority, pinned, now) {
            return Ok(kept);
        }
        let ca = &authority.certificate;
        let issuer = Issuer {
            authority,
            ledger: self.ledger,
            sealer: self.sealer,
            witness: self.witness,
        };
        let mut predecessor = None;
        // What was issued before comes back until it nears its end; then it has a successor.
        for _ in 0..MOST_GENERATIONS {
            let authorised = for_ra(
                self.config,
                key,
                &ca.id,
                &ca.der,
                predecessor,
                new_id()?,
                now,
            )?;
            let issued = issuer.issue(session, authorised)?;
            let end = ends_at(&issued.der).unwrap_or_default();
            if lives_long_enough(end, ca.not_after, now) {
                tracing::info!(
                    ca = ca.id,
                    purpose = key.purpose(),
                    serial = issued.serial,
                    repeated = issued.repeated,
                    "RA certificate"
                );
                write_durably(&folder, &name, &issued.der)?;
                return Ok(issued.der);
            }
            predecessor = Some(Octets(sha256(&[&issued.der])));
        }
        Err(Failure::Internal(
            "RA certificates follow each other without end".into(),
        ))
    }

    fn publish(&self, profile: &str, chain: &RaChain) -> Result<(), Failure> {
        let request = Request::Publish(Publish {
            write: new_id()?,
            name: public::cacert(profile),
            media_type: "application/x-x509-ca-ra-cert".into(),
            content: octets(&ra_and_chain(chain)?)?,
        });
        match self.ledger.ask(&request)? {
            Reply::Done(_) => Ok(()),
            _ => Err(LedgerError::Untimely("publish").into()),
        }
    }
}

/// A certificate kept from before, if this authority signed it for the pinned key and it lives
/// long enough.
fn kept(file: &Path, authority: &Authority, public_key: &[u8], now: u64) -> Option<Vec<u8>> {
    let der = fs::read(file).ok()?;
    let (tbs, _) = certificate::split(&der).ok()?;
    let decoded = certificate::decode(&der).ok()?;
    let tbs_fields = decoded.tbs_certificate();
    let for_key = tbs_fields.subject_public_key_info().to_der().ok()? == public_key;
    let lives = lives_long_enough(ends_at(&der)?, authority.certificate.not_after, now);
    (for_key && lives && authority.has_signed(&der, tbs)).then_some(der)
}

/// Whether an RA certificate needs no successor: there is time left, or nothing longer to be had,
/// since it ends with its authority.
fn lives_long_enough(end: u64, authority_end: u64, now: u64) -> bool {
    end > now.saturating_add(LEAST_LIFE) || end >= authority_end
}

/// When a certificate ends, in Unix seconds.
fn ends_at(der: &[u8]) -> Option<u64> {
    let decoded = certificate::decode(der).ok()?;
    Some(
        decoded
            .tbs_certificate()
            .validity()
            .not_after
            .to_unix_duration()
            .as_secs(),
    )
}

/// GetCACert as `ra-and-chain`: both RA certificates and the path up to and with the root, in a
/// degenerate SignedData (RFC 8894 §3.4, §4.2.1.2).
fn ra_and_chain(chain: &RaChain) -> Result<Vec<u8>, Failure> {
    let internal = |error: der::Error| Failure::Internal(error.to_string());
    let mut certificates = SetOfVec::new();
    for der in [&chain.decryption, &chain.signing]
        .into_iter()
        .chain(&chain.authorities)
    {
        let certificate = certificate::decode(der.as_bytes())?;
        certificates
            .insert(CertificateChoices::Certificate(certificate))
            .map_err(internal)?;
    }
    let signed_data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::new(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: ID_DATA,
            econtent: None,
        },
        certificates: Some(CertificateSet(certificates)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::new()),
    };
    let content = ContentInfo {
        content_type: ID_SIGNED_DATA,
        content: Any::encode_from(&signed_data).map_err(internal)?,
    };
    content.to_der().map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_comes_in_the_last_third_unless_the_authority_ends_too() {
        let now = 2_000_000_000;
        let far = now + 10 * RA_DAYS * 86_400;
        assert!(lives_long_enough(now + LEAST_LIFE + 1, far, now));
        assert!(!lives_long_enough(now + LEAST_LIFE, far, now));
        assert!(lives_long_enough(now + 1, now + 1, now));
    }
}
