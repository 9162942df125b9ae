//! This process: stop requests, readiness, environment, user.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{User, getuid, pipe2, write};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use crate::diagnostics::diagnostics;
pub use crate::disk::free_space;

/// A request to end, made once and seen by every clone: by each poller through [`Stop::fd`],
/// which stays readable.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Pipe>);

#[derive(Debug)]
struct Pipe {
    readable_when_stopped: OwnedFd,
    writer: OwnedFd,
}

/// The write end that the signal handler uses; -1 before [`Stop::on_signals`].
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

impl Stop {
    /// A stop that only [`Stop::request`] triggers.
    ///
    /// # Errors
    /// If no pipe can be made (descriptor limit).
    pub fn new() -> io::Result<Self> {
        let (readable_when_stopped, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self(Arc::new(Pipe {
            readable_when_stopped,
            writer,
        })))
    }

    /// The stop of this process: SIGTERM and SIGINT trigger it instead of ending the process. A
    /// later call returns the same.
    ///
    /// # Errors
    /// If the pipe or the handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        static STOP: OnceLock<Stop> = OnceLock::new();
        let stop = match STOP.get() {
            Some(stop) => stop.clone(),
            None => {
                let made = Self::new()?;
                STOP.get_or_init(|| made).clone()
            }
        };
        // The static keeps the pipe open, so the number stays valid for the handler.
        SIGNALLED.store(stop.0.writer.as_raw_fd(), Ordering::SeqCst);
        let action = SigAction::new(
            SigHandler::Handler(on_signal),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the handler makes one write(2) and keeps errno: async-signal-safe.
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(stop)
    }

    /// Whether the stop has been requested.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Blocks until the stop is requested (true) or `timeout` has passed (false).
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        loop {
            let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
            match poll(&mut fds, poll_timeout(Some(end))) {
                Ok(0) if Instant::now() >= end => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                // A poll that fails on its one valid descriptor means a broken process: end it.
                Ok(_) | Err(_) => return true,
            }
        }
    }

    /// Requests the stop. Async-signal-safe.
    pub fn request(&self) {
        // A full pipe has been requested often enough.
        let _ = write(&self.0.writer, b"s");
    }

    /// A descriptor that is readable from the request on, for poll(2). Never read it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.readable_when_stopped.as_fd()
    }
}

extern "C" fn on_signal(_: nix::libc::c_int) {
    let errno = Errno::last_raw();
    let fd = SIGNALLED.load(Ordering::SeqCst);
    if fd >= 0 {
        // SAFETY: the descriptor belongs to a static and is never closed.
        let _ = write(unsafe { BorrowedFd::borrow_raw(fd) }, b"s");
    }
    Errno::set_raw(errno);
}

/// The time left until `end` for poll(2), rounded up so that a woken loop finds it reached; waits
/// for ever without an end.
pub(crate) fn poll_timeout(end: Option<Instant>) -> PollTimeout {
    let Some(end) = end else {
        return PollTimeout::NONE;
    };
    let left = end.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// Tells systemd, or whoever set `NOTIFY_SOCKET`, that this process serves. Silent without one.
pub fn ready() {
    notify(sd_notify::NotifyState::Ready);
}

/// Tells systemd that this process is ending.
pub fn stopping() {
    notify(sd_notify::NotifyState::Stopping);
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor's notification socket does not answer");
    }
}

/// Sets environment variables, such as `SOFTHSM2_CONF`, for libraries that read nothing else.
///
/// # Errors
/// [`ProcessError::Threads`] once a second thread runs: the C library reads the environment
/// without a lock.
pub fn set_environment(variables: &[(String, String)]) -> Result<(), ProcessError> {
    if threads()? != 1 {
        return Err(ProcessError::Threads);
    }
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(ProcessError::Variable { name: name.clone() });
        }
        // SAFETY: this is the only thread, so nobody reads the environment at the same time.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// How many threads this process has.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// The number of a user, given by name or by number. Call it before [`crate::sandbox::confine`],
/// which closes `/etc`.
///
/// # Errors
/// [`ProcessError`] if there is no such user or the user database cannot be read.
pub fn uid_of(user: &str) -> Result<u32, ProcessError> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(ProcessError::NoSuchUser {
            user: user.to_owned(),
        }),
        Err(error) => Err(ProcessError::UserDatabase {
            user: user.to_owned(),
            source: error.into(),
        }),
    }
}

/// The real user of this process.
#[must_use]
pub fn current_uid() -> u32 {
    getuid().as_raw()
}

/// What went wrong with this process's own state.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Called too late.
    #[error("the environment must be set before the first thread is started")]
    Threads,
    /// Not a variable.
    #[error(
        "{name:?} cannot be an environment variable: empty, or with `=` or NUL in name or value"
    )]
    Variable {
        /// Its name.
        name: String,
    },
    /// The thread count is unknown.
    #[error("cannot count the threads of this process in /proc/self/task: {0}; mount /proc")]
    Proc(#[from] io::Error),
    /// No such user.
    #[error("user {user} does not exist; create it (systemd-sysusers) or correct the name")]
    NoSuchUser {
        /// The name asked for.
        user: String,
    },
    /// The user database does not answer.
    #[error("cannot look up user {user}: {source}; check /etc/passwd and nsswitch.conf")]
    UserDatabase {
        /// The name asked for.
        user: String,
        /// The cause.
        source: io::Error,
    },
}
