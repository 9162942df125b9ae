//! What the tests from outside share: a running front, the real IPC server behind it, and an HTTP
//! client that writes exactly what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use chancery_front::serve::{Deadlines, Patience, Settings, serve};
use chancery_host::activation::Listener;
use chancery_host::ipc::server::{self, Admission, Answer, Call, Gate, Limits, Worker};
use chancery_host::process::{Stop, current_uid};
use chancery_protocol::ipc::{message, public, socket};
use chancery_protocol::wire;
use der::asn1::OctetString;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen};
use tempfile::TempDir;

/// For whatever must happen in the end: no test measures it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A role that answers packets with a function.
pub(crate) struct Role {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

struct Handler<F>(Arc<F>);

impl<F: Fn(&[u8]) -> Answer + Send + Sync> Worker for Handler<F> {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        (self.0)(call.packet)
    }
}

impl Role {
    pub(crate) fn start<F>(path: &Path, name: &str, workers: usize, answer: F) -> Self
    where
        F: Fn(&[u8]) -> Answer + Send + Sync + 'static,
    {
        let fd = nix::sys::socket::socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let _ = std::fs::remove_file(path);
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            &UnixAddr::new(path).unwrap(),
        )
        .unwrap();
        listen(&fd, Backlog::new(16).unwrap()).unwrap();
        let gate = Gate {
            listener: Listener::new(name, fd).unwrap(),
            admitted: Admission::AnyOf(vec![current_uid()]),
        };
        let answer = Arc::new(answer);
        let workers = (0..workers)
            .map(|_| Box::new(Handler(Arc::clone(&answer))) as Box<dyn Worker>)
            .collect();
        let limits = Limits {
            connections: 64,
            queue: 64,
            idle: PATIENCE,
        };
        let stop = Stop::new().unwrap();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || server::serve(vec![gate], workers, limits, &stop).unwrap()
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.stop.request();
        let joined = self.thread.take().unwrap().join();
        assert!(joined.is_ok() || std::thread::panicking());
    }
}

pub(crate) fn packet<T: der::Encode>(value: &T) -> Answer {
    Answer::Now(wire::encode(value).unwrap())
}

/// An ra that answers each message with a function.
pub(crate) fn ra<F>(folder: &Path, workers: usize, answer: F) -> Role
where
    F: Fn(message::Request) -> message::Reply + Send + Sync + 'static,
{
    Role::start(
        &folder.join(socket::RA_MESSAGE),
        socket::RA_MESSAGE,
        workers,
        move |octets| packet(&answer(wire::decode(octets).unwrap())),
    )
}

pub(crate) fn cert_rep(octets: &[u8]) -> message::Reply {
    message::Reply::CertRep(OctetString::new(octets).unwrap())
}

/// An ra that returns every message as its own CertRep, and remembers what it was asked.
pub(crate) fn echo(folder: &Path) -> (Role, Arc<Mutex<Vec<message::Request>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let role = ra(folder, 4, move |request| {
        let reply = message::Reply::CertRep(request.message.clone());
        seen.lock().unwrap().push(request);
        reply
    });
    (role, asked)
}

/// A ledger that has published one GetCACert answer, for profile `devices`.
pub(crate) fn ledger(folder: &Path, content: &'static [u8]) -> Role {
    Role::start(
        &folder.join(socket::LEDGER_PUBLIC),
        socket::LEDGER_PUBLIC,
        1,
        move |octets| {
            let request: public::Request = wire::decode(octets).unwrap();
            packet(&if request.name == public::cacert("devices") {
                public::Reply::Blob(public::Blob {
                    media_type: "application/x-x509-ca-ra-cert".into(),
                    content: OctetString::new(content).unwrap(),
                })
            } else {
                public::Reply::Absent(der::asn1::Null)
            })
        },
    )
}

/// A running front and the folder of its sockets.
pub(crate) struct Front {
    folder: TempDir,
    pub(crate) address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Generous limits but for those that `change` sets.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let mut settings = Settings {
            profiles: vec!["devices".into(), "legacy".into()],
            ra: path(socket::RA_MESSAGE),
            public: path(socket::LEDGER_PUBLIC),
            connections: 100,
            per_peer: 100,
            calls: 8,
            queue: 8,
            patience: Patience {
                head: PATIENCE,
                body: PATIENCE,
                idle: PATIENCE,
                write: PATIENCE,
            },
            deadlines: Deadlines {
                queue: PATIENCE,
                call: PATIENCE,
            },
            grace: PATIENCE,
        };
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::new().unwrap();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap();
                runtime
                    .block_on(serve(vec![listener], settings, &stop))
                    .unwrap();
                // A call that nobody answers must not keep the test from ending.
                runtime.shutdown_background();
            }
        });
        Self {
            folder,
            address,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        self.connect().ask(request)
    }

    /// Asks for a stop without waiting for it.
    pub(crate) fn request_stop(&self) {
        self.stop.request();
    }

    /// Waits until serving has ended.
    pub(crate) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking());
        }
    }
}

/// An HTTP response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(octets.as_ref()).unwrap();
    }

    /// Like `send`, for a server that may have had enough already: whether it still takes octets.
    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> bool {
        self.0.get_mut().write_all(octets.as_ref()).is_ok()
    }

    pub(crate) fn finish(&mut self) {
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }

    pub(crate) fn response(&mut self) -> Response {
        self.try_response().expect("the connection was closed")
    }

    /// `None` if the server closes instead of answering.
    pub(crate) fn try_response(&mut self) -> Option<Response> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no response: {error}"),
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let status_line = lines.remove(0);
        let headers: Vec<(String, String)> = lines
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut response = Response {
            version: status_line[..8].to_owned(),
            status: status_line[9..12].parse().unwrap(),
            headers,
            body: Vec::new(),
        };
        if response.status != 100 {
            let length = response.header("content-length").unwrap_or("0");
            response.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut response.body).unwrap();
        }
        Some(response)
    }

    /// Whether the server has nothing more to say: waits for its end of the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut octet = [0];
        match self.0.read(&mut octet) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub(crate) const POST: &str = "POST /scep/devices?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n";

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    let head = format!("{POST}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
