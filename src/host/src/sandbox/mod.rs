//! What a process gives up before it touches anything from outside.
//!
//! [`confine`] first: no new privileges, Landlock, resource limits, no core dumps. It binds the
//! calling thread and what that starts, so it refuses to run beside other threads, and it comes
//! before a PKCS#11 module is loaded. [`seal`] last, when the module is loaded and everything
//! has been used once: seccomp, for all threads.

#![allow(unsafe_code)]

mod clock_pages;
mod filter;
mod kernel;
mod module_files;
mod syscalls;

pub use clock_pages::ClockPages;
pub(crate) use filter::Seal;
pub use kernel::landlock_abi;
pub use module_files::module_files;

use crate::process::threads;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What a process may still reach after [`confine`]. Every path must exist. A path of a folder
/// covers all below it. Connecting to a socket by its path needs no entry.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// Files to read, folders to list and read in.
    pub read: Vec<PathBuf>,
    /// Files to read and write; folders in which files and folders may be made, changed, renamed
    /// and removed.
    pub write: Vec<PathBuf>,
    /// Programs to execute, and the loader they name. Readable too.
    pub execute: Vec<PathBuf>,
    /// RLIMIT_NOFILE: one above the highest descriptor.
    pub open_files: u64,
    /// RLIMIT_AS in octets; none leaves the system's.
    pub address_space: Option<u64>,
    /// RLIMIT_NPROC: processes and threads of this *user*, not of this process, so it serves only
    /// where the user runs nothing else. The kernel ignores it for root.
    pub processes: Option<u64>,
    /// Whether processes outside of this one's confinement may be signalled. A zygote needs it: its
    /// end reaches the children of an earlier generation, which are outside, by a signal.
    pub signals: bool,
    /// RLIMIT_FSIZE in octets. Zero also ends a process whose stderr is redirected to a file, at
    /// its first line.
    pub file_size: Option<u64>,
}

impl Default for Confinement {
    /// Nothing to read, write or execute, 256 descriptors.
    fn default() -> Self {
        Self {
            read: Vec::new(),
            write: Vec::new(),
            execute: Vec::new(),
            open_files: 256,
            address_space: None,
            processes: None,
            file_size: None,
            signals: false,
        }
    }
}

/// What [`confine`] reached, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// The Landlock ABI whose rights are in force: at least 2. 3 adds truncation, 4 TCP, 5 device
    /// ioctls, 6 signals and abstract sockets.
    pub landlock_abi: i32,
}

/// Which system calls remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// ra, ca, ledger: threads, files, unix sockets, a PKCS#11 module or database already loaded.
    /// What is missing fails with EPERM; what only an attacker wants (another program, another
    /// process's memory, namespaces, the kernel) ends the process.
    Service,
    /// front: threads, epoll, inherited TCP listeners, unix sockets, files to read. As strict.
    Front,
    /// The parser's zygote: forks, waits, executes itself, and allows what its children need
    /// until they seal themselves.
    ParserZygote,
    /// A parser child that waits for its connection. Anything else ends it, as below.
    ParserChild,
    /// A parser child that has its connection: receive, send, memory, exit.
    ParserChildAccepted,
}

/// Gives up everything but `confinement` for this process, its threads and its children.
///
/// # Errors
/// [`SandboxError`]; the process must not go on, since part of it may be in force.
pub fn confine(confinement: &Confinement) -> Result<Confined, SandboxError> {
    if threads()? != 1 {
        return Err(SandboxError::Threads);
    }
    prctl::set_no_new_privs().map_err(|e| SandboxError::process("set no_new_privs", e))?;
    let landlock_abi = restrict_files(confinement)?;
    limit(Resource::RLIMIT_CORE, "RLIMIT_CORE", Some(0))?;
    limit(
        Resource::RLIMIT_NOFILE,
        "RLIMIT_NOFILE",
        Some(confinement.open_files),
    )?;
    limit(Resource::RLIMIT_AS, "RLIMIT_AS", confinement.address_space)?;
    limit(
        Resource::RLIMIT_NPROC,
        "RLIMIT_NPROC",
        confinement.processes,
    )?;
    limit(
        Resource::RLIMIT_FSIZE,
        "RLIMIT_FSIZE",
        confinement.file_size,
    )?;
    // A piped core handler ignores RLIMIT_CORE. This also keeps other processes of the same user
    // from attaching.
    prctl::set_dumpable(false).map_err(|e| SandboxError::process("become undumpable", e))?;
    Ok(Confined { landlock_abi })
}

/// Leaves only the system calls of `profile` to this process and all its threads, irrevocably.
///
/// # Errors
/// [`SandboxError::Filter`]; the process must not go on.
pub fn seal(profile: Profile) -> Result<(), SandboxError> {
    Seal::prepare(profile)?.apply()
}

/// Landlock: the file rights of ABI 2 must be in force; later ones are where the kernel has them.
/// No TCP port may be bound or connected to, nobody outside may be signalled (unless allowed) or
/// reached by an abstract socket.
fn restrict_files(confinement: &Confinement) -> Result<i32, SandboxError> {
    // ABI 9 would add connecting to sockets by path. That is decided by their folders' modes and
    // SO_PEERCRED.
    let mut scopes = Scope::from_all(ABI::V8);
    if confinement.signals {
        scopes.remove(Scope::Signal);
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V8))?
        .handle_access(AccessNet::from_all(ABI::V8))?
        .scope(scopes)?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let execute = read | AccessFs::Execute;
    let groups = [
        (&confinement.read, read),
        (&confinement.write, write),
        (&confinement.execute, execute),
    ];
    for (path, access) in groups
        .into_iter()
        .flat_map(|(p, a)| p.iter().map(move |p| (p, a)))
    {
        ruleset = ruleset.add_rule(rule(path, access)?)?;
    }
    let status = ruleset.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Err(SandboxError::NotEnforced),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi as i32),
        _ => Err(SandboxError::NotEnforced),
    }
}

/// A rule for `path`; a file takes only the rights that files can have.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, SandboxError> {
    let failed = |source| SandboxError::Path {
        path: path.to_owned(),
        source,
    };
    let fd = PathFd::new(path).map_err(|e| {
        let landlock::PathFdError::OpenCall { source, .. } = e else {
            return failed(std::io::ErrorKind::Other.into());
        };
        failed(source)
    })?;
    let kind = nix::sys::stat::fstat(fd.as_fd())
        .map_err(|e| failed(e.into()))?
        .st_mode;
    let folder = kind & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    let access = if folder {
        access
    } else {
        access & AccessFs::from_file(ABI::V8)
    };
    Ok(PathBeneath::new(fd, access))
}

fn limit(resource: Resource, name: &'static str, value: Option<u64>) -> Result<(), SandboxError> {
    let Some(value) = value else { return Ok(()) };
    setrlimit(resource, value, value).map_err(|error| SandboxError::Limit {
        name,
        value,
        source: error.into(),
    })
}

/// Why a process could not be shut in.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Called too late.
    #[error("the sandbox must be entered before the first thread is started")]
    Threads,
    /// `/proc` cannot be read.
    #[error("cannot read this process's entry in /proc: {0}; mount /proc")]
    Proc(#[from] std::io::Error),
    /// A path of the confinement.
    #[error("cannot open {}: {source}; create it or correct the configuration", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Landlock refused.
    #[error(
        "landlock: {0}; this needs a kernel of 5.19 or later with landlock among its security modules (lsm=)"
    )]
    Landlock(#[from] landlock::RulesetError),
    /// Landlock is silent but absent.
    #[error(
        "landlock is not enforced; add landlock to the kernel's lsm= and let the container pass its system calls"
    )]
    NotEnforced,
    /// A resource limit.
    #[error("cannot set {name} to {value}: {source}; raise the limit of the service manager")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// The wanted value.
        value: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// An attribute of the process.
    #[error(
        "cannot {action}: {source}; let the container or service manager pass this system call"
    )]
    Process {
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The clock's pages.
    #[error(
        "cannot find the kernel's clock pages in /proc/self/maps: {0:?} is not an address range"
    )]
    ClockPages(String),
    /// seccomp.
    #[error("seccomp: {0}; this needs a kernel with CONFIG_SECCOMP_FILTER")]
    Filter(seccompiler::Error),
    /// A processor without filters.
    #[error("seccomp: no filter for the processor architecture {0}")]
    Architecture(&'static str),
}

impl SandboxError {
    pub(crate) fn process(action: &'static str, errno: nix::errno::Errno) -> Self {
        Self::Process {
            action,
            source: errno.into(),
        }
    }
}
