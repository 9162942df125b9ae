//! One certificate: prepare → reserve → sign → verify → commit. Each step consumes the last.
//!
//! An audit record of the intent, with the SHA-256 of the exact TBSCertificate, is durable before
//! the token signs (promise 5), and the same enrolment again gets the same certificate
//! (promise 6).

use chancery_protocol::audit::{Event, Kind as EventKind, Outcome, field};
use chancery_protocol::hex;
use chancery_protocol::ipc::store::{
    CertificateIndex, Commit, FindReservation, Reply, Request, Reservation, ReservationState,
    Reserve, Spend,
};
use chancery_protocol::refusal::Refusal;
use chancery_protocol::seal::SealKind;
use chancery_protocol::wire::{Digest, Id, Octets};
use chancery_token::Session;

use crate::authorise::Authorised;
use crate::authority::Authority;
use crate::certificate::{self, Fields};
use crate::challenge::Sealer;
use crate::digest::sha256;
use crate::failure::{Failure, octets};
use crate::ledger::{Ledger, LedgerError, new_id};
use crate::lint;
use crate::witness::Witness;

/// A serial number is 16 random octets; that three in a row are taken means a broken source.
const SERIAL_ATTEMPTS: usize = 3;

/// What issuing needs besides a session.
pub(crate) struct Issuer<'a> {
    pub(crate) authority: &'a Authority,
    pub(crate) ledger: &'a Ledger,
    pub(crate) sealer: &'a Sealer,
    pub(crate) witness: &'a Witness,
}

/// A signed certificate, and whether it was there before.
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) serial: String,
    pub(crate) repeated: bool,
}

/// A TBSCertificate that has passed the lint.
struct Prepared {
    authorised: Authorised,
    serial: Vec<u8>,
    tbs: Vec<u8>,
}

/// A TBSCertificate whose intent is durable: the only thing that is ever signed.
struct Reserved {
    request: Id,
    serial: Vec<u8>,
    tbs: Vec<u8>,
    subject: String,
    profile: String,
}

/// What is known of a repetition before its reservation is looked at.
struct Repetition {
    request: Id,
    retry: Digest,
    spend: Option<Spend>,
    revoked: bool,
}

impl Repetition {
    fn of(authorised: &Authorised) -> Self {
        Self {
            request: authorised.request,
            retry: authorised.retry,
            spend: authorised.spend.clone(),
            revoked: authorised.revoked,
        }
    }
}

enum Reservable {
    New(Reserved),
    Existing(Box<Reservation>),
    SerialTaken(Box<Authorised>),
}

impl Issuer<'_> {
    /// Issues, or finds what the same enrolment was issued before.
    ///
    /// # Errors
    /// [`Failure`]. After one, a repetition finds whatever was reserved.
    pub(crate) fn issue(
        &self,
        session: &mut Session,
        authorised: Authorised,
    ) -> Result<Certificate, Failure> {
        self.witness.trusts()?;
        let repetition = Repetition::of(&authorised);
        if let Some(reservation) = self.find(&authorised)? {
            return self.complete(session, &repetition, reservation);
        }
        if let Some(refusal) = authorised.only_repetition {
            return Err(refused(refusal, authorised.spend.as_ref()));
        }
        let mut authorised = authorised;
        for _ in 0..SERIAL_ATTEMPTS {
            let prepared = self.prepare(session, authorised)?;
            match self.reserve(session, prepared)? {
                Reservable::New(reserved) => return self.sign(session, reserved),
                Reservable::Existing(reservation) => {
                    return self.complete(session, &repetition, *reservation);
                }
                Reservable::SerialTaken(back) => authorised = *back,
            }
        }
        Err(Failure::Internal(
            "every random serial number is taken".into(),
        ))
    }

    fn find(&self, authorised: &Authorised) -> Result<Option<Reservation>, Failure> {
        match self.ledger.ask(&Request::FindReservation(FindReservation {
            retry: authorised.retry,
        }))? {
            Reply::Reservation(reservation) => Ok(Some(reservation)),
            Reply::Absent(_) => Ok(None),
            _ => Err(LedgerError::Untimely("find reservation").into()),
        }
    }

    fn prepare(&self, session: &mut Session, authorised: Authorised) -> Result<Prepared, Failure> {
        let serial = certificate::new_serial(session)?;
        let tbs = certificate::tbs_certificate(&Fields {
            serial: &serial,
            issuer: self.authority.issuer(),
            not_before: authorised.not_before,
            not_after: authorised
                .not_after
                .min(self.authority.certificate.not_after),
            subject: &authorised.names.subject,
            sans: &authorised.names.sans,
            public_key: &authorised.public_key,
            kind: &authorised.kind,
        })?;
        if let Err(finding) = lint::check(&tbs, &authorised, &self.authority.certificate) {
            tracing::error!(%finding, profile = authorised.profile, "a certificate would break the lint rules");
            return Err(refused(Refusal::Policy, authorised.spend.as_ref()));
        }
        Ok(Prepared {
            authorised,
            serial,
            tbs,
        })
    }

    fn reserve(&self, session: &mut Session, prepared: Prepared) -> Result<Reservable, Failure> {
        let Prepared {
            authorised,
            serial,
            tbs,
        } = prepared;
        let row = self
            .sealer
            .seal(session, SealKind::Reservation, authorised.retry, &tbs)?;
        let event = intent(&authorised, &serial, &tbs);
        let request = Request::Reserve(Reserve {
            write: new_id()?,
            row,
            spend: authorised.spend.clone(),
            index: index(&authorised, &serial, self.authority)?,
            event: event.clone(),
        });
        match self.ledger.ask(&request)? {
            Reply::Reserved(recorded) => {
                self.witness.remember(recorded.record.as_bytes(), &event)?;
                Ok(Reservable::New(Reserved {
                    request: authorised.request,
                    serial,
                    tbs,
                    subject: authorised.names.subject.to_string(),
                    profile: authorised.profile,
                }))
            }
            Reply::Reservation(reservation) => Ok(Reservable::Existing(Box::new(reservation))),
            Reply::SerialTaken(_) => Ok(Reservable::SerialTaken(authorised.into())),
            Reply::Spent(_) => Err(refused(Refusal::ChallengeSpent, authorised.spend.as_ref())),
            Reply::Held(_) => Err(refused(Refusal::ChallengeHeld, authorised.spend.as_ref())),
            _ => Err(LedgerError::Untimely("reserve").into()),
        }
    }

    /// Answers a repetition: with the certificate that there is, or by signing exactly what was
    /// reserved.
    fn complete(
        &self,
        session: &mut Session,
        repetition: &Repetition,
        reservation: Reservation,
    ) -> Result<Certificate, Failure> {
        let Repetition {
            request,
            retry,
            spend,
            revoked,
        } = repetition;
        let ours = self
            .sealer
            .is_ours(session, SealKind::Reservation, *retry, &reservation.row)?;
        let tbs = reservation.row.body.as_bytes();
        let identity = certificate::identity_of(tbs).filter(|_| ours);
        let Some((serial, _)) = identity
            .as_ref()
            .filter(|(serial, _)| *serial == reservation.serial.as_bytes())
        else {
            return Err(broken_reservation(*retry));
        };
        let same_issuer = identity
            .as_ref()
            .is_some_and(|(_, issuer)| *issuer == self.authority.certificate.subject);
        if !same_issuer {
            // The profile has another authority now: what the first one issued is not ours to give.
            return Err(refused(Refusal::Policy, spend.as_ref()));
        }
        let serial_hex = hex::encode(serial);
        if let (ReservationState::Issued, Some(certificate)) =
            (reservation.state, &reservation.certificate)
        {
            let der = certificate.as_bytes();
            if !self.authority.has_signed(der, tbs) {
                return Err(broken_reservation(*retry));
            }
            let event = Event::new(EventKind::IssueRepeated, Outcome::Success)
                .of_request(*request)
                .with(field::CA, &self.authority.certificate.id)
                .with(field::SERIAL, &serial_hex)
                .with(field::CERTIFICATE_SHA256, Octets(sha256(&[der])));
            self.witness.record(self.ledger, &event)?;
            return Ok(Certificate {
                der: der.to_vec(),
                serial: serial_hex,
                repeated: true,
            });
        }
        if *revoked {
            return Err(refused(Refusal::ChallengeExpired, spend.as_ref()));
        }
        // The intent may have been recorded long ago, or by a ledger that only says so: what is
        // signed now is in a record that this process has seen written.
        let event = Event::new(EventKind::IssueResumed, Outcome::Success)
            .of_request(*request)
            .with(field::CA, &self.authority.certificate.id)
            .with(field::SERIAL, &serial_hex)
            .with(field::TBS_SHA256, Octets(sha256(&[tbs])));
        self.witness.record(self.ledger, &event)?;
        let reserved = Reserved {
            request: *request,
            serial: serial.clone(),
            tbs: tbs.to_vec(),
            subject: String::new(),
            profile: String::new(),
        };
        self.sign(session, reserved)
    }

    fn sign(&self, session: &mut Session, reserved: Reserved) -> Result<Certificate, Failure> {
        let Reserved {
            request,
            serial,
            tbs,
            subject,
            profile,
        } = reserved;
        let signature = self.authority.key.issue(session, &tbs)?;
        if !self.authority.verifies(&tbs, &signature) {
            return Err(Failure::BadSignature);
        }
        let der =
            certificate::assemble(&tbs, self.authority.key.signature_algorithm(), &signature)?;
        let sha256 = Octets(sha256(&[&der]));
        let ca = &self.authority.certificate.id;
        let event = Event::new(EventKind::IssueDone, Outcome::Success)
            .of_request(request)
            .with(field::CA, ca)
            .with(field::SERIAL, hex::encode(&serial))
            .with(field::PROFILE, profile)
            .with(field::SUBJECT, subject)
            .with(field::CERTIFICATE_SHA256, sha256);
        let commit = Request::Commit(Commit {
            write: new_id()?,
            ca: ca.clone(),
            serial: octets(&serial)?,
            certificate: octets(&der)?,
            sha256,
            event,
        });
        let winner = match self.ledger.ask(&commit)? {
            Reply::Committed(committed) => committed.certificate,
            Reply::Absent(_) => {
                return Err(Failure::Ledger(LedgerError::Unavailable(
                    "the reservation was abandoned before it was signed".into(),
                )));
            }
            _ => return Err(LedgerError::Untimely("commit").into()),
        };
        // ECDSA signatures differ each time: two retries at once make two, and the first counts.
        let repeated = winner.as_bytes() != der;
        if repeated && !self.authority.has_signed(winner.as_bytes(), &tbs) {
            return Err(Failure::BrokenSeal {
                what: "certificate",
                id: sha256,
            });
        }
        Ok(Certificate {
            repeated,
            der: winner.as_bytes().to_vec(),
            serial: hex::encode(&serial),
        })
    }
}

fn refused(refusal: Refusal, spend: Option<&Spend>) -> Failure {
    Failure::Refused {
        refusal,
        challenge: spend.map(|spend| spend.challenge),
    }
}

fn broken_reservation(retry: Digest) -> Failure {
    Failure::BrokenSeal {
        what: "reservation",
        id: retry,
    }
}

fn intent(authorised: &Authorised, serial: &[u8], tbs: &[u8]) -> Event {
    let sans: Vec<String> = authorised
        .names
        .sans
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut event = Event::new(EventKind::IssueIntent, Outcome::Success)
        .of_request(authorised.request)
        .with(field::CA, &authorised.ca)
        .with(field::SERIAL, hex::encode(serial))
        .with(field::PROFILE, &authorised.profile)
        .with(field::SUBJECT, &authorised.names.subject)
        .with(field::SANS, sans.join(" "))
        .with(field::KEY_SHA256, Octets(sha256(&[&authorised.public_key])))
        .with(field::TBS_SHA256, Octets(sha256(&[tbs])));
    if let Some(spend) = &authorised.spend {
        event = event
            .with(field::CHALLENGE, spend.challenge)
            .with(field::DEVICE_ID, &authorised.device_id)
            .with(field::TRANSACTION, &authorised.transaction)
            .with(field::PEER, &authorised.peer);
    }
    event
}

fn index(
    authorised: &Authorised,
    serial: &[u8],
    authority: &Authority,
) -> Result<CertificateIndex, Failure> {
    Ok(CertificateIndex {
        ca: authorised.ca.clone(),
        serial: octets(serial)?,
        profile: authorised.profile.clone(),
        subject: authorised.names.subject.to_string(),
        sans: authorised
            .names
            .sans
            .iter()
            .map(ToString::to_string)
            .collect(),
        device_id: authorised.device_id.clone(),
        public_key: Octets(sha256(&[&authorised.public_key])),
        not_before: authorised.not_before,
        not_after: authorised.not_after.min(authority.certificate.not_after),
        transaction: authorised.transaction.clone(),
    })
}
