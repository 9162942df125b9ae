//! A ledger in a folder of its own, supervised as `chancery run` does.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use chancery_host::ipc::Channel;
use chancery_host::process::Stop;
use chancery_host::supervise::{Pids, Role, Socket, Supervisor};
use chancery_protocol::audit::Record;
use chancery_protocol::ipc::socket;
use chancery_protocol::wire;
use rusqlite::{Connection, OpenFlags};

/// No test waits for this long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SOCKETS: [&str; 5] = [
    socket::LEDGER_STORE,
    socket::LEDGER_PUBLIC,
    socket::LEDGER_QUERY,
    socket::LEDGER_APPEND_RA,
    socket::LEDGER_APPEND_FRONT,
];

pub(crate) struct Appliance {
    folder: tempfile::TempDir,
}

impl Appliance {
    /// A configuration, and no database yet. The keys in it exist nowhere: the ledger asks for none.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chancery.toml"), configuration()).unwrap();
        std::fs::write(folder.path().join("transcript"), "transcript").unwrap();
        Self { folder }
    }

    /// With an empty ledger.
    pub(crate) fn created() -> Self {
        let appliance = Self::new();
        assert!(appliance.create().success());
        appliance
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `chancery-ledger --create`.
    pub(crate) fn create(&self) -> ExitStatus {
        Command::new(std::env::current_exe().unwrap())
            .arg("--create")
            .arg("--config")
            .arg(self.path("chancery.toml"))
            .arg("--transcript")
            .arg(self.path("transcript"))
            .stderr(Stdio::null())
            .status()
            .unwrap()
    }

    pub(crate) fn role(&self) -> Role {
        let sockets = SOCKETS.map(|name| Socket::Unix {
            name: name.into(),
            path: self.path("run").join(name),
        });
        Role {
            name: "ledger".into(),
            program: std::env::current_exe().unwrap(),
            arguments: vec!["--config".into(), self.path("chancery.toml").into()],
            environment: vec![("CHANCERY_LOG".into(), "off".into())],
            sockets: sockets.into(),
        }
    }

    pub(crate) fn channel(&self, name: &str) -> Channel {
        Channel::new(self.path("run").join(name), PATIENCE)
    }

    /// Serves while `test` runs, then stops the ledger as systemd would.
    pub(crate) fn serve(&self, test: impl FnOnce(&Pids) + Send) {
        let stop = Stop::new().unwrap();
        let mut supervisor = Supervisor::start(vec![self.role()], &stop).unwrap();
        supervisor.wait_ready(PATIENCE).unwrap();
        let pids = supervisor.pids();
        std::thread::scope(|scope| {
            let tester = scope.spawn(|| {
                // Also when the test fails, or its failure would never be seen.
                let _end = RequestOnDrop(&stop);
                test(&pids);
            });
            // A role dies with the thread that started it: this one.
            supervisor.run().unwrap();
            tester.join().unwrap();
        });
    }

    /// Every audit record.
    pub(crate) fn records(&self) -> Vec<Record> {
        let connection =
            Connection::open_with_flags(self.path("ledger.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)
                .unwrap();
        let mut statement = connection
            .prepare("SELECT record FROM records ORDER BY seq")
            .unwrap();
        statement
            .query_map([], |row| row.get::<_, Vec<u8>>(0))
            .unwrap()
            .map(|record| wire::decode(&record.unwrap()).unwrap())
            .collect()
    }
}

struct RequestOnDrop<'a>(&'a Stop);

impl Drop for RequestOnDrop<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Ends a process at once, as a crash would.
pub(crate) fn kill(pid: i32) {
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("kill -KILL {pid}"))
        .status()
        .unwrap();
    assert!(status.success());
}

pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

fn configuration() -> String {
    let mut text = String::from(
        "[appliance]\nname = \"test/node\"\ndevelopment = true\nrun = \"run\"\nstate = \"state\"\n\
         journal = \"journal\"\n[ra]\ndecryption_key = \"decrypt\"\nsigning_key = \"respond\"\n\
         [challenge]\nkey = \"seal\"\n[audit]\nkey = \"audit\"\n[ledger]\ndatabase = \"ledger.db\"\n\
         [[ca]]\nid = \"issuing\"\ncertificate = \"ca.pem\"\nkey = \"issue\"\n\
         [[profile]]\nname = \"devices\"\nca = \"issuing\"\n",
    );
    for token in ["ra", "ca"] {
        text.push_str(&format!(
            "[[token]]\nname = \"{token}\"\nmodule = \"none.so\"\nlabel = \"{token}\"\n\
             pin_file = \"./pin\"\n"
        ));
    }
    let keys = [
        ("decrypt", "ra"),
        ("respond", "ra"),
        ("seal", "ca"),
        ("audit", "ca"),
        ("issue", "ca"),
    ];
    for (id, (name, token)) in keys.iter().enumerate() {
        text.push_str(&format!(
            "[[key]]\nname = \"{name}\"\ntoken = \"{token}\"\nid = \"{id:02x}\"\n\
             public_key = \"MAA=\"\ncheck = \"{}\"\n",
            "00".repeat(32)
        ));
    }
    text
}
