//! Children that answer once, and what becomes of those that want more.
#![allow(unsafe_code)]

use crate::harness::{StopOnDrop, Test, program as executable};
use crate::tests;
use chancery_host::activation::{Listener, Listeners};
use chancery_host::ipc::{CallError, ask_once};
use chancery_host::process::{self, Stop};
use chancery_host::sandbox::{Confinement, Profile, confine, seal};
use chancery_host::supervise::{Role, Socket, Supervisor};
use chancery_host::zygote::{Cell, End, NOT_ANSWERED, kill, wait};
use chancery_protocol::wire::MAX_PACKET;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    send, socket,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::{Duration, Instant, SystemTime};

pub(crate) const TESTS: &[Test] = tests![
    a_child_answers_once_and_exits,
    a_child_has_memory_enough,
    a_child_without_an_answer_says_so,
    a_child_dies_of_whatever_else_it_tries,
    a_child_finds_no_descriptor_but_its_connection,
    a_child_reads_nothing_of_a_stranger,
    a_child_that_overstays_dies,
    a_zygote_executes_itself_anew_and_is_replaced_in_the_end,
];

const LONG: Duration = Duration::from_secs(60);

/// How a child ended that was asked for `action`, and what it answered.
fn attempt(action: &str) -> (End, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let output = executable(&["cell", action, folder.path().to_str().unwrap()])
        .output()
        .unwrap();
    let code = output
        .status
        .code()
        .unwrap_or_else(|| panic!("{action}: {output:?}"));
    assert_ne!(code, 101, "{action}: {output:?}");
    let end = if code > 128 {
        End::Killed(code - 128)
    } else {
        End::Exited(code)
    };
    (end, output.stdout)
}

fn a_child_answers_once_and_exits() {
    assert_eq!(attempt("echo"), (End::Exited(0), b"echo".to_vec()));
}

fn a_child_has_memory_enough() {
    assert_eq!(attempt("allocate"), (End::Exited(0), b"8388608".to_vec()));
    let (end, answer) = attempt("largest");
    assert_eq!((end, answer.len()), (End::Exited(0), MAX_PACKET));
}

fn a_child_without_an_answer_says_so() {
    assert_eq!(attempt("refuse"), (End::Exited(NOT_ANSWERED), Vec::new()));
    assert_eq!(
        attempt("nothing-sent"),
        (End::Exited(NOT_ANSWERED), Vec::new())
    );
    assert_eq!(
        attempt("too-large"),
        (End::Exited(NOT_ANSWERED), Vec::new())
    );
}

fn a_child_dies_of_whatever_else_it_tries() {
    let forbidden = [
        "open",
        "socket-unix",
        "socket-inet",
        "connect",
        "fork",
        "thread",
        "execve",
        "ptrace",
        "kill",
        "accept",
        "write",
        "sendmsg",
        "sendto-address",
        "map-executable",
        "protect-executable",
        "prctl",
        "seccomp",
        "clock-syscall",
        "clock-coarse-syscall",
        "getrandom",
        "nanosleep",
        "alarm-off",
        "panic",
    ];
    for action in forbidden {
        assert_eq!(
            attempt(action),
            (End::Killed(libc::SIGSYS), Vec::new()),
            "{action}"
        );
    }
    let clocks = [
        "clock",
        "clock-monotonic",
        "clock-coarse",
        "gettimeofday",
        "time",
    ];
    for action in clocks
        .iter()
        .chain(cfg!(target_arch = "x86_64").then_some(&"time-stamp-counter"))
    {
        let (end, answer) = attempt(action);
        // The C library may fall back to the system call; the standard library's handler for
        // SIGSEGV makes one.
        let dead = [End::Killed(libc::SIGSEGV), End::Killed(libc::SIGSYS)].contains(&end);
        assert!(dead && answer.is_empty(), "{action}: {end:?} {answer:?}");
    }
}

fn a_child_finds_no_descriptor_but_its_connection() {
    assert_eq!(attempt("descriptors"), (End::Exited(0), b"1".to_vec()));
}

fn a_child_reads_nothing_of_a_stranger() {
    assert_eq!(attempt("stranger"), (End::Exited(NOT_ANSWERED), Vec::new()));
}

fn a_child_that_overstays_dies() {
    assert_eq!(attempt("loop"), (End::Killed(libc::SIGALRM), Vec::new()));
    assert_eq!(attempt("silence"), (End::Killed(libc::SIGALRM), Vec::new()));
}

fn confinement() -> Confinement {
    let libraries = ["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache"].map(PathBuf::from);
    Confinement {
        read: ["/proc/self/task", "/proc/self/stat", "/proc/self/maps"]
            .map(PathBuf::from)
            .into(),
        execute: libraries
            .into_iter()
            .chain([std::env::current_exe().unwrap()])
            .filter(|path| path.exists())
            .collect(),
        open_files: 32,
        ..Confinement::default()
    }
}

/// The program: a zygote with one child and, in the same process, the client that asks the child
/// for `action`. Prints the answer; exits with the child's code, or 128 and its signal.
pub(crate) fn cell(action: &str, folder: &str) {
    let path = Path::new(folder).join("parse");
    let fd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(8).unwrap()).unwrap();
    let overstay = Duration::from_secs(if ["loop", "silence"].contains(&action) {
        1
    } else {
        60
    });
    let own = chancery_host::process::current_uid();
    let admitted = Some(if action == "stranger" { own + 1 } else { own });
    let cell = Cell::prepare(Listener::new("parse", fd).unwrap(), overstay, admitted).unwrap();
    confine(&confinement()).unwrap();
    seal(Profile::ParserZygote).unwrap();
    let child = cell.spawn(act).unwrap();
    let client: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let packet = match action {
        "largest" => vec![b'x'; MAX_PACKET],
        "too-large" => vec![b'x'; MAX_PACKET + 1],
        "nothing-sent" | "silence" => Vec::new(),
        _ => action.as_bytes().to_vec(),
    };
    if action != "silence" {
        send(client.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
    }
    let mut answer = vec![0; MAX_PACKET + 1];
    let length = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap_or(0);
    std::io::stdout().write_all(&answer[..length]).unwrap();
    let (pid, end) = wait().unwrap();
    assert_eq!(pid, child);
    exit(match end {
        End::Exited(code) => code,
        End::Killed(signal) => 128 + signal,
    });
}

/// What a child does with its packet. Whatever returns, answers.
fn act(packet: &[u8]) -> Option<Vec<u8>> {
    let action = std::str::from_utf8(packet).unwrap_or_default();
    match action {
        "refuse" => return None,
        "open" => drop(black_box(File::open("/etc/passwd"))),
        "thread" => drop(
            std::thread::Builder::new()
                .spawn(|| ())
                .map(std::thread::JoinHandle::join),
        ),
        "clock" => drop(black_box(SystemTime::now())),
        "clock-monotonic" => drop(black_box(Instant::now())),
        "panic" => panic!("as asked"),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "allocate" => {
            let mut memory = vec![1u8; 4 << 20];
            memory.resize(8 << 20, 2);
            return Some(memory.len().to_string().into());
        }
        "descriptors" => {
            let open = (0..64).filter(|&fd| {
                let looked = recv(fd, &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
                looked != Err(Errno::EBADF)
            });
            return Some(open.count().to_string().into());
        }
        _ if packet.len() < 64 && action != "echo" => call(action),
        _ => {}
    }
    Some(packet.to_vec())
}

/// Actions that are one bare system call or C library call.
fn call(action: &str) {
    let none = std::ptr::null::<u8>();
    let executable = libc::PROT_READ | libc::PROT_EXEC;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let time = &raw mut time;
    let mut day = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let address = [1u8; 16];
    // SAFETY: each call is refused, or works on the values above, which outlive it.
    let _ = black_box(unsafe {
        match action {
            "socket-unix" => libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0).into(),
            "socket-inet" => libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into(),
            "connect" => libc::connect(0, address.as_ptr().cast(), 16).into(),
            "fork" => libc::fork().into(),
            "execve" => libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), none, none),
            "ptrace" => libc::ptrace(libc::PTRACE_TRACEME),
            "kill" => libc::kill(libc::getppid(), 0).into(),
            "accept" => libc::accept4(0, std::ptr::null_mut(), std::ptr::null_mut(), 0).into(),
            "write" => libc::write(2, b"x".as_ptr().cast(), 1) as i64,
            "sendmsg" => libc::syscall(libc::SYS_sendmsg, 0, none, 0),
            "sendto-address" => {
                libc::sendto(0, b"x".as_ptr().cast(), 1, 0, address.as_ptr().cast(), 16) as i64
            }
            "map-executable" => {
                libc::mmap(std::ptr::null_mut(), 4096, executable, private, -1, 0) as i64
            }
            "protect-executable" => {
                let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, private, -1, 0);
                libc::mprotect(page, 4096, executable).into()
            }
            "prctl" => libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_ENABLE, 0, 0, 0).into(),
            "seccomp" => libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, none),
            "clock-syscall" => libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, time),
            "clock-coarse-syscall" => {
                libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME_COARSE, time)
            }
            "clock-coarse" => libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time).into(),
            "gettimeofday" => libc::gettimeofday(&raw mut day, std::ptr::null_mut()).into(),
            "time" => libc::time(std::ptr::null_mut()),
            "getrandom" => libc::syscall(libc::SYS_getrandom, time, 8, 0),
            "nanosleep" => libc::nanosleep(time, std::ptr::null_mut()).into(),
            "alarm-off" => libc::alarm(0).into(),
            #[cfg(target_arch = "x86_64")]
            "time-stamp-counter" => std::arch::x86_64::_rdtsc().cast_signed(),
            _ => panic!("unknown action {action}"),
        }
    });
}

/// The program: a zygote with two children at a time, which executes itself anew after each one
/// that is killed. Its children answer with the zygote's number and generation.
pub(crate) fn zygote() {
    let mut listeners = Listeners::from_environment().unwrap();
    let listener = listeners.seqpacket("parse").unwrap();
    listeners.finish().unwrap();
    let cell = Cell::prepare(listener, Duration::from_secs(60), None).unwrap();
    confine(&confinement()).unwrap();
    seal(Profile::ParserZygote).unwrap();
    let mut children = BTreeSet::new();
    let own = std::process::id();
    let secret = format!("{own} {:p}", &raw const children);
    let live = |packet: &[u8]| match packet {
        b"die" => call_forbidden(),
        _ => Some(secret.clone().into_bytes()),
    };
    for _ in 0..2 {
        children.insert(cell.spawn(live).unwrap());
    }
    process::ready();
    loop {
        let (pid, end) = wait().unwrap();
        if !children.remove(&pid) {
            // Killed below, before this program executed itself.
            continue;
        }
        if matches!(end, End::Killed(_)) {
            children.iter().for_each(|&child| kill(child).unwrap());
            let error = cell.reexecute();
            eprintln!("{error}");
            exit(9);
        }
        children.insert(cell.spawn(live).unwrap());
    }
}

fn call_forbidden() -> Option<Vec<u8>> {
    call("getrandom");
    None
}

fn a_zygote_executes_itself_anew_and_is_replaced_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").join("parse");
    let role = Role {
        name: "zygote".to_owned(),
        program: std::env::current_exe().unwrap(),
        arguments: ["as", "zygote"].map(Into::into).into(),
        environment: Vec::new(),
        sockets: vec![Socket::Unix {
            name: "parse".to_owned(),
            path: path.clone(),
        }],
    };
    let stop = Stop::new().unwrap();
    let mut supervisor = Supervisor::start(vec![role], &stop).unwrap();
    supervisor.wait_ready(LONG).unwrap();
    let first = supervisor.pid("zygote").unwrap();
    std::thread::scope(|scope| {
        let _guard = StopOnDrop(&stop);
        scope.spawn(|| supervisor.run().unwrap());
        let mut layouts = BTreeSet::new();
        let end = Instant::now() + LONG;
        loop {
            let (pid, layout) = who(&path);
            layouts.insert(layout);
            if pid != first.to_string() {
                break;
            }
            assert!(Instant::now() < end, "executed itself without end");
            // A child that the zygote is just killing may have the connection.
            let error = ask_once(&path, LONG, b"die").unwrap_err();
            assert!(
                matches!(error, CallError::Closed | CallError::Unavailable(_)),
                "{error}"
            );
        }
        // Each of the first process's generations, and the second process.
        assert!(layouts.len() > 3, "{layouts:?}");
    });
}

/// The zygote's number and the address of one of its variables, from whichever child answers: one
/// of those that its zygote is just killing may take the connection and not answer.
fn who(path: &Path) -> (String, String) {
    let end = Instant::now() + LONG;
    loop {
        match ask_once(path, LONG, b"who") {
            Ok(answer) => {
                let answer = String::from_utf8(answer).unwrap();
                let (pid, layout) = answer.split_once(' ').unwrap();
                return (pid.to_owned(), layout.to_owned());
            }
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}
