//! Processes that take one packet, answer it and die: the ground under the parser.
//!
//! The zygote has one thread, touches no packet, and forks children ahead of need. A child that
//! is taken over has no file, no clock, no network and no listener; it has seen nothing but the
//! packet that took it over, and its answer is only a claim.

#![allow(unsafe_code)]

use crate::activation::{FIRST_FD, Listener};
use crate::sandbox::{ClockPages, Profile, SandboxError, Seal};
use chancery_protocol::wire::MAX_PACKET;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, SockFlag, accept4, getsockopt, recv, send};
use nix::sys::wait::{WaitStatus, wait as wait_for_any};
use nix::unistd::{ForkResult, Pid, alarm, execve, fork, getpid, getppid};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Exit code of a child that could not shut itself in, and therefore never read a packet.
pub const NOT_SEALED: i32 = 70;

/// Exit code of a child whose peer sent no packet, one too large, or one without an answer.
pub const NOT_ANSWERED: i32 = 1;

/// Counts [`Cell::reexecute`] in the environment.
const GENERATION: &str = "CHANCERY_ZYGOTE_GENERATION";

/// Passes the admitted user on to [`Cell::reexecute`]'s program, which cannot look it up: it is
/// confined already.
const PEER: &str = "CHANCERY_ZYGOTE_PEER";

/// Each generation adds a Landlock layer to those it inherits, and the kernel allows 16.
const LAST_GENERATION: u32 = 12;

/// The user that an earlier generation admitted; `None` in the first.
#[must_use]
pub fn inherited_peer() -> Option<u32> {
    std::env::var_os(GENERATION)?;
    std::env::var(PEER).ok()?.parse().ok()
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code: 0 after an answer, [`NOT_ANSWERED`] or [`NOT_SEALED`].
    Exited(i32),
    /// By this signal: SIGALRM if it overstayed, SIGSYS if it asked for a forbidden system call,
    /// SIGSEGV if it looked for the clock or broke its memory.
    Killed(i32),
}

/// What every child of this zygote needs, made once, before [`crate::sandbox::confine`].
pub struct Cell {
    listener: Listener,
    overstay: u32,
    admitted: Option<u32>,
    clock: ClockPages,
    waiting: Seal,
    accepted: Seal,
    /// `/proc/self/stat`, opened while `/proc` was in reach.
    stat: File,
}

impl Cell {
    /// Prepares children that serve `listener`. One that holds a connection for longer than
    /// `overstay` (rounded up to seconds, at least one) dies by SIGALRM. With `admitted`, only a
    /// peer of this user is read; without, whoever may open the socket.
    ///
    /// # Errors
    /// [`SandboxError`] if `/proc` cannot be read or no filter can be made.
    pub fn prepare(
        listener: Listener,
        overstay: Duration,
        admitted: Option<u32>,
    ) -> Result<Self, SandboxError> {
        // Children wait in accept(2).
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::empty()))
            .map_err(|e| SandboxError::process("set up the listener", e))?;
        Ok(Self {
            listener,
            overstay: u32::try_from(overstay.as_millis().div_ceil(1000))
                .unwrap_or(u32::MAX)
                .max(1),
            admitted,
            clock: ClockPages::find()?,
            waiting: Seal::prepare(Profile::ParserChild)?,
            accepted: Seal::prepare(Profile::ParserChildAccepted)?,
            stat: File::open("/proc/self/stat")?,
        })
    }

    /// Forks a child and returns its number. The child hides its clock, seals itself, accepts one
    /// connection, closes the listener, seals itself again, receives one packet, sends what
    /// `answer` makes of it, and exits. It dies with the zygote.
    ///
    /// # Errors
    /// If the system cannot fork, or this process has a second thread, whose locks a child would
    /// find taken for ever.
    pub fn spawn(&self, answer: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> io::Result<i32> {
        if self.threads()? != 1 {
            return Err(io::Error::other("a zygote must not have threads"));
        }
        let zygote = getpid();
        // SAFETY: this process has one thread, so the child finds every lock free and may run any
        // code.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(child.as_raw()),
            ForkResult::Child => {
                // Unwinding must not lead a child into its parent's code.
                let _guard = ExitOnUnwind;
                self.live(zygote, answer)
            }
        }
    }

    fn live(&self, zygote: Pid, answer: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> ! {
        if self.shut_in(zygote).is_none() {
            exit(NOT_SEALED);
        }
        let raw = self.listener.as_fd().as_raw_fd();
        let connection = loop {
            match accept4(raw, SockFlag::SOCK_CLOEXEC) {
                Ok(connection) => break connection,
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(_) => exit(NOT_ANSWERED),
            }
        };
        // SAFETY: the descriptor was just opened and stays so until this process exits.
        let peer = unsafe { BorrowedFd::borrow_raw(connection) };
        if self.admitted.is_some() && uid_of_peer(peer) != self.admitted {
            exit(NOT_ANSWERED);
        }
        // SAFETY: closes the listener under its owner, which this process never uses again: it
        // leaves by exit.
        unsafe { libc::close(raw) };
        alarm::set(self.overstay);
        if self.accepted.apply().is_err() {
            exit(NOT_SEALED);
        }
        let mut packet = vec![0; MAX_PACKET];
        // Without a control buffer the kernel closes descriptors that a peer passes along.
        let length = recv(connection, &mut packet, MsgFlags::MSG_TRUNC).unwrap_or(0);
        let request = packet.get(..length).filter(|request| !request.is_empty());
        let sent = request
            .and_then(answer)
            .map(|answer| send(connection, &answer, MsgFlags::MSG_NOSIGNAL));
        exit(if matches!(sent, Some(Ok(_))) {
            0
        } else {
            NOT_ANSWERED
        });
    }

    /// Everything before the connection; `None` if any of it failed.
    fn shut_in(&self, zygote: Pid) -> Option<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).ok()?;
        if getppid() != zygote {
            return None;
        }
        let listener = u32::try_from(self.listener.as_fd().as_raw_fd()).ok()?;
        close_range(0, listener.checked_sub(1)?)?;
        close_range(listener.checked_add(1)?, u32::MAX)?;
        // One descriptor, number 0, will be the connection; the listener's own is open already.
        for (resource, value) in [
            (Resource::RLIMIT_NOFILE, 1),
            (Resource::RLIMIT_NPROC, 0),
            (Resource::RLIMIT_FSIZE, 0),
        ] {
            setrlimit(resource, value, value).ok()?;
        }
        self.clock.hide().ok()?;
        self.waiting.apply().ok()
    }

    /// Executes this program anew in place of this process, with the same arguments and the
    /// listener, so that its address space is laid out afresh. Children that live on keep the old
    /// layout until they have served once; the new program is told of their end like of its own
    /// children's. Returns only if it cannot be, among others after twelve times; the zygote's
    /// supervisor then starts a new one.
    #[must_use]
    pub fn reexecute(&self) -> io::Error {
        let generation = std::env::var(GENERATION).map_or(Ok(0), |text| text.parse());
        let generation = match generation {
            Ok(generation) if generation < LAST_GENERATION => generation + 1,
            _ => return io::Error::other("the zygote has executed itself often enough"),
        };
        if self.listener.as_fd().as_raw_fd() != FIRST_FD {
            return io::Error::other("the listener is not the first descriptor");
        }
        let arguments = std::env::args_os().map(|argument| CString::new(argument.into_vec()));
        let inherited = std::env::vars_os().filter(|(name, _)| name != GENERATION && name != PEER);
        let peer = self.admitted.map(|uid| (PEER.to_owned(), uid.to_string()));
        let passed = [
            ("LISTEN_FDS".to_owned(), "1".to_owned()),
            ("LISTEN_FDNAMES".to_owned(), self.listener.name().to_owned()),
            (GENERATION.to_owned(), generation.to_string()),
        ];
        let variables = inherited
            .chain(
                passed
                    .into_iter()
                    .chain(peer)
                    .map(|(name, value)| (name.into(), value.into())),
            )
            .map(|(name, value)| {
                let mut variable = name.into_vec();
                variable.push(b'=');
                variable.append(&mut value.into_vec());
                CString::new(variable)
            });
        let (Ok(arguments), Ok(variables)) = (
            arguments.collect::<Result<Vec<_>, _>>(),
            variables.collect::<Result<Vec<_>, _>>(),
        ) else {
            return io::ErrorKind::InvalidInput.into();
        };
        if let Err(error) = fcntl(&self.listener, FcntlArg::F_SETFD(FdFlag::empty())) {
            return error.into();
        }
        match execve(c"/proc/self/exe", &arguments, &variables) {
            Err(error) => error.into(),
        }
    }

    /// The thread count from `/proc/self/stat` (proc(5), field 20).
    fn threads(&self) -> io::Result<usize> {
        let mut text = [0; 1024];
        let length = self.stat.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        // The program's name comes second, in parentheses, and may hold anything.
        text.rsplit_once(')')
            .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(17)?.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat"))
    }
}

/// Blocks until a child ends.
///
/// # Errors
/// `ECHILD` if there is none.
pub fn wait() -> io::Result<(i32, End)> {
    loop {
        match wait_for_any() {
            Ok(WaitStatus::Exited(pid, code)) => return Ok((pid.as_raw(), End::Exited(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Ok((pid.as_raw(), End::Killed(signal as i32)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills a child. It is still to be waited for.
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn kill(child: i32) -> io::Result<()> {
    if child <= 0 {
        // Would reach whole groups.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(nix::sys::signal::kill(
        Pid::from_raw(child),
        Signal::SIGKILL,
    )?)
}

fn close_range(first: u32, last: u32) -> Option<()> {
    // SAFETY: closes descriptors under owners that this process, a child about to be sealed, never
    // uses again.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    (result == 0).then_some(())
}

/// Ends this process at once, without the handlers at exit: they make system calls that a sealed
/// child no longer has.
fn exit(code: i32) -> ! {
    // SAFETY: _exit touches no memory and does not return.
    unsafe { libc::_exit(code) }
}

struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        exit(NOT_ANSWERED);
    }
}

fn uid_of_peer(connection: BorrowedFd<'_>) -> Option<u32> {
    getsockopt(&connection, PeerCredentials)
        .ok()
        .map(|peer| peer.uid())
}
