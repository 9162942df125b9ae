//! A token with its login.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery_protocol::wire::Secret;
use cryptoki::context::Pkcs11;
use cryptoki::error::Error as CryptokiError;
use cryptoki::session::Session as RawSession;
use cryptoki::slot::Slot;

use crate::error::{KeyError, OpenError, TokenError};
use crate::key::{Key, PinnedKey};
use crate::login::{Attempt, Outcome, log_in_once};
use crate::module::Connection;
use crate::role::Role;
use crate::session::Session;
use crate::watch::Watch;

/// Where a token is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// Our name of it, for messages.
    pub name: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The token's label, which must be unique unless `serial` tells tokens apart.
    pub label: String,
    /// The token's serial number, where one is demanded.
    pub serial: Option<String>,
}

/// What a token says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its label, without padding.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Its manufacturer, where it tells.
    pub manufacturer: Option<String>,
    /// Its model, where it tells.
    pub model: Option<String>,
    /// Its firmware as `major.minor`, where it tells.
    pub firmware: Option<String>,
    /// How many sessions one process may have, where it tells and there is a limit. One is taken
    /// by the login.
    pub max_sessions: Option<u64>,
}

/// A token that this process is logged in to, for as long as this value or anything made from it
/// lives. Cloning shares the login.
#[derive(Clone)]
pub struct Token {
    pub(crate) context: Arc<Context>,
}

impl Token {
    /// Finds the token, logs in with one attempt, and keeps the login.
    ///
    /// `state` is a folder of this token's own, made if its parent exists. It holds the markers
    /// that keep a refused PIN from being tried twice; see [`OpenError::PinRefused`]. The PIN is
    /// wiped when this returns: a login that is lost later is not repeated here, the process ends
    /// and its next start logs in, by the same rules.
    ///
    /// # Errors
    /// [`OpenError`]; with [`OpenError::PinRefused`] nothing may be tried until a custodian has
    /// called for [`clear_pin`](crate::clear_pin).
    pub fn open(config: &TokenConfig, pin: Secret, state: &Path) -> Result<Self, OpenError> {
        let attempt = Attempt::new(&config.name, state)?;
        Self::connect(config, |connection, session| {
            attempt.log_in(connection, session, &pin)
        })
    }

    /// As [`Token::open`] without markers, for one who stands beside the token.
    pub(crate) fn open_attended(config: &TokenConfig, pin: &Secret) -> Result<Self, Unattended> {
        Self::connect(config, |_, session| match log_in_once(session, pin) {
            Outcome::In => Ok(()),
            Outcome::Refused(cause) => Err(Unattended::Refused(cause.to_string())),
            Outcome::NotInitialised => Err(OpenError::PinNotInitialised {
                token: config.name.clone(),
            }
            .into()),
            Outcome::Failed(error) => {
                Err(OpenError::from(TokenError::call(&config.name, error)).into())
            }
        })
    }

    fn connect<E: From<OpenError>>(
        config: &TokenConfig,
        log_in: impl FnOnce(&Connection, &RawSession) -> Result<(), E>,
    ) -> Result<Self, E> {
        let connection = Connection::open(config)?;
        let anchor = connection
            .module
            .open_ro_session(connection.slot)
            .map_err(|error| OpenError::from(TokenError::call(&config.name, error)))?;
        log_in(&connection, &anchor)?;
        let Connection {
            module,
            path,
            slot,
            info,
        } = connection;
        Ok(Self {
            context: Arc::new(Context {
                name: config.name.clone(),
                module,
                path,
                slot,
                info,
                watch: Arc::new(Watch::new()),
                _anchor: Mutex::new(anchor),
            }),
        })
    }

    /// Finds a key and tests it: exactly one private (or secret) key of this CKA_ID, generated in
    /// the token, never extractable, for this one purpose, with the pinned public key, and doing
    /// what it should. Nothing is generated if it is not there.
    ///
    /// # Errors
    /// [`KeyError`], which names the reason.
    pub fn key<R: Role>(&self, pinned: &PinnedKey) -> Result<Key<R>, KeyError> {
        Key::find(self, pinned)
    }

    /// A session for one worker. It belongs to the login, and ends with its value.
    ///
    /// # Errors
    /// [`TokenError`] if the token grants none.
    pub fn session(&self) -> Result<Session, TokenError> {
        Session::open(Arc::clone(&self.context))
    }

    /// What the token said about itself when it was opened.
    #[must_use]
    pub fn info(&self) -> TokenInfo {
        self.context.info.clone()
    }

    /// Aborts the process once a call of any session, present or to come, lasts longer than
    /// `deadline`. The login is not covered: it is over before the service reports that it is
    /// ready, which its supervisor watches.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn watch(&self, deadline: Duration) -> io::Result<()> {
        self.context.watch.start(&self.context.name, deadline)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.context.name).finish()
    }
}

/// What the sessions and keys of a token share.
pub(crate) struct Context {
    pub(crate) name: String,
    module: Pkcs11,
    /// The module's file, canonical.
    path: PathBuf,
    slot: Slot,
    info: TokenInfo,
    pub(crate) watch: Arc<Watch>,
    /// Never used: closing the last session would log out, so this one outlives the others. The
    /// lock guards it and nothing else, since a session is not [`Sync`].
    _anchor: Mutex<RawSession>,
}

impl Context {
    pub(crate) fn open_session(&self) -> Result<RawSession, CryptokiError> {
        self.module.open_ro_session(self.slot)
    }

    pub(crate) fn open_writing_session(&self) -> Result<RawSession, CryptokiError> {
        self.module.open_rw_session(self.slot)
    }

    /// Whether handles of the one are handles of the other.
    pub(crate) fn is_same_token(&self, other: &Self) -> bool {
        self.path == other.path && self.slot == other.slot
    }
}

/// How a login fails where no marker is kept.
pub(crate) enum Unattended {
    Refused(String),
    Open(OpenError),
}

impl From<OpenError> for Unattended {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}
