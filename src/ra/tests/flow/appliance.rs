//! Ledger, CA, parser and RA under the real supervisor, in a folder of one test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chancery_host::ipc::Channel;
use chancery_host::process::Stop;
use chancery_host::supervise::{Pids, Role, Socket, Supervisor};
use chancery_protocol::ipc::message::{Reply, Request};
use chancery_protocol::ipc::socket;
use der::asn1::OctetString;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::device::Device;
use crate::{certificates, device};

/// Far beyond anything that working roles need; only broken ones reach it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const PIN: &str = "4711-user";

pub(crate) struct Appliance {
    folder: TempDir,
    stop: Stop,
    pids: Pids,
    supervisor: Option<JoinHandle<()>>,
    ra: Channel,
}

impl Appliance {
    /// With the real parser and the right PIN, and serving.
    pub(crate) fn start() -> Self {
        Self::start_with("parser", |_| {})
    }

    /// With `parser` as the program behind `parser.parse`, and a folder changed by `prepare` after
    /// the ceremony. What a device would be told is settled: the RA has its certificates, or waits
    /// for a custodian.
    pub(crate) fn start_with(parser: &'static str, prepare: impl FnOnce(&Path)) -> Self {
        let appliance = Self::launch(parser, prepare);
        let device = Device::new(&appliance);
        eventually(|| appliance.ask(&device.message("genuine").der) != Reply::Unavailable(5));
        appliance
    }

    /// As [`Appliance::start_with`], but only as far as READY.
    pub(crate) fn launch(parser: &'static str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().unwrap();
        ceremony(folder.path());
        std::fs::write(
            folder.path().join("issued.cer"),
            device::certificate("CN=issued"),
        )
        .unwrap();
        prepare(folder.path());
        let run = folder.path().join("run");
        let role = |name: &str, program: &str, arguments: &[&str], sockets: &[&str]| Role {
            name: name.into(),
            program: std::env::current_exe().unwrap(),
            arguments: arguments.iter().map(Into::into).collect(),
            environment: vec![
                ("FLOW_PROGRAM".into(), program.into()),
                ("FLOW_FOLDER".into(), folder.path().to_str().unwrap().into()),
            ],
            sockets: sockets
                .iter()
                .map(|name| Socket::Unix {
                    name: (*name).into(),
                    path: run.join(name),
                })
                .collect(),
        };
        let config = folder.path().join("chancery.toml");
        let roles = vec![
            role("ledger", "ledger", &[], &[socket::LEDGER_APPEND_RA]),
            role("ca", "ca", &[], &[socket::CA_ENROL]),
            role("parser", parser, &[], &[socket::PARSER_PARSE]),
            role(
                "ra",
                "ra",
                &["--config", config.to_str().unwrap()],
                &[socket::RA_MESSAGE],
            ),
        ];
        let stop = Stop::new().unwrap();
        let (started, ready) = mpsc::channel();
        let supervisor = std::thread::spawn({
            let stop = stop.clone();
            move || {
                // Roles die with the thread that starts them, hence all on this one.
                let mut supervisor = Supervisor::start(roles, &stop).unwrap();
                supervisor.wait_ready(PATIENCE).unwrap();
                started.send(supervisor.pids()).unwrap();
                supervisor.run().unwrap();
            }
        });
        let pids = ready.recv().expect("the roles are not ready");
        let ra = Channel::new(run.join(socket::RA_MESSAGE), PATIENCE);
        Self {
            folder,
            stop,
            pids,
            supervisor: Some(supervisor),
            ra,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends a message to the profile `devices`.
    pub(crate) fn ask(&self, message: &[u8]) -> Reply {
        self.ask_profile("devices", message)
    }

    pub(crate) fn ask_profile(&self, profile: &str, message: &[u8]) -> Reply {
        let request = Request {
            profile: profile.into(),
            peer: "192.0.2.7:4711".into(),
            message: OctetString::new(message).unwrap(),
        };
        self.ra.call_repeatable(&request).unwrap()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.path("run").join(name)
    }

    /// Kills a role and waits for its successor's process.
    pub(crate) fn kill(&self, role: &str) {
        let before = self.pids.get(role).unwrap();
        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        self.await_successor(role, before);
    }

    pub(crate) fn pid(&self, role: &str) -> i32 {
        self.pids.get(role).unwrap()
    }

    pub(crate) fn await_successor(&self, role: &str, before: i32) {
        eventually(|| self.pids.get(role).is_some_and(|pid| pid != before));
    }

    /// Stops the roles in order and returns what the ledger was given.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.stop.request();
        self.supervisor.take().unwrap().join().unwrap();
        let events = std::fs::read_to_string(self.path("events")).unwrap();
        events.lines().map(str::to_owned).collect()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

pub(crate) fn eventually(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "it did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes token, keys and configuration, in a process of its own since the PKCS#11 module is loaded
/// once a process; then the certificates of these keys.
fn ceremony(folder: &Path) {
    std::fs::create_dir(folder.join("tokens")).unwrap();
    let softhsm = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        folder.join("tokens").display()
    );
    std::fs::write(folder.join("softhsm2.conf"), softhsm).unwrap();
    let made = Command::new(std::env::current_exe().unwrap())
        .env("FLOW_PROGRAM", "ceremony")
        .env("FLOW_FOLDER", folder)
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf"))
        .status()
        .unwrap();
    assert!(made.success());
    certificates::issue(folder);
}
