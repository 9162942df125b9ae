//! A demo appliance: made and served by `chancery quickstart`, stopped and waited for on drop.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chancery_config::Config;
use chancery_host::ipc::Channel;
use chancery_protocol::ipc::operator::{NewChallenge, Reply, Request};
use chancery_protocol::ipc::socket;
use chancery_protocol::wire::Secret;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Failure;

/// How long the CA may take to mint a challenge.
const DEADLINE: Duration = Duration::from_secs(30);

/// Lines of the log that are shown after a failure.
const LOG_END: usize = 30;

/// A serving appliance.
pub(crate) struct Appliance {
    child: Child,
    log: PathBuf,
    facts: BTreeMap<String, String>,
    config: Config,
    operator: Channel,
}

impl Appliance {
    /// Makes one in `folder` on a free port and waits until it serves.
    pub(crate) fn start(programs: &Path, folder: &Path) -> Result<Self, Failure> {
        let dir = folder.join("a");
        let log = folder.join("log");
        let program = programs.join("chancery");
        let mut child = Command::new(&program)
            .args(["quickstart", "--listen", "127.0.0.1:0", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|error| format!("{}: {error}; build it first", program.display()))?;
        let facts = match facts(&mut child) {
            Ok(facts) => facts,
            Err(cause) => {
                stop(&mut child);
                return Err(format!("no appliance: {cause}\n{}", end_of(&log)).into());
            }
        };
        match Config::load(&dir.join("chancery.toml")) {
            Ok(config) => Ok(Self {
                operator: Channel::new(config.socket(socket::CA_OPERATOR), DEADLINE),
                child,
                log,
                facts,
                config,
            }),
            Err(error) => {
                stop(&mut child);
                Err(error.into())
            }
        }
    }

    /// Where its demo profile is served.
    pub(crate) fn url(&self) -> &str {
        self.facts.get("url").map_or("", String::as_str)
    }

    /// The process that supervises its roles.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The PKCS#11 module of its tokens.
    pub(crate) fn module(&self) -> Result<PathBuf, Failure> {
        let token = self.config.tokens.first().ok_or("no token is configured")?;
        Ok(token.module.clone())
    }

    /// Mints a challenge as the command line does, over the operator's socket.
    pub(crate) fn mint(&self, asked: NewChallenge) -> Result<Secret, Failure> {
        match self.operator.call(&Request::NewChallenge(asked)) {
            Ok(Reply::Challenge(challenge)) => Ok(challenge.handle),
            Ok(Reply::Refused(cause) | Reply::Unavailable(cause) | Reply::Failed(cause)) => {
                Err(format!("no challenge: {cause}").into())
            }
            Ok(Reply::Status(_)) => Err("no challenge: the ca answered another question".into()),
            Err(error) => Err(format!("no challenge: {error}").into()),
        }
    }

    /// The last lines of what its processes have logged.
    pub(crate) fn log_end(&self) -> String {
        end_of(&self.log)
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// The lines `key value` of its standard output, up to `ready`.
fn facts(child: &mut Child) -> Result<BTreeMap<String, String>, Failure> {
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let mut facts = BTreeMap::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let (key, value) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        if key == "ready" {
            return Ok(facts);
        }
        facts.insert(key.to_owned(), value.to_owned());
    }
    Err("it ended before it was ready".into())
}

/// Stops it as a terminal would, and waits for its end.
fn stop(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended already; it has not been waited for, so the number is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if let Err(error) = child.wait() {
        eprintln!("bench: the appliance's end was not seen: {error}");
    }
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(LOG_END);
    lines.get(start..).unwrap_or_default().join("\n")
}
