//! What passes between the poller and the workers: bounded one way, at most one outcome a
//! connection the other.

use super::Peer;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use zeroize::Zeroizing;

/// A request on its way to a worker.
pub(super) struct Job {
    pub(super) connection: u64,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) gate: usize,
    pub(super) peer: Peer,
    pub(super) packet: Zeroizing<Vec<u8>>,
    pub(super) arrived: Instant,
}

/// What a worker did with a request.
pub(super) enum Outcome {
    /// The reply has left; the connection may send its next request.
    Answered,
    /// The reply leaves at this moment.
    Parked(Instant, Zeroizing<Vec<u8>>),
    /// The connection is to be closed.
    Close,
}

/// Shared by the poller (which alone puts jobs and takes outcomes) and the workers.
pub(super) struct Queue {
    capacity: usize,
    /// Guards the waiting jobs, the outcomes and the end.
    inner: Mutex<Inner>,
    changed: Condvar,
    wake_reader: OwnedFd,
    wake_writer: OwnedFd,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    outcomes: Vec<(u64, Outcome)>,
    ended: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        let (wake_reader, wake_writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self {
            capacity,
            inner: Mutex::default(),
            changed: Condvar::new(),
            wake_reader,
            wake_writer,
        })
    }

    /// Whether another job fits. Only the poller adds jobs, so a yes stays true for it.
    pub(super) fn has_room(&self) -> bool {
        self.lock().jobs.len() < self.capacity
    }

    pub(super) fn put(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_one();
    }

    /// The next job; `None` after [`Queue::end`] once all are taken.
    pub(super) fn take(&self) -> Option<Job> {
        let mut inner = self.lock();
        loop {
            let full = inner.jobs.len() >= self.capacity;
            if let Some(job) = inner.jobs.pop_front() {
                if full {
                    // The poller reads no connection while there is no room.
                    self.wake();
                }
                return Some(job);
            }
            if inner.ended {
                return None;
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn complete(&self, connection: u64, outcome: Outcome) {
        let first = {
            let mut inner = self.lock();
            inner.outcomes.push((connection, outcome));
            inner.outcomes.len() == 1
        };
        if first {
            self.wake();
        }
    }

    /// Takes the outcomes since the last time and makes [`Queue::waker`] quiet.
    pub(super) fn outcomes(&self) -> Vec<(u64, Outcome)> {
        let mut drain = [0; 64];
        while matches!(
            read(&self.wake_reader, &mut drain),
            Ok(1..) | Err(Errno::EINTR)
        ) {}
        std::mem::take(&mut self.lock().outcomes)
    }

    /// Readable when there are outcomes, or room again.
    pub(super) fn waker(&self) -> BorrowedFd<'_> {
        self.wake_reader.as_fd()
    }

    /// Lets the workers end when the jobs are done.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn wake(&self) {
        // A full pipe wakes as well as one octet more.
        let _ = write(&self.wake_writer, b"w");
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
