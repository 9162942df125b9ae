//! The asking side.

use super::packet::{Failure, connect_by, exchange};
use chancery_protocol::wire::{self, WireError};
use der::{Decode, Encode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Idle connections kept for reuse; more are opened while more calls run at once.
const POOL: usize = 16;

/// A server that is restarted closes a connection once or twice; one that closes it every time
/// refuses the request.
const MOST_CLOSED: u32 = 4;

/// The pauses between repetitions double from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(160)];

/// The way to one socket of another role. Threads share it; each call has a connection to itself.
#[derive(Debug)]
pub struct Channel {
    path: PathBuf,
    deadline: Duration,
    /// Connections on which no request is in flight, the most recently used last.
    idle: Mutex<Vec<OwnedFd>>,
}

impl Channel {
    /// A channel to the socket at `path`, whose calls take `deadline` at most. Connects when first
    /// called.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self {
            path: path.into(),
            deadline,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// The socket's path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks once. The request is sent a second time only if its first connection, left over from
    /// an earlier call, turns out to have been closed before anybody could read it.
    ///
    /// # Errors
    /// [`CallError`]; only [`CallError::Unavailable`] says that the request had no effect.
    pub fn call<Q, R>(&self, request: &Q) -> Result<R, CallError>
    where
        Q: Encode,
        R: for<'a> Decode<'a, Error = der::Error>,
    {
        let end = Instant::now() + self.deadline;
        self.attempt(&wire::encode(request)?, end)
    }

    /// Asks until there is an answer or the deadline is over: for requests whose repetition
    /// returns the first result. Bridges the restart of a role.
    ///
    /// # Errors
    /// [`CallError`] of the last attempt. None of them says that the request had no effect.
    pub fn call_repeatable<Q, R>(&self, request: &Q) -> Result<R, CallError>
    where
        Q: Encode,
        R: for<'a> Decode<'a, Error = der::Error>,
    {
        let end = Instant::now() + self.deadline;
        let packet = wire::encode(request)?;
        let [mut pause, longest] = PAUSES;
        let mut closed = 0;
        loop {
            let error = match self.attempt(&packet, end) {
                Err(error) if error.is_passing() => error,
                settled => return settled,
            };
            closed += u32::from(matches!(error, CallError::Closed));
            if closed == MOST_CLOSED || Instant::now() + pause >= end {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = longest.min(pause * 2);
        }
    }

    fn attempt<R>(&self, packet: &[u8], end: Instant) -> Result<R, CallError>
    where
        R: for<'a> Decode<'a, Error = der::Error>,
    {
        let (connection, answer) = self.ask(packet, end)?;
        let reply = wire::decode(&answer)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < POOL {
            idle.push(connection);
        }
        Ok(reply)
    }

    fn ask(&self, packet: &[u8], end: Instant) -> Result<(OwnedFd, Zeroizing<Vec<u8>>), CallError> {
        if let Some(connection) = self.take_idle() {
            match exchange(&connection, packet, end) {
                Ok(answer) => return Ok((connection, answer)),
                Err(Failure::Unread(_)) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let connection = connect_by(&self.path, end)?;
        let answer = exchange(&connection, packet, end)?;
        Ok((connection, answer))
    }

    /// The most recently used connection on which nothing has happened since: an idle one becomes
    /// readable only when the server closes it or says something unasked.
    fn take_idle(&self) -> Option<OwnedFd> {
        loop {
            let connection = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()?;
            let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::ZERO) == Ok(0) {
                return Some(connection);
            }
        }
    }
}

/// Asks one question on a connection of its own, for a server that answers once.
///
/// # Errors
/// [`CallError`]; only [`CallError::Unavailable`] says that nobody read the request.
pub fn ask_once(path: &Path, deadline: Duration, request: &[u8]) -> Result<Vec<u8>, CallError> {
    if request.len() > wire::MAX_PACKET {
        return Err(WireError::TooLarge(request.len()).into());
    }
    let end = Instant::now() + deadline;
    let connection = connect_by(path, end)?;
    let mut answer = exchange(&connection, request, end)?;
    Ok(std::mem::take(&mut *answer))
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody has read the request: there is no server, or it went away before reading.
    #[error("no server answers: {0}")]
    Unavailable(#[source] io::Error),
    /// No answer in time; the server may act on the request still.
    #[error("no answer within the deadline")]
    Deadline,
    /// The server closed the connection instead of answering: it refused the request, or ended
    /// while working on it.
    #[error("the connection was closed without an answer")]
    Closed,
    /// The request or its answer is no valid packet.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl CallError {
    /// Whether a restarting server explains it, so that a repetition makes sense.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable(error) => error.kind() != io::ErrorKind::PermissionDenied,
            Self::Closed => true,
            Self::Deadline | Self::Wire(_) => false,
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unread(error) => Self::Unavailable(error.into()),
            Failure::Deadline => Self::Deadline,
            Failure::Closed => Self::Closed,
            Failure::TooLarge(length) => Self::Wire(WireError::TooLarge(length)),
        }
    }
}
