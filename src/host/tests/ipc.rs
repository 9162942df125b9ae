//! Server and channel against each other, over real sockets, in one process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use chancery_host::activation::Listener;
use chancery_host::ipc::server::{Admission, Answer, Call, Gate, Limits, Worker, serve};
use chancery_host::ipc::{CallError, Channel, ask_once};
use chancery_host::process::{Stop, current_uid};
use chancery_protocol::wire::{MAX_PACKET, Secret};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    listen, recv, send, sendmsg, socket,
};
use proptest::prelude::*;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const LONG: Duration = Duration::from_secs(30);

const LIMITS: Limits = Limits {
    connections: 16,
    queue: 16,
    idle: LONG,
};

fn seqpacket() -> OwnedFd {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap()
}

fn listener(path: &Path) -> Listener {
    let fd = seqpacket();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(64).unwrap()).unwrap();
    Listener::new(path.file_name().unwrap().to_str().unwrap(), fd).unwrap()
}

fn raw_client(path: &Path) -> OwnedFd {
    let fd = seqpacket();
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    fd
}

/// Waits until something happens on `fd`.
fn wait_for(fd: &impl AsFd) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::try_from(LONG).unwrap()), Ok(1));
}

/// A server whose every worker is the same function of the call.
struct Server {
    folder: tempfile::TempDir,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

struct Function<F>(Arc<F>);

impl<F: Fn(Call<'_>) -> Answer + Send + Sync> Worker for Function<F> {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        (self.0)(call)
    }
}

impl Server {
    fn new<F>(workers: usize, limits: Limits, function: F) -> Self
    where
        F: Fn(Call<'_>) -> Answer + Send + Sync + 'static,
    {
        Self::admitting(vec![current_uid()], workers, limits, function)
    }

    fn admitting<F>(uids: Vec<u32>, workers: usize, limits: Limits, function: F) -> Self
    where
        F: Fn(Call<'_>) -> Answer + Send + Sync + 'static,
    {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self {
            folder,
            stop: Stop::new().unwrap(),
            thread: None,
        };
        let gates = ["one", "two"]
            .map(|name| Gate {
                listener: listener(&server.path(name)),
                admitted: Admission::AnyOf(uids.clone()),
            })
            .into();
        server.thread = Some(run(gates, workers, limits, &server.stop, function));
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn channel(&self) -> Channel {
        Channel::new(self.path("one"), LONG)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn run<F>(gates: Vec<Gate>, workers: usize, limits: Limits, stop: &Stop, f: F) -> JoinHandle<()>
where
    F: Fn(Call<'_>) -> Answer + Send + Sync + 'static,
{
    let function = Arc::new(f);
    let workers = (0..workers)
        .map(|_| Box::new(Function(Arc::clone(&function))) as Box<dyn Worker>)
        .collect();
    let stop = stop.clone();
    std::thread::spawn(move || serve(gates, workers, limits, &stop).unwrap())
}

fn echo(call: Call<'_>) -> Answer {
    Answer::Now(Zeroizing::new(call.packet.to_vec()))
}

fn text(value: &str) -> Secret {
    Secret::new(value.as_bytes().to_vec())
}

fn ask(channel: &Channel, value: &str) -> Result<String, CallError> {
    let answer: Secret = channel.call(&text(value))?;
    Ok(String::from_utf8(answer.expose().to_vec()).unwrap())
}

#[test]
fn a_worker_sees_the_socket_and_the_peer() {
    let server = Server::new(1, LIMITS, |call| {
        let seen = format!("{} {}", call.socket, call.peer);
        Answer::Now(Zeroizing::new(seen.into_bytes()))
    });
    for name in ["one", "two"] {
        let answer = ask_once(&server.path(name), LONG, b"?").unwrap();
        let expected = format!("{name} uid={} pid={}", current_uid(), std::process::id());
        assert_eq!(answer, expected.as_bytes());
    }
}

#[test]
fn a_peer_that_is_not_admitted_gets_no_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = Server::admitting(vec![current_uid() + 1], 1, LIMITS, move |call| {
        counter.fetch_add(1, Ordering::SeqCst);
        echo(call)
    });
    let error = ask_once(&server.path("one"), LONG, b"?").unwrap_err();
    assert!(
        matches!(error, CallError::Closed | CallError::Unavailable(_)),
        "{error}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn packets_up_to_the_limit_pass_and_larger_ones_close_their_connection_only() {
    let server = Server::new(1, LIMITS, echo);
    let other = raw_client(&server.path("one"));
    let largest = vec![7; MAX_PACKET];
    assert_eq!(
        ask_once(&server.path("one"), LONG, &largest).unwrap(),
        largest
    );

    let client = raw_client(&server.path("one"));
    send(
        client.as_raw_fd(),
        &vec![7; MAX_PACKET + 1],
        MsgFlags::empty(),
    )
    .unwrap();
    assert_eq!(
        recv(client.as_raw_fd(), &mut [0; 8], MsgFlags::empty()),
        Ok(0)
    );

    send(other.as_raw_fd(), b"still here", MsgFlags::empty()).unwrap();
    assert_eq!(
        recv(other.as_raw_fd(), &mut [0; 32], MsgFlags::empty()),
        Ok(10)
    );
}

#[test]
fn an_empty_packet_closes_the_connection() {
    let server = Server::new(1, LIMITS, echo);
    let client = raw_client(&server.path("one"));
    send(client.as_raw_fd(), b"", MsgFlags::empty()).unwrap();
    assert_eq!(
        recv(client.as_raw_fd(), &mut [0; 8], MsgFlags::empty()),
        Ok(0)
    );
}

#[test]
fn descriptors_passed_along_are_closed_unseen() {
    let server = Server::new(1, LIMITS, echo);
    let client = raw_client(&server.path("one"));
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let rights = [writer.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let data = [IoSlice::new(b"take this")];
    sendmsg::<()>(client.as_raw_fd(), &data, &control, MsgFlags::empty(), None).unwrap();
    drop(writer);
    assert_eq!(
        recv(client.as_raw_fd(), &mut [0; 32], MsgFlags::empty()),
        Ok(9)
    );
    // No writer is left anywhere: end of file instead of waiting.
    assert_eq!(nix::unistd::read(&reader, &mut [0; 1]), Ok(0));
}

#[test]
fn a_parked_reply_waits_for_its_moment_and_costs_no_worker() {
    let (parked, is_parked) = mpsc::channel();
    let server = Server::new(1, LIMITS, move |call| {
        if call.packet.ends_with(b"later") {
            let moment = Instant::now() + Duration::from_secs(3);
            parked.send(moment).unwrap();
            return Answer::At(moment, Zeroizing::new(call.packet.to_vec()));
        }
        echo(call)
    });
    let (order, answered) = mpsc::channel();
    std::thread::scope(|scope| {
        let late = order.clone();
        let server = &server;
        scope.spawn(move || late.send(ask(&server.channel(), "later").unwrap()).unwrap());
        let moment = is_parked.recv().unwrap();
        order.send(ask(&server.channel(), "now").unwrap()).unwrap();
        assert_eq!(answered.recv().unwrap(), "now");
        assert_eq!(answered.recv().unwrap(), "later");
        assert!(Instant::now() >= moment);
    });
}

#[test]
fn a_stop_delivers_what_was_taken_and_resets_what_was_not() {
    let (parked, is_parked) = mpsc::channel();
    let server = Server::new(1, LIMITS, move |call| {
        parked.send(()).unwrap();
        let moment = Instant::now() + Duration::from_millis(200);
        Answer::At(moment, Zeroizing::new(call.packet.to_vec()))
    });
    let path = server.path("one");
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| ask(&server.channel(), "taken"));
        is_parked.recv().unwrap();
        server.stop.request();
        assert_eq!(taken.join().unwrap().unwrap(), "taken");
    });
    drop(server);
    assert!(matches!(
        ask_once(&path, LONG, b"?"),
        Err(CallError::Unavailable(_))
    ));
}

#[test]
fn a_request_that_nobody_read_is_known_to_have_had_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let listener = listener(&path);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask_once(&path, LONG, b"?"));
        wait_for(&listener);
        drop(listener);
        assert!(matches!(
            asked.join().unwrap(),
            Err(CallError::Unavailable(_))
        ));
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = Server::new(
        1,
        Limits {
            connections: 1,
            ..LIMITS
        },
        echo,
    );
    let first = raw_client(&server.path("one"));
    send(first.as_raw_fd(), b"1", MsgFlags::empty()).unwrap();
    assert_eq!(
        recv(first.as_raw_fd(), &mut [0; 8], MsgFlags::empty()),
        Ok(1)
    );
    let second = raw_client(&server.path("one"));
    send(second.as_raw_fd(), b"2", MsgFlags::empty()).unwrap();
    let mut fds = [PollFd::new(second.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 100u16), Ok(0));
    drop(first);
    assert_eq!(
        recv(second.as_raw_fd(), &mut [0; 8], MsgFlags::empty()),
        Ok(1)
    );
}

#[test]
fn an_idle_connection_is_closed_and_a_channel_opens_another() {
    let limits = Limits {
        connections: 1,
        idle: Duration::from_millis(20),
        ..LIMITS
    };
    let server = Server::new(1, limits, echo);
    let channel = server.channel();
    assert_eq!(ask(&channel, "a").unwrap(), "a");
    let idle = raw_client(&server.path("one"));
    wait_for(&idle);
    assert_eq!(
        recv(idle.as_raw_fd(), &mut [0; 8], MsgFlags::empty()),
        Ok(0)
    );
    assert_eq!(ask(&channel, "b").unwrap(), "b");
}

#[test]
fn a_channel_survives_the_restart_of_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let channel = Channel::new(&path, LONG);
    for round in 0..3 {
        let stop = Stop::new().unwrap();
        let admitted = Admission::AnyOf(vec![current_uid()]);
        let gate = Gate {
            listener: listener(&path),
            admitted,
        };
        let server = run(vec![gate], 1, LIMITS, &stop, echo);
        // One try each: the connection left over from the last round is seen to be dead.
        assert_eq!(
            ask(&channel, &round.to_string()).unwrap(),
            round.to_string()
        );
        stop.request();
        server.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_repeatable_call_waits_for_a_server_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let channel = Channel::new(&path, LONG);
    let stop = Stop::new().unwrap();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| channel.call_repeatable::<_, Secret>(&text("again")));
        let once = ask(&channel, "once").unwrap_err();
        assert!(matches!(once, CallError::Unavailable(_)), "{once}");
        let admitted = Admission::AnyOf(vec![current_uid()]);
        let gate = Gate {
            listener: listener(&path),
            admitted,
        };
        let server = run(vec![gate], 1, LIMITS, &stop, echo);
        assert_eq!(asked.join().unwrap().unwrap().expose(), b"again");
        stop.request();
        server.join().unwrap();
    });
}

#[test]
fn only_a_repeatable_call_repeats_what_was_closed_without_an_answer() {
    let calls = AtomicUsize::new(0);
    let server = Server::new(1, LIMITS, move |call| {
        if calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            Answer::Close
        } else {
            echo(call)
        }
    });
    let channel = server.channel();
    assert!(matches!(ask(&channel, "x"), Err(CallError::Closed)));
    assert_eq!(ask(&channel, "x").unwrap(), "x");
    let answer: Secret = channel.call_repeatable(&text("y")).unwrap();
    assert_eq!(answer.expose(), b"y");
}

#[test]
fn a_late_answer_is_never_taken_for_the_next_one() {
    let server = Server::new(1, LIMITS, |call| {
        if call.packet.ends_with(b"slow") {
            let moment = Instant::now() + Duration::from_millis(2500);
            return Answer::At(moment, Zeroizing::new(call.packet.to_vec()));
        }
        echo(call)
    });
    let hasty = Channel::new(server.path("one"), Duration::from_secs(2));
    assert!(matches!(ask(&hasty, "slow"), Err(CallError::Deadline)));
    // On the same connection the slow answer would be the first to come.
    assert_eq!(ask(&hasty, "quick").unwrap(), "quick");
}

#[test]
fn an_answer_that_is_no_packet_is_an_error_and_its_connection_is_dropped() {
    let server = Server::new(1, LIMITS, |call| match call.packet.ends_with(b"bad") {
        true => Answer::Now(Zeroizing::new(b"junk".to_vec())),
        false => echo(call),
    });
    let channel = server.channel();
    assert!(matches!(ask(&channel, "bad"), Err(CallError::Wire(_))));
    assert_eq!(ask(&channel, "good").unwrap(), "good");
}

#[test]
fn a_short_queue_answers_everyone_with_their_own() {
    let limits = Limits {
        queue: 1,
        connections: 6,
        ..LIMITS
    };
    let server = Server::new(2, limits, echo);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..100 {
                    // A connection each, so that more clients than connections get their turn.
                    let question = format!("{client}/{round}");
                    let answer = ask_once(&server.path("one"), LONG, question.as_bytes());
                    assert_eq!(answer.unwrap(), question.as_bytes());
                }
            });
        }
    });
}

#[test]
fn threads_share_a_channel() {
    let server = Server::new(4, LIMITS, echo);
    let channel = server.channel();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let channel = &channel;
            scope.spawn(move || {
                for round in 0..100 {
                    let question = format!("{client}/{round}");
                    assert_eq!(ask(channel, &question).unwrap(), question);
                }
            });
        }
    });
}

#[test]
fn a_server_without_a_worker_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let admitted = Admission::AnyOf(vec![current_uid()]);
    let gate = Gate {
        listener: listener(&folder.path().join("one")),
        admitted,
    };
    assert!(serve(vec![gate], Vec::new(), LIMITS, &Stop::new().unwrap()).is_err());
}

#[test]
fn any_sequence_of_packets_leaves_the_server_serving() {
    let server = Server::new(2, LIMITS, |call| match call.packet.first() {
        Some(0) => Answer::Close,
        Some(1) => Answer::At(Instant::now(), Zeroizing::new(vec![1])),
        Some(2) => Answer::Now(Zeroizing::new(Vec::new())),
        _ => echo(call),
    });
    let packets = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..8);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    runner
        .run(&packets, |packets| {
            let client = raw_client(&server.path("one"));
            for packet in packets {
                // Without reading: a hostile peer keeps to no order.
                let _ = send(client.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
            }
            drop(client);
            prop_assert_eq!(
                ask_once(&server.path("two"), LONG, b"alive?").unwrap(),
                b"alive?"
            );
            Ok(())
        })
        .unwrap();
}
