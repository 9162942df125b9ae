//! The process from the outside: one message a connection, whatever becomes of a child.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_host::ipc::{CallError, ask_once};
use chancery_parser::take_apart;
use chancery_protocol::ipc::parse::{Reply, Request};
use chancery_protocol::wire::{self, MAX_MESSAGE, MAX_PACKET};
use common::element::{constructed, primitive};
use common::scep::{bare_enveloped_data, bare_signed_data};
use der::asn1::OctetString;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    send, socket,
};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far beyond anything that a working parser needs; only a broken one reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running parser with a socket and a folder of its own.
struct Parser {
    zygote: Child,
    log: Receiver<String>,
    socket: PathBuf,
    notified: UnixDatagram,
    _folder: TempDir,
}

impl Parser {
    fn start(children: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("parse");
        let listener = listen_at(&socket);
        let notified = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        // The shell moves the listener to descriptor 3, where LISTEN_FDS says that it is.
        let mut zygote = Command::new("/bin/sh")
            .args([
                "-c",
                "exec 3<&0 </dev/null && exec \"$0\" --children \"$1\"",
            ])
            .arg(program())
            .arg(children.to_string())
            .args(["--peer", &own_name()])
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "parser.parse")
            .env("CHANCERY_LOG", "info")
            .env_remove("JOURNAL_STREAM")
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .stdin(listener)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let stderr = BufReader::new(zygote.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = sender.send(line);
            }
        });
        let parser = Self {
            zygote,
            log,
            socket,
            notified,
            _folder: folder,
        };
        parser.await_ready();
        parser
    }

    /// Reads the log up to a line with one of these texts; returns which.
    fn await_log(&self, texts: &[&str]) -> usize {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => match texts.iter().position(|text| line.contains(text)) {
                    Some(which) => return which,
                    None => seen.push(line),
                },
                Err(error) => panic!("{error}, waiting for {texts:?}; the log says {seen:#?}"),
            }
        }
    }

    /// Waits for what it tells its supervisor.
    fn await_ready(&self) {
        let mut text = [0; 100];
        let length = self.notified.recv(&mut text).unwrap();
        assert!(text[..length].starts_with(b"READY=1"));
    }

    fn zygote(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.zygote.id()).unwrap())
    }

    /// Asks and checks the answer.
    fn assert_serves(&self) {
        let request = message();
        assert_eq!(ask(&self.socket, &request).unwrap(), take_apart(&request));
    }

    /// A connection on which nothing is sent.
    fn connect(&self) -> OwnedFd {
        let client = seqpacket();
        connect(client.as_raw_fd(), &UnixAddr::new(&self.socket).unwrap()).unwrap();
        client
    }

    /// The child that holds a connection, once there is one: it has installed one filter to
    /// wait, and a second when it had accepted.
    fn await_accepted(&self) -> Pid {
        let accepted = filters(self.zygote()).unwrap() + 2;
        until(|| {
            let mut children = children_of(self.zygote()).into_iter();
            children.find(|child| filters(*child) == Some(accepted))
        })
    }

    fn kill_a_child_at_work(&self) {
        let client = self.connect();
        let child = self.await_accepted();
        kill(child, Signal::SIGKILL).unwrap();
        assert_closed(&client);
        // Until its parent has taken note, its filters still look like those of a child at work.
        until(|| status(child, "PPid").is_none().then_some(()));
    }

    fn await_end(&mut self) -> ExitStatus {
        self.zygote.wait().unwrap()
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        // Already gone where the test was about its end.
        let _ = self.zygote.kill();
        let _ = self.zygote.wait();
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Reply, CallError> {
    let answer = ask_once(socket, PATIENCE, &wire::encode(request)?)?;
    Ok(wire::decode(&answer)?)
}

/// The example `parser_process` of this crate, which cargo builds beside its tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/parser_process");
    assert!(
        program.exists(),
        "{} is missing; `cargo build -p chancery-parser --examples` makes it",
        program.display()
    );
    program
}

fn seqpacket() -> OwnedFd {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap()
}

fn listen_at(path: &Path) -> OwnedFd {
    let listener = seqpacket();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(256).unwrap()).unwrap();
    listener
}

/// A line of `/proc/PID/status`; `None` once the process is gone.
fn status(process: Pid, field: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

fn filters(process: Pid) -> Option<u32> {
    status(process, "Seccomp_filters")
}

/// The name of the user that runs the tests; its number where it has none.
fn own_name() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| Some(Pid::from_raw(name.parse().ok()?)))
        .filter(|process| {
            status(*process, "PPid").is_some_and(|ppid| Ok(ppid) == parent.as_raw().try_into())
        })
        .collect()
}

/// Looks again and again for what will be there soon.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the other end closes, without having sent anything.
fn assert_closed(client: &OwnedFd) {
    assert_eq!(
        recv(client.as_raw_fd(), &mut [0; 16], MsgFlags::empty()),
        Ok(0)
    );
}

fn string(octets: impl Into<Vec<u8>>) -> OctetString {
    OctetString::new(octets.into()).unwrap()
}

/// A message that has two tables.
fn message() -> Request {
    let mut message = bare_signed_data();
    let content = constructed(0xa0, [primitive(0x04, bare_enveloped_data().to_der())]);
    let common::element::Content::Elements(fields) = &mut message.at(&[1, 0, 2]).content else {
        panic!("an encapContentInfo is constructed")
    };
    fields.push(content);
    Request::Message(string(message.to_ber()))
}

#[test]
fn every_kind_of_request_is_answered() {
    let parser = Parser::start(1);
    let requests = [
        message(),
        Request::Message(string(vec![0x30; MAX_MESSAGE])),
        Request::Message(string([])),
        Request::CertificationRequest(string([0xff; 100])),
    ];
    for request in &requests {
        assert_eq!(ask(&parser.socket, request).unwrap(), take_apart(request));
    }
    assert!(matches!(take_apart(&requests[0]), Reply::Tables(_)));
}

#[test]
fn many_messages_at_once_are_answered() {
    let parser = Parser::start(8);
    std::thread::scope(|scope| {
        for number in 0..200u8 {
            let socket = &parser.socket;
            // Every one has its own table.
            let length = usize::from(number);
            let mut message = bare_signed_data();
            message.at(&[1, 0, 3]).content =
                common::element::Content::Elements(vec![primitive(0x05, []); length]);
            scope.spawn(move || {
                let request = Request::Message(string(message.to_der()));
                let reply = ask(socket, &request).unwrap();
                assert_eq!(reply, take_apart(&request));
                assert!(matches!(reply, Reply::Tables(_)));
            });
        }
    });
}

#[test]
fn no_request_means_no_answer() {
    let parser = Parser::start(1);
    for packet in [
        b"not a request".to_vec(),
        vec![0x30; MAX_PACKET],
        vec![0x30; MAX_PACKET + 1],
    ] {
        let client = parser.connect();
        send(client.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
        assert_closed(&client);
        parser.assert_serves();
    }
    drop(parser.connect());
    parser.assert_serves();
}

#[test]
fn a_child_serves_once() {
    let parser = Parser::start(1);
    let first = children_of(parser.zygote());
    parser.assert_serves();
    parser.assert_serves();
    let now = children_of(parser.zygote());
    assert!(first.iter().all(|child| !now.contains(child)));
}

#[test]
fn a_child_is_shut_in() {
    let parser = Parser::start(1);
    let client = parser.connect();
    let child = parser.await_accepted();
    for process in [parser.zygote(), child] {
        assert_eq!(status(process, "NoNewPrivs"), Some(1));
        assert_eq!(status(process, "Seccomp"), Some(2));
        assert_eq!(status(process, "Threads"), Some(1));
    }
    drop(client);
}

#[test]
fn a_killed_child_costs_one_connection() {
    let parser = Parser::start(1);
    parser.kill_a_child_at_work();
    parser.await_log(&["a child died: it was killed"]);
    parser.assert_serves();
}

#[test]
fn a_silent_client_costs_one_child() {
    let parser = Parser::start(2);
    let client = parser.connect();
    parser.await_accepted();
    // The other child serves meanwhile.
    parser.assert_serves();
    assert_closed(&client);
    parser.await_log(&["a child died: it held its connection for too long"]);
    parser.assert_serves();
}

#[test]
fn repeated_deaths_make_the_zygote_execute_itself_anew() {
    let parser = Parser::start(3);
    for _ in 0..15 {
        parser.kill_a_child_at_work();
    }
    parser.assert_serves();
    parser.kill_a_child_at_work();
    parser.await_log(&["executing anew after 16 deaths"]);
    parser.await_ready();
    // More requests than children: those from before are used up, those since are replaced.
    for _ in 0..10 {
        parser.assert_serves();
    }
    until(|| (children_of(parser.zygote()).len() == 3).then_some(()));
}

#[test]
fn children_of_an_earlier_generation_end_with_the_zygote_too() {
    let mut parser = Parser::start(3);
    for _ in 0..16 {
        parser.kill_a_child_at_work();
    }
    parser.await_log(&["executing anew after 16 deaths"]);
    parser.await_ready();
    let children = children_of(parser.zygote());
    assert!(children.len() > 3, "{children:?}");
    kill(parser.zygote(), Signal::SIGTERM).unwrap();
    assert!(!parser.await_end().success());
    for child in children {
        until(|| kill(child, None).is_err().then_some(()));
    }
}

#[test]
fn a_zygote_under_siege_ends_for_its_supervisor_to_start_another() {
    let mut parser = Parser::start(1);
    let mut executions = 0;
    parser.await_log(&["ready children=1"]);
    loop {
        for _ in 0..16 {
            parser.kill_a_child_at_work();
        }
        match parser.await_log(&["ready children=1", "cannot execute itself anew"]) {
            0 => {
                parser.await_ready();
                executions += 1;
            }
            _ => break,
        }
    }
    assert!(executions > 0);
    assert_eq!(parser.await_end().code(), Some(1));
}

#[test]
fn children_end_with_the_zygote() {
    let mut parser = Parser::start(4);
    let client = parser.connect();
    parser.await_accepted();
    let children = children_of(parser.zygote());
    assert_eq!(children.len(), 4);
    kill(parser.zygote(), Signal::SIGTERM).unwrap();
    assert!(!parser.await_end().success());
    assert_closed(&client);
    for child in children {
        until(|| is_dead(child).then_some(()));
    }
}

/// Whether only an entry is left, for whoever inherited the process.
fn is_dead(process: Pid) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    !text
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[test]
fn what_is_wrong_at_start_is_said() {
    let run = |arguments: &[&str]| {
        let output = Command::new(program())
            .args(arguments)
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env("CHANCERY_LOG", "info")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, log) = run(&["--children", "none"]);
    assert_eq!(code, Some(2));
    assert!(
        log.contains("usage: chancery-parser [--children N] [--peer USER]"),
        "{log}"
    );
    let (code, log) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(log.contains("LISTEN_FDS"), "{log}");
}
