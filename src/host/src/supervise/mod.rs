//! What systemd does in production, for `chancery run`: binds the sockets, starts the roles,
//! restarts them, stops them in order.
//!
//! The supervisor keeps the listeners, so a role that restarts loses no connection that waits in
//! its queue. All roles share one user; the wall between users is systemd's to build.

mod bind;
mod child;

use crate::process::{Stop, poll_timeout};
use bind::Bound;
use child::Running;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause before a restart doubles from the first to the second, while a role keeps dying.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// A role that has lived this long starts again at the shortest pause.
const SETTLED: Duration = Duration::from_secs(10);

/// How long a role may take from SIGTERM to its end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A program to run.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name in messages: lower-case letters, digits and hyphens.
    pub name: String,
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program's name. Never a secret: everyone can read them.
    pub arguments: Vec<OsString>,
    /// Its environment. Beside this it gets the socket and notification variables and, where they
    /// are set here, `CHANCERY_LOG` and `RUST_BACKTRACE`; nothing else.
    pub environment: Vec<(String, String)>,
    /// Its sockets, passed as descriptors from 3 on in this order.
    pub sockets: Vec<Socket>,
}

/// A socket to bind, listen on and pass to a role.
#[derive(Clone, Debug)]
pub enum Socket {
    /// `AF_UNIX` `SOCK_SEQPACKET`, mode 0600 in a folder of mode 0700, which is made if missing.
    Unix {
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// Its path, shorter than 107 octets.
        path: PathBuf,
    },
    /// TCP.
    Tcp {
        /// Its name in `LISTEN_FDNAMES`; several may share one.
        name: String,
        /// Its address; port 0 takes a free one (see [`Supervisor::addresses`]).
        address: SocketAddr,
    },
}

/// Running roles and their sockets. Dropping it kills the roles and removes the socket files.
///
/// A role dies with the thread that started it (`PR_SET_PDEATHSIG`): call [`Supervisor::start`]
/// and [`Supervisor::run`] on threads that outlive the roles, best the main one.
#[derive(Debug)]
pub struct Supervisor {
    roles: Vec<Managed>,
    stop: Stop,
    pids: Pids,
    /// Holds the notification sockets; mode 0700.
    _folder: child::Folder,
}

#[derive(Debug)]
struct Managed {
    role: Role,
    listeners: Vec<Bound>,
    notifications: UnixDatagram,
    notify_path: PathBuf,
    state: State,
    pause: Duration,
}

#[derive(Debug)]
enum State {
    Running(Running),
    Waiting { until: Instant },
}

/// The process numbers of running roles; shared with a supervisor that runs on another thread.
#[derive(Clone, Debug, Default)]
pub struct Pids(Arc<Mutex<BTreeMap<String, i32>>>);

impl Pids {
    /// The process of `role` now; `None` while it is being restarted, or unknown.
    #[must_use]
    pub fn get(&self, role: &str) -> Option<i32> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(role)
            .copied()
    }

    fn set(&self, role: &str, pid: Option<i32>) {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pid {
            Some(pid) => pids.insert(role.to_owned(), pid),
            None => pids.remove(role),
        };
    }
}

impl Supervisor {
    /// Binds every socket, then starts every role, in order. `stop` ends [`Supervisor::run`].
    ///
    /// # Errors
    /// [`SuperviseError`]; what was started before it is killed again.
    pub fn start(roles: Vec<Role>, stop: &Stop) -> Result<Self, SuperviseError> {
        let folder = child::Folder::new()?;
        let roles = roles
            .into_iter()
            .map(|role| Managed::prepare(role, folder.path()))
            .collect::<Result<_, _>>()?;
        let mut supervisor = Self {
            roles,
            stop: stop.clone(),
            pids: Pids::default(),
            _folder: folder,
        };
        for managed in &mut supervisor.roles {
            let running = managed.spawn()?;
            supervisor.pids.set(&managed.role.name, Some(running.pid()));
            managed.state = State::Running(running);
        }
        Ok(supervisor)
    }

    /// Blocks until every role has said READY.
    ///
    /// # Errors
    /// [`SuperviseError`] naming the first role that ended or did not say so within `deadline`.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<(), SuperviseError> {
        let end = Instant::now() + deadline;
        loop {
            for managed in &mut self.roles {
                managed.read_notifications();
                if let Some(status) = managed.reap()? {
                    self.pids.set(&managed.role.name, None);
                    return Err(SuperviseError::Died {
                        role: managed.role.name.clone(),
                        status,
                    });
                }
            }
            let late = self.roles.iter().find(|managed| !managed.is_ready());
            let Some(late) = late else { return Ok(()) };
            if Instant::now() >= end {
                return Err(SuperviseError::NotReady {
                    role: late.role.name.clone(),
                    after: deadline,
                });
            }
            if self.wait(Some(end))? {
                return Err(SuperviseError::Stopped);
            }
        }
    }

    /// Supervises until the stop is requested: a role that ends is started again. Then ends the
    /// roles, the last one first, each once the one before it is gone.
    ///
    /// # Errors
    /// [`SuperviseError::System`] if the system does not let it supervise; the roles are killed
    /// when the supervisor is dropped.
    pub fn run(&mut self) -> Result<(), SuperviseError> {
        loop {
            for managed in &mut self.roles {
                managed.tend(&self.pids)?;
            }
            let next = self.roles.iter().filter_map(|managed| match managed.state {
                State::Waiting { until } => Some(until),
                State::Running(_) => None,
            });
            if self.wait(next.min())? {
                return self.shut_down();
            }
        }
    }

    /// The bound addresses of every TCP socket of this name, in order.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<SocketAddr> {
        let bound = self.roles.iter().flat_map(|managed| &managed.listeners);
        bound
            .filter(|bound| bound.name == name)
            .filter_map(Bound::address)
            .collect()
    }

    /// The process of `role` now; `None` while it is being restarted, or unknown.
    #[must_use]
    pub fn pid(&self, role: &str) -> Option<i32> {
        self.pids.get(role)
    }

    /// A handle that knows the roles' processes while [`Supervisor::run`] has this value.
    #[must_use]
    pub fn pids(&self) -> Pids {
        self.pids.clone()
    }

    /// Waits for anything to happen, at most until `end`; whether the stop is requested.
    fn wait(&self, end: Option<Instant>) -> Result<bool, SuperviseError> {
        let mut fds = vec![PollFd::new(self.stop.fd(), PollFlags::POLLIN)];
        for managed in &self.roles {
            fds.push(PollFd::new(
                managed.notifications.as_fd(),
                PollFlags::POLLIN,
            ));
            if let State::Running(running) = &managed.state {
                fds.push(PollFd::new(running.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, poll_timeout(end)) {
            Ok(_) | Err(Errno::EINTR) => Ok(self.stop.requested()),
            Err(error) => Err(SuperviseError::System {
                action: "poll",
                source: error.into(),
            }),
        }
    }

    fn shut_down(&mut self) -> Result<(), SuperviseError> {
        for managed in self.roles.iter_mut().rev() {
            if let State::Running(running) = &mut managed.state {
                let status = running.end(PATIENCE)?;
                tracing::info!(role = managed.role.name, %status, "role ended");
            }
            managed.state = State::Waiting {
                until: Instant::now(),
            };
            self.pids.set(&managed.role.name, None);
        }
        Ok(())
    }
}

impl Managed {
    fn prepare(role: Role, folder: &std::path::Path) -> Result<Self, SuperviseError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if role.name.is_empty() || !role.name.bytes().all(plain) {
            return Err(SuperviseError::Name { name: role.name });
        }
        let listeners = bind::all(&role)?;
        let notify_path = folder.join(&role.name);
        let notifications = UnixDatagram::bind(&notify_path)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(|source| SuperviseError::System {
                action: "bind a notification socket",
                source,
            })?;
        let state = State::Waiting {
            until: Instant::now(),
        };
        let [pause, _] = BACK_OFF;
        Ok(Self {
            role,
            listeners,
            notifications,
            notify_path,
            state,
            pause,
        })
    }

    fn spawn(&self) -> Result<Running, SuperviseError> {
        // What the former process has said does not count for the next.
        while self.notifications.recv(&mut [0; 1]).is_ok() {}
        Running::spawn(&self.role, &self.listeners, &self.notify_path).map_err(|source| {
            SuperviseError::Spawn {
                role: self.role.name.clone(),
                program: self.role.program.clone(),
                source,
            }
        })
    }

    fn is_ready(&self) -> bool {
        matches!(&self.state, State::Running(running) if running.ready)
    }

    fn read_notifications(&mut self) {
        let mut message = [0; 4096];
        while let Ok(length) = self.notifications.recv(&mut message) {
            let message = message.get(..length).unwrap_or_default();
            let ready = message
                .split(|&octet| octet == b'\n')
                .any(|line| line == b"READY=1");
            if let (true, State::Running(running)) = (ready, &mut self.state) {
                running.ready = true;
                tracing::debug!(role = self.role.name, "role is ready");
            }
        }
    }

    /// Takes the end of the process, if it has ended.
    fn reap(&mut self) -> Result<Option<ExitStatus>, SuperviseError> {
        let State::Running(running) = &mut self.state else {
            return Ok(None);
        };
        let Some(status) = running.try_wait()? else {
            return Ok(None);
        };
        let [shortest, longest] = BACK_OFF;
        if running.since.elapsed() >= SETTLED {
            self.pause = shortest;
        }
        self.state = State::Waiting {
            until: Instant::now() + self.pause,
        };
        self.pause = longest.min(self.pause * 2);
        Ok(Some(status))
    }

    /// Notes what has happened since the last time, and starts the role again when its pause is
    /// over.
    fn tend(&mut self, pids: &Pids) -> Result<(), SuperviseError> {
        self.read_notifications();
        if let Some(status) = self.reap()? {
            pids.set(&self.role.name, None);
            tracing::warn!(role = self.role.name, %status, "role ended; starting it again");
        }
        match self.state {
            State::Waiting { until } if Instant::now() >= until => {}
            _ => return Ok(()),
        }
        match self.spawn() {
            Ok(running) => {
                pids.set(&self.role.name, Some(running.pid()));
                self.state = State::Running(running);
            }
            Err(error) => {
                tracing::error!(%error, "trying again");
                let [_, longest] = BACK_OFF;
                self.state = State::Waiting {
                    until: Instant::now() + longest,
                };
            }
        }
        Ok(())
    }
}

/// Why the roles cannot be started or supervised.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A role's name.
    #[error(
        "{name:?} cannot name a role or socket; use lower-case letters, digits, hyphens and, for sockets, dots"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A socket's path.
    #[error("socket path {} has {} octets, the system's limit is 106; choose a shorter folder", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// A socket's folder is missing or unusable.
    #[error("cannot prepare the socket folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A socket's folder is another user's.
    #[error("socket folder {} belongs to user {uid}; run as that user", path.display())]
    FolderForeign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A socket's folder lets others in.
    #[error("socket folder {} has mode {mode:o}; it must be yours alone: chmod 700", path.display())]
    FolderOpen {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody serves there.
    #[error("socket {} is being served; stop the other process first", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not ours to remove.
    #[error("{} exists and is no socket; move it away", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// bind(2) or listen(2).
    #[error("cannot listen for {name} on {address}: {source}")]
    Bind {
        /// The socket's name.
        name: String,
        /// Its path or address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A program does not start.
    #[error("cannot start role {role} from {}: {source}", program.display())]
    Spawn {
        /// The role.
        role: String,
        /// Its program.
        program: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A role ended before it was ready.
    #[error("role {role} ended before it was ready ({status}); its own message stands above")]
    Died {
        /// The role.
        role: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A role takes too long.
    #[error("role {role} is not ready after {} s; its own messages stand above", after.as_secs_f32())]
    NotReady {
        /// The role.
        role: String,
        /// The deadline.
        after: Duration,
    },
    /// Interrupted while waiting for readiness.
    #[error("stopped before all roles were ready")]
    Stopped,
    /// The system refused.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}
