//! What must fail fails, what must kill kills, and what a role needs still works.
#![allow(unsafe_code)]

use crate::harness::{Test, program as executable};
use crate::tests;
use chancery_host::journal::Journal;
use chancery_host::sandbox::{Confinement, Profile, SandboxError, confine, seal};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, exit};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = tests![
    confinement_leaves_only_what_it_names,
    a_sealed_service_can_work,
    a_sealed_service_is_refused_what_it_does_not_need,
    a_sealed_service_dies_of_what_only_an_attacker_wants,
    a_sealed_front_can_work,
    a_sealed_front_is_refused_what_it_does_not_need,
    a_sealed_front_dies_of_what_only_an_attacker_wants,
    a_sealed_zygote_can_fork_and_little_else,
    confinement_comes_before_threads,
    confinement_names_a_missing_path,
];

/// How an action ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    Refused(Errno),
    Killed(i32),
}

/// Runs `action` in a process of its own, confined and sealed as `stage` says.
fn attempt(stage: &str, action: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    for name in ["read", "write", "hidden"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("file"), "content").unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let status = executable(&["sandbox", stage, action, path])
        .status()
        .unwrap();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Well,
        (Some(101), _) => panic!("{stage} {action}: panicked"),
        (Some(code), _) => Ended::Refused(Errno::from_raw(code)),
        (None, signal) => Ended::Killed(signal.unwrap()),
    }
}

fn each(stage: &str, actions: &[&str], expected: &Ended) {
    for action in actions {
        assert_eq!(attempt(stage, action), *expected, "{stage}: {action}");
    }
}

const KILLED: Ended = Ended::Killed(libc::SIGSYS);

fn confinement_leaves_only_what_it_names() {
    let works = [
        "read", "list", "write", "create", "rename", "unix", "limits", "self",
    ];
    each("confined", &works, &Ended::Well);
    let hidden = [
        "read-hidden",
        "list-hidden",
        "write-read-only",
        "create-read-only",
        "read-passwd",
        "run",
    ];
    each("confined", &hidden, &Ended::Refused(Errno::EACCES));
}

const WORK: &[&str] = &[
    "read", "list", "unix", "threads", "clock", "pipe", "memory", "journal",
];

fn a_sealed_service_can_work() {
    each("service", WORK, &Ended::Well);
    each(
        "service",
        &["write", "create", "rename", "lock", "synchronise"],
        &Ended::Well,
    );
    assert_eq!(attempt("service", "abort"), Ended::Killed(libc::SIGABRT));
}

const REFUSED: &[&str] = &[
    "socket-inet",
    "socket-inet6",
    "socket-netlink",
    "older-thread-inet",
    "map-executable",
    "protect-executable",
    "raise-limit",
    "dumpable",
    "setuid",
    "seccomp",
    "chmod",
];

fn a_sealed_service_is_refused_what_it_does_not_need() {
    each("service", REFUSED, &Ended::Refused(Errno::EPERM));
}

const DEADLY: &[&str] = &[
    "fork",
    "vfork",
    "spawn",
    "execve",
    "ptrace",
    "process-vm-readv",
    "unshare",
    "setns",
    "mount",
    "bpf",
    "keyctl",
    "userfaultfd",
    "perf",
    "io-uring",
    "kill-parent",
    "signal-parent",
    "pidfd",
];

fn a_sealed_service_dies_of_what_only_an_attacker_wants() {
    each("service", DEADLY, &KILLED);
}

fn a_sealed_front_can_work() {
    each("front", WORK, &Ended::Well);
    each("front", &["accept", "epoll"], &Ended::Well);
    assert_eq!(attempt("front", "abort"), Ended::Killed(libc::SIGABRT));
}

fn a_sealed_front_is_refused_what_it_does_not_need() {
    each("front", REFUSED, &Ended::Refused(Errno::EPERM));
    each(
        "front",
        &["write", "create", "rename"],
        &Ended::Refused(Errno::EPERM),
    );
}

fn a_sealed_front_dies_of_what_only_an_attacker_wants() {
    each("front", DEADLY, &KILLED);
}

fn a_sealed_zygote_can_fork_and_little_else() {
    each(
        "zygote",
        &["fork", "clock", "memory", "unix", "self"],
        &Ended::Well,
    );
    let refused = [
        "socket-inet",
        "socket-netlink",
        "clone-namespace",
        "setuid",
        "chmod",
    ];
    each("zygote", &refused, &Ended::Refused(Errno::EPERM));
    // Landlock: it may execute nothing that the confinement does not name.
    assert_eq!(attempt("zygote", "execve"), Ended::Refused(Errno::EACCES));
    let deadly = [
        "ptrace",
        "process-vm-readv",
        "unshare",
        "setns",
        "mount",
        "bpf",
        "keyctl",
    ];
    each("zygote", &deadly, &KILLED);
}

fn confinement_comes_before_threads() {
    each("threaded", &["nothing"], &Ended::Well);
}

fn confinement_names_a_missing_path() {
    each("missing", &["nothing"], &Ended::Well);
}

/// The program: exits with 0, or with the error number of what was refused.
pub(crate) fn program(stage: &str, action: &str, folder: &str) {
    let folder = Path::new(folder);
    let confinement = Confinement {
        read: vec![folder.join("read")],
        write: vec![folder.join("write")],
        open_files: 64,
        ..Confinement::default()
    };
    match stage {
        "threaded" => {
            let (sender, receiver) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || receiver.recv());
            assert!(matches!(confine(&confinement), Err(SandboxError::Threads)));
            drop(sender);
            let _ = thread.join();
            return;
        }
        "missing" => {
            let wrong = Confinement {
                read: vec![folder.join("absent")],
                ..confinement
            };
            let error = confine(&wrong).unwrap_err();
            assert!(error.to_string().contains("absent"), "{error}");
            return;
        }
        _ => {}
    }
    // A role has these before it shuts itself in.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(web.local_addr().unwrap()).unwrap();
    let confined = confine(&confinement).unwrap();
    assert!(confined.landlock_abi >= 2, "{confined:?}");
    let (go, gone) = mpsc::channel::<()>();
    let older = std::thread::spawn(move || gone.recv().map(|()| open_socket(AddressFamily::Inet)));
    match stage {
        "service" => seal(Profile::Service).unwrap(),
        "front" => seal(Profile::Front).unwrap(),
        "zygote" => seal(Profile::ParserZygote).unwrap(),
        _ => assert_eq!(stage, "confined"),
    }
    let outcome = match action {
        "older-thread-inet" => {
            go.send(()).unwrap();
            older.join().unwrap().unwrap()
        }
        "accept" => accept(&web, client),
        _ => act(action, folder),
    };
    if let Err(error) = outcome {
        exit(error.raw_os_error().unwrap());
    }
    exit(0);
}

fn act(action: &str, folder: &Path) -> io::Result<()> {
    let parent = std::os::unix::process::parent_id().cast_signed();
    match action {
        "read" => fs::read(folder.join("read/file")).map(drop),
        "list" => fs::read_dir(folder.join("read")).map(|entries| assert_eq!(entries.count(), 1)),
        "write" => fs::write(folder.join("write/file"), "new"),
        "create" => fs::create_dir(folder.join("write/new"))
            .and_then(|()| fs::write(folder.join("write/new/file"), "new"))
            .and_then(|()| fs::remove_dir_all(folder.join("write/new"))),
        "rename" => fs::rename(folder.join("write/file"), folder.join("write/other")),
        "lock" => File::options()
            .append(true)
            .open(folder.join("write/file"))?
            .lock(),
        "synchronise" => synchronise(&folder.join("write/file")),
        "read-hidden" => fs::read(folder.join("hidden/file")).map(drop),
        "list-hidden" => fs::read_dir(folder.join("hidden")).map(drop),
        "write-read-only" => fs::write(folder.join("read/file"), "new"),
        "create-read-only" => fs::write(folder.join("read/new"), "new"),
        "read-passwd" => fs::read("/etc/passwd").map(drop),
        "run" | "spawn" => Command::new("/bin/true").status().map(drop),
        "unix" => unix(folder),
        "threads" => {
            let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || n)).collect();
            assert_eq!(
                threads.into_iter().map(|t| t.join().unwrap()).sum::<i32>(),
                6
            );
            Ok(())
        }
        "clock" => {
            assert!(chancery_host::clock::now() > 0);
            let before = Instant::now();
            std::thread::sleep(Duration::from_millis(1));
            assert!(before.elapsed() >= Duration::from_millis(1));
            Ok(())
        }
        "pipe" => {
            let (reader, writer) = nix::unistd::pipe()?;
            nix::unistd::write(&writer, b"x")?;
            assert_eq!(nix::unistd::read(&reader, &mut [0; 8])?, 1);
            Ok(())
        }
        "memory" => {
            let mut large = vec![1u8; 64 << 20];
            large.resize(96 << 20, 2);
            assert_eq!(large[(96 << 20) - 1], 2);
            Ok(())
        }
        "journal" => journal(folder),
        "epoll" => {
            // SAFETY: makes a descriptor, touches no memory.
            result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into())
        }
        "limits" => {
            use nix::sys::resource::{Resource, getrlimit};
            assert_eq!(getrlimit(Resource::RLIMIT_CORE)?, (0, 0));
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE)?, (64, 64));
            Ok(())
        }
        "self" => {
            assert!(!nix::sys::prctl::get_dumpable()?);
            assert!(nix::sys::prctl::get_no_new_privs()?);
            Ok(())
        }
        "socket-inet" => open_socket(AddressFamily::Inet),
        "socket-inet6" => open_socket(AddressFamily::Inet6),
        "socket-netlink" => open_socket(AddressFamily::Netlink),
        "dumpable" => Ok(nix::sys::prctl::set_dumpable(true)?),
        "abort" => std::process::abort(),
        _ => call(action, parent, folder),
    }
}

/// Actions that are one bare system call.
fn call(action: &str, parent: i32, folder: &Path) -> io::Result<()> {
    let file = std::ffi::CString::new(folder.join("write/file").to_str().unwrap()).unwrap();
    let limit = libc::rlimit {
        rlim_cur: 64,
        rlim_max: 64,
    };
    let executable = libc::PROT_READ | libc::PROT_EXEC;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let none = std::ptr::null::<u8>();
    // SAFETY: each call either fails at its first check or works on memory that belongs to it; a
    // fork that succeeds ends at once.
    let returned = unsafe {
        match action {
            "map-executable" => {
                libc::mmap(std::ptr::null_mut(), 4096, executable, private, -1, 0) as i64
            }
            "protect-executable" => {
                let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, private, -1, 0);
                libc::mprotect(page, 4096, executable).into()
            }
            "raise-limit" => libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit).into(),
            "seccomp" => libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, 0),
            "chmod" => libc::chmod(file.as_ptr(), 0o777).into(),
            "fork" => match libc::fork() {
                0 => libc::_exit(0),
                child => child.into(),
            },
            "vfork" => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
            "clone-namespace" => {
                let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
                match libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) {
                    0 => libc::_exit(0),
                    child => child,
                }
            }
            "execve" => libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), none, none),
            "ptrace" => libc::ptrace(libc::PTRACE_TRACEME),
            "process-vm-readv" => {
                libc::syscall(libc::SYS_process_vm_readv, parent, none, 0, none, 0, 0)
            }
            "setuid" => libc::syscall(libc::SYS_setuid, libc::getuid()),
            "unshare" => libc::unshare(libc::CLONE_NEWUSER).into(),
            "setns" => libc::setns(0, 0).into(),
            "mount" => libc::syscall(libc::SYS_mount, none, none, none, 0, none),
            "bpf" => libc::syscall(libc::SYS_bpf, 0, none, 0),
            "keyctl" => libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0),
            "userfaultfd" => libc::syscall(libc::SYS_userfaultfd, 0),
            "perf" => libc::syscall(libc::SYS_perf_event_open, none, 0, 0, 0, 0),
            "io-uring" => libc::syscall(libc::SYS_io_uring_setup, 1, none),
            "kill-parent" => libc::kill(parent, 0).into(),
            "signal-parent" => libc::syscall(libc::SYS_tgkill, parent, parent, 0),
            "pidfd" => libc::syscall(libc::SYS_pidfd_open, parent, 0),
            _ => panic!("unknown action {action}"),
        }
    };
    result(returned)
}

fn result(returned: i64) -> io::Result<()> {
    if returned == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn open_socket(family: AddressFamily) -> io::Result<()> {
    let kind = if family == AddressFamily::Netlink {
        SockType::Raw
    } else {
        SockType::Stream
    };
    let _: OwnedFd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(())
}

/// A service asks other services by their paths, which need not be among the confinement's.
fn unix(folder: &Path) -> io::Result<()> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let address = UnixAddr::new(&folder.join("hidden/absent"))?;
    assert_eq!(connect(fd.as_raw_fd(), &address), Err(Errno::ENOENT));
    Ok(())
}

fn journal(folder: &Path) -> io::Result<()> {
    let error = Journal::connect(&folder.join("absent")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let file = nix::sys::memfd::memfd_create(c"entry", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    File::from(file).write_all(b"entry")
}

/// As a database does.
fn synchronise(path: &Path) -> io::Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(1 << 16)?;
    file.seek(io::SeekFrom::End(-4))?;
    file.write_all(b"last")?;
    file.sync_data()?;
    file.sync_all()?;
    fs::remove_file(path)
}

fn accept(web: &TcpListener, mut client: TcpStream) -> io::Result<()> {
    let (mut server, _) = web.accept()?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(Duration::from_secs(9)))?;
    client.write_all(b"GET")?;
    let mut request = [0; 3];
    server.read_exact(&mut request)?;
    server.write_all(b"200")
}
