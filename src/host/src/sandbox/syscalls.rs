//! The lists behind each profile, by purpose.

use nix::libc;
use std::ffi::c_long;

/// Memory, without the calls that can make it executable (see `filter`).
pub(super) const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
];

/// Threads, waiting, signals within the process, time, and what a process may know of itself.
pub(super) const PROCESS: &[c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcwd,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Descriptors of any kind.
pub(super) const DESCRIPTORS: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pselect6,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Looking at files. Which ones is Landlock's business.
pub(super) const LOOK: &[c_long] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
];

/// Changing files: databases, software tokens, heads made durable.
pub(super) const CHANGE: &[c_long] = &[
    libc::SYS_copy_file_range,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_msync,
    libc::SYS_openat,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_sync_file_range,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// Sockets that exist, and unix ones to come (see `filter` for socket and socketpair).
pub(super) const SOCKETS: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The reactor of an asynchronous process.
pub(super) const REACTOR: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// What the zygote does beyond [`PROCESS`], including its own next start under the same filter.
pub(super) const ZYGOTE: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_fchdir,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_openat,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_seccomp,
    libc::SYS_setitimer,
    libc::SYS_tgkill,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// A child between its fork and its connection, beside [`CHILD_ACCEPTED`]: a later filter only
/// takes away. `seccomp` and `prctl` install it.
pub(super) const CHILD: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_seccomp,
    libc::SYS_sendto,
    libc::SYS_setitimer,
];

/// A child with its connection.
pub(super) const CHILD_ACCEPTED: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_exit_group,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_recvfrom,
];

/// What none of our processes ever asks for: only code that is not ours does.
pub(super) const HOSTILE: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Older names of calls above, which only this architecture has.
#[cfg(target_arch = "x86_64")]
pub(super) mod older {
    use super::{c_long, libc};

    pub(crate) const PROCESS: &[c_long] = &[libc::SYS_arch_prctl, libc::SYS_pause, libc::SYS_time];
    pub(crate) const DESCRIPTORS: &[c_long] = &[
        libc::SYS_dup2,
        libc::SYS_pipe,
        libc::SYS_poll,
        libc::SYS_select,
    ];
    pub(crate) const LOOK: &[c_long] = &[
        libc::SYS_access,
        libc::SYS_lstat,
        libc::SYS_readlink,
        libc::SYS_stat,
    ];
    pub(crate) const CHANGE: &[c_long] = &[
        libc::SYS_mkdir,
        libc::SYS_open,
        libc::SYS_rename,
        libc::SYS_rmdir,
        libc::SYS_unlink,
    ];
    pub(crate) const REACTOR: &[c_long] = &[libc::SYS_epoll_wait];
    pub(crate) const ZYGOTE: &[c_long] = &[libc::SYS_alarm, libc::SYS_fork, libc::SYS_setrlimit];
    pub(crate) const CHILD: &[c_long] = &[libc::SYS_accept, libc::SYS_alarm];
    pub(crate) const HOSTILE: &[c_long] = &[
        libc::SYS_ioperm,
        libc::SYS_iopl,
        libc::SYS_modify_ldt,
        libc::SYS_uselib,
    ];
    /// Forks that the other profiles do not have.
    pub(crate) const FORKS: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
}

/// This architecture has no older names.
#[cfg(not(target_arch = "x86_64"))]
pub(super) mod older {
    use super::c_long;

    pub(crate) const PROCESS: &[c_long] = &[];
    pub(crate) const DESCRIPTORS: &[c_long] = &[];
    pub(crate) const LOOK: &[c_long] = &[];
    pub(crate) const CHANGE: &[c_long] = &[];
    pub(crate) const REACTOR: &[c_long] = &[];
    pub(crate) const ZYGOTE: &[c_long] = &[];
    pub(crate) const CHILD: &[c_long] = &[];
    pub(crate) const HOSTILE: &[c_long] = &[];
    pub(crate) const FORKS: &[c_long] = &[];
}
