//! The verbs of the sockets `enrol` and `operator`.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chancery_config::Config;
use chancery_host::clock;
use chancery_host::ipc::server::{Answer, Call, Worker};
use chancery_host::journal::Journal;
use chancery_message::{OpenError, OpenedMessage, ReadError, SignedMessage};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::ipc::store::{PutChallenge, Reply as StoreReply, Request as StoreRequest};
use chancery_protocol::ipc::{enrol, operator, socket};
use chancery_protocol::name::Names;
use chancery_protocol::refusal::Refusal;
use chancery_protocol::seal::SealKind;
use chancery_protocol::wire::{self, Digest, Octets};
use chancery_token::Session;
use der::Encode;
use der::asn1::OctetString;

use crate::authorise::{ByChallenge, Circumstances};
use crate::authority::Authority;
use crate::challenge::{Sealer, claims_for, id_of, new_handle};
use crate::digest::sha256;
use crate::failure::Failure;
use crate::infrastructure::RaChains;
use crate::issue::{Certificate, Issuer};
use crate::ledger::{Ledger, LedgerError, new_id};
use crate::notary::end;
use crate::witness::Witness;

/// Records of evidence that does not hold, a minute.
const MOST_UNBORNE: u32 = 32;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) own_keys: Vec<Vec<u8>>,
    pub(crate) sealer: Sealer,
    pub(crate) ledger: Ledger,
    pub(crate) witness: Witness,
    /// Guards the RA's certificates, which get successors while we serve.
    pub(crate) ra_chains: RwLock<RaChains>,
    /// Guards the minute of the last evidence that did not hold, and how many it has seen.
    pub(crate) unborne: Mutex<(u64, u32)>,
    pub(crate) journal: Option<Journal>,
    pub(crate) token_label: String,
}

/// Serves `enrol`, with a token session of its own.
pub(crate) struct EnrolWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Session,
}

impl Worker for EnrolWorker {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        match wire::decode::<enrol::Request>(call.packet) {
            Ok(enrol::Request::Issue(issue)) => reply(&self.issue(&issue)),
            Ok(enrol::Request::RaCertificates(request)) => reply(&self.ra_certificates(&request)),
            Err(error) => untimely(&call, &error),
        }
    }
}

/// Serves `operator`, with a token session of its own.
pub(crate) struct OperatorWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Session,
}

impl Worker for OperatorWorker {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        match wire::decode::<operator::Request>(call.packet) {
            Ok(operator::Request::NewChallenge(request)) => {
                let actor = format!("{} {}", call.socket, call.peer);
                reply(&self.new_challenge(&request, actor))
            }
            Ok(operator::Request::Status(_)) => reply(&self.status()),
            Err(error) => untimely(&call, &error),
        }
    }
}

/// Serves both sockets while the token waits for a custodian.
pub(crate) struct UnavailableWorker {
    pub(crate) cause: String,
}

impl Worker for UnavailableWorker {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        if call.socket == socket::CA_ENROL {
            reply(&enrol::Reply::Unavailable(self.cause.clone()))
        } else {
            reply(&operator::Reply::Unavailable(self.cause.clone()))
        }
    }
}

/// What a request asked for, for the record of its refusal.
struct Asked {
    names: Names,
    key: Digest,
    transaction: String,
}

impl Asked {
    fn of(message: &OpenedMessage<'_>) -> Self {
        Self {
            names: message.request.names.clone(),
            key: Octets(sha256(&[message.request.public_key.spki()])),
            transaction: message.transaction_id.to_string(),
        }
    }

    fn add_to(&self, event: Event) -> Event {
        let sans: Vec<String> = self.names.sans.iter().map(ToString::to_string).collect();
        event
            .with(field::SUBJECT, &self.names.subject)
            .with(field::SANS, sans.join(" "))
            .with(field::KEY_SHA256, self.key)
            .with(field::TRANSACTION, &self.transaction)
    }
}

impl EnrolWorker {
    fn issue(&mut self, issue: &enrol::Issue) -> enrol::Reply {
        let mut asked = None;
        match self.try_issue(issue, &mut asked) {
            Ok(certificate) => self.issued(issue, &certificate),
            Err(failure) => self.failed(issue, asked, failure),
        }
    }

    fn try_issue(
        &mut self,
        issue: &enrol::Issue,
        asked: &mut Option<Asked>,
    ) -> Result<Certificate, Failure> {
        let shared = &self.shared;
        let profile = shared
            .config
            .profile(&issue.profile)
            .ok_or(Refusal::Policy)?;
        let message = check_evidence(issue)?;
        *asked = Some(Asked::of(&message));
        let circumstances = Circumstances {
            request: issue.request,
            peer: &issue.peer,
            profile,
            now: clock::now(),
        };
        let by_challenge = ByChallenge {
            ledger: &shared.ledger,
            sealer: &shared.sealer,
            own_keys: &shared.own_keys,
        };
        let authorised = by_challenge.authorise(&mut self.session, &message, &circumstances)?;
        let authority = shared
            .authorities
            .iter()
            .find(|authority| authority.certificate.id == profile.ca)
            .ok_or_else(|| Failure::Internal("the profile's authority is missing".into()))?;
        let issuer = Issuer {
            authority,
            ledger: &shared.ledger,
            sealer: &shared.sealer,
            witness: &shared.witness,
        };
        issuer.issue(&mut self.session, authorised)
    }

    fn issued(&self, issue: &enrol::Issue, certificate: &Certificate) -> enrol::Reply {
        tracing::info!(
            request = %issue.request,
            profile = issue.profile,
            peer = issue.peer,
            serial = certificate.serial,
            repeated = certificate.repeated,
            "certificate issued"
        );
        self.bear_witness(issue, certificate);
        match OctetString::new(certificate.der.as_slice()) {
            Ok(der) => enrol::Reply::Issued(der),
            Err(error) => enrol::Reply::Unavailable(error.to_string()),
        }
    }

    /// Each issuance reaches the journal from here too: a witness independent of the ledger.
    fn bear_witness(&self, issue: &enrol::Issue, certificate: &Certificate) {
        let Some(journal) = &self.shared.journal else {
            return;
        };
        let kind = if certificate.repeated {
            Kind::IssueRepeated
        } else {
            Kind::IssueDone
        };
        let request = issue.request.to_string();
        let message = format!("ca issued {} for request {request}", certificate.serial);
        let sent = journal.send(&[
            ("MESSAGE_ID", kind.message_id()),
            ("PRIORITY", "6"),
            ("MESSAGE", &message),
            ("CHANCERY_EVENT", kind.name()),
            ("CHANCERY_WITNESS", "ca"),
            ("CHANCERY_REQUEST", &request),
            ("CHANCERY_PROFILE", &issue.profile),
            ("CHANCERY_SERIAL", &certificate.serial),
        ]);
        if let Err(error) = sent {
            tracing::warn!(%error, "the journal did not take the CA's own record of an issuance");
        }
    }

    fn failed(&self, issue: &enrol::Issue, asked: Option<Asked>, failure: Failure) -> enrol::Reply {
        let request = issue.request;
        if failure.is_fatal() {
            end(&failure);
        }
        match failure {
            Failure::Refused { refusal, challenge } => {
                tracing::info!(%request, profile = issue.profile, peer = issue.peer, %refusal, "refused");
                if let Some(challenge) = challenge {
                    let event = Event::refused(refusal)
                        .of_request(request)
                        .with(field::PROFILE, &issue.profile)
                        .with(field::PEER, &issue.peer)
                        .with(field::CHALLENGE, challenge);
                    self.record(asked.iter().fold(event, |event, asked| asked.add_to(event)));
                }
                enrol::Reply::Refused(enrol::Refused { refusal })
            }
            Failure::Unborne { cause, refusal } => {
                self.unborne(issue, &cause);
                enrol::Reply::Refused(enrol::Refused { refusal })
            }
            Failure::BrokenSeal { what, id } => {
                tracing::error!(%request, what, %id, "a row of the ledger does not bear our seal");
                self.record(
                    Event::new(Kind::SealBroken, Outcome::Failure)
                        .of_request(request)
                        .with(field::DETAIL, format!("{what} {id}")),
                );
                enrol::Reply::Refused(enrol::Refused {
                    refusal: Refusal::ChallengeForged,
                })
            }
            failure => {
                tracing::error!(%request, %failure, "not issued");
                enrol::Reply::Unavailable(failure.to_string())
            }
        }
    }

    /// The RA proved and checked the same before: that it does not hold here is a defect, or an RA
    /// that was taken over. Recorded, though not without end.
    fn unborne(&self, issue: &enrol::Issue, cause: &str) {
        tracing::error!(request = %issue.request, cause, "evidence from the RA does not hold");
        let minute = clock::now() / 60;
        let mut seen = self
            .shared
            .unborne
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *seen = if seen.0 == minute {
            (minute, seen.1.saturating_add(1))
        } else {
            (minute, 1)
        };
        let many = seen.1 > MOST_UNBORNE;
        drop(seen);
        if !many {
            self.record(
                Event::new(Kind::EvidenceRefused, Outcome::Failure)
                    .of_request(issue.request)
                    .with(field::PROFILE, &issue.profile)
                    .with(field::PEER, &issue.peer)
                    .with(field::REASON, cause),
            );
        }
    }

    fn record(&self, event: Event) {
        if let Err(error) = self.shared.witness.record(&self.shared.ledger, &event) {
            tracing::error!(%error, "a refusal could not be recorded");
        }
    }

    fn ra_certificates(&self, request: &enrol::RaCertificates) -> enrol::Reply {
        let chain = self
            .shared
            .config
            .profile(&request.profile)
            .and_then(|profile| {
                let chains = self
                    .shared
                    .ra_chains
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                chains.get(&profile.ca).cloned()
            });
        match chain {
            Some(chain) => enrol::Reply::RaCertificates(chain),
            None => enrol::Reply::Refused(enrol::Refused {
                refusal: Refusal::Policy,
            }),
        }
    }
}

/// Runs the check that the RA ran, over the same octets (promise 4).
fn check_evidence(issue: &enrol::Issue) -> Result<OpenedMessage<'_>, Failure> {
    let mut tables = issue.tables.iter().map(OctetString::as_bytes);
    let (Some(message), Some(content), Some(plaintext)) =
        (tables.next(), tables.next(), tables.next())
    else {
        return Err(unborne("tables are missing", Refusal::Plaintext));
    };
    let signed = SignedMessage::read(issue.message.as_bytes(), message, Some(content))
        .map_err(|error: ReadError| unborne(error, Refusal::Plaintext))?;
    let verified = signed
        .verify()
        .map_err(|rejected| unborne(rejected.refusal, rejected.refusal))?;
    let opened = verified.decrypt(&issue.content_key);
    verified
        .open(&opened, Some(plaintext))
        .map_err(|error| match error {
            OpenError::Unproved { cause, .. } => unborne(cause, Refusal::Plaintext),
            OpenError::Rejected(rejected) => unborne(rejected.refusal, rejected.refusal),
        })
}

fn unborne(cause: impl core::fmt::Display, refusal: Refusal) -> Failure {
    Failure::Unborne {
        cause: cause.to_string(),
        refusal,
    }
}

impl OperatorWorker {
    fn new_challenge(
        &mut self,
        request: &operator::NewChallenge,
        actor: String,
    ) -> operator::Reply {
        let Some(profile) = self.shared.config.profile(&request.profile) else {
            return operator::Reply::Refused(format!(
                "there is no profile \"{}\"",
                request.profile
            ));
        };
        let claims = match claims_for(request, profile, clock::now(), actor) {
            Ok(claims) => claims,
            Err(cause) => return operator::Reply::Refused(cause),
        };
        match self.mint(&claims) {
            Ok(challenge) => operator::Reply::Challenge(challenge),
            Err(failure) if failure.is_fatal() => end(&failure),
            Err(Failure::Token(error)) => operator::Reply::Unavailable(error.to_string()),
            Err(failure) => operator::Reply::Failed(failure.to_string()),
        }
    }

    fn mint(
        &mut self,
        claims: &chancery_protocol::seal::Claims,
    ) -> Result<operator::Challenge, Failure> {
        let shared = &self.shared;
        shared.witness.trusts()?;
        let handle = new_handle(&mut self.session)?;
        let id = id_of(handle.expose());
        let body = claims
            .to_der()
            .map_err(|error| Failure::Internal(error.to_string()))?;
        let row = shared
            .sealer
            .seal(&mut self.session, SealKind::Challenge, id, &body)?;
        let mut event = Event::new(Kind::ChallengeMinted, Outcome::Success)
            .with(field::CHALLENGE, id)
            .with(field::PROFILE, &claims.profile)
            .with(field::EXPIRES, claims.expires)
            .with(field::USES, claims.uses)
            .with(field::DETAIL, &claims.minted_by);
        if let Some(subject) = &claims.subject {
            event = event.with(field::SUBJECT, subject);
        }
        if let Some(sans) = &claims.sans {
            let sans: Vec<String> = sans.iter().map(ToString::to_string).collect();
            event = event.with(field::SANS, sans.join(" "));
        }
        if let Some(device) = &claims.device_id {
            event = event.with(field::DEVICE_ID, device);
        }
        let request = StoreRequest::PutChallenge(PutChallenge {
            write: new_id()?,
            row,
            profile: claims.profile.clone(),
            expires: claims.expires,
            event,
        });
        match shared.ledger.ask(&request)? {
            StoreReply::Done(_) => Ok(operator::Challenge {
                handle,
                id,
                expires: claims.expires,
            }),
            _ => Err(LedgerError::Untimely("put challenge").into()),
        }
    }

    fn status(&self) -> operator::Reply {
        operator::Reply::Status(operator::Status {
            token: self.shared.token_label.clone(),
            checkpoint: self.shared.witness.size(),
            profiles: self
                .shared
                .config
                .profiles
                .iter()
                .map(|p| p.name.clone())
                .collect(),
        })
    }
}

fn reply<T: Encode>(reply: &T) -> Answer {
    match wire::encode(reply) {
        Ok(packet) => Answer::Now(packet),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be encoded");
            Answer::Close
        }
    }
}

fn untimely(call: &Call<'_>, error: &wire::WireError) -> Answer {
    tracing::warn!(socket = call.socket, peer = %call.peer, %error, "unknown message; closing");
    Answer::Close
}
