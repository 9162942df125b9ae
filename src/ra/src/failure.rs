//! When a FAILURE leaves, and how many may be in signing at once.
//!
//! From decryption onwards every refusal is one constant answer. Its content tells nothing; these
//! two keep the time that it takes from telling more (RFC 3218 §2.3.2), and keep whoever provokes
//! refusals from taking the signing key's time away from those who are served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The step of the time grid: well above what the slowest refusal takes on a token that is not
/// overloaded, so that nearly all leave at the first mark.
const STEP: Duration = Duration::from_millis(500);

/// The first mark of the grid that is still ahead: `arrived` and a whole number of [`STEP`]s.
pub(crate) fn departure(arrived: Instant, now: Instant) -> Instant {
    let waited = now.saturating_duration_since(arrived).as_millis();
    let marks = waited / STEP.as_millis() + 1;
    arrived + STEP.saturating_mul(u32::try_from(marks).unwrap_or(u32::MAX))
}

/// How many FAILUREs may be in signing at once.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    /// Half of the workers, and at least one.
    pub(crate) fn of(workers: usize) -> Self {
        Self(AtomicUsize::new((workers / 2).max(1)))
    }

    /// Takes one place, which is free again when the value is dropped; `None` if there is none.
    pub(crate) fn take(&self) -> Option<Place<'_>> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(1)
            })
            .ok()
            .map(|_| Place(self))
    }
}

/// One place in a [`Budget`].
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Budget);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_lie_on_the_grid_and_ahead() {
        let arrived = Instant::now();
        let after = |millis| departure(arrived, arrived + Duration::from_millis(millis)) - arrived;
        assert_eq!(after(0), STEP);
        assert_eq!(after(499), STEP);
        assert_eq!(after(500), STEP * 2);
        assert_eq!(after(1_730), STEP * 4);
    }

    #[test]
    fn a_clock_that_stands_still_is_no_problem() {
        let now = Instant::now();
        assert_eq!(departure(now + STEP, now), now + STEP * 2);
    }

    #[test]
    fn half_of_the_workers_may_sign_failures() {
        for (workers, places) in [(1, 1), (2, 1), (3, 1), (8, 4)] {
            let budget = Budget::of(workers);
            let taken: Vec<_> = std::iter::from_fn(|| budget.take()).collect();
            assert_eq!(taken.len(), places);
            drop(taken);
            assert!(budget.take().is_some());
        }
    }
}
