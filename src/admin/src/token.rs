//! `chancery token`.

use std::path::{Path, PathBuf};

use chancery_config::Config;

use crate::end::End;

/// The folder in which the role of a token keeps the marks of its logins.
pub(crate) fn state(config: &Config, token: &str) -> PathBuf {
    let role = if config.challenge_key.token == token {
        "ca"
    } else {
        "ra"
    };
    config.state_dir(role).join(token)
}

/// The mark of a PIN that the token refused, in its [`state`].
pub(crate) fn refused_mark(state: &Path) -> PathBuf {
    state.join("pin-refused")
}

/// The mark of a login whose outcome is not known, in its [`state`].
pub(crate) fn pending_mark(state: &Path) -> PathBuf {
    state.join("login-pending")
}

/// `token clear-pin`: the role that waits for it starts anew by itself.
pub(crate) fn clear_pin(config: &Config, name: &str) -> Result<(), End> {
    if config.token(name).is_none() {
        let known: Vec<_> = config.tokens.iter().map(|t| t.name.as_str()).collect();
        return Err(End::NotFound(format!(
            "{}: has no token \"{name}\"; it has {}",
            config.path.display(),
            known.join(", ")
        )));
    }
    let state = state(config, name);
    let cannot = || End::cannot(format!("look for marks in {}", state.display()));
    let mut held_back = false;
    for mark in [refused_mark(&state), pending_mark(&state)] {
        held_back |= mark.try_exists().map_err(cannot())?;
    }
    if !held_back {
        eprintln!("chancery: token {name}: nothing holds its PIN back");
        return Ok(());
    }
    chancery_token::clear_pin(&state).map_err(End::cannot(format!(
        "clear the marks in {}",
        state.display()
    )))?;
    eprintln!("chancery: token {name}: cleared; the PIN will be tried once at the next start");
    Ok(())
}
