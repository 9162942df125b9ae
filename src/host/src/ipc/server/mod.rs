//! The serving side: one poller thread, a bounded queue, one thread a worker.
//!
//! A worker thread owns what it needs (a PKCS#11 session, a database connection). A reply that is
//! due later waits with the poller. Nothing a peer does stops the server: at worst its own
//! connection is closed.

#![allow(unsafe_code)]

mod poller;
mod queue;

use crate::activation::Listener;
use crate::process::Stop;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use queue::{Job, Outcome, Queue};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Who is at the other end, as the kernel recorded it at connect(2) (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process.
    pub pid: i32,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid={} pid={}", self.uid, self.pid)
    }
}

/// One request.
pub struct Call<'a> {
    /// The name of the socket it came in by: what may be asked depends on it alone.
    pub socket: &'a str,
    /// Who asks.
    pub peer: Peer,
    /// The packet, at most [`chancery_protocol::wire::MAX_PACKET`] octets. Wiped after the answer.
    pub packet: &'a [u8],
    /// When it was taken from the socket; what waited in the queue since is included in no
    /// deadline of the caller's but the caller's own.
    pub arrived: Instant,
}

/// What becomes of a request.
pub enum Answer {
    /// Send this now.
    Now(Zeroizing<Vec<u8>>),
    /// Send this at that moment. It costs no worker until then.
    At(Instant, Zeroizing<Vec<u8>>),
    /// Close the connection without an answer: the packet was unknown, malformed or untimely, and
    /// the worker has logged it.
    Close,
}

/// Answers requests, one at a time, on a thread of its own.
pub trait Worker: Send {
    /// Answers one request.
    fn answer(&mut self, call: Call<'_>) -> Answer;
    /// Runs once the reply has left or is parked.
    fn after(&mut self) {}
}

/// One socket and who may use it.
pub struct Gate {
    /// The socket.
    pub listener: Listener,
    /// Who may connect.
    pub admitted: Admission,
}

/// Which peers a gate lets in, by SO_PEERCRED.
#[derive(Clone, Debug)]
pub enum Admission {
    /// These users.
    AnyOf(Vec<u32>),
}

/// Bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections over all gates.
    pub connections: usize,
    /// Requests that wait for a worker.
    pub queue: usize,
    /// How long a connection may stay without a request.
    pub idle: Duration,
}

/// Serves until `stop` is requested, then answers what it has already read and returns. Requests
/// still unread are reset, by which their askers know that they had no effect. A worker that
/// never returns holds this up; the supervisor's patience is the limit.
///
/// May run on several threads with one `stop`, each with gates and workers of its own. A panic in
/// a worker or here aborts the process, so that its supervisor starts a whole one.
///
/// # Errors
/// [`ServeError`] if it cannot start, or poll(2) fails.
pub fn serve(
    gates: Vec<Gate>,
    workers: Vec<Box<dyn Worker>>,
    limits: Limits,
    stop: &Stop,
) -> Result<(), ServeError> {
    let _guard = AbortOnPanic;
    if gates.is_empty() || workers.is_empty() || limits.connections == 0 || limits.queue == 0 {
        return Err(ServeError::Nothing);
    }
    for gate in &gates {
        fcntl(&gate.listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| {
            ServeError::System {
                action: "set up a listener",
                source: error.into(),
            }
        })?;
    }
    let queue = Queue::new(limits.queue).map_err(|source| ServeError::System {
        action: "make a pipe",
        source,
    })?;
    std::thread::scope(|scope| {
        for (index, worker) in workers.into_iter().enumerate() {
            let (queue, gates) = (&queue, &gates);
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn_scoped(scope, move || work(worker, gates, queue))
                .map_err(|source| {
                    queue.end();
                    ServeError::System {
                        action: "start a worker thread",
                        source,
                    }
                })?;
        }
        let outcome = poller::Poller::new(&gates, limits, &queue, stop).run();
        queue.end();
        outcome
    })
}

fn work(mut worker: Box<dyn Worker>, gates: &[Gate], queue: &Queue) {
    let _guard = AbortOnPanic;
    while let Some(job) = queue.take() {
        let outcome = answer(worker.as_mut(), gates, &job);
        queue.complete(job.connection, outcome);
        drop(job);
        worker.after();
    }
}

fn answer(worker: &mut dyn Worker, gates: &[Gate], job: &Job) -> Outcome {
    let socket = gates.get(job.gate).map_or("", |gate| gate.listener.name());
    if hung_up(&job.fd) {
        // Work that nobody waits for would only delay those who do.
        tracing::info!(socket, peer = %job.peer, "peer left before its turn");
        return Outcome::Close;
    }
    let call = Call {
        socket,
        peer: job.peer,
        packet: &job.packet,
        arrived: job.arrived,
    };
    match worker.answer(call) {
        Answer::Now(reply) if deliver(&job.fd, &reply, socket, job.peer) => Outcome::Answered,
        Answer::Now(_) | Answer::Close => Outcome::Close,
        Answer::At(moment, reply) => Outcome::Parked(moment, reply),
    }
}

fn hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Sends a reply without waiting; whether it left. A peer that has no room for the one reply it
/// asked for is not reading.
fn deliver(fd: &OwnedFd, reply: &[u8], socket: &str, peer: Peer) -> bool {
    if reply.is_empty() {
        tracing::error!(socket, %peer, "a reply without octets cannot be told from a closed connection; connection closed");
        return false;
    }
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match send(fd.as_raw_fd(), reply, flags) {
        Ok(_) => true,
        Err(error) => {
            tracing::info!(socket, %peer, %error, "reply could not be delivered; connection closed");
            false
        }
    }
}

/// Ends the process when the thread that holds it panics: a server with a missing worker would
/// look alive.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a server thread panicked; aborting the process");
            std::process::abort();
        }
    }
}

/// Why a server did not start, or ended before its stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Something is missing without which nothing would ever be answered.
    #[error(
        "a server needs at least one socket, one worker, one connection and one place in the queue"
    )]
    Nothing,
    /// The system refused.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}
