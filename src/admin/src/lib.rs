//! The command line: quickstart, administration, doctor, and the development supervisor.
//!
//! Trusted with what its caller may do: it opens the operator's sockets, which the kernel guards,
//! and holds no key. It logs in to a token in a ceremony only, in a process of its own. Run by
//! people and scripts as `chancery`.
#![forbid(unsafe_code)]

mod cert;
mod challenge;
mod cli;
mod doctor;
mod end;
mod enroll;
mod pem;
mod quickstart;
mod run;
mod text;
mod token;
mod token_step;

use std::path::PathBuf;
use std::process::ExitCode;

use chancery_config::Config;
use clap::Parser;

use crate::cli::{Challenge, Cli, Command, ConfigCommand, Token};
use crate::end::End;

/// Where the configuration is if nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/chancery/chancery.toml";

/// Runs `chancery`.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            eprintln!("chancery: {end}");
            end.code()
        }
    }
}

fn dispatch(cli: &Cli) -> Result<(), End> {
    match &cli.command {
        Command::Quickstart(options) => {
            let dir = cli
                .dir
                .as_ref()
                .ok_or_else(|| End::Usage("quickstart needs --dir DIR, a folder to make".into()))?;
            quickstart::quickstart(dir, options)
        }
        Command::Run => run::run(&load(cli)?),
        Command::Token(Token::ClearPin { token }) => token::clear_pin(&load(cli)?, token),
        Command::Challenge(Challenge::New(new)) => challenge::new(&load(cli)?, new, cli.output),
        Command::Cert(command) => cert::cert(&load(cli)?, command, cli.output),
        Command::Enroll(options) => enroll::enroll(options),
        Command::Config(ConfigCommand::Check) => {
            let config = load(cli)?;
            eprintln!("{}: no errors", config.path.display());
            Ok(())
        }
        Command::Doctor => doctor::doctor(&config_path(cli), cli.output),
        Command::TokenStep => token_step::main(),
    }
}

fn load(cli: &Cli) -> Result<Config, End> {
    Ok(Config::load(&config_path(cli))?)
}

fn config_path(cli: &Cli) -> PathBuf {
    match (&cli.config, &cli.dir) {
        (Some(file), _) => file.clone(),
        (None, Some(dir)) => dir.join("chancery.toml"),
        (None, None) => DEFAULT_CONFIG.into(),
    }
}
