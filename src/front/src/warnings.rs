//! Warnings that strangers can provoke, at a rate that leaves the log readable.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two warnings of one kind.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of warning.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    // Guards when the last one was due.
    last: Mutex<Option<Instant>>,
}

impl Warnings {
    /// Whether it is time for another one, which the caller then gives.
    pub(crate) fn due(&self) -> bool {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_given_once_in_a_while() {
        let warnings = Warnings::default();
        let start = Instant::now();
        assert!(warnings.due_at(start));
        assert!(!warnings.due_at(start));
        assert!(!warnings.due_at(start + EVERY / 2));
        assert!(warnings.due_at(start + EVERY));
        assert!(!warnings.due_at(start + EVERY));
    }
}
