//! Ends the process when a call hangs.
//!
//! No PKCS#11 call can be cancelled, and some hang for minutes when a network HSM is unplugged. A
//! worker that waits inside the module cannot help itself, so another thread looks at the clock.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The calls under way, one gauge a session.
pub(crate) struct Watch {
    epoch: Instant,
    /// The gauges of the sessions that live, and of some that do not any more.
    gauges: Mutex<Vec<Weak<AtomicU64>>>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            gauges: Mutex::new(Vec::new()),
        }
    }

    /// A gauge for a new session.
    pub(crate) fn gauge(&self) -> Gauge {
        let started = Arc::new(AtomicU64::new(IDLE));
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.retain(|gauge| gauge.strong_count() > 0);
        gauges.push(Arc::downgrade(&started));
        Gauge {
            epoch: self.epoch,
            started,
        }
    }

    /// Starts the thread that aborts the process once a call is older than `deadline`. It ends
    /// with the watch itself.
    pub(crate) fn start(self: &Arc<Self>, token: &str, deadline: Duration) -> io::Result<()> {
        let watch = Arc::downgrade(self);
        let token = token.to_owned();
        let pause = (deadline / 8).clamp(Duration::from_millis(5), Duration::from_secs(1));
        std::thread::Builder::new().name("token-watch".into()).spawn(move || {
            while let Some(watch) = watch.upgrade() {
                if let Some(age) = watch.oldest().filter(|age| *age > deadline) {
                    tracing::error!(
                        token,
                        "a call of the token's module hangs since {age:?}, above its deadline of \
                         {deadline:?}; ending the process, since no call can be cancelled"
                    );
                    // Not exit: the module's destructors could wait for the call that hangs.
                    std::process::abort();
                }
                drop(watch);
                std::thread::sleep(pause);
            }
        })?;
        Ok(())
    }

    /// The age of the oldest call under way.
    fn oldest(&self) -> Option<Duration> {
        let now = milliseconds(self.epoch.elapsed());
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges
            .iter()
            .filter_map(Weak::upgrade)
            .map(|started| started.load(Ordering::Relaxed))
            .filter(|started| *started != IDLE)
            .min()
            .map(|started| Duration::from_millis(now.saturating_sub(started)))
    }
}

const IDLE: u64 = u64::MAX;

/// When a session's call under way began: milliseconds since the epoch of its watch, or [`IDLE`].
pub(crate) struct Gauge {
    epoch: Instant,
    started: Arc<AtomicU64>,
}

impl Gauge {
    /// A call begins; it ends when the value returned is dropped.
    pub(crate) fn start(&self) -> Call {
        self.started
            .store(milliseconds(self.epoch.elapsed()), Ordering::Relaxed);
        Call(Arc::clone(&self.started))
    }
}

/// A call under way.
pub(crate) struct Call(Arc<AtomicU64>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(IDLE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_under_way_have_an_age() {
        let watch = Watch::new();
        let (first, second) = (watch.gauge(), watch.gauge());
        assert!(watch.oldest().is_none());
        let call = first.start();
        assert!(watch.oldest().is_some());
        let other = second.start();
        drop(call);
        assert!(watch.oldest().is_some());
        drop(other);
        assert!(watch.oldest().is_none());
    }

    #[test]
    fn gauges_go_with_their_sessions() {
        let watch = Watch::new();
        let call = watch.gauge().start();
        assert!(watch.oldest().is_some());
        drop(call);
        let _gauge = watch.gauge();
        assert_eq!(watch.gauges.lock().unwrap().len(), 1);
    }
}
