//! What the RA reports to the audit log: its own life, parsers that died or lied, and totals of
//! refusals, one batch a minute.
//!
//! Nothing here holds a request up. What the ledger does not take is kept under the same ids, in
//! bounded memory, and offered again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chancery_host::clock;
use chancery_host::ipc::Channel;
use chancery_host::process::Stop;
use chancery_protocol::audit::{Event, field};
use chancery_protocol::ipc::append::{Reply, Request as Append};
use chancery_protocol::wire::{Id, Octets};

use crate::tally::{Cause, Source, Tally};

/// Between two batches of totals. Measured by a clock that nobody sets: one set back by a day would
/// hold totals up for a day.
const PERIOD: Duration = Duration::from_secs(60);

/// How often waiting events are offered.
const PAUSE: Duration = Duration::from_secs(1);

/// Most events a period that are recorded each; more are counted.
const MAX_EVENTS: usize = 32;

/// Collects events and brings them to the ledger.
#[derive(Debug)]
pub(crate) struct Recorder {
    ledger: Channel,
    state: Mutex<State>,
}

/// Guarded by the lock in [`Recorder`].
#[derive(Debug)]
struct State {
    tally: Tally,
    events: VecDeque<Event>,
    /// How many more events may be recorded each in this period.
    allowed: usize,
}

impl Recorder {
    /// A recorder over the socket `ledger.append-ra`.
    pub(crate) fn new(ledger: Channel) -> Self {
        let state = State {
            tally: Tally::new(clock::now()),
            events: VecDeque::new(),
            allowed: MAX_EVENTS,
        };
        Self {
            ledger,
            state: Mutex::new(state),
        }
    }

    /// An event in the life of this process.
    pub(crate) fn record(&self, event: Event) {
        self.state().events.push_back(event);
    }

    /// Counts a refusal that nobody else records.
    pub(crate) fn count(&self, cause: Cause, source: Source) {
        self.state().tally.count(cause, source);
    }

    /// A security event that a request caused: recorded as itself, or only counted if this
    /// period has seen many.
    pub(crate) fn incident(&self, cause: Cause, request: Id, source: Source, profile: &str) {
        let mut state = self.state();
        match state.allowed.checked_sub(1) {
            Some(allowed) => {
                state.allowed = allowed;
                state.events.push_back(
                    cause
                        .event()
                        .of_request(request)
                        .with(field::PEER, source)
                        .with(field::PROFILE, profile),
                );
            }
            None => state.tally.count(cause, source),
        }
    }

    /// Brings events to the ledger until the stop, and then once more.
    pub(crate) fn run(&self, stop: &Stop) {
        let mut waiting = Waiting::default();
        let mut begun = Instant::now();
        loop {
            let stopping = stop.wait(PAUSE);
            // Totals go on being added up while the ledger does not take the last ones.
            let totals = stopping || (begun.elapsed() >= PERIOD && waiting.is_empty());
            if totals {
                begun = Instant::now();
            }
            waiting.add(self.collect(totals, clock::now()));
            waiting.offer(|append| self.append(append));
            if stopping {
                return;
            }
        }
    }

    fn collect(&self, totals: bool, now: u64) -> Vec<Event> {
        let mut state = self.state();
        let mut events: Vec<Event> = state.events.drain(..).collect();
        if totals {
            events.extend(state.tally.take(now));
            state.allowed = MAX_EVENTS;
        }
        events
    }

    fn append(&self, append: &Append) -> Result<(), String> {
        match self.ledger.call_repeatable::<_, Reply>(append) {
            Ok(Reply::Done(_)) => Ok(()),
            Ok(Reply::Unavailable(cause)) => Err(cause),
            Err(error) => Err(error.to_string()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that the ledger has not confirmed, each under the id of its write.
#[derive(Default)]
struct Waiting {
    appends: VecDeque<Append>,
    /// Whether the last offer failed: an outage is logged when it begins and when it ends.
    failing: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    fn add(&mut self, events: Vec<Event>) {
        for event in events {
            match fresh_id() {
                Some(write) => self.appends.push_back(Append { write, event }),
                None => tracing::error!(
                    ?event,
                    "no random octets for an audit event's id; event not recorded"
                ),
            }
        }
    }

    /// Offers in order, up to the first that is not taken.
    fn offer(&mut self, take: impl Fn(&Append) -> Result<(), String>) {
        while let Some(append) = self.appends.front() {
            match take(append) {
                Ok(()) => {
                    self.appends.pop_front();
                    if core::mem::take(&mut self.failing) {
                        tracing::info!("the ledger takes audit events again");
                    }
                }
                Err(cause) => {
                    if !core::mem::replace(&mut self.failing, true) {
                        tracing::warn!(
                            cause,
                            waiting = self.appends.len(),
                            "the ledger does not take audit events; they are kept"
                        );
                    }
                    return;
                }
            }
        }
    }
}

/// A random id; `None` if the operating system has no random octets.
pub(crate) fn fresh_id() -> Option<Id> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::fill(&mut octets).ok()?;
    Some(Octets(octets))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use chancery_protocol::audit::{Kind, Outcome};
    use chancery_protocol::refusal::Refusal;

    use super::*;

    fn recorder() -> Recorder {
        Recorder::new(Channel::new("/nonexistent", Duration::from_millis(1)))
    }

    #[test]
    fn incidents_are_recorded_each_up_to_a_bound() {
        let recorder = recorder();
        for _ in 0..MAX_EVENTS + 7 {
            recorder.incident(
                Cause::ParserDied,
                Octets([1; 16]),
                Source::Unknown,
                "devices",
            );
        }
        let events = recorder.collect(true, 60);
        assert_eq!(events.len(), MAX_EVENTS + 1);
        assert_eq!(events[0].request, Some(Octets([1; 16])));
        assert_eq!(events[0].value(field::PROFILE), Some("devices"));
        assert_eq!(events[MAX_EVENTS].kind, Kind::ParserDied);
        assert_eq!(events[MAX_EVENTS].value(field::COUNT), Some("7"));
        recorder.incident(
            Cause::ParserLied,
            Octets([2; 16]),
            Source::Unknown,
            "devices",
        );
        assert_eq!(recorder.collect(false, 61)[0].kind, Kind::ParserLied);
    }

    #[test]
    fn totals_wait_for_their_time() {
        let recorder = recorder();
        recorder.count(Cause::Refused(Refusal::Signature), Source::Unknown);
        assert!(recorder.collect(false, 1).is_empty());
        assert_eq!(
            recorder.collect(true, 60)[0].value(field::REASON),
            Some("signature")
        );
    }

    #[test]
    fn what_is_not_taken_is_offered_again_under_its_id() {
        let mut waiting = Waiting::default();
        waiting.add(vec![
            Event::new(Kind::ServiceStarted, Outcome::Success),
            Event::new(Kind::TokenReady, Outcome::Success),
        ]);
        let offered = RefCell::new(Vec::new());
        waiting.offer(|append| {
            offered.borrow_mut().push(append.write);
            if offered.borrow().len() == 2 {
                Err("disk full".into())
            } else {
                Ok(())
            }
        });
        assert!(!waiting.is_empty());
        waiting.offer(|append| {
            offered.borrow_mut().push(append.write);
            Ok(())
        });
        assert!(waiting.is_empty());
        let offered = offered.into_inner();
        assert_eq!(offered.len(), 3);
        assert_eq!(offered[1], offered[2]);
        assert_ne!(offered[0], offered[1]);
    }
}
