//! The process: a zygote that touches no message, and children that take one apart each.

use crate::take_apart;
use chancery_host::activation::{ActivationError, Listeners};
use chancery_host::process::{ProcessError, diagnostics, ready, uid_of};
use chancery_host::sandbox::{Confinement, Profile, SandboxError, confine, seal};
use chancery_host::zygote::{self, Cell, End};
use chancery_protocol::ipc::parse::Request;
use chancery_protocol::wire;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The name of the socket.
const SOCKET: &str = "parser.parse";

/// Children that wait for a message, unless `--children` says otherwise.
const CHILDREN: usize = 8;

/// Most children that `--children` allows.
const MOST_CHILDREN: usize = 256;

/// How long a child may hold a connection.
const OVERSTAY: Duration = Duration::from_secs(5);

/// Deaths by a signal after which the zygote executes itself anew. All its children share one
/// address-space layout, so each death tells whoever caused it something about the next child.
const DEATHS: usize = 16;

/// RLIMIT_NOFILE of the zygote: standard streams, listener, log, and what the loader opens.
const OPEN_FILES: u64 = 32;

/// RLIMIT_AS, also of each child: far above what a message of 64 KiB needs.
const ADDRESS_SPACE: u64 = 256 << 20;

/// Runs `chancery-parser [--children N] [--peer USER]` until SIGTERM, with which its children die too. Exit
/// code 2 for wrong arguments, 1 if it cannot serve; the log says why.
#[must_use]
pub fn main() -> ExitCode {
    diagnostics("parser");
    let error = match wanted(std::env::args_os().skip(1)) {
        Ok(wanted) => match serve(&wanted) {
            Ok(never) => match never {},
            Err(error) => error,
        },
        Err(error) => error,
    };
    tracing::error!("{error}");
    match error {
        ParserError::Arguments => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

/// Why the parser cannot serve.
#[derive(Debug, thiserror::Error)]
enum ParserError {
    #[error(
        "wrong arguments; usage: chancery-parser [--children N] [--peer USER], with N from 1 to {MOST_CHILDREN}"
    )]
    Arguments,
    #[error(transparent)]
    Peer(#[from] ProcessError),
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(
        "cannot list the files mapped into this process from /proc/self/maps: {0}; mount /proc"
    )]
    Maps(io::Error),
    #[error("cannot start a child: {0}; raise the process limit of the service manager")]
    Spawn(io::Error),
    #[error(
        "a child could not shut itself in; let the service manager or container pass seccomp, \
         prctl, setrlimit, munmap and close_range"
    )]
    NotSealed,
    #[error("cannot wait for children: {0}")]
    Wait(io::Error),
    #[error("cannot execute itself anew after {DEATHS} deaths: {0}; its supervisor restarts it")]
    Reexecute(io::Error),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    children: usize,
    /// The one user whose connections are read.
    peer: Option<String>,
}

fn wanted(mut arguments: impl Iterator<Item = OsString>) -> Result<Wanted, ParserError> {
    let mut wanted = Wanted {
        children: CHILDREN,
        peer: None,
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().and_then(|value| value.into_string().ok());
        match (option.to_str(), value) {
            (Some("--children"), Some(value)) => {
                wanted.children = value
                    .parse()
                    .ok()
                    .filter(|children| (1..=MOST_CHILDREN).contains(children))
                    .ok_or(ParserError::Arguments)?;
            }
            (Some("--peer"), Some(user)) => wanted.peer = Some(user),
            _ => return Err(ParserError::Arguments),
        }
    }
    Ok(wanted)
}

/// Shuts itself in and keeps `children` children waiting. The signal of a stop needs no handler:
/// it ends this process, and each child dies with it.
fn serve(wanted: &Wanted) -> Result<Infallible, ParserError> {
    let mut listeners = Listeners::from_environment()?;
    let listener = listeners.seqpacket(SOCKET)?;
    listeners.finish()?;
    let peer = match zygote::inherited_peer() {
        Some(uid) => Some(uid),
        None => wanted.peer.as_deref().map(uid_of).transpose()?,
    };
    let cell = Cell::prepare(listener, OVERSTAY, peer)?;
    let confined = confine(&confinement()?)?;
    seal(Profile::ParserZygote)?;
    let mut pool = Pool {
        cell,
        wanted: wanted.children,
        waiting: BTreeSet::new(),
        deaths: 0,
    };
    pool.fill()?;
    ready();
    tracing::info!(
        children = wanted.children,
        landlock_abi = confined.landlock_abi,
        "ready"
    );
    loop {
        let (child, end) = zygote::wait().map_err(ParserError::Wait)?;
        pool.note(child, end)?;
        pool.fill()?;
    }
}

/// The children, and how many have died.
struct Pool {
    cell: Cell,
    wanted: usize,
    /// Those started since this program was executed. Others are left over from before.
    waiting: BTreeSet<i32>,
    deaths: usize,
}

impl Pool {
    /// Starts children up to the number wanted. Where the system has no room for another, those
    /// that there are go on.
    fn fill(&mut self) -> Result<(), ParserError> {
        while self.waiting.len() < self.wanted {
            match self.cell.spawn(answer) {
                Ok(child) => self.waiting.insert(child),
                Err(error) if self.waiting.is_empty() => return Err(ParserError::Spawn(error)),
                Err(error) => {
                    let (waiting, wanted) = (self.waiting.len(), self.wanted);
                    tracing::warn!("only {waiting} of {wanted} children could be started: {error}");
                    return Ok(());
                }
            };
        }
        Ok(())
    }

    /// Takes note of a child's end.
    fn note(&mut self, child: i32, end: End) -> Result<(), ParserError> {
        self.waiting.remove(&child);
        match end {
            End::Exited(0) => {}
            End::Exited(zygote::NOT_SEALED) => return Err(ParserError::NotSealed),
            End::Exited(code) => tracing::debug!(child, code, "a child gave no answer"),
            End::Killed(signal) => {
                self.deaths += 1;
                tracing::warn!(child, signal, "a child died: {}", cause(signal));
            }
        }
        if self.deaths < DEATHS {
            return Ok(());
        }
        // The other children stay: they may be at work, and each serves once only. This process
        // waits for them after it has executed itself, too.
        tracing::warn!("executing anew after {DEATHS} deaths, to change the memory layout");
        Err(ParserError::Reexecute(self.cell.reexecute()))
    }
}

/// What a child does with its one packet; `None` closes the connection.
fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let request: Request = wire::decode(packet).ok()?;
    wire::encode(&take_apart(&request))
        .ok()
        .map(|reply| reply.to_vec())
}

/// What the zygote needs to execute itself anew: its program, the loader, the files that are
/// mapped into it now, and `/proc`, where it looks at itself.
fn confinement() -> Result<Confinement, ParserError> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(ParserError::Maps)?;
    let mapped = mapped_files(&maps);
    let is_loader = |path: &&PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("ld-"))
    };
    let loader = mapped.iter().filter(is_loader).cloned();
    // By this name it is the right file even when an upgrade has replaced it.
    let execute = core::iter::once(PathBuf::from("/proc/self/exe"))
        .chain(loader)
        .collect();
    let program = std::env::current_exe().map_err(ParserError::Maps)?;
    let cache = PathBuf::from("/etc/ld.so.cache");
    let read = mapped
        .into_iter()
        .filter(|path| *path != program)
        .chain(cache.exists().then_some(cache))
        .chain([PathBuf::from("/proc")])
        .collect();
    // Children may not write files at all; the zygote's log may go to one.
    Ok(Confinement {
        read,
        execute,
        open_files: OPEN_FILES,
        address_space: Some(ADDRESS_SPACE),
        signals: true,
        ..Confinement::default()
    })
}

/// The files named in a memory map (proc(5)).
fn mapped_files(maps: &str) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| Some(PathBuf::from(line.get(line.find('/')?..)?)))
        .collect()
}

/// What a signal says about the child that died of it (signal(7), numbers of Linux).
fn cause(signal: i32) -> &'static str {
    match signal {
        14 => "it held its connection for too long",
        31 => "it asked for a system call that it may not make",
        4 | 6 | 7 | 8 | 11 => "its code failed",
        9 => "it was killed",
        _ => "by a signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(arguments: &[&str]) -> Option<usize> {
        let wanted = wanted(arguments.iter().map(OsString::from)).ok()?;
        Some(wanted.children)
    }

    #[test]
    fn the_number_of_children_is_bounded() {
        assert_eq!(children(&[]), Some(CHILDREN));
        assert_eq!(children(&["--children", "1"]), Some(1));
        assert_eq!(children(&["--children", "256"]), Some(256));
        for refused in [
            &["--children"][..],
            &["--children", "0"],
            &["--children", "257"],
            &["--children", "many"],
            &["--children", "1", "2"],
            &["--peer"],
            &["--help"],
        ] {
            assert_eq!(children(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn mapped_files_are_found() {
        let maps = "5600-5700 r-xp 00000000 08:01 11 /usr/bin/a program\n\
                    7000-8000 r--p 00000000 08:01 12 /usr/lib/libc.so.6\n\
                    8000-9000 rw-p 00001000 08:01 12 /usr/lib/libc.so.6\n\
                    9000-a000 rw-p 00000000 00:00 0 \n\
                    a000-c000 r-xp 00000000 00:00 0 [vdso]\n";
        let expected = ["/usr/bin/a program", "/usr/lib/libc.so.6"].map(PathBuf::from);
        assert_eq!(mapped_files(maps), BTreeSet::from(expected));
    }

    #[test]
    fn only_a_request_is_answered() {
        let packet = wire::encode(&Request::Message(der::asn1::OctetString::new([1]).unwrap()));
        assert!(answer(&packet.unwrap()).is_some());
        assert!(answer(b"anything else").is_none());
    }
}
