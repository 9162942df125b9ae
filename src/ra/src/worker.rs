//! One request, from the packet that front sent to the packet that it gets back.
//!
//! Up to the decryption a refusal is answered at once and says why. From there on there is one
//! answer for every refusal, whoever found the reason: parser, this process or the CA. It leaves on
//! a time grid, and so does the word that something of ours is away. What comes back from the
//! parser is proved before it is believed; what comes back from the CA is a certificate, which must
//! be for the requester's key.

use std::sync::Arc;
use std::time::Instant;

use chancery_host::ipc::Channel;
use chancery_host::ipc::server::{Answer, Call, Worker};
use chancery_message::{
    DigestAlgorithm, KeyTransport, OpenError, OpenedMessage, ReadError, RecipientId, SignedMessage,
    VerifiedMessage,
};
use chancery_protocol::ipc::enrol;
use chancery_protocol::ipc::message::{Reply, Request};
use chancery_protocol::refusal::Refusal;
use chancery_protocol::scep::{FailInfo, Nonce, TransactionId};
use chancery_protocol::wire::{self, Id, MAX_MESSAGE, Secret};
use chancery_token::{Decrypt, Key, Respond, Session, TokenError};
use der::asn1::{Null, OctetString};

use crate::certificates::{Certificates, RaCertificates};
use crate::certrep::{CertRepError, Draft, Outcome, Recipient, Transaction};
use crate::failure::{Budget, departure};
use crate::health;
use crate::parser_port::{NoTables, ParserPort};
use crate::recorder::{Recorder, fresh_id};
use crate::tally::{Cause, Source};
use crate::x509::Certificate;

/// Seconds after which a device may come back when something of ours is away for a moment.
const RETRY_AFTER: u32 = 5;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) decryption: Key<Decrypt>,
    pub(crate) signing: Key<Respond>,
    pub(crate) certificates: Certificates,
    pub(crate) parser: ParserPort,
    pub(crate) ca: Channel,
    pub(crate) recorder: Recorder,
    pub(crate) failures: Budget,
}

/// Serves `ra.message`, with a token session of its own.
pub(crate) struct Registrar {
    shared: Arc<Shared>,
    session: Session,
    /// Whether the request in hand has used the session.
    used: bool,
}

impl Registrar {
    pub(crate) fn new(shared: Arc<Shared>, session: Session) -> Self {
        Self {
            shared,
            session,
            used: false,
        }
    }
}

impl Worker for Registrar {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        let request = match wire::decode::<Request>(call.packet) {
            Ok(request) if request.message.as_bytes().len() <= MAX_MESSAGE => request,
            Ok(_) => {
                tracing::warn!(peer = %call.peer, "message above the limit; connection closed");
                return Answer::Close;
            }
            Err(error) => {
                tracing::warn!(peer = %call.peer, %error, "not a request; connection closed");
                return Answer::Close;
            }
        };
        let (reply, moment) = self.reply(&request, call.arrived);
        match (wire::encode(&reply), moment) {
            (Ok(packet), None) => Answer::Now(packet),
            (Ok(packet), Some(moment)) => Answer::At(moment, packet),
            (Err(error), _) => {
                tracing::error!(%error, "cannot encode a reply; connection closed");
                Answer::Close
            }
        }
    }

    /// A session that decrypted is not used for the next request, whatever became of this one: so
    /// nothing about a decryption shows in how the next is served. A session that cannot be
    /// renewed would decrypt to random keys without a word; hence the end of the process.
    fn after(&mut self) {
        if !core::mem::take(&mut self.used) {
            return;
        }
        if let Err(error) = self.session.renew() {
            health::end(&error, "the token grants no new session");
        }
    }
}

/// A request under way.
struct Case<'a> {
    id: Id,
    arrived: Instant,
    source: Source,
    profile: &'a str,
    message: &'a [u8],
    certificates: Arc<RaCertificates>,
}

/// How a request ends without a certificate.
enum Ending {
    /// It is no pkiMessage.
    Malformed,
    /// Something of ours is away, found before anything was decrypted.
    Unavailable,
    /// Found afterwards.
    UnavailableOpened,
    /// It was refused before anything was decrypted.
    Refused(ReplyTo, Refusal),
    /// It was refused afterwards.
    RefusedOpened(ReplyTo, Refusal),
}

/// How the opened part of a request ends without a certificate.
enum OpenedEnding {
    Unavailable,
    Refused(Refusal),
}

/// What an answer must repeat of its request.
#[derive(Clone)]
struct ReplyTo {
    id: TransactionId,
    nonce: Nonce,
    digest: DigestAlgorithm,
}

impl ReplyTo {
    fn new(message: &SignedMessage<'_>) -> Self {
        Self {
            id: message.transaction_id().clone(),
            nonce: message.sender_nonce().clone(),
            digest: message.digest().unwrap_or(DigestAlgorithm::Sha256),
        }
    }
}

impl Registrar {
    /// The reply, and when it leaves unless at once.
    fn reply(&mut self, request: &Request, arrived: Instant) -> (Reply, Option<Instant>) {
        if !self.shared.certificates.has_profile(&request.profile) {
            return (Reply::NoProfile(Null), None);
        }
        let Some(certificates) = self.shared.certificates.of(&request.profile) else {
            tracing::warn!(
                profile = request.profile,
                "no RA certificates from the CA yet"
            );
            return (Reply::Unavailable(RETRY_AFTER), None);
        };
        let Some(id) = fresh_id() else {
            tracing::error!("no random octets from the operating system");
            return (Reply::Unavailable(RETRY_AFTER), None);
        };
        let case = Case {
            id,
            arrived,
            source: Source::read(&request.peer),
            profile: &request.profile,
            message: request.message.as_bytes(),
            certificates,
        };
        let on_grid = |reply| (reply, Some(departure(arrived, Instant::now())));
        match self.enrol(&case) {
            Ok(certrep) => (certrep, None),
            Err(Ending::Malformed) => (Reply::Malformed(Null), None),
            Err(Ending::Unavailable) => (Reply::Unavailable(RETRY_AFTER), None),
            Err(Ending::UnavailableOpened) => on_grid(Reply::Unavailable(RETRY_AFTER)),
            Err(Ending::Refused(to, refusal)) => {
                self.report(&case, &to, refusal);
                (self.failure(&case, &to, refusal.fail_info()), None)
            }
            Err(Ending::RefusedOpened(to, refusal)) => {
                self.report(&case, &to, refusal);
                on_grid(self.failure(&case, &to, FailInfo::BadRequest))
            }
        }
    }

    fn enrol(&mut self, case: &Case<'_>) -> Result<Reply, Ending> {
        let (table_m, table_e) = self.shared.parser.message(case.message).map_err(|error| {
            self.note(case, &error);
            match error {
                NoTables::Unavailable(_) => Ending::Unavailable,
                NoTables::Malformed | NoTables::Died | NoTables::Lied => Ending::Malformed,
            }
        })?;
        let signed = SignedMessage::read(case.message, &table_m, table_e.as_deref())
            .map_err(|error| self.unread(case, &error))?;
        let to = ReplyTo::new(&signed);
        let refused = |refusal| Ending::Refused(to.clone(), refusal);
        let verified = signed
            .verify()
            .map_err(|rejected| refused(rejected.refusal))?;
        // All that the answer will need must be there before anything is asked of the token: a
        // certificate that cannot be delivered must not be issued.
        let requester = verified.requester();
        let recipient = Recipient::new(requester.issuer, requester.serial, requester.public_key)
            .map_err(|_| refused(Refusal::SignerKey))?;
        let (transport, encrypted_key) =
            addressed_to_us(&verified, &case.certificates).map_err(refused)?;
        let cipher = verified.cipher();

        self.used = true;
        let length = cipher.key_len();
        let content_key =
            self.shared
                .decryption
                .decrypt(&mut self.session, transport, encrypted_key, length);
        let tables = [Some(table_m), table_e].into_iter().flatten().collect();
        let certificate = self
            .open(case, verified, content_key, tables)
            .map_err(|ending| match ending {
                OpenedEnding::Unavailable => Ending::UnavailableOpened,
                OpenedEnding::Refused(refusal) => Ending::RefusedOpened(to.clone(), refusal),
            })?;
        let outcome = Outcome::Success {
            certificate: &certificate,
            recipient: &recipient,
            cipher,
        };
        let reply = self
            .certrep(case, &to, &outcome)
            .ok_or(Ending::UnavailableOpened)?;
        tracing::info!(
            request = %case.id, peer = %case.source, profile = case.profile, transaction = %to.id,
            milliseconds = case.arrived.elapsed().as_millis(), "certificate sent"
        );
        Ok(reply)
    }

    /// From the content key, which may be a random one, to the certificate.
    fn open(
        &self,
        case: &Case<'_>,
        verified: VerifiedMessage<'_>,
        content_key: Secret,
        mut tables: Vec<Vec<u8>>,
    ) -> Result<Vec<u8>, OpenedEnding> {
        let plaintext = verified.decrypt(&content_key);
        let table_p = match self
            .shared
            .parser
            .certification_request(plaintext.as_bytes())
        {
            Ok(table) => Some(table),
            Err(error @ NoTables::Unavailable(_)) => {
                self.note(case, &error);
                return Err(OpenedEnding::Unavailable);
            }
            // Said with the refusal.
            Err(NoTables::Malformed) => None,
            Err(error @ (NoTables::Died | NoTables::Lied)) => {
                self.note(case, &error);
                None
            }
        };
        let opened =
            verified
                .open(&plaintext, table_p.as_deref())
                .map_err(|error| match error {
                    OpenError::Unproved { cause, rejected } => {
                        tracing::error!(request = %case.id, %cause, "a parser child lied");
                        self.incident(case, Cause::ParserLied);
                        OpenedEnding::Refused(rejected.refusal)
                    }
                    OpenError::Rejected(rejected) => OpenedEnding::Refused(rejected.refusal),
                })?;
        tables.extend(table_p);
        self.issue(case, &opened, content_key, tables)
    }

    /// Hands the evidence to the CA.
    fn issue(
        &self,
        case: &Case<'_>,
        opened: &OpenedMessage<'_>,
        content_key: Secret,
        tables: Vec<Vec<u8>>,
    ) -> Result<Vec<u8>, OpenedEnding> {
        let unavailable = |cause: &dyn core::fmt::Display| {
            tracing::warn!(request = %case.id, profile = case.profile, %cause, "the CA cannot issue now");
            OpenedEnding::Unavailable
        };
        let octets = |octets: Vec<u8>| OctetString::new(octets).map_err(|e| unavailable(&e));
        let request = enrol::Request::Issue(enrol::Issue {
            request: case.id,
            peer: case.source.to_string(),
            profile: case.profile.into(),
            message: octets(case.message.to_vec())?,
            tables: tables.into_iter().map(octets).collect::<Result<_, _>>()?,
            content_key,
        });
        // A repetition gets the first one's certificate, so a CA that is being started anew costs
        // the device some patience and nothing else.
        let certificate = match self.shared.ca.call_repeatable(&request) {
            Ok(enrol::Reply::Issued(certificate)) => certificate.into_bytes().into_vec(),
            Ok(enrol::Reply::Refused(refused)) => {
                return Err(OpenedEnding::Refused(refused.refusal));
            }
            Ok(enrol::Reply::Unavailable(cause)) => return Err(unavailable(&cause)),
            Ok(enrol::Reply::RaCertificates(_)) => {
                return Err(unavailable(&"it answered another question"));
            }
            Err(error) => return Err(unavailable(&error)),
        };
        let wanted = opened.request.public_key.spki();
        if Certificate::read(&certificate).is_ok_and(|read| read.public_key() == wanted) {
            return Ok(certificate);
        }
        tracing::error!(
            request = %case.id, profile = case.profile,
            "the CA answered with a certificate that is not for the requester's key; not sent"
        );
        Err(OpenedEnding::Unavailable)
    }

    /// A FAILURE, within the budget for these.
    fn failure(&mut self, case: &Case<'_>, to: &ReplyTo, fail_info: FailInfo) -> Reply {
        let shared = Arc::clone(&self.shared);
        let Some(_place) = shared.failures.take() else {
            tracing::warn!(request = %case.id, "too many failures in signing; the device is told to come back");
            return Reply::Unavailable(RETRY_AFTER);
        };
        self.certrep(case, to, &Outcome::Failure(fail_info))
            .unwrap_or(Reply::Unavailable(RETRY_AFTER))
    }

    fn certrep(&mut self, case: &Case<'_>, to: &ReplyTo, outcome: &Outcome<'_>) -> Option<Reply> {
        match self.sign(case, to, outcome) {
            Ok(certrep) => Some(Reply::CertRep(certrep)),
            Err(NoCertRep::Token(error)) if error.is_fatal() => {
                health::end(&error, "the token cannot sign")
            }
            Err(error) => {
                tracing::error!(request = %case.id, %error, "no CertRep could be made");
                None
            }
        }
    }

    fn sign(
        &mut self,
        case: &Case<'_>,
        to: &ReplyTo,
        outcome: &Outcome<'_>,
    ) -> Result<OctetString, NoCertRep> {
        let transaction = Transaction {
            id: &to.id,
            nonce: &to.nonce,
            digest: to.digest,
        };
        let draft = Draft::new(transaction, outcome)?;
        self.used = true;
        let digest = match to.digest {
            DigestAlgorithm::Sha256 => chancery_token::DigestAlgorithm::Sha256,
            DigestAlgorithm::Sha384 => chancery_token::DigestAlgorithm::Sha384,
            DigestAlgorithm::Sha512 => chancery_token::DigestAlgorithm::Sha512,
        };
        let signature =
            self.shared
                .signing
                .respond(&mut self.session, digest, draft.to_be_signed())?;
        let certrep = draft.signed(case.certificates.signing(), &signature)?;
        Ok(OctetString::new(certrep).map_err(CertRepError::from)?)
    }

    /// Logs a refusal, and counts it where nobody else records it.
    fn report(&self, case: &Case<'_>, to: &ReplyTo, refusal: Refusal) {
        tracing::info!(
            request = %case.id, peer = %case.source, profile = case.profile, transaction = %to.id,
            %refusal, "request refused"
        );
        if !refusal.after_proof() {
            self.shared
                .recorder
                .count(Cause::Refused(refusal), case.source);
        }
    }

    /// A message that was taken apart and could not be read.
    fn unread(&self, case: &Case<'_>, error: &ReadError) -> Ending {
        match error {
            ReadError::Unproved(error) => {
                tracing::error!(request = %case.id, %error, "a parser child lied");
                self.incident(case, Cause::ParserLied);
            }
            ReadError::Malformed(_) => {
                tracing::info!(request = %case.id, peer = %case.source, profile = case.profile, %error, "no pkiMessage");
                self.shared.recorder.count(Cause::Malformed, case.source);
            }
        }
        Ending::Malformed
    }

    /// Says why there are no tables.
    fn note(&self, case: &Case<'_>, error: &NoTables) {
        match error {
            NoTables::Malformed => {
                tracing::info!(request = %case.id, peer = %case.source, profile = case.profile, %error, "not parsed");
                self.shared.recorder.count(Cause::Malformed, case.source);
            }
            NoTables::Unavailable(_) => tracing::error!(request = %case.id, %error, "not parsed"),
            NoTables::Died => {
                tracing::error!(request = %case.id, peer = %case.source, %error, "not parsed");
                self.incident(case, Cause::ParserDied);
            }
            NoTables::Lied => {
                tracing::error!(request = %case.id, peer = %case.source, %error, "not parsed");
                self.incident(case, Cause::ParserLied);
            }
        }
    }

    fn incident(&self, case: &Case<'_>, cause: Cause) {
        self.shared
            .recorder
            .incident(cause, case.id, case.source, case.profile);
    }
}

/// The first RecipientInfo that names our decryption key by the certificates of this CA.
fn addressed_to_us<'v>(
    message: &'v VerifiedMessage<'_>,
    certificates: &RaCertificates,
) -> Result<(chancery_token::KeyTransport, &'v [u8]), Refusal> {
    let recipient = message
        .recipients()
        .find(|recipient| match recipient.id {
            RecipientId::IssuerAndSerialNumber { issuer, serial } => {
                certificates.is_ours(issuer, serial)
            }
            RecipientId::SubjectKeyIdentifier(identifier) => certificates.is_our_key(identifier),
        })
        .ok_or(Refusal::Recipient)?;
    let transport = match recipient.transport {
        KeyTransport::Pkcs1v15 => chancery_token::KeyTransport::Pkcs1v15,
        KeyTransport::OaepSha1 => chancery_token::KeyTransport::OaepSha1,
        KeyTransport::Unsupported => return Err(Refusal::Algorithm),
    };
    Ok((transport, recipient.encrypted_key))
}

/// There is no signed answer.
#[derive(Debug, thiserror::Error)]
enum NoCertRep {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    CertRep(#[from] CertRepError),
}
