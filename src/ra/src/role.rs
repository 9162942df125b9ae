//! The process: what it takes, what it gives up, in which order.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use chancery_config::{Config, ConfigError, KeyRef, Peers};
use chancery_host::activation::{ActivationError, Listeners};
use chancery_host::ipc::Channel;
use chancery_host::ipc::server::{
    Admission, Answer, Call, Gate, Limits, ServeError, Worker, serve,
};
use chancery_host::process::{self, ProcessError, Stop};
use chancery_host::sandbox::{self, Confinement, SandboxError};
use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::ipc::message::Reply;
use chancery_protocol::ipc::socket;
use chancery_protocol::wire;
use chancery_token::{
    KeyError, OpenError, PinError, Pinned, PinnedKey, Token, TokenConfig, TokenError, read_pin,
};

use crate::certificates::{Certificates, PinnedKeys};
use crate::failure::Budget;
use crate::health;
use crate::parser_port::ParserPort;
use crate::recorder::Recorder;
use crate::worker::{Registrar, Shared};

const ROLE: &str = "ra";

/// Exit code of a role whose token is not available.
const TOKEN_UNAVAILABLE: u8 = 5;

/// Bounds of `ra.message`. A parked FAILURE keeps its connection and no worker. Front makes 512
/// calls at once, a connection each, and may be restarted while those of its predecessor are open.
const LIMITS: Limits = Limits {
    connections: 1024,
    queue: 256,
    idle: Duration::from_secs(120),
};

/// How long one call of the PKCS#11 module may take.
const TOKEN_DEADLINE: Duration = Duration::from_secs(10);

/// How long the CA may take for an enrolment, its own restart included. Front waits for 30 seconds.
const ISSUE_DEADLINE: Duration = Duration::from_secs(10);

/// How long CA and ledger may take for what no device waits for; short, so that a stop is not
/// held up.
const BACKGROUND_DEADLINE: Duration = Duration::from_secs(3);

/// Sessions that no worker owns: the login's and the self-test's.
const OTHER_SESSIONS: u64 = 2;

/// Seconds after which a device may come back while a custodian is waited for.
const RETRY_AFTER_CUSTODIAN: u32 = 300;

/// Runs the role until it is told to stop: `chancery-ra --config FILE`, with the socket
/// `ra.message` passed by `LISTEN_FDS`. Exit codes: 0 stopped, 1 failed, 2 usage, 5 the token is
/// not available.
#[must_use]
pub fn main() -> ExitCode {
    process::diagnostics(ROLE);
    match arguments(std::env::args_os().skip(1)).and_then(|config| run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code()
        }
    }
}

fn arguments(mut given: impl Iterator<Item = OsString>) -> Result<PathBuf, RoleError> {
    match (given.next(), given.next(), given.next()) {
        (Some(option), Some(file), None) if option == "--config" => Ok(file.into()),
        _ => Err(RoleError::Usage),
    }
}

fn run(path: &Path) -> Result<(), RoleError> {
    let stop = Stop::on_signals().map_err(RoleError::System)?;
    let config = Config::load(path)?;
    let mut listeners = Listeners::from_environment()?;
    let listener = listeners.seqpacket(socket::RA_MESSAGE)?;
    listeners.finish()?;
    let gate = Gate {
        listener,
        admitted: admission(&config)?,
    };

    let name = &config.ra.decryption.token;
    let token = config
        .token(name)
        .ok_or_else(|| RoleError::NoToken(name.clone()))?;
    process::set_environment(&token.environment)?;
    let state = config.state_dir(ROLE);
    make_folder(&state).map_err(|source| RoleError::State {
        path: state.clone(),
        source,
    })?;
    let pin = read_pin(&token.pin_file)?;
    let confined = sandbox::confine(&confinement(token, &state))?;
    tracing::info!(landlock_abi = confined.landlock_abi, "confined");

    let found = TokenConfig {
        name: token.name.clone(),
        module: token.module.clone(),
        label: token.label.clone(),
        serial: token.serial.clone(),
    };
    match Token::open(&found, pin, &state.join(&token.name)) {
        Ok(token) => serve_devices(&config, &token, gate, &stop),
        Err(OpenError::PinRefused {
            token,
            refusal,
            marker,
        }) => {
            // No restart would help, and each would be a chance to lock the token.
            tracing::error!(
                "token {token}: {refusal}; serving \"unavailable\" until a custodian corrects the \
                 PIN and runs `chancery token clear-pin --token NAME`"
            );
            wait_for_custodian(gate, &marker, &stop)
        }
        Err(error) => Err(error.into()),
    }
}

/// The users who may connect. Looked up before the sandbox closes the user database.
fn admission(config: &Config) -> Result<Admission, ProcessError> {
    let users = match config.peers(socket::RA_MESSAGE) {
        Peers::SameUser => vec![process::current_uid()],
        Peers::Users(users) => users
            .iter()
            .map(|user| process::uid_of(user))
            .collect::<Result<_, _>>()?,
    };
    Ok(Admission::AnyOf(users))
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

fn confinement(token: &chancery_config::Token, state: &Path) -> Confinement {
    Confinement {
        read: sandbox::module_files(&token.module),
        write: token
            .files
            .iter()
            .cloned()
            .chain([state.to_path_buf()])
            .collect(),
        open_files: LIMITS.connections as u64 + 512,
        ..Confinement::default()
    }
}

fn serve_devices(config: &Config, token: &Token, gate: Gate, stop: &Stop) -> Result<(), RoleError> {
    token.watch(TOKEN_DEADLINE).map_err(RoleError::System)?;
    let workers = config.ra.workers;
    let info = token.info();
    if let Some(most) = info.max_sessions
        && most < workers as u64 + OTHER_SESSIONS
    {
        return Err(RoleError::Sessions {
            token: info.label,
            most,
            workers,
        });
    }
    let channel = |name, deadline| Channel::new(config.socket(name), deadline);
    let keys = PinnedKeys {
        decryption: config.ra.decryption.public_key.clone(),
        signing: config.ra.signing.public_key.clone(),
    };
    let folder = config.state_dir(ROLE).join("certificates");
    let shared = Arc::new(Shared {
        // Finding a key uses every mechanism that it will be asked for.
        decryption: token.key(&pinned(&config.ra.decryption))?,
        signing: token.key(&pinned(&config.ra.signing))?,
        certificates: Certificates::new(keys, folder, &config.profiles),
        parser: ParserPort::new(config.socket(socket::PARSER_PARSE)),
        ca: channel(socket::CA_ENROL, ISSUE_DEADLINE),
        recorder: Recorder::new(channel(socket::LEDGER_APPEND_RA, BACKGROUND_DEADLINE)),
        failures: Budget::of(workers),
    });
    let registrars = (0..workers)
        .map(|_| {
            let registrar = Registrar::new(Arc::clone(&shared), token.session()?);
            Ok(Box::new(registrar) as Box<dyn Worker>)
        })
        .collect::<Result<Vec<_>, TokenError>>()?;
    let testing = token.session()?;
    shared.recorder.record(
        Event::new(Kind::TokenReady, Outcome::Success)
            .with(field::ROLE, ROLE)
            .with(field::TOKEN, &info.label)
            .with(field::SERIAL, &info.serial),
    );

    // The threads below begin sealed.
    sandbox::seal(sandbox::Profile::Service)?;
    let background = channel(socket::CA_ENROL, BACKGROUND_DEADLINE);
    // The recorder outlives the others, to bring the last events to the ledger.
    let recorded = Stop::new().map_err(RoleError::System)?;
    let (complete, completed) = mpsc::channel();
    thread::scope(|scope| {
        let _stops = StopOnDrop(&[stop, &recorded]);
        spawn(scope, "certificates", || {
            shared
                .certificates
                .keep_current(&background, stop, move || {
                    // Nobody waits any more if it took too long.
                    let _ = complete.send(());
                });
        })?;
        spawn(scope, "self-test", || {
            health::watch(testing, &shared.decryption, &shared.signing, stop);
        })?;
        spawn(scope, "recorder", || shared.recorder.run(&recorded))?;
        // A restart of this process then shows to devices as a moment's delay. A CA that is away for
        // longer, since it waits for a custodian maybe, shows as "come back later".
        let _ = completed.recv_timeout(BACKGROUND_DEADLINE);
        let started = Event::new(Kind::ServiceStarted, Outcome::Success);
        shared.recorder.record(life(started));
        tracing::info!("serving");
        process::ready();
        let served = serve(vec![gate], registrars, LIMITS, stop);
        process::stopping();
        shared
            .recorder
            .record(life(Event::new(Kind::ServiceStopped, Outcome::Success)));
        Ok(served?)
    })
}

/// An event in the life of this process.
fn life(event: Event) -> Event {
    event
        .with(field::ROLE, ROLE)
        .with(field::VERSION, env!("CARGO_PKG_VERSION"))
}

fn pinned(key: &KeyRef) -> PinnedKey {
    PinnedKey {
        id: key.pinned_id.clone(),
        material: Pinned::Public(key.public_key.clone()),
    }
}

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, ()>, RoleError> {
    thread::Builder::new()
        .name(name.into())
        .spawn_scoped(scope, body)
        .map_err(RoleError::System)
}

/// Lets the threads of a scope end, however its body does.
struct StopOnDrop<'a>(&'a [&'a Stop]);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        for stop in self.0 {
            stop.request();
        }
    }
}

/// Tells every device to come back later, until a custodian has removed `marker`. Then the process
/// ends, and its next start tries the PIN.
fn wait_for_custodian(gate: Gate, marker: &Path, stop: &Stop) -> Result<(), RoleError> {
    sandbox::seal(sandbox::Profile::Service)?;
    process::ready();
    let cleared = thread::scope(|scope| {
        let _stops = StopOnDrop(&[stop]);
        spawn(scope, "custodian", || {
            while !stop.wait(Duration::from_secs(2)) {
                if matches!(marker.try_exists(), Ok(false)) {
                    tracing::info!("the marker {} is gone; starting anew", marker.display());
                    stop.request();
                    return;
                }
            }
        })?;
        serve(vec![gate], vec![Box::new(OutOfService)], LIMITS, stop)?;
        Ok::<_, RoleError>(matches!(marker.try_exists(), Ok(false)))
    })?;
    if cleared {
        Err(RoleError::PinCleared)
    } else {
        Ok(())
    }
}

/// Answers everything with "come back later".
struct OutOfService;

impl Worker for OutOfService {
    fn answer(&mut self, _: Call<'_>) -> Answer {
        wire::encode(&Reply::Unavailable(RETRY_AFTER_CUSTODIAN)).map_or(Answer::Close, Answer::Now)
    }
}

/// Why the role does not serve.
#[derive(Debug, thiserror::Error)]
enum RoleError {
    #[error("usage: chancery-ra --config FILE")]
    Usage,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "the configuration has no [[token]] named {0:?}, which ra.decryption_key is in; add it"
    )]
    NoToken(String),
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("cannot make the folder {}: {source}; make it, owned by the user of chancery-ra", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "token {token} allows {most} sessions, and ra.workers = {workers} needs {}; lower ra.workers",
        *workers as u64 + OTHER_SESSIONS
    )]
    Sessions {
        token: String,
        most: u64,
        workers: usize,
    },
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(
        "the system refuses a thread, pipe or signal handler: {0}; raise the limits of the service"
    )]
    System(io::Error),
    #[error("the PIN was cleared by a custodian; ending, to try it at the next start")]
    PinCleared,
}

impl RoleError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage => 2.into(),
            Self::Pin(_)
            | Self::Open(_)
            | Self::Key(_)
            | Self::Token(_)
            | Self::Sessions { .. }
            | Self::PinCleared => TOKEN_UNAVAILABLE.into(),
            Self::Config(_)
            | Self::NoToken(_)
            | Self::Activation(_)
            | Self::Process(_)
            | Self::State { .. }
            | Self::Sandbox(_)
            | Self::Serve(_)
            | Self::System(_) => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_configuration_is_taken() {
        let read = |given: &[&str]| arguments(given.iter().map(OsString::from)).ok();
        assert_eq!(read(&["--config", "a.toml"]), Some("a.toml".into()));
        for wrong in [
            &[][..],
            &["--config"],
            &["a.toml", "--config"],
            &["--config", "a", "b"],
        ] {
            assert_eq!(read(wrong), None);
        }
    }

    #[test]
    fn without_a_custodian_devices_are_told_to_come_back() {
        let call = Call {
            socket: socket::RA_MESSAGE,
            peer: chancery_host::ipc::server::Peer {
                uid: 0,
                gid: 0,
                pid: 1,
            },
            packet: b"anything",
            arrived: std::time::Instant::now(),
        };
        let Answer::Now(packet) = OutOfService.answer(call) else {
            panic!("no reply")
        };
        let reply: Reply = wire::decode(&packet).unwrap();
        assert_eq!(reply, Reply::Unavailable(RETRY_AFTER_CUSTODIAN));
    }
}
