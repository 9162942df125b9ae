//! An appliance of its own for each test: tokens, ports, state and processes in a temporary
//! folder, stopped by its own pid.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chancery_client::{
    CaCertificates, CertRep, Certificate, ClientKey, CsrBuilder, Envelope, HttpResponse, KeyKind,
    Message, MessageBuilder, Server, Signer, Transport,
};
use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::scep::{FailInfo, PkiStatus};
use chancery_protocol::wire::Secret;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Generous: two cores run many appliances at once.
const PATIENCE: Duration = Duration::from_secs(90);

pub const CHANCERY: &str = env!("CARGO_BIN_EXE_chancery");

pub struct Appliance {
    pub folder: TempDir,
    serving: Option<Serving>,
}

struct Serving {
    child: Child,
    facts: BTreeMap<String, String>,
    log: Arc<Mutex<String>>,
}

impl Appliance {
    /// A demo appliance on a free port.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments to quickstart.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("chancery-test")
            .tempdir()
            .unwrap();
        let mut appliance = Self {
            folder,
            serving: None,
        };
        appliance.serve(arguments);
        appliance
    }

    /// A demo appliance whose configuration is changed before it serves the test.
    pub fn start_edited(edit: impl FnOnce(&mut toml::Table)) -> Self {
        let mut appliance = Self::start();
        appliance.edit(edit);
        appliance
    }

    /// Stops, changes the configuration, and serves again.
    pub fn edit(&mut self, edit: impl FnOnce(&mut toml::Table)) {
        self.stop();
        let file = self.dir().join("chancery.toml");
        let mut table: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        edit(&mut table);
        fs::write(&file, table.to_string()).unwrap();
        self.serve(&[]);
    }

    pub fn restart(&mut self) {
        self.stop();
        self.serve(&[]);
    }

    fn serve(&mut self, arguments: &[&str]) {
        let mut child = Command::new(CHANCERY)
            .args(["quickstart", "--listen", "127.0.0.1:0", "--dir"])
            .arg(self.dir())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = follow(child.stderr.take().unwrap());
        let mut facts = BTreeMap::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let (key, value) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            facts.insert(key.to_owned(), value.to_owned());
            if key == "ready" {
                self.serving = Some(Serving { child, facts, log });
                return;
            }
        }
        let status = child.wait().unwrap();
        panic!(
            "the appliance ended with {status} before it was ready:\n{}",
            log.lock().unwrap()
        );
    }

    /// Stops as a terminal would, and waits.
    pub fn stop(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            let pid = Pid::from_raw(i32::try_from(serving.child.id()).unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
            serving.child.wait().unwrap();
        }
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("the appliance serves")
    }

    /// A line of quickstart's standard output.
    pub fn fact(&self, key: &str) -> &str {
        &self.serving().facts[key]
    }

    pub fn url(&self) -> String {
        self.fact("url").to_owned()
    }

    /// The URL of another profile than `devices`.
    pub fn url_of(&self, profile: &str) -> String {
        self.url()
            .replace("/scep/devices", &format!("/scep/{profile}"))
    }

    pub fn server(&self) -> Server {
        Server::new(self.url().parse().unwrap())
    }

    /// `host:port` of the HTTP listener.
    pub fn address(&self) -> String {
        self.url().split('/').nth(2).unwrap().to_owned()
    }

    /// What the roles have logged so far.
    pub fn log(&self) -> String {
        self.serving().log.lock().unwrap().clone()
    }

    /// Runs `chancery --dir DIR ...`.
    pub fn chancery(&self, arguments: &[&str]) -> Output {
        Command::new(CHANCERY)
            .arg("--dir")
            .arg(self.dir())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs it and returns its standard output; it must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.chancery(arguments);
        assert!(
            output.status.success(),
            "chancery {arguments:?}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Mints a challenge for `devices`.
    pub fn challenge(&self, arguments: &[&str]) -> String {
        let mut all = vec!["challenge", "new", "--profile", "devices"];
        all.extend(arguments);
        self.must(&all).trim_end().to_owned()
    }

    /// The process of a role.
    pub fn pid(&self, role: &str) -> Option<Pid> {
        self.pids(role).into_iter().min()
    }

    /// The processes of a role that are the supervisor's own children.
    pub fn pids(&self, role: &str) -> Vec<Pid> {
        children(self.serving().child.id(), &format!("chancery-{role}"))
    }

    /// Kills a role.
    pub fn kill(&self, role: &str) {
        kill(self.pid(role).expect("the role runs"), Signal::SIGKILL).unwrap();
    }

    /// The rows of a query on the ledger's database, first column as text.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database =
            rusqlite::Connection::open_with_flags(self.dir().join("ledger.db"), flags).unwrap();
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// The audit log.
    pub fn records(&self) -> Vec<chancery_protocol::audit::Record> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database =
            rusqlite::Connection::open_with_flags(self.dir().join("ledger.db"), flags).unwrap();
        let mut statement = database
            .prepare("SELECT record FROM records ORDER BY seq")
            .unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, Vec<u8>>(0))
            .unwrap();
        rows.map(|row| chancery_protocol::wire::decode(&row.unwrap()).unwrap())
            .collect()
    }

    /// Reasons of the refusals that have a record each, oldest first.
    pub fn refusals(&self) -> Vec<String> {
        self.records()
            .iter()
            .filter(|record| record.event.kind == chancery_protocol::audit::Kind::RequestRefused)
            .map(|record| record.event.value("reason").unwrap_or_default().to_owned())
            .collect()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving
            && thread::panicking()
        {
            eprintln!("--- log of the appliance\n{}", serving.log.lock().unwrap());
        }
        self.stop();
    }
}

/// Children of a process whose program begins with `name` (the kernel keeps 15 characters).
pub fn children(parent: u32, name: &str) -> Vec<Pid> {
    let name: String = name.chars().take(15).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((head, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let comm = head
            .split_once('(')
            .map(|(_, comm)| comm)
            .unwrap_or_default();
        let ppid = rest
            .split_whitespace()
            .nth(1)
            .and_then(|text| text.parse::<u32>().ok());
        if comm == name && ppid == Some(parent) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn follow(mut stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let written = Arc::clone(&log);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            written
                .lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    log
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A device with a key, which can enrol again and again with the same.
pub struct Device {
    pub key: ClientKey,
    pub subject: DistinguishedName,
    pub sans: Vec<GeneralName>,
    pub certificate: Certificate,
}

impl Device {
    pub fn new(subject: &str, sans: &[&str]) -> Self {
        let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
        let subject = DistinguishedName::parse(subject).unwrap();
        let certificate = Signer::self_signed(&key, &subject, SystemTime::now())
            .unwrap()
            .certificate;
        let sans = sans
            .iter()
            .map(|san| GeneralName::parse(san).unwrap())
            .collect();
        Self {
            key,
            subject,
            sans,
            certificate,
        }
    }

    pub fn signer(&self) -> Signer<'_> {
        Signer {
            key: &self.key,
            certificate: self.certificate.clone(),
        }
    }

    pub fn csr(&self, challenge: &str) -> Vec<u8> {
        let challenge = Secret::new(challenge.as_bytes().to_vec());
        let csr = CsrBuilder::new(&self.key, &self.subject)
            .sans(&self.sans)
            .challenge(&challenge);
        csr.build().unwrap().to_vec()
    }

    /// A correct PKCSReq for the server's RA.
    pub fn message(&self, ca: &CaCertificates, challenge: &str) -> Message {
        let signer = self.signer();
        let envelope = Envelope::to(ca.encryption().expect("an RA certificate"));
        MessageBuilder::new(&signer)
            .build(&envelope, &self.csr(challenge))
            .unwrap()
    }

    /// Sends a message and takes the reply apart.
    pub fn send(&self, server: &Server, message: &[u8]) -> Reply {
        let response = block_on(server.pki_operation(Transport::Post, message)).unwrap();
        self.read(&response)
    }

    pub fn read(&self, response: &HttpResponse) -> Reply {
        match response.status {
            200 => {
                let reply = CertRep::read(&response.body).unwrap();
                let certificates = reply.open(&self.certificate, &self.key).unwrap();
                match reply.status {
                    PkiStatus::Success => Reply::Issued(certificates[0].as_der().to_vec()),
                    PkiStatus::Failure => Reply::Refused(reply.fail_info.unwrap()),
                    PkiStatus::Pending => panic!("nothing is ever pending yet"),
                }
            }
            status => {
                assert!(response.body.is_empty(), "an error answer has no body");
                Reply::Http(status)
            }
        }
    }

    /// Enrols once with a challenge.
    pub fn enrol(&self, server: &Server, challenge: &str) -> Reply {
        let ca = block_on(server.get_ca_cert()).unwrap();
        self.send(server, &self.message(&ca, challenge).der)
    }
}

/// What a device got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Issued(Vec<u8>),
    Refused(FailInfo),
    Http(u16),
}

impl Reply {
    pub fn certificate(self) -> Vec<u8> {
        match self {
            Self::Issued(certificate) => certificate,
            other => panic!("no certificate but {other:?}"),
        }
    }
}

/// Runs a foreign program in a folder; it must succeed.
pub fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make test` installs it"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}",
        output.status
    );
    text
}

pub fn pem(label: &str, der: &[u8]) -> String {
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap()
}
