//! Profiles compiled to seccomp filters.

use super::syscalls::{self as calls, older};
use super::{Profile, SandboxError};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};

/// The filters of one profile, ready to be applied without further allocation.
pub(crate) struct Seal {
    /// The order of their installation. The kernel runs them all and takes the strictest verdict.
    programs: Vec<BpfProgram>,
    all_threads: bool,
}

impl Seal {
    pub(crate) fn prepare(profile: Profile) -> Result<Self, SandboxError> {
        let allowed = allowed(profile)?;
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let kill = SeccompAction::KillProcess;
        let programs = match profile {
            Profile::Service | Profile::Front | Profile::ParserZygote => vec![
                compile(hostile(profile)?, SeccompAction::Allow, kill)?,
                // clone3 hides its flags in memory, where a filter cannot look. The C library
                // goes back to clone on ENOSYS.
                compile(
                    Rules::default().any(&[libc::SYS_clone3]),
                    SeccompAction::Allow,
                    SeccompAction::Errno(libc::ENOSYS as u32),
                )?,
                // Last, because it refuses the installation of others.
                compile(allowed, refuse, SeccompAction::Allow)?,
            ],
            Profile::ParserChild | Profile::ParserChildAccepted => {
                vec![compile(allowed, kill, SeccompAction::Allow)?]
            }
        };
        let all_threads = matches!(profile, Profile::Service | Profile::Front);
        Ok(Self {
            programs,
            all_threads,
        })
    }

    pub(crate) fn apply(&self) -> Result<(), SandboxError> {
        let apply = if self.all_threads {
            seccompiler::apply_filter_all_threads
        } else {
            seccompiler::apply_filter
        };
        self.programs
            .iter()
            .try_for_each(|p| apply(p))
            .map_err(SandboxError::Filter)
    }
}

fn allowed(profile: Profile) -> Result<Rules, SandboxError> {
    let common = || {
        Rules::default()
            .any(calls::MEMORY)
            .any(calls::PROCESS)
            .any(older::PROCESS)
            .any(calls::DESCRIPTORS)
            .any(older::DESCRIPTORS)
            .any(calls::LOOK)
            .any(older::LOOK)
            .any(calls::SOCKETS)
            .equal(libc::SYS_socket, 0, &[libc::AF_UNIX as u64])?
            .equal(libc::SYS_socketpair, 0, &[libc::AF_UNIX as u64])?
            .equal(
                libc::SYS_ioctl,
                1,
                &[
                    libc::FIONBIO,
                    libc::FIONREAD,
                    libc::FIOCLEX,
                    libc::FIONCLEX,
                    libc::TCGETS,
                ],
            )
    };
    let threaded = || {
        let own = u64::from(std::process::id());
        common()?
            .not_executable()?
            .equal(libc::SYS_kill, 0, &[own])?
            .equal(libc::SYS_tgkill, 0, &[own])?
            .masked(libc::SYS_clone, 0, libc::CLONE_THREAD, libc::CLONE_THREAD)?
            .equal(
                libc::SYS_prctl,
                0,
                &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64],
            )?
            // Reading limits: a new limit of NULL.
            .condition(libc::SYS_prlimit64, 2, Width::Qword, Op::Eq, 0)
    };
    match profile {
        Profile::Service => Ok(threaded()?.any(calls::CHANGE).any(older::CHANGE)),
        Profile::Front => threaded()?
            .any(calls::REACTOR)
            .any(older::REACTOR)
            .any(&[libc::SYS_memfd_create])
            .masked(
                libc::SYS_openat,
                2,
                libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC,
                0,
            ),
        Profile::ParserZygote => common()?.any(calls::ZYGOTE).any(older::ZYGOTE).masked(
            libc::SYS_clone,
            0,
            NAMESPACES,
            0,
        ),
        Profile::ParserChild => Rules::default()
            .any(calls::CHILD_ACCEPTED)
            .any(calls::CHILD)
            .any(older::CHILD)
            .not_executable()?
            .equal(libc::SYS_prctl, 0, &[libc::PR_SET_NO_NEW_PRIVS as u64]),
        Profile::ParserChildAccepted => Rules::default()
            .any(calls::CHILD_ACCEPTED)
            .not_executable()?
            // Without an address: only to the connection.
            .condition(libc::SYS_sendto, 4, Width::Qword, Op::Eq, 0),
    }
}

/// Flags of clone(2) that make a namespace; `CLONE_NEWTIME` shares its bit with the exit signal
/// and works in clone3 only.
const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// What ends the process. In a threaded profile that includes every new process, and signals to
/// any other.
fn hostile(profile: Profile) -> Result<Rules, SandboxError> {
    let rules = Rules::default().any(calls::HOSTILE).any(older::HOSTILE);
    if profile == Profile::ParserZygote {
        return Ok(rules);
    }
    let own = u64::from(std::process::id());
    rules
        .any(&[libc::SYS_execve])
        .any(older::FORKS)
        .masked(libc::SYS_clone, 0, libc::CLONE_THREAD, 0)?
        .condition(libc::SYS_kill, 0, Width::Dword, Op::Ne, own)?
        .condition(libc::SYS_tgkill, 0, Width::Dword, Op::Ne, own)
}

/// System calls that match: a call with an empty list matches always, otherwise if one of its
/// rules does.
#[derive(Default)]
struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    fn any(mut self, numbers: &[c_long]) -> Self {
        self.0
            .extend(numbers.iter().map(|&number| (number, Vec::new())));
        self
    }

    fn equal(self, number: c_long, argument: u8, values: &[u64]) -> Result<Self, SandboxError> {
        values.iter().try_fold(self, |rules, &value| {
            rules.condition(number, argument, Width::Dword, Op::Eq, value)
        })
    }

    fn masked(
        self,
        number: c_long,
        argument: u8,
        mask: c_int,
        value: c_int,
    ) -> Result<Self, SandboxError> {
        let [mask, value] = [mask, value].map(|bits| u64::from(bits.cast_unsigned()));
        self.condition(number, argument, Width::Dword, Op::MaskedEq(mask), value)
    }

    /// Memory may be mapped and its protection changed, but never to executable.
    fn not_executable(self) -> Result<Self, SandboxError> {
        self.masked(libc::SYS_mmap, 2, libc::PROT_EXEC, 0)?.masked(
            libc::SYS_mprotect,
            2,
            libc::PROT_EXEC,
            0,
        )
    }

    fn condition(
        mut self,
        number: c_long,
        argument: u8,
        width: Width,
        operator: Op,
        value: u64,
    ) -> Result<Self, SandboxError> {
        let rule = SeccompCondition::new(argument, width, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(|e| SandboxError::Filter(e.into()))?;
        self.0.entry(number).or_default().push(rule);
        Ok(self)
    }
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| SandboxError::Architecture(std::env::consts::ARCH))?;
    SeccompFilter::new(rules.0, otherwise, matching, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(|e| SandboxError::Filter(e.into()))
}
