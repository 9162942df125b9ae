//! One process of a role.

#![allow(unsafe_code)]

use super::bind::Bound;
use super::{Role, SuperviseError};
use crate::activation::FIRST_FD;
use crate::process::poll_timeout;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid, mkdtemp};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A process that has not been waited for. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// Readable once the process has ended (pidfd_open(2)).
    ended: OwnedFd,
    pub(super) since: Instant,
    pub(super) ready: bool,
}

impl Running {
    pub(super) fn spawn(role: &Role, listeners: &[Bound], notify: &Path) -> io::Result<Self> {
        let names: Vec<&str> = listeners.iter().map(|bound| bound.name.as_str()).collect();
        let mut command = Command::new(&role.program);
        command
            .args(&role.arguments)
            .env_clear()
            .envs(role.environment.iter().map(|(name, value)| (name, value)))
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("NOTIFY_SOCKET", notify)
            .stdin(Stdio::null())
            // A role prints nothing; whatever a library prints must not mix with our data.
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            // Ctrl-C is for the supervisor, which ends the roles in order.
            .process_group(0);
        for name in ["CHANCERY_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let fds: Vec<RawFd> = listeners.iter().map(|bound| bound.fd.as_raw_fd()).collect();
        let parent = getpid();
        // SAFETY: between fork and exec the closure makes async-signal-safe system calls only and
        // allocates nothing.
        unsafe { command.pre_exec(move || enter(&fds, parent)) };
        let reserved = reserve(listeners.len(), io::stderr().as_fd())?;
        let mut child = command.spawn()?;
        drop(reserved);
        match pidfd(&child) {
            Ok(ended) => Ok(Self {
                child,
                ended,
                since: Instant::now(),
                ready: false,
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> i32 {
        // The kernel's numbers are positive and below 2^22.
        self.child.id().cast_signed()
    }

    pub(super) fn try_wait(&mut self) -> Result<Option<ExitStatus>, SuperviseError> {
        self.child.try_wait().map_err(cannot_wait)
    }

    /// Asks the process to end, and kills it after `patience`.
    pub(super) fn end(&mut self, patience: Duration) -> Result<ExitStatus, SuperviseError> {
        // It has not been waited for, so the number is still its own.
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let end = Instant::now() + patience;
        loop {
            let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, poll_timeout(Some(end))) {
                Err(Errno::EINTR) => {}
                Ok(1..) => break,
                Ok(_) if Instant::now() < end => {}
                Ok(_) | Err(_) => {
                    self.child.kill().map_err(cannot_wait)?;
                    break;
                }
            }
        }
        self.child.wait().map_err(cannot_wait)
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cannot_wait(source: io::Error) -> SuperviseError {
    SuperviseError::System {
        action: "wait for a role",
        source,
    }
}

/// In the child: moves the listeners to 3 and up, without close-on-exec, and dies with the
/// supervisor.
fn enter(fds: &[RawFd], parent: Pid) -> io::Result<()> {
    for (target, &fd) in (FIRST_FD..).zip(fds) {
        // SAFETY: dup2 touches no memory. The sources are above all targets; what stood at a
        // target was close-on-exec.
        Errno::result(unsafe { libc::dup2(fd, target) })?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // The supervisor died before the line above.
        return Err(Errno::ESRCH.into());
    }
    Ok(())
}

/// Occupies the descriptors that `count` listeners will be moved to. The pipe by which the
/// standard library reports a failing exec would otherwise be made among them and overwritten.
fn reserve(count: usize, any: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let beyond = FIRST_FD.saturating_add(RawFd::try_from(count).unwrap_or(RawFd::MAX));
    let mut reserved = Vec::new();
    loop {
        let raw = fcntl(any, FcntlArg::F_DUPFD_CLOEXEC(FIRST_FD))?;
        // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        if raw >= beyond {
            return Ok(reserved);
        }
        reserved.push(fd);
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let raw = RawFd::try_from(Errno::result(raw)?).map_err(io::Error::other)?;
    // SAFETY: just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A folder of our own for notification sockets, removed with everything in it.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, SuperviseError> {
        let template = std::env::temp_dir().join("chancery-XXXXXX");
        mkdtemp(&template)
            .map(Self)
            .map_err(|e| SuperviseError::Folder {
                path: template,
                source: e.into(),
            })
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left over, it is an empty folder in a temporary place.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
