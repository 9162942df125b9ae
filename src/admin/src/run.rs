//! `chancery run`: for a developer what systemd does in production.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chancery_config::{Config, SOCKETS};
use chancery_host::process::{self, Stop, current_uid};
use chancery_host::supervise::{Role, Socket, Supervisor};
use chancery_protocol::ipc::socket;

use crate::end::End;

/// How long every role together may take until it serves.
const START: Duration = Duration::from_secs(60);

/// The roles in the order of their start.
const ROLES: &[&str] = &["ledger", "ca", "parser", "ra", "front"];

/// `run`: until interrupted.
pub(crate) fn run(config: &Config) -> Result<(), End> {
    process::diagnostics("chancery");
    let mut supervisor = start(config)?;
    for address in supervisor.addresses(socket::FRONT_HTTP) {
        eprintln!("chancery: serving on http://{address}/scep/");
        note_unspecified(address);
    }
    supervise(&mut supervisor)
}

/// Devices cannot reach the address that means every address of this machine.
pub(crate) fn note_unspecified(address: SocketAddr) {
    if address.ip().is_unspecified() {
        eprintln!(
            "chancery: {} means every address of this machine; in the URL, give devices its own \
             name",
            address.ip()
        );
    }
}

/// Starts every role and waits until all of them serve.
pub(crate) fn start(config: &Config) -> Result<Supervisor, End> {
    if !config.development {
        return Err(End::Refused(format!(
            "{}: this is a production configuration, and `run` puts all roles under one user; \
             start the systemd units, or set appliance.development = true",
            config.path.display()
        )));
    }
    eprintln!(
        "chancery: DEVELOPMENT: all roles share one user; each is sandboxed, but only systemd's \
         separate users keep one from another's files"
    );
    let failed = |error: &dyn core::fmt::Display| End::Failed(error.to_string());
    let stop = Stop::on_signals().map_err(End::cannot("watch for signals"))?;
    let mut supervisor =
        Supervisor::start(roles(config)?, &stop).map_err(|error| failed(&error))?;
    supervisor
        .wait_ready(START)
        .map_err(|error| failed(&error))?;
    Ok(supervisor)
}

/// Restarts roles that end, until interrupted.
pub(crate) fn supervise(supervisor: &mut Supervisor) -> Result<(), End> {
    supervisor
        .run()
        .map_err(|error| End::Failed(error.to_string()))
}

fn roles(config: &Config) -> Result<Vec<Role>, End> {
    ROLES
        .iter()
        .map(|name| {
            let arguments: Vec<OsString> = match *name {
                "parser" => vec!["--peer".into(), current_uid().to_string().into()],
                _ => vec!["--config".into(), config.path.clone().into()],
            };
            Ok(Role {
                name: (*name).into(),
                program: program(name)?,
                arguments,
                environment: Vec::new(),
                sockets: sockets(config, name),
            })
        })
        .collect()
}

fn sockets(config: &Config, role: &str) -> Vec<Socket> {
    let unix = SOCKETS
        .iter()
        .filter(|(owner, _)| *owner == role)
        .map(|(_, name)| Socket::Unix {
            name: (*name).into(),
            path: config.socket(name),
        });
    let tcp = config
        .front
        .listen
        .iter()
        .filter(|_| role == "front")
        .map(|address| Socket::Tcp {
            name: socket::FRONT_HTTP.into(),
            address: *address,
        });
    unix.chain(tcp).collect()
}

/// This program.
pub(crate) fn own_program() -> Result<PathBuf, End> {
    std::env::current_exe().map_err(End::cannot("find this program's own file"))
}

/// The role's program, beside this one.
pub(crate) fn program(role: &str) -> Result<PathBuf, End> {
    let own = own_program()?;
    let program = own.with_file_name(format!("chancery-{role}"));
    if program.is_file() {
        return Ok(program);
    }
    Err(End::Failed(format!(
        "{}: is missing; install every program of Chancery in one folder",
        program.display()
    )))
}
