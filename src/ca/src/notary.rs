//! What the CA does by the clock, on one thread with a session of its own: checkpoints of the
//! audit log, self-tests of its keys, and successors of the RA's certificates.

use std::process;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use chancery_host::clock;
use chancery_host::process::Stop;
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_token::{Checkpoint, Key, Session, TokenError};

use crate::failure::Failure;
use crate::infrastructure::Infrastructure;
use crate::service::Shared;

/// Between two tests of every key.
const SELF_TEST: Duration = Duration::from_secs(30);

/// Between two looks at the RA's certificates. RA and front ask for them each half minute.
const RENEWAL: Duration = Duration::from_secs(3600);

/// The thread's own.
pub(crate) struct Notary {
    pub(crate) key: Key<Checkpoint>,
    pub(crate) session: Session,
}

impl Notary {
    /// Works until the stop; then records it and signs a last checkpoint.
    pub(crate) fn run(mut self, shared: &Shared, stop: &Stop) {
        let pause = Duration::from_secs(shared.config.audit.checkpoint_seconds);
        let (mut tested, mut renewed) = (Instant::now(), Instant::now());
        let mut stopping = false;
        loop {
            self.checkpoint(shared);
            if stopping {
                return;
            }
            if tested.elapsed() >= SELF_TEST {
                self.test(shared);
                tested = Instant::now();
            }
            if renewed.elapsed() >= RENEWAL {
                self.renew(shared);
                renewed = Instant::now();
            }
            stopping = stop.wait(pause.min(SELF_TEST));
            if stopping {
                let event =
                    Event::new(Kind::ServiceStopped, Outcome::Success).with(field::ROLE, "ca");
                if let Err(error) = shared.witness.record(&shared.ledger, &event) {
                    tracing::warn!(%error, "the end of service could not be recorded");
                }
            }
        }
    }

    fn checkpoint(&mut self, shared: &Shared) {
        let signed = shared
            .witness
            .checkpoint(&shared.ledger, &self.key, &mut self.session);
        match signed.map_err(Failure::from) {
            Ok(size) => tracing::debug!(size, "checkpoint"),
            Err(failure) if failure.is_fatal() => end(&failure),
            Err(failure) => tracing::error!(%failure, "no checkpoint"),
        }
    }

    /// That a token is gone shows here, and not in how requests end.
    fn test(&mut self, shared: &Shared) {
        let mut tests = || -> Result<(), TokenError> {
            for authority in &shared.authorities {
                self.session.self_test(&authority.key)?;
            }
            self.session.self_test(shared.sealer.key())?;
            self.session.self_test(&self.key)
        };
        if let Err(error) = tests() {
            end(&Failure::from(error));
        }
    }

    fn renew(&mut self, shared: &Shared) {
        let infrastructure = Infrastructure {
            config: &shared.config,
            authorities: &shared.authorities,
            ledger: &shared.ledger,
            sealer: &shared.sealer,
            witness: &shared.witness,
        };
        let before = shared
            .ra_chains
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match infrastructure.prepare(&mut self.session, &before, clock::now()) {
            Ok(chains) => {
                *shared
                    .ra_chains
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = chains;
            }
            Err(failure) if failure.is_fatal() => end(&failure),
            Err(failure) => tracing::error!(%failure, "the RA's certificates were not looked at"),
        }
    }
}

/// Ends the process at once, so that its supervisor starts it with a fresh token. No destructor of
/// the module runs: beside other threads inside of it, one could hang.
pub(crate) fn end(failure: &Failure) -> ! {
    tracing::error!(%failure, "ending, to start again with a fresh token");
    process::abort()
}
