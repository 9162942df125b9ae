//! Roles under supervision, as a developer runs them.

use crate::harness::{StopOnDrop, Test, program as executable};
use crate::tests;
use chancery_host::ipc::{CallError, Channel, ask_once};
use chancery_host::process::Stop;
use chancery_host::supervise::{Role, Socket, SuperviseError, Supervisor};
use chancery_protocol::wire::Secret;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = tests![
    a_role_gets_its_sockets_and_a_clean_environment,
    tcp_sockets_share_a_name_and_tell_their_ports,
    a_role_that_ends_is_started_again_and_loses_no_connection,
    a_panicking_worker_ends_its_process,
    a_role_that_dies_or_is_not_ready_is_named,
    a_program_that_is_missing_is_named,
    roles_end_in_reverse_order_and_leave_nothing,
    a_role_that_does_not_end_is_killed,
    roles_die_with_their_supervisor,
    socket_paths_are_checked_before_anything_starts,
];

const LONG: Duration = Duration::from_secs(60);

fn role(name: &str, program: &[&str], sockets: Vec<Socket>) -> Role {
    Role {
        name: name.to_owned(),
        program: std::env::current_exe().unwrap(),
        arguments: ["as"].iter().chain(program).map(Into::into).collect(),
        environment: vec![("EXTRA".to_owned(), "1".to_owned())],
        sockets,
    }
}

fn unix(path: &Path) -> Socket {
    Socket::Unix {
        name: "echo".to_owned(),
        path: path.to_owned(),
    }
}

fn echo(name: &str, path: &Path) -> Role {
    role(name, &["echo"], vec![unix(path)])
}

/// A folder that the supervisor will make, in one that goes away with the test.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let sockets = folder.path().join("sockets");
    (folder, sockets)
}

fn started(roles: Vec<Role>) -> (Supervisor, Stop) {
    let stop = Stop::new().unwrap();
    let mut supervisor = Supervisor::start(roles, &stop).unwrap();
    supervisor.wait_ready(LONG).unwrap();
    (supervisor, stop)
}

fn ask(path: &Path, question: &str) -> String {
    String::from_utf8(ask_once(path, LONG, question.as_bytes()).unwrap()).unwrap()
}

fn exists(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

fn a_role_gets_its_sockets_and_a_clean_environment() {
    let (_folder, sockets) = folder();
    let path = sockets.join("echo");
    let (supervisor, _stop) = started(vec![echo("echo", &path)]);
    assert_eq!(
        fs::metadata(&sockets).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        ask(&path, "pid"),
        supervisor.pid("echo").unwrap().to_string()
    );
    let environment = ask(&path, "environment");
    let unexpected: Vec<&str> = environment
        .split(' ')
        .filter(|name| !["EXTRA", "NOTIFY_SOCKET", "CHANCERY_LOG", "RUST_BACKTRACE"].contains(name))
        .collect();
    assert!(
        unexpected.is_empty() && environment.contains("EXTRA"),
        "{environment}"
    );
    // Its listener and this connection, once it has noticed that the earlier ones are closed.
    let end = Instant::now() + LONG;
    while ask(&path, "descriptors") != "2" {
        assert!(
            Instant::now() < end,
            "the role has sockets that are not its own"
        );
    }
    drop(supervisor);
    assert!(!path.exists());
}

fn tcp_sockets_share_a_name_and_tell_their_ports() {
    let web = |_| Socket::Tcp {
        name: "web".to_owned(),
        address: "127.0.0.1:0".parse().unwrap(),
    };
    let (supervisor, _stop) = started(vec![role("web", &["web"], (0..3).map(web).collect())]);
    let addresses = supervisor.addresses("web");
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        let mut greeting = [0; 5];
        TcpStream::connect(address)
            .unwrap()
            .read_exact(&mut greeting)
            .unwrap();
        assert_eq!(&greeting, b"hello");
    }
    assert!(supervisor.addresses("other").is_empty());
}

fn a_role_that_ends_is_started_again_and_loses_no_connection() {
    let (_folder, sockets) = folder();
    let path = sockets.join("echo");
    let (mut supervisor, stop) = started(vec![echo("echo", &path)]);
    let pids = supervisor.pids();
    std::thread::scope(|scope| {
        let _guard = StopOnDrop(&stop);
        scope.spawn(|| supervisor.run().unwrap());
        let channel = Channel::new(&path, LONG);
        let mut last = 0;
        for round in 0..6 {
            let pid: i32 = ask(&path, "pid").parse().unwrap();
            assert_ne!(pid, last);
            last = pid;
            if round % 2 == 0 {
                assert!(matches!(
                    ask_once(&path, LONG, b"exit"),
                    Err(CallError::Closed)
                ));
            } else {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            // Each of these waits in the queue of a listener that nobody serves, or on a
            // connection that breaks.
            let answer: Secret = channel.call_repeatable(&Secret::new(vec![7])).unwrap();
            assert_eq!(answer.expose(), [7]);
        }
        // A role can answer before its supervisor has noted its number.
        let end = Instant::now() + LONG;
        while pids.get("echo") != ask(&path, "pid").parse().ok() {
            assert!(
                Instant::now() < end,
                "the supervisor does not know its role"
            );
        }
    });
    assert_eq!(pids.get("echo"), None);
}

fn a_panicking_worker_ends_its_process() {
    let (_folder, sockets) = folder();
    let path = sockets.join("echo");
    let (mut supervisor, stop) = started(vec![echo("echo", &path)]);
    std::thread::scope(|scope| {
        let _guard = StopOnDrop(&stop);
        scope.spawn(|| supervisor.run().unwrap());
        let before = ask(&path, "pid");
        assert!(matches!(
            ask_once(&path, LONG, b"panic"),
            Err(CallError::Closed)
        ));
        let end = Instant::now() + LONG;
        let after = loop {
            // The connection may still reach the process that is going down.
            match ask_once(&path, LONG, b"pid") {
                Ok(pid) => break String::from_utf8(pid).unwrap(),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
        };
        assert_ne!(before, after);
    });
}

fn a_role_that_dies_or_is_not_ready_is_named() {
    let (_folder, sockets) = folder();
    let stop = Stop::new().unwrap();
    let roles = vec![
        echo("echo", &sockets.join("a")),
        role("corpse", &["dead"], Vec::new()),
    ];
    let error = Supervisor::start(roles, &stop)
        .unwrap()
        .wait_ready(LONG)
        .unwrap_err();
    assert!(
        matches!(&error, SuperviseError::Died { role, status } if role == "corpse" && status.code() == Some(7)),
        "{error}"
    );
    let roles = vec![role("mute", &["mute"], Vec::new())];
    let mut supervisor = Supervisor::start(roles, &stop).unwrap();
    let pid = supervisor.pid("mute").unwrap();
    let error = supervisor
        .wait_ready(Duration::from_millis(50))
        .unwrap_err();
    assert!(
        matches!(&error, SuperviseError::NotReady { role, .. } if role == "mute"),
        "{error}"
    );
    stop.request();
    assert!(matches!(
        supervisor.wait_ready(LONG),
        Err(SuperviseError::Stopped)
    ));
    drop(supervisor);
    assert!(!exists(pid));
}

fn a_program_that_is_missing_is_named() {
    let (_folder, sockets) = folder();
    let missing = Role {
        program: sockets.join("absent"),
        ..echo("echo", &sockets.join("a"))
    };
    let error = Supervisor::start(vec![missing], &Stop::new().unwrap()).unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
    assert!(!sockets.join("a").exists());
}

fn roles_end_in_reverse_order_and_leave_nothing() {
    let (folder, sockets) = folder();
    let log = folder.path().join("log");
    let names = ["first", "second", "third"];
    let roles = names.map(|name| {
        role(
            name,
            &["echo", name, log.to_str().unwrap()],
            vec![unix(&sockets.join(name))],
        )
    });
    let (mut supervisor, stop) = started(roles.into());
    stop.request();
    supervisor.run().unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "third\nsecond\nfirst\n");
    assert!(names.iter().all(|name| supervisor.pid(name).is_none()));
    drop(supervisor);
    assert_eq!(fs::read_dir(&sockets).unwrap().count(), 0);
}

fn a_role_that_does_not_end_is_killed() {
    let (mut supervisor, stop) = started(vec![role("stubborn", &["stubborn"], Vec::new())]);
    let pid = supervisor.pid("stubborn").unwrap();
    stop.request();
    supervisor.run().unwrap();
    assert!(!exists(pid));
}

/// The program: supervises one role on its main thread and prints the role's number.
pub(crate) fn supervisor(socket: &str) {
    let stop = Stop::on_signals().unwrap();
    let roles = vec![echo("echo", Path::new(socket))];
    let mut supervisor = Supervisor::start(roles, &stop).unwrap();
    supervisor.wait_ready(LONG).unwrap();
    println!("{}", supervisor.pid("echo").unwrap());
    supervisor.run().unwrap();
}

fn roles_die_with_their_supervisor() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let (folder, sockets) = folder();
        let path = sockets.join("echo");
        let mut process = executable(&["supervisor", path.to_str().unwrap()])
            // What a killed supervisor leaves behind goes with the test.
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let role: i32 = line.trim().parse().unwrap();
        assert!(exists(role));
        kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
        let status = process.wait().unwrap();
        if signal == Signal::SIGKILL {
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
        } else {
            // A requested end is a success and cleans up.
            assert!(status.success() && !path.exists(), "{status}");
        }
        let end = Instant::now() + LONG;
        while is_alive(role) {
            assert!(Instant::now() < end, "role {role} outlived its supervisor");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the process runs: an orphan that nobody waits for is no longer alive.
fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat
        .rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with('Z'))
}

fn socket_paths_are_checked_before_anything_starts() {
    use SuperviseError as E;
    let (folder, sockets) = folder();
    let stop = Stop::new().unwrap();
    let start = |path: &Path| Supervisor::start(vec![echo("echo", path)], &stop);

    let long = sockets.join("x".repeat(107 - sockets.as_os_str().len() - 1));
    assert_eq!(long.as_os_str().len(), 107);
    assert!(matches!(start(&long), Err(E::PathTooLong { .. })));
    drop(start(&sockets.join("x".repeat(106 - sockets.as_os_str().len() - 1))).unwrap());

    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(
        start(&open.join("echo")),
        Err(E::FolderOpen { mode: 0o755, .. })
    ));

    let file = sockets.join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(start(&file), Err(E::NotASocket { .. })));

    let path = sockets.join("echo");
    let (first, _stop) = started(vec![echo("echo", &path)]);
    assert!(matches!(start(&path), Err(E::InUse { .. })));
    assert_eq!(ask(&path, "undisturbed"), "undisturbed");
    drop(first);

    // Left behind by a process that had no time to remove it.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (_second, _stop) = started(vec![echo("echo", &path)]);
    assert_eq!(ask(&path, "served"), "served");

    for name in ["", "a:b", "a b"] {
        let socket = Socket::Unix {
            name: name.to_owned(),
            path: sockets.join("other"),
        };
        let role = role("role", &["mute"], vec![socket]);
        assert!(
            matches!(Supervisor::start(vec![role], &stop), Err(E::Name { .. })),
            "{name:?}"
        );
    }
}
