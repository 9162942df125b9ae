//! The process: from its start to its end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use chancery_config::{Config, ConfigError, Peers};
use chancery_host::activation::{ActivationError, Listeners};
use chancery_host::clock;
use chancery_host::ipc::server::{self, Admission, Gate, Limits, ServeError, Worker};
use chancery_host::journal::Journal;
use chancery_host::process::{self, ProcessError, Stop};
use chancery_host::sandbox::{self, Confinement, Profile, SandboxError};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::ipc::socket;

use crate::database::{self, DatabaseError};
use crate::desk::Desk;
use crate::error::StoreError;
use crate::founding::found;
use crate::log::Log;
use crate::mirror::{Mark, Mirror};
use crate::writer::{Clock, Counter, Writer};

pub(crate) const SOCKETS: &[&str] = &[
    socket::LEDGER_STORE,
    socket::LEDGER_PUBLIC,
    socket::LEDGER_QUERY,
    socket::LEDGER_APPEND_RA,
    socket::LEDGER_APPEND_FRONT,
];

/// Workers, each with a connection to read by. So many writes can share a commit.
const WORKERS: usize = 16;

const LIMITS: Limits = Limits {
    connections: 128,
    queue: 256,
    idle: Duration::from_secs(600),
};

/// Descriptors: connections, two for each worker's database connection, and what is left over.
const OPEN_FILES: u64 = 512;

/// Runs the ledger until SIGTERM (`--config FILE`), or makes a new one (`--create --config FILE
/// --transcript FILE`). The exit code is 0 after a requested stop or when the ledger is made, 1
/// after a failure, 2 for wrong arguments.
#[must_use]
pub fn main() -> ExitCode {
    process::diagnostics("ledger");
    let task = match task(std::env::args_os().skip(1).collect()) {
        Ok(task) => task,
        Err(error) => {
            tracing::error!(%error, "wrong arguments");
            return ExitCode::from(2);
        }
    };
    let done = match task {
        Task::Serve { config } => run(&config),
        Task::Create { config, transcript } => found(&config, &transcript),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the ledger ends");
            ExitCode::FAILURE
        }
    }
}

enum Task {
    Serve {
        config: PathBuf,
    },
    Create {
        config: PathBuf,
        transcript: PathBuf,
    },
}

fn task(arguments: Vec<OsString>) -> Result<Task, LedgerError> {
    match arguments.as_slice() {
        [] => Ok(Task::Serve {
            config: "/etc/chancery/chancery.toml".into(),
        }),
        [option, config] if option == "--config" => Ok(Task::Serve {
            config: config.into(),
        }),
        [create, first, config, second, transcript]
            if create == "--create" && first == "--config" && second == "--transcript" =>
        {
            Ok(Task::Create {
                config: config.into(),
                transcript: transcript.into(),
            })
        }
        _ => Err(LedgerError::Usage),
    }
}

fn run(config: &Path) -> Result<(), LedgerError> {
    let stop = Stop::on_signals().map_err(LedgerError::Signals)?;
    let config = Config::load(config)?;
    let gates = gates(&config)?;
    let log = Log {
        origin: config.ledger.origin.clone(),
        boot: clock::boot_id().map_err(LedgerError::Boot)?,
    };
    let journal = connect_journal(&config.journal);
    let database = &config.ledger.database;
    database::must_exist(database)?;
    confine(database)?;

    let connection = database::open_writer(database, &log.origin)?;
    let mark = Mark::load(&connection)?;
    let (committed, news) = sync_channel(1);
    let clock: Clock = Arc::new(clock::now);
    let actor = format!(
        "ledger uid={} pid={}",
        process::current_uid(),
        std::process::id()
    );
    let mut writer = Writer::new(
        connection,
        log,
        clock.clone(),
        actor,
        mark.clone(),
        committed,
    );
    let mirror = start_mirror(database, journal, mark, news)?;
    match writer.record(&event(Kind::ServiceStarted, Outcome::Success)) {
        // What is stored can be read all the same, and an auditor will want to.
        Err(error @ StoreError::Clock { .. }) => tracing::error!(%error, "nothing is written"),
        recorded => recorded?,
    }
    let (counter, writing) = writer.start().map_err(LedgerError::Thread)?;
    let workers = workers(database, &counter, &clock)?;
    drop(counter);

    sandbox::seal(Profile::Service)?;
    process::ready();
    tracing::info!(database = %database.display(), "the ledger serves");
    let served = server::serve(gates, workers, LIMITS, &stop);
    process::stopping();

    // The workers are gone and with them every way to the writer, which ends once it has answered.
    let mut writer = writing.join().map_err(|_| LedgerError::Writer)?;
    let outcome = match served {
        Ok(()) => Outcome::Success,
        Err(_) => Outcome::Failure,
    };
    match writer.record(&event(Kind::ServiceStopped, outcome)) {
        Err(error @ StoreError::Clock { .. }) => tracing::error!(%error, "nothing is written"),
        recorded => recorded?,
    }
    writer.close(mirror)?;
    Ok(served?)
}

fn event(kind: Kind, outcome: Outcome) -> Event {
    Event::new(kind, outcome)
        .with(field::ROLE, "ledger")
        .with(field::VERSION, env!("CARGO_PKG_VERSION"))
}

fn gates(config: &Config) -> Result<Vec<Gate>, LedgerError> {
    let mut listeners = Listeners::from_environment()?;
    let gates = SOCKETS
        .iter()
        .map(|name| {
            Ok(Gate {
                listener: listeners.seqpacket(name)?,
                admitted: admission(config.peers(name))?,
            })
        })
        .collect::<Result<_, LedgerError>>()?;
    listeners.finish()?;
    Ok(gates)
}

fn admission(peers: Peers) -> Result<Admission, LedgerError> {
    Ok(Admission::AnyOf(match peers {
        Peers::SameUser => vec![process::current_uid()],
        Peers::Users(users) => users
            .iter()
            .map(|user| process::uid_of(user))
            .collect::<Result<_, _>>()?,
    }))
}

fn connect_journal(path: &Path) -> Option<Journal> {
    match Journal::connect(path) {
        Ok(journal) => Some(journal),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "no journald answers: audit records stand in the database alone"
            );
            None
        }
    }
}

fn confine(database: &Path) -> Result<(), LedgerError> {
    let folder = match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let confined = sandbox::confine(&Confinement {
        // SQLite seeds the salts of its log with it.
        read: vec!["/dev/urandom".into()],
        // SQLite makes and removes files beside the database.
        write: vec![folder.into()],
        open_files: OPEN_FILES,
        ..Confinement::default()
    })?;
    tracing::info!(landlock_abi = confined.landlock_abi, "confined");
    Ok(())
}

fn start_mirror(
    database: &Path,
    journal: Option<Journal>,
    mark: Mark,
    news: Receiver<()>,
) -> Result<Option<JoinHandle<()>>, LedgerError> {
    let Some(journal) = journal else {
        return Ok(None);
    };
    let mirror = Mirror::new(database::open_reader(database)?, journal, mark);
    std::thread::Builder::new()
        .name("mirror".into())
        .spawn(move || mirror.run(&news))
        .map(Some)
        .map_err(LedgerError::Thread)
}

fn workers(
    database: &Path,
    counter: &Counter,
    clock: &Clock,
) -> Result<Vec<Box<dyn Worker>>, LedgerError> {
    (0..WORKERS)
        .map(|_| {
            let reader = database::open_reader(database)?;
            let desk = Desk::new(reader, counter.clone(), clock.clone());
            Ok(Box::new(desk) as Box<dyn Worker>)
        })
        .collect()
}

/// Why the ledger does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("usage: chancery-ledger [--config FILE], or --create --config FILE --transcript FILE")]
    Usage,
    #[error("{}: the transcript cannot be read: {source}", path.display())]
    Transcript {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the boot cannot be identified: {0}; mount /proc")]
    Boot(std::io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no thread can be started: {0}; check the limit of processes (LimitNPROC=)")]
    Thread(std::io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the thread that writes panicked; see its message above")]
    Writer,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(list: &[&str]) -> Result<Task, LedgerError> {
        task(list.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_ledger_is_served_or_made() {
        let serves = |list: &[&str], file: &str| matches!(arguments(list), Ok(Task::Serve { config }) if config == Path::new(file));
        assert!(serves(&["--config", "a"], "a"));
        assert!(serves(&[], "/etc/chancery/chancery.toml"));
        assert!(matches!(
            arguments(&["--create", "--config", "a", "--transcript", "b"]),
            Ok(Task::Create { config, transcript })
                if config == Path::new("a") && transcript == Path::new("b")
        ));
        for list in [
            &["a"][..],
            &["--config"],
            &["--dir", "a"],
            &["--config", "a", "b"],
            &["--create", "--config", "a"],
        ] {
            assert!(matches!(arguments(list), Err(LedgerError::Usage)));
        }
    }

    #[test]
    fn every_socket_of_the_ledger_is_served() {
        let mut listed: Vec<&str> = chancery_config::SOCKETS
            .iter()
            .filter(|(role, _)| *role == "ledger")
            .map(|(_, name)| *name)
            .collect();
        listed.sort_unstable();
        let mut served = SOCKETS.to_vec();
        served.sort_unstable();
        assert_eq!(served, listed);
    }
}
