//! A PIN is tried once.
//!
//! Tokens lock after three to ten wrong PINs, and a supervisor restarts a service more often than
//! that. So two files stand beside the login: `login-pending` exists while the outcome of a login
//! is unknown, `pin-refused` from a refusal until a custodian clears it. Both are durable before
//! the step that they guard.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chancery_protocol::wire::Secret;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::{Session as RawSession, UserType};
use cryptoki::types::RawAuthPin;

use crate::error::{Cause, OpenError, PinRefusal, TokenError};
use crate::module::Connection;

/// Lets the PIN be tried again: removes both markers of a token's `state` folder. To be called
/// once the PIN at hand is known to be the right one; the next [`Token::open`](crate::Token::open)
/// tries it.
///
/// # Errors
/// If a marker is there and cannot be removed, or the folder cannot be synchronised.
pub fn clear_pin(state: &Path) -> io::Result<()> {
    for path in [state.join(REFUSED), state.join(PENDING)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    synchronise(state)
}

const PENDING: &str = "login-pending";
const REFUSED: &str = "pin-refused";

/// Permission to try a PIN once, given by the markers.
pub(crate) struct Attempt<'a> {
    token: &'a str,
    state: &'a Path,
    interrupted: bool,
}

impl<'a> Attempt<'a> {
    /// Reads the markers. Nothing of the token has been touched yet.
    pub(crate) fn new(token: &'a str, state: &'a Path) -> Result<Self, OpenError> {
        let marker = |path: PathBuf| {
            move |source| OpenError::Marker {
                token: token.to_owned(),
                path,
                source,
            }
        };
        match DirBuilder::new().mode(0o700).create(state) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(marker(state.to_owned())(error));
            }
            _ => {}
        }
        let refused = state.join(REFUSED);
        if refused.try_exists().map_err(marker(refused.clone()))? {
            let refusal = PinRefusal::Earlier;
            return Err(OpenError::PinRefused {
                token: token.to_owned(),
                refusal,
                marker: refused,
            });
        }
        let pending = state.join(PENDING);
        let interrupted = pending.try_exists().map_err(marker(pending))?;
        Ok(Self {
            token,
            state,
            interrupted,
        })
    }

    /// Logs in, with at most one call of C_Login.
    pub(crate) fn log_in(
        self,
        connection: &Connection,
        session: &RawSession,
        pin: &Secret,
    ) -> Result<(), OpenError> {
        if self.interrupted
            && let Some(doubt) = connection.pin_doubt()
        {
            self.refuse()?;
            return Err(self.refused(PinRefusal::Interrupted(doubt)));
        }
        self.pend()?;
        match log_in_once(session, pin) {
            Outcome::In => self.succeed(),
            Outcome::Refused(cause) => {
                self.refuse()?;
                Err(self.refused(PinRefusal::Now(cause.to_string())))
            }
            Outcome::NotInitialised => {
                // No PIN was compared, so none was wrong.
                self.succeed()?;
                Err(OpenError::PinNotInitialised {
                    token: self.token.to_owned(),
                })
            }
            // The marker stays: whether the token counted this attempt, the next start asks it.
            Outcome::Failed(error) => Err(TokenError::call(self.token, error).into()),
        }
    }

    fn pend(&self) -> Result<(), OpenError> {
        let path = self.state.join(PENDING);
        self.durable(path, |path| {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(b"a login was begun and its outcome is not known\n")?;
            file.sync_all()
        })
    }

    fn succeed(&self) -> Result<(), OpenError> {
        self.durable(self.state.join(PENDING), |path| std::fs::remove_file(path))
    }

    fn refuse(&self) -> Result<(), OpenError> {
        self.durable(self.state.join(PENDING), |path| {
            std::fs::rename(path, self.state.join(REFUSED))
        })
    }

    fn durable(
        &self,
        path: PathBuf,
        change: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), OpenError> {
        change(&path)
            .and_then(|()| synchronise(self.state))
            .map_err(|source| OpenError::Marker {
                token: self.token.to_owned(),
                path,
                source,
            })
    }

    fn refused(&self, refusal: PinRefusal) -> OpenError {
        let marker = self.state.join(REFUSED);
        OpenError::PinRefused {
            token: self.token.to_owned(),
            refusal,
            marker,
        }
    }
}

/// How one call of C_Login ended.
pub(crate) enum Outcome {
    /// Logged in, be it by this call or by another token object of this process.
    In,
    /// The token says that the PIN is wrong, or unusable now.
    Refused(Cause),
    /// The token has no user PIN.
    NotInitialised,
    /// Something else, which says nothing about the PIN.
    Failed(CryptokiError),
}

/// Calls C_Login for the user, once.
pub(crate) fn log_in_once(session: &RawSession, pin: &Secret) -> Outcome {
    let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
    match session.login_with_raw(UserType::User, &pin) {
        Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Outcome::In,
        Err(CryptokiError::Pkcs11(RvError::UserPinNotInitialized, _)) => Outcome::NotInitialised,
        Err(
            error @ CryptokiError::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            ),
        ) => Outcome::Refused(error.into()),
        Err(error) => Outcome::Failed(error),
    }
}

/// Makes changes of names in a folder durable.
fn synchronise(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(state: &Path) -> Result<Attempt<'_>, OpenError> {
        Attempt::new("t", state)
    }

    #[test]
    fn a_refusal_holds_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("ca");
        let first = attempt(&state).unwrap();
        assert!(!first.interrupted);
        first.pend().unwrap();
        first.refuse().unwrap();
        assert!(!state.join(PENDING).exists());
        assert!(matches!(
            attempt(&state).map(drop),
            Err(OpenError::PinRefused {
                refusal: PinRefusal::Earlier,
                ..
            })
        ));
        clear_pin(&state).unwrap();
        assert!(!attempt(&state).unwrap().interrupted);
        clear_pin(&state).unwrap();
    }

    #[test]
    fn an_unfinished_login_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        attempt(folder.path()).unwrap().pend().unwrap();
        let second = attempt(folder.path()).unwrap();
        assert!(second.interrupted);
        second.pend().unwrap();
        second.succeed().unwrap();
        assert!(!attempt(folder.path()).unwrap().interrupted);
    }

    #[test]
    fn without_its_folder_there_is_no_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("missing").join("ca");
        assert!(matches!(
            attempt(&state).map(drop),
            Err(OpenError::Marker { .. })
        ));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(
            attempt(&file).and_then(|attempt| attempt.pend()),
            Err(OpenError::Marker { .. })
        ));
    }
}
