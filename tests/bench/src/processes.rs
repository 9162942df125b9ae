//! CPU time and memory of the roles, as `/proc` tells (proc(5)).

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};

use crate::Failure;

/// The roles on the path of an enrolment, in its order.
const ROLES: [&str; 5] = ["front", "parser", "ra", "ca", "ledger"];

/// What a role used during a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Its name.
    pub(crate) role: &'static str,
    /// CPU time, user and system, its children's included.
    pub(crate) cpu: Duration,
    /// Proportional set size in KiB, its children's included; none if the kernel does not tell.
    pub(crate) pss: Option<u64>,
}

/// The processes of an appliance's roles.
pub(crate) struct Roles {
    supervisor: i32,
    /// In the order of [`ROLES`].
    pids: Vec<i32>,
    /// In a second.
    ticks: u64,
}

impl Roles {
    /// The roles under `supervisor`, one process each.
    pub(crate) fn of(supervisor: u32) -> Result<Self, Failure> {
        let supervisor = i32::try_from(supervisor)?;
        let processes = snapshot()?;
        let mut pids = Vec::new();
        for role in ROLES {
            let name = format!("chancery-{role}");
            let mut found = processes
                .iter()
                .filter(|process| process.parent == supervisor && process.name == name);
            match (found.next(), found.next()) {
                (Some(process), None) => pids.push(process.pid),
                _ => return Err(format!("not exactly one process is {name}").into()),
            }
        }
        let ticks = sysconf(SysconfVar::CLK_TCK)?.ok_or("the clock tick is unknown")?;
        Ok(Self {
            supervisor,
            pids,
            ticks: u64::try_from(ticks)?.max(1),
        })
    }

    /// CPU time of each role since it started.
    ///
    /// # Errors
    /// If one has ended, even if it was started again: its time is lost.
    pub(crate) fn cpu(&self) -> Result<Vec<Duration>, Failure> {
        let processes = snapshot()?;
        let mut times = Vec::new();
        for (role, pid) in ROLES.into_iter().zip(&self.pids) {
            if !processes
                .iter()
                .any(|process| process.pid == *pid && process.parent == self.supervisor)
            {
                return Err(format!("chancery-{role} ended during the bench").into());
            }
            let ticks: u64 = family(&processes, *pid).map(Process::total).sum();
            times.push(Duration::from_micros(
                ticks.saturating_mul(1_000_000) / self.ticks,
            ));
        }
        Ok(times)
    }

    /// What each role used between two results of [`Roles::cpu`], and its memory now.
    pub(crate) fn usage(&self, before: &[Duration], after: &[Duration]) -> Vec<Usage> {
        let processes = snapshot().unwrap_or_default();
        let times = before.iter().zip(after);
        let roles = ROLES.into_iter().zip(&self.pids).zip(times);
        roles
            .map(|((role, pid), (before, after))| Usage {
                role,
                cpu: after.saturating_sub(*before),
                pss: family(&processes, *pid)
                    .map(|process| pss(process.pid))
                    .sum(),
            })
            .collect()
    }
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0));
    seconds + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    name: String,
    /// Ticks that it used itself.
    own: u64,
    /// Ticks of its children that ended and were waited for: a parser child lives for one packet.
    reaped: u64,
}

impl Process {
    /// Reads `/proc/PID/stat`. The name may hold anything, so the fields count from its end.
    fn read(stat: &str) -> Option<Self> {
        let (head, rest) = stat.rsplit_once(')')?;
        let (pid, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.trim().parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            name: name.into(),
            own: ticks(11)? + ticks(12)?,
            reaped: ticks(13)? + ticks(14)?,
        })
    }

    fn total(&self) -> u64 {
        self.own + self.reaped
    }
}

/// Every process that there is. One that ends meanwhile is left out.
fn snapshot() -> Result<Vec<Process>, Failure> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_process = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.bytes().all(|octet| octet.is_ascii_digit()));
        if is_process && let Ok(stat) = fs::read_to_string(path.join("stat")) {
            processes.extend(Process::read(&stat));
        }
    }
    Ok(processes)
}

/// A process and all below it.
fn family(processes: &[Process], root: i32) -> impl Iterator<Item = &Process> {
    let mut waiting = VecDeque::from([root]);
    core::iter::from_fn(move || {
        let pid = waiting.pop_front()?;
        waiting.extend(
            processes
                .iter()
                .filter(|process| process.parent == pid)
                .map(|process| process.pid),
        );
        Some(processes.iter().find(|process| process.pid == pid))
    })
    .flatten()
}

/// Proportional set size in KiB. The roles are not dumpable, so only root is told.
fn pss(pid: i32) -> Option<u64> {
    pss_in(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn pss_in(rollup: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            name: "x".into(),
            own: 0,
            reaped: 0,
        }
    }

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "42 (a) R 1 (b) S 7 42 42 0 -1 4194560 100 0 0 0 11 12 13 14 20 0 1 0 5\n";
        assert_eq!(
            Process::read(stat),
            Some(Process {
                pid: 42,
                parent: 7,
                name: "a) R 1 (b".into(),
                own: 23,
                reaped: 27,
            })
        );
        assert_eq!(Process::read("42 (a) S 7 42"), None);
        assert_eq!(Process::read(""), None);
    }

    #[test]
    fn a_family_is_all_below_and_nobody_else() {
        let processes = [(1, 0), (2, 1), (3, 2), (4, 2), (5, 4), (6, 1)]
            .map(|(pid, parent)| process(pid, parent));
        let pids: Vec<_> = family(&processes, 2).map(|process| process.pid).collect();
        assert_eq!(pids, [2, 3, 4, 5]);
        assert_eq!(family(&processes, 9).count(), 0);
    }

    #[test]
    fn this_process_is_there() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(snapshot().unwrap().iter().any(|process| process.pid == own));
        assert!(pss(own).unwrap() > 0);
        assert!(own_cpu().unwrap() > Duration::ZERO);
    }

    #[test]
    fn pss_is_one_line_of_the_rollup() {
        let rollup = "5600-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss:      321 kB\nPss_Dirty:  5 kB\n";
        assert_eq!(pss_in(rollup), Some(321));
        assert_eq!(pss_in("Rss: 1 kB\n"), None);
    }
}
