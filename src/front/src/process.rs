//! The process `chancery-front`: configuration, sockets, sandbox, service, in this order.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chancery_config::{Config, ConfigError};
use chancery_host::activation::{ActivationError, Listeners};
use chancery_host::ipc::{CallError, Channel};
use chancery_host::process::{self, Stop};
use chancery_host::sandbox::{self, Confinement, Profile, SandboxError};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::ipc::{append, socket};
use chancery_protocol::wire::{Id, Octets};
use tokio::runtime::{Builder, Runtime};

use crate::serve::{ServeError, Settings, serve};

const ROLE: &str = "front";

/// For the record of the start: the ledger may still be starting too.
const STARTED_DEADLINE: Duration = Duration::from_secs(30);

/// For the record of the stop: nobody waits for a ledger that is stopping too.
const STOPPED_DEADLINE: Duration = Duration::from_secs(2);

/// For calls to ra that outlive the last connection.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Runs the process: `chancery-front --config FILE`, with its listeners passed by the supervisor.
/// Ends with 0 after a stop, 1 after a failure, 2 for a wrong command line.
pub fn main() -> ExitCode {
    process::diagnostics(ROLE);
    let Some(file) = config_file(std::env::args_os().skip(1)) else {
        eprintln!("usage: chancery-front --config FILE");
        return ExitCode::from(2);
    };
    match run(file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn config_file(mut arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let option = arguments.next()?;
    let file = arguments.next()?;
    (option == "--config" && arguments.next().is_none()).then(|| file.into())
}

fn run(file: PathBuf) -> Result<(), FrontError> {
    let config = Config::load(&file)?;
    let mut sockets = Listeners::from_environment()?;
    let listeners = sockets.tcp(socket::FRONT_HTTP)?;
    sockets.finish()?;
    if listeners.is_empty() {
        return Err(FrontError::NoListener);
    }
    let stop = Stop::on_signals().map_err(FrontError::System)?;
    let audit = Audit::new(&config).map_err(FrontError::System)?;
    let settings = Settings::new(&config);
    let confined = sandbox::confine(&Confinement {
        read: vec![config.path.clone(), config.run.clone()],
        open_files: settings.descriptors(),
        ..Confinement::default()
    })?;
    let runtime = runtime(&settings).map_err(FrontError::System)?;
    sandbox::seal(Profile::Front)?;
    let landlock_abi = confined.landlock_abi;
    tracing::info!(landlock_abi, listeners = listeners.len(), "serving");
    process::ready();

    runtime.spawn_blocking({
        let audit = audit.clone();
        move || audit.started()
    });
    let served = runtime.block_on(async {
        let served = serve(listeners, settings, &stop).await;
        process::stopping();
        served
    });
    runtime.shutdown_timeout(SHUTDOWN);
    audit.stopped(&served);
    Ok(served?)
}

fn runtime(settings: &Settings) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        // Every call, the blobs and the record of the start; a call must not wait for a thread.
        .max_blocking_threads(settings.calls + 4)
        .thread_name("front")
        .enable_io()
        .enable_time()
        .build()
}

/// Records the start and the stop. As well as can be: front holds nothing, so it serves without.
#[derive(Clone)]
struct Audit {
    socket: PathBuf,
    started: Id,
    stopped: Id,
}

impl Audit {
    /// Draws the ids of its writes while `/dev/urandom` can still be opened.
    fn new(config: &Config) -> io::Result<Self> {
        let mut random = std::fs::File::open("/dev/urandom")?;
        let mut id = || {
            let mut octets = [0; 16];
            random.read_exact(&mut octets).map(|()| Octets(octets))
        };
        Ok(Self {
            socket: config.socket(socket::LEDGER_APPEND_FRONT),
            started: id()?,
            stopped: id()?,
        })
    }

    fn started(&self) {
        let event = Event::new(Kind::ServiceStarted, Outcome::Success)
            .with(field::ROLE, ROLE)
            .with(field::VERSION, env!("CARGO_PKG_VERSION"));
        self.append(self.started, event, STARTED_DEADLINE);
    }

    fn stopped(&self, served: &Result<(), ServeError>) {
        let event = match served {
            Ok(()) => Event::new(Kind::ServiceStopped, Outcome::Success),
            Err(error) => {
                Event::new(Kind::ServiceStopped, Outcome::Failure).with(field::REASON, error)
            }
        };
        let event = event.with(field::ROLE, ROLE);
        self.append(self.stopped, event, STOPPED_DEADLINE);
    }

    fn append(&self, write: Id, event: Event, deadline: Duration) {
        let kind = event.kind.name();
        let request = append::Request { write, event };
        let reply: Result<append::Reply, CallError> =
            Channel::new(&self.socket, deadline).call_repeatable(&request);
        match reply {
            Ok(append::Reply::Done(_)) => {}
            Ok(append::Reply::Unavailable(cause)) => {
                tracing::warn!(kind, cause, "not recorded in the audit log");
            }
            Err(error) => tracing::warn!(kind, %error, "not recorded in the audit log"),
        }
    }
}

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
enum FrontError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(
        "no listener named {} was passed; enable its socket unit",
        socket::FRONT_HTTP
    )]
    NoListener,
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("cannot start: {0}; check the limits of open files and tasks")]
    System(io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_one_option() {
        let file = |arguments: &[&str]| config_file(arguments.iter().map(OsString::from));
        assert_eq!(file(&["--config", "/x"]), Some("/x".into()));
        for wrong in [
            &[][..],
            &["/x"],
            &["--config"],
            &["--config", "/x", "y"],
            &["--confog", "/x"],
        ] {
            assert_eq!(file(wrong), None, "{wrong:?}");
        }
    }
}
