//! The process: what it opens, in which order, and what it refuses to start without.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use chancery_config::{Config, ConfigError, Peers};
use chancery_host::activation::{ActivationError, Listeners};
use chancery_host::clock;
use chancery_host::ipc::Channel;
use chancery_host::ipc::server::{Admission, Gate, Limits, ServeError, Worker, serve};
use chancery_host::journal::Journal;
use chancery_host::process::{self, ProcessError, Stop};
use chancery_host::sandbox::{self, Confinement, Profile, SandboxError};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::ipc::socket;
use chancery_token::{
    Authenticate, Checkpoint, Key, KeyError, OpenError, PinError, Pinned, PinnedKey, Session,
    Token, TokenConfig, TokenError, read_pin,
};

use crate::authority::{self, AuthorityError};
use crate::challenge::Sealer;
use crate::failure::Failure;
use crate::infrastructure::{Infrastructure, RaChains};
use crate::ledger::{Ledger, LedgerError};
use crate::notary::Notary;
use crate::service::{EnrolWorker, OperatorWorker, Shared, UnavailableWorker};
use crate::witness::{Witness, WitnessError};

/// A call of the token that lasts longer ends the process.
const TOKEN_DEADLINE: Duration = Duration::from_secs(20);

/// How long the ledger may take, with its restart.
const LEDGER_DEADLINE: Duration = Duration::from_secs(15);

/// Sessions for operators: minting waits for nobody's enrolment.
const OPERATOR_WORKERS: usize = 2;

/// The CA cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line.
    #[error("usage: chancery-ca --config FILE")]
    Usage,
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The sockets.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// The operating system.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The operating system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The PIN's file.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The token.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The audit log.
    #[error("{0}")]
    Witness(String),
    /// The ledger, or the RA's certificates.
    #[error("{0}")]
    Infrastructure(String),
    /// The configuration or the state lacks something.
    #[error("{0}")]
    Missing(String),
    /// A custodian has acted: the next start tries the PIN.
    #[error("the mark of the refused PIN is gone; starting anew")]
    PinCleared,
    /// Serving ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl From<WitnessError> for StartError {
    fn from(error: WitnessError) -> Self {
        Self::Witness(error.to_string())
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self::Infrastructure(failure.to_string())
    }
}

impl From<LedgerError> for StartError {
    fn from(error: LedgerError) -> Self {
        Self::Infrastructure(error.to_string())
    }
}

/// Runs `chancery-ca --config FILE`. Exit codes: 0 stopped, 1 failed, 2 usage, 5 the token is not
/// available.
#[must_use]
pub fn main() -> ExitCode {
    process::diagnostics("ca");
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the CA cannot run");
            ExitCode::from(match error {
                StartError::Usage => 2,
                StartError::Pin(_) | StartError::Open(_) | StartError::Token(_) => 5,
                _ => 1,
            })
        }
    }
}

fn run() -> Result<(), StartError> {
    let stop = Stop::on_signals()?;
    let config = Config::load(&config_path()?)?;
    let mut listeners = Listeners::from_environment()?;
    // Users are looked up while their list can be read: the sandbox closes it.
    let mut gate = |name: &str| -> Result<Gate, StartError> {
        Ok(Gate {
            listener: listeners.seqpacket(name)?,
            admitted: admission(&config.peers(name))?,
        })
    };
    let (enrol, operator) = (gate(socket::CA_ENROL)?, gate(socket::CA_OPERATOR)?);
    listeners.finish()?;

    let opened = match open(config) {
        Err(StartError::Open(OpenError::PinRefused {
            token,
            refusal,
            marker,
        })) => {
            let cause = OpenError::PinRefused {
                token,
                refusal,
                marker: marker.clone(),
            };
            return wait_for_custodian(&cause, &marker, vec![enrol, operator], &stop);
        }
        opened => opened?,
    };
    opened.token.watch(TOKEN_DEADLINE)?;
    sandbox::seal(Profile::Service)?;

    let started = Event::new(Kind::ServiceStarted, Outcome::Success)
        .with(field::ROLE, "ca")
        .with(field::VERSION, env!("CARGO_PKG_VERSION"))
        .with(field::TOKEN, &opened.shared.token_label);
    let Opened {
        token,
        mut shared,
        checkpoint,
        mut session,
    } = opened;
    shared.witness.compare_head(&shared.ledger)?;
    shared.witness.record(&shared.ledger, &started)?;
    let ready = Event::new(Kind::TokenReady, Outcome::Success)
        .with(field::ROLE, "ca")
        .with(field::TOKEN, &shared.token_label);
    shared.witness.record(&shared.ledger, &ready)?;
    let infrastructure = Infrastructure {
        config: &shared.config,
        authorities: &shared.authorities,
        ledger: &shared.ledger,
        sealer: &shared.sealer,
        witness: &shared.witness,
    };
    let chains = infrastructure.prepare(&mut session, &RaChains::new(), clock::now())?;
    shared.ra_chains = RwLock::new(chains);
    let shared = Arc::new(shared);

    let notary = Notary {
        key: checkpoint,
        session,
    };
    let notary = thread::Builder::new().name("notary".into()).spawn({
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        move || notary.run(&shared, &stop)
    })?;
    process::ready();
    let served = serve_both(&shared, &token, enrol, operator, &stop);
    stop.request();
    process::stopping();
    if notary.join().is_err() {
        tracing::error!("the notary's thread ended abnormally");
    }
    served
}

struct Opened {
    token: Token,
    shared: Shared,
    checkpoint: Key<Checkpoint>,
    session: Session,
}

/// Confines the process, then opens the token and checks every key.
fn open(config: Config) -> Result<Opened, StartError> {
    let settings = token_of(&config)?.clone();
    let state = config.state_dir("ca");
    if !state.is_dir() {
        return Err(StartError::Missing(format!(
            "{}: is missing; the CA makes no state of its own: run the ceremony or quickstart",
            state.display()
        )));
    }
    let journal = connect_journal(&config);
    process::set_environment(&settings.environment)?;
    let pin = read_pin(&settings.pin_file)?;
    let certificates = authority::read_certificates(&config)?;
    let confined = sandbox::confine(&Confinement {
        read: sandbox::module_files(&settings.module),
        write: settings
            .files
            .iter()
            .cloned()
            .chain([state.clone()])
            .collect(),
        open_files: 1024,
        ..Confinement::default()
    })?;
    tracing::info!(landlock_abi = confined.landlock_abi, "confined");

    let token = Token::open(
        &TokenConfig {
            name: settings.name.clone(),
            module: settings.module.clone(),
            label: settings.label.clone(),
            serial: settings.serial.clone(),
        },
        pin,
        &state.join(&settings.name),
    )?;
    let authorities = authority::open(&config, &certificates, &token, clock::now())?;
    let challenge: Key<Authenticate> = token.key(&PinnedKey {
        id: config.challenge_key.pinned_id.clone(),
        material: Pinned::Check(config.challenge_key.check),
    })?;
    let checkpoint: Key<Checkpoint> = token.key(&PinnedKey {
        id: config.audit.key.pinned_id.clone(),
        material: Pinned::Public(config.audit.key.public_key.clone()),
    })?;
    let mut own_keys: Vec<Vec<u8>> = certificates.into_iter().map(|c| c.public_key).collect();
    own_keys.extend(
        [&config.ra.decryption, &config.ra.signing, &config.audit.key]
            .map(|k| k.public_key.clone()),
    );
    let shared = Shared {
        own_keys,
        authorities,
        sealer: Sealer::new(challenge, config.challenge_key.pinned_id.clone()),
        ledger: Ledger::new(Channel::new(
            config.socket(socket::LEDGER_STORE),
            LEDGER_DEADLINE,
        )),
        witness: Witness::open(&state, &config.ledger.origin)?,
        ra_chains: RwLock::new(RaChains::new()),
        unborne: Mutex::new((0, 0)),
        journal,
        token_label: settings.label,
        config,
    };
    let session = token.session()?;
    Ok(Opened {
        token,
        shared,
        checkpoint,
        session,
    })
}

/// The CA's own keys are all in one token.
fn token_of(config: &Config) -> Result<&chancery_config::Token, StartError> {
    let name = &config.challenge_key.token;
    let elsewhere = config
        .authorities
        .iter()
        .filter_map(|authority| authority.key.as_ref())
        .chain([&config.audit.key])
        .find(|key| key.token != *name);
    if let Some(key) = elsewhere {
        return Err(StartError::Missing(format!(
            "a key of the CA is in token \"{}\", its challenge key in \"{name}\"; keep them in one token",
            key.token
        )));
    }
    config
        .token(name)
        .ok_or_else(|| StartError::Missing(format!("there is no token \"{name}\"")))
}

fn connect_journal(config: &Config) -> Option<Journal> {
    match Journal::connect(&config.journal) {
        Ok(journal) => Some(journal),
        Err(error) => {
            let path = config.journal.display();
            tracing::warn!(%error, %path, "no journal: issuances are recorded by the ledger alone");
            None
        }
    }
}

fn serve_both(
    shared: &Arc<Shared>,
    token: &Token,
    enrol: Gate,
    operator: Gate,
    stop: &Stop,
) -> Result<(), StartError> {
    let mut enrol_workers: Vec<Box<dyn Worker>> = Vec::new();
    for _ in 0..shared.config.audit.workers {
        let session = token.session()?;
        enrol_workers.push(Box::new(EnrolWorker {
            shared: Arc::clone(shared),
            session,
        }));
    }
    let mut operator_workers: Vec<Box<dyn Worker>> = Vec::new();
    for _ in 0..OPERATOR_WORKERS {
        let session = token.session()?;
        operator_workers.push(Box::new(OperatorWorker {
            shared: Arc::clone(shared),
            session,
        }));
    }
    thread::scope(|scope| {
        let operators = scope.spawn(|| {
            let served = serve(vec![operator], operator_workers, limits(), stop);
            stop.request();
            served
        });
        let served = serve(vec![enrol], enrol_workers, limits(), stop);
        stop.request();
        operators.join().unwrap_or(Ok(())).and(served)
    })?;
    Ok(())
}

/// Answers every request with "unavailable" until a custodian has removed `marker`: the token
/// refused the PIN, and to try again could lock it. Then the process ends, and its next start
/// tries the PIN.
fn wait_for_custodian(
    cause: &OpenError,
    marker: &Path,
    gates: Vec<Gate>,
    stop: &Stop,
) -> Result<(), StartError> {
    tracing::error!(error = %cause, "serving nothing until a custodian has acted");
    sandbox::seal(Profile::Service)?;
    let cleared = || matches!(marker.try_exists(), Ok(false));
    let worker = UnavailableWorker {
        cause: cause.to_string(),
    };
    process::ready();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.wait(Duration::from_secs(2)) {
                if cleared() {
                    stop.request();
                }
            }
        });
        let served = serve(gates, vec![Box::new(worker)], limits(), stop);
        stop.request();
        served
    })?;
    if cleared() {
        Err(StartError::PinCleared)
    } else {
        Ok(())
    }
}

fn limits() -> Limits {
    Limits {
        connections: 256,
        queue: 256,
        idle: Duration::from_secs(300),
    }
}

fn admission(peers: &Peers) -> Result<Admission, StartError> {
    let uids = match peers {
        Peers::SameUser => vec![process::current_uid()],
        Peers::Users(users) => users
            .iter()
            .map(|user| process::uid_of(user))
            .collect::<Result<_, _>>()?,
    };
    Ok(Admission::AnyOf(uids))
}

fn config_path() -> Result<PathBuf, StartError> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(flag), Some(path), None) if flag == "--config" => Ok(path.into()),
        _ => Err(StartError::Usage),
    }
}
