//! The one thread that touches listeners, idle connections and parked replies.

use super::queue::{Job, Outcome, Queue};
use super::{Admission, Gate, Limits, Peer, ServeError, deliver};
use crate::process::{Stop, poll_timeout};
use chancery_protocol::wire::MAX_PACKET;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, getsockopt, recv, sockopt};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// How long no connection is accepted after the system ran out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Poller<'a> {
    gates: &'a [Gate],
    limits: Limits,
    queue: &'a Queue,
    stop: &'a Stop,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// Where packets land before they are copied to a buffer of their size; wiped after each.
    landing: Zeroizing<Vec<u8>>,
    accept_from: Instant,
    stopping: bool,
}

struct Connection {
    fd: Arc<OwnedFd>,
    gate: usize,
    peer: Peer,
    state: State,
}

enum State {
    Idle {
        since: Instant,
    },
    Busy,
    Parked {
        until: Instant,
        reply: Zeroizing<Vec<u8>>,
    },
}

#[derive(Clone, Copy)]
enum Watched {
    Queue,
    Stop,
    Gate(usize),
    Connection(u64),
}

impl<'a> Poller<'a> {
    pub(super) fn new(gates: &'a [Gate], limits: Limits, queue: &'a Queue, stop: &'a Stop) -> Self {
        Self {
            gates,
            limits,
            queue,
            stop,
            connections: BTreeMap::new(),
            next: 0,
            landing: Zeroizing::new(vec![0; MAX_PACKET]),
            accept_from: Instant::now(),
            stopping: false,
        }
    }

    /// Runs until the stop is requested and every request taken before it is answered.
    pub(super) fn run(mut self) -> Result<(), ServeError> {
        while !(self.stopping && self.connections.is_empty()) {
            let ready = self.wait()?;
            for (connection, outcome) in self.queue.outcomes() {
                self.settle(connection, outcome);
            }
            self.send_due_replies();
            if self.stopping || ready.iter().any(|w| matches!(w, Watched::Stop)) {
                self.stopping = true;
                // What these have sent is unread, and closing tells them so.
                self.connections
                    .retain(|_, c| !matches!(c.state, State::Idle { .. }));
                continue;
            }
            self.read_requests(&ready);
            self.close_idle();
            for watched in ready {
                if let Watched::Gate(index) = watched {
                    self.accept(index);
                }
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Watched>, ServeError> {
        let mut fds = vec![PollFd::new(self.queue.waker(), PollFlags::POLLIN)];
        let mut watched = vec![Watched::Queue];
        let mut wake_at: Vec<Instant> = Vec::new();
        if !self.stopping {
            fds.push(PollFd::new(self.stop.fd(), PollFlags::POLLIN));
            watched.push(Watched::Stop);
            if Instant::now() < self.accept_from {
                wake_at.push(self.accept_from);
            } else if self.connections.len() < self.limits.connections {
                for (index, gate) in self.gates.iter().enumerate() {
                    fds.push(PollFd::new(gate.listener.as_fd(), PollFlags::POLLIN));
                    watched.push(Watched::Gate(index));
                }
            }
        }
        let room = self.queue.has_room();
        for (&id, connection) in &self.connections {
            match &connection.state {
                State::Idle { since } => {
                    wake_at.push(*since + self.limits.idle);
                    if room {
                        fds.push(PollFd::new(connection.fd.as_fd(), PollFlags::POLLIN));
                        watched.push(Watched::Connection(id));
                    }
                }
                State::Busy => {}
                State::Parked { until, .. } => wake_at.push(*until),
            }
        }
        match poll(&mut fds, poll_timeout(wake_at.into_iter().min())) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                return Err(ServeError::System {
                    action: "poll",
                    source: error.into(),
                });
            }
        }
        let ready = fds
            .iter()
            .zip(watched)
            .filter(|(fd, _)| fd.any() != Some(false));
        Ok(ready.map(|(_, watched)| watched).collect())
    }

    fn settle(&mut self, id: u64, outcome: Outcome) {
        match (outcome, self.connections.get_mut(&id)) {
            (Outcome::Answered, Some(connection)) => {
                connection.state = State::Idle {
                    since: Instant::now(),
                };
            }
            (Outcome::Parked(until, reply), Some(connection)) => {
                connection.state = State::Parked { until, reply };
            }
            (Outcome::Close, _) | (_, None) => {
                self.connections.remove(&id);
            }
        }
    }

    fn send_due_replies(&mut self) {
        let now = Instant::now();
        self.connections.retain(|_, connection| {
            let State::Parked { until, reply } = &connection.state else {
                return true;
            };
            if *until > now {
                return true;
            }
            let socket = self
                .gates
                .get(connection.gate)
                .map_or("", |g| g.listener.name());
            let sent = deliver(&connection.fd, reply, socket, connection.peer);
            connection.state = State::Idle { since: now };
            sent
        });
    }

    /// Reads one packet from each ready connection while there is room, the one that has waited
    /// longest first.
    fn read_requests(&mut self, ready: &[Watched]) {
        let mut waiting: Vec<(Instant, u64)> = ready
            .iter()
            .filter_map(|watched| match watched {
                Watched::Connection(id) => match self.connections.get(id)?.state {
                    State::Idle { since } => Some((since, *id)),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            if !self.queue.has_room() {
                return;
            }
            self.read_request(id);
        }
    }

    fn read_request(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let socket = self
            .gates
            .get(connection.gate)
            .map_or("", |g| g.listener.name());
        let peer = connection.peer;
        // Without a control buffer the kernel closes descriptors that a peer passes along.
        let received = recv(
            connection.fd.as_raw_fd(),
            &mut self.landing,
            MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
        );
        let length = match received {
            Ok(0) => 0,
            Ok(length) if length <= MAX_PACKET => length,
            Ok(length) => {
                tracing::warn!(socket, %peer, length, "packet too large; connection closed");
                self.landing.as_mut_slice().zeroize();
                0
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => 0,
        };
        if length == 0 {
            self.connections.remove(&id);
            return;
        }
        let landed = self.landing.get_mut(..length).unwrap_or_default();
        let packet = Zeroizing::new(landed.to_vec());
        landed.zeroize();
        connection.state = State::Busy;
        self.queue.put(Job {
            connection: id,
            fd: Arc::clone(&connection.fd),
            gate: connection.gate,
            peer,
            packet,
            arrived: Instant::now(),
        });
    }

    fn close_idle(&mut self) {
        let now = Instant::now();
        let limit = self.limits.idle;
        self.connections
            .retain(|_, connection| match connection.state {
                State::Idle { since } => now.saturating_duration_since(since) < limit,
                _ => true,
            });
    }

    /// Accepts what waits at one gate, up to the limit.
    fn accept(&mut self, index: usize) {
        let Some(gate) = self.gates.get(index) else {
            return;
        };
        let socket = gate.listener.name();
        while self.connections.len() < self.limits.connections {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = match accept4(gate.listener.as_fd().as_raw_fd(), flags) {
                // SAFETY: accept4 has just made this descriptor, and nobody else knows it.
                Ok(raw) => unsafe { OwnedFd::from_raw_fd(raw) },
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(error) => {
                    tracing::warn!(socket, %error, "cannot accept connections; trying again shortly");
                    self.accept_from = Instant::now() + ACCEPT_PAUSE;
                    return;
                }
            };
            let Ok(credentials) = getsockopt(&fd, sockopt::PeerCredentials) else {
                continue;
            };
            let peer = Peer {
                uid: credentials.uid(),
                gid: credentials.gid(),
                pid: credentials.pid(),
            };
            let Admission::AnyOf(admitted) = &gate.admitted;
            if !admitted.contains(&peer.uid) {
                tracing::warn!(socket, %peer, "peer is not admitted to this socket; connection closed");
                continue;
            }
            let state = State::Idle {
                since: Instant::now(),
            };
            self.connections.insert(
                self.next,
                Connection {
                    fd: Arc::new(fd),
                    gate: index,
                    peer,
                    state,
                },
            );
            self.next += 1;
        }
    }
}
