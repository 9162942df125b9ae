//! Sockets handed over by the supervisor: systemd's `LISTEN_FDS` protocol (`sd_listen_fds(3)`).

#![allow(unsafe_code)]

use crate::process::threads;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The first descriptor of the protocol (`SD_LISTEN_FDS_START`).
pub(crate) const FIRST_FD: RawFd = 3;

/// A bound `AF_UNIX` `SOCK_SEQPACKET` socket that listens.
#[derive(Debug)]
pub struct Listener {
    name: String,
    fd: OwnedFd,
}

impl Listener {
    /// Takes `fd` after checking what it is.
    ///
    /// # Errors
    /// [`ActivationError::NotSeqpacket`] if it is anything but a listening seqpacket socket.
    pub fn new(name: impl Into<String>, fd: OwnedFd) -> Result<Self, ActivationError> {
        let name = name.into();
        let listening = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
        let seqpacket = getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket);
        if listening && seqpacket && family(&fd) == Some(AddressFamily::Unix) {
            Ok(Self { name, fd })
        } else {
            Err(ActivationError::NotSeqpacket { name })
        }
    }

    /// The name in `LISTEN_FDNAMES`, such as `ca.enrol`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The sockets this process was started with, taken out one by one.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<(String, OwnedFd)>,
}

impl Listeners {
    /// Takes the descriptors from 3 on, marks them close-on-exec and removes the three variables,
    /// so that it can be called once only. `LISTEN_PID` is checked where it is set: a supervisor
    /// that prepares the environment before the fork cannot know it.
    ///
    /// # Errors
    /// [`ActivationError`] if no sockets were passed, the variables contradict each other, or
    /// threads run already.
    pub fn from_environment() -> Result<Self, ActivationError> {
        if threads()? != 1 {
            return Err(ActivationError::Threads);
        }
        let [count, names, pid] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"].map(|variable| {
            let value = std::env::var(variable).ok();
            // SAFETY: the only thread of this process is this one, so nobody reads the
            // environment at the same time.
            unsafe { std::env::remove_var(variable) };
            value
        });
        if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
            return Err(ActivationError::NotActivated);
        }
        let count = count.ok_or(ActivationError::NotActivated)?;
        let names: Vec<String> = names
            .iter()
            .flat_map(|n| n.split(':'))
            .map(str::to_owned)
            .collect();
        if count.parse() != Ok(names.len()) {
            return Err(ActivationError::Names {
                count,
                names: names.len(),
            });
        }
        let sockets = (FIRST_FD..)
            .zip(names)
            .map(|(raw, name)| adopt(raw).map(|fd| (name, fd)))
            .collect::<Result<_, _>>()?;
        Ok(Self { sockets })
    }

    /// Takes the one seqpacket listener of this name.
    ///
    /// # Errors
    /// [`ActivationError`] if there is none, more than one, or it is of another kind.
    pub fn seqpacket(&mut self, name: &str) -> Result<Listener, ActivationError> {
        let mut found = self.take(name);
        match (found.pop(), found.is_empty()) {
            (Some(fd), true) => Listener::new(name, fd),
            (Some(_), false) => Err(ActivationError::Several {
                name: name.to_owned(),
            }),
            (None, _) => Err(ActivationError::Missing {
                name: name.to_owned(),
            }),
        }
    }

    /// Takes every TCP listener of this name, in their order; none is no error.
    ///
    /// # Errors
    /// [`ActivationError::NotTcp`] if one of them is of another kind.
    pub fn tcp(&mut self, name: &str) -> Result<Vec<TcpListener>, ActivationError> {
        self.take(name)
            .into_iter()
            .map(|fd| {
                let listening = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
                let stream = getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream);
                let inet = matches!(
                    family(&fd),
                    Some(AddressFamily::Inet | AddressFamily::Inet6)
                );
                if listening && stream && inet {
                    Ok(TcpListener::from(fd))
                } else {
                    Err(ActivationError::NotTcp {
                        name: name.to_owned(),
                    })
                }
            })
            .collect()
    }

    /// Ends the taking: a socket that nobody wanted is a mistake in the units, since clients would
    /// connect to it and wait.
    ///
    /// # Errors
    /// [`ActivationError::Unexpected`] with the names left over.
    pub fn finish(self) -> Result<(), ActivationError> {
        if self.sockets.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
        Err(ActivationError::Unexpected {
            names: names.join(", "),
        })
    }

    fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        let (found, rest) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(n, _)| n == name);
        self.sockets = rest;
        let found: Vec<(String, OwnedFd)> = found;
        found.into_iter().map(|(_, fd)| fd).collect()
    }
}

/// Owns descriptor `raw` if it is open, and keeps it out of programs started later.
fn adopt(raw: RawFd) -> Result<OwnedFd, ActivationError> {
    // SAFETY: the borrow lives for this call only, and a closed descriptor is what the call finds
    // out: fcntl answers EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|_| ActivationError::Closed { fd: raw })?;
    // SAFETY: the descriptor is open (just used) and by the protocol this process's to own; the
    // variables that named it are gone, so no second owner can arise.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn family(fd: &OwnedFd) -> Option<AddressFamily> {
    getsockname::<SockaddrStorage>(fd.as_raw_fd())
        .ok()?
        .family()
}

/// Why the sockets of this process cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Started by hand.
    #[error(
        "no sockets were passed (LISTEN_FDS); start this program by its systemd socket units or `chancery run`"
    )]
    NotActivated,
    /// Called too late.
    #[error("sockets must be taken from the environment before the first thread is started")]
    Threads,
    /// The thread count is unknown.
    #[error("cannot count the threads of this process in /proc/self/task: {0}; mount /proc")]
    Proc(#[from] std::io::Error),
    /// Variables that contradict each other.
    #[error(
        "LISTEN_FDS={count} but LISTEN_FDNAMES has {names} names; set FileDescriptorName= in each socket unit"
    )]
    Names {
        /// `LISTEN_FDS`.
        count: String,
        /// How many names there are.
        names: usize,
    },
    /// Announced, but not there.
    #[error("descriptor {fd} of LISTEN_FDS is not open; check the program that started this one")]
    Closed {
        /// Its number.
        fd: RawFd,
    },
    /// A socket unit is missing.
    #[error("socket {name} was not passed; enable its socket unit")]
    Missing {
        /// The wanted name.
        name: String,
    },
    /// Two socket units share a name.
    #[error(
        "socket {name} was passed more than once; give each socket unit its own FileDescriptorName="
    )]
    Several {
        /// The name.
        name: String,
    },
    /// A socket unit that this role does not know.
    #[error("unexpected sockets: {names}; remove them from the units of this program")]
    Unexpected {
        /// Their names.
        names: String,
    },
    /// Another kind of socket.
    #[error("socket {name} is not a listening unix seqpacket socket; use ListenSequentialPacket=")]
    NotSeqpacket {
        /// The name.
        name: String,
    },
    /// Another kind of socket.
    #[error("socket {name} is not a listening TCP socket; use ListenStream=")]
    NotTcp {
        /// The name.
        name: String,
    },
}
