//! Making tokens and keys: for a ceremony, a demo and tests, never for a service.
//!
//! Someone stands beside the token, so no marker is kept; a PIN is tried once all the same.

use core::fmt;
use std::path::{Path, PathBuf};

use chancery_protocol::hex;
use chancery_protocol::wire::Secret;
use cryptoki::error::Error as CryptokiError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session as RawSession, UserType};
use cryptoki::types::AuthPin;

use crate::context::{Token, TokenConfig, TokenInfo, Unattended};
use crate::error::{KeyError, KeyFault, OpenError, TokenError};
use crate::key::{Identity, Pinned, PinnedKey, key_error, read_public_key};
use crate::module::{Modules, describe};
use crate::public_key::{KeyAlgorithm, PUBLIC_EXPONENT};
use crate::role::{PairRole, Purpose, Role, SecretRole};
use crate::verbs;

mod probe;

pub use probe::Breach;

/// Initialises a token that is blank: label, security officer's PIN, user's PIN. Touches no token
/// that is initialised already, whatever its label.
///
/// # Errors
/// [`CeremonyError`]; [`CeremonyError::LabelTaken`] if the module has a token of this label.
pub fn initialise_token(
    module: &Path,
    label: &str,
    so_pin: &Secret,
    pin: &Secret,
) -> Result<TokenInfo, CeremonyError> {
    if label.is_empty() || label.len() > 32 || label.trim_end() != label {
        return Err(CeremonyError::Label {
            label: label.to_owned(),
        });
    }
    let (so_pin, pin) = (auth_pin(so_pin)?, auth_pin(pin)?);
    let failed = |error| TokenError::call(label, error);

    // Locked until the end: two ceremonies of one process must not choose the same blank token.
    let mut modules = Modules::lock();
    let path = module;
    let module = modules.load(path).map_err(|error| OpenError::Module {
        token: label.to_owned(),
        path: path.to_owned(),
        cause: error.into(),
    })?;
    let tokens = modules.tokens(&module).map_err(failed)?;
    if tokens
        .iter()
        .any(|(_, info)| info.token_initialized() && info.label() == label)
    {
        return Err(CeremonyError::LabelTaken {
            label: label.to_owned(),
        });
    }
    let Some((slot, _)) = tokens.iter().find(|(_, info)| !info.token_initialized()) else {
        return Err(CeremonyError::NoBlankToken {
            module: path.to_owned(),
        });
    };
    module.init_token(*slot, &so_pin, label).map_err(failed)?;

    // Some modules move a token to another slot once it has a serial number.
    let tokens = modules.tokens(&module).map_err(failed)?;
    let mut ours = tokens.iter().filter(|(_, info)| info.label() == label);
    let (Some((slot, info)), None) = (ours.next(), ours.next()) else {
        return Err(CeremonyError::Vanished {
            label: label.to_owned(),
        });
    };
    let session = module.open_rw_session(*slot).map_err(failed)?;
    session.login(UserType::So, Some(&so_pin)).map_err(failed)?;
    session.init_pin(&pin).map_err(failed)?;
    session.logout().map_err(failed)?;
    Ok(describe(info))
}

fn auth_pin(pin: &Secret) -> Result<AuthPin, CeremonyError> {
    let text = core::str::from_utf8(pin.expose()).map_err(|_| CeremonyError::PinText)?;
    // An exact copy, so that making it a boxed slice moves nothing.
    Ok(AuthPin::from(Box::<str>::from(text)))
}

/// A login for making keys.
pub struct Ceremony {
    token: Token,
}

impl Ceremony {
    /// Finds the token and logs in, with one attempt.
    ///
    /// # Errors
    /// [`CeremonyError::PinRefused`] if the PIN is wrong; else [`CeremonyError::Open`].
    pub fn open(config: &TokenConfig, pin: &Secret) -> Result<Self, CeremonyError> {
        match Token::open_attended(config, pin) {
            Ok(token) => Ok(Self { token }),
            Err(Unattended::Refused(answer)) => Err(CeremonyError::PinRefused {
                token: config.name.clone(),
                answer,
            }),
            Err(Unattended::Open(error)) => Err(error.into()),
        }
    }

    /// The token that this ceremony is logged in to.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Generates a key pair in the token: not extractable, for the purpose of `R` alone, under a
    /// random CKA_ID of 16 octets. Then holds the token to it: reads the attributes back, tests
    /// the key, and tries to get it out and to use it for another purpose.
    ///
    /// # Errors
    /// [`CeremonyError`]. No key is left behind, unless the error says so.
    pub fn generate_pair<R: PairRole>(
        &self,
        label: &str,
        algorithm: KeyAlgorithm,
    ) -> Result<PinnedKey, CeremonyError> {
        if !R::accepts(algorithm) {
            return Err(CeremonyError::Algorithm {
                role: R::NAME,
                algorithm,
            });
        }
        let id = self.new_id()?;
        let mechanism = if algorithm.is_rsa() {
            Mechanism::RsaPkcsKeyPairGen
        } else {
            Mechanism::EccKeyPairGen
        };
        let session = self.writing_session()?;
        let (public, private) = session
            .generate_key_pair(
                &mechanism,
                &public_template(label, &id, algorithm, R::PURPOSE),
                &key_template(label, &id, R::PURPOSE),
            )
            .map_err(|error| self.failed(error))?;
        self.keep_if_sound::<R>(&session, &[private, public], &id, || {
            let shown = read_public_key(&session, public)?.ok_or(KeyFault::Unsuitable(
                "the token does not show its public key",
            ))?;
            Ok(Pinned::Public(
                shown.map_err(KeyFault::Unsuitable)?.spki().to_vec(),
            ))
        })
    }

    /// Generates a secret of 32 octets for HMAC-SHA256, by the rules of
    /// [`generate_pair`](Self::generate_pair).
    ///
    /// # Errors
    /// [`CeremonyError`]. No key is left behind, unless the error says so.
    pub fn generate_secret<R: SecretRole>(&self, label: &str) -> Result<PinnedKey, CeremonyError> {
        let id = self.new_id()?;
        let mut template = key_template(label, &id, R::PURPOSE);
        template.push(Attribute::ValueLen(32.into()));
        let session = self.writing_session()?;
        let key = session
            .generate_key(&Mechanism::GenericSecretKeyGen, &template)
            .map_err(|error| self.failed(error))?;
        self.keep_if_sound::<R>(&session, &[key], &id, || {
            let mac = verbs::mac(&session, key, verbs::CHECK_TEXT)?;
            Ok(Pinned::Check(
                mac.ok_or(KeyFault::Pairwise("the MAC is malformed"))?,
            ))
        })
    }

    /// CKA_ID cannot be changed on every token, so it is chosen before the key.
    fn new_id(&self) -> Result<Vec<u8>, CeremonyError> {
        Ok(self.token.session()?.random(16)?)
    }

    fn writing_session(&self) -> Result<RawSession, CeremonyError> {
        self.token
            .context
            .open_writing_session()
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: CryptokiError) -> CeremonyError {
        TokenError::call(&self.token.context.name, error).into()
    }

    /// Pins a new key and examines it; deletes its objects unless all is well.
    fn keep_if_sound<R: Role>(
        &self,
        session: &RawSession,
        objects: &[ObjectHandle],
        id: &[u8],
        pin: impl FnOnce() -> Result<Pinned, KeyFault>,
    ) -> Result<PinnedKey, CeremonyError> {
        let name = &self.token.context.name;
        let pinned = pin()
            .map(|material| PinnedKey {
                id: id.to_vec(),
                material,
            })
            .map_err(|fault| key_error(R::NAME, id, name, fault).into());
        let reason = match pinned.and_then(|pinned| self.examine::<R>(&pinned).map(|()| pinned)) {
            Ok(pinned) => return Ok(pinned),
            Err(reason) => reason,
        };
        for object in objects {
            if let Err(error) = session.destroy_object(*object) {
                return Err(CeremonyError::NotDeleted {
                    id: hex::encode(id),
                    reason: Box::new(reason),
                    cause: Box::new(self.failed(error)),
                });
            }
        }
        Err(reason)
    }

    /// What a service does before it uses the key, and then what it must not be able to do.
    fn examine<R: Role>(&self, pinned: &PinnedKey) -> Result<(), CeremonyError> {
        let refused = |fault| key_error(R::NAME, &pinned.id, &self.token.context.name, fault);
        let identity = Identity::new::<R>(pinned).map_err(refused)?;
        let session = self.writing_session()?;
        let key = identity.locate(&session).map_err(refused)?;
        if let Some(breach) = probe::breach(&session, key, R::PURPOSE, identity.public_key()) {
            return Err(CeremonyError::Breach {
                role: R::NAME,
                token: self.token.context.name.clone(),
                breach,
            });
        }
        // A token that died meanwhile would have refused everything as well. A new session, since
        // a refused attempt may have left the other one stuck.
        let session = self.writing_session()?;
        identity.pairwise_test(&session, key).map_err(refused)?;
        Ok(())
    }
}

impl fmt::Debug for Ceremony {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ceremony")
            .field(&self.token.context.name)
            .finish()
    }
}

/// A private or a secret key, with as few attributes as make it ours. What the token finds out for
/// itself (CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE) must not be named.
fn key_template(label: &str, id: &[u8], purpose: Purpose) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Sign(purpose != Purpose::Decrypt),
        Attribute::Decrypt(purpose == Purpose::Decrypt),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    template.extend(match purpose {
        Purpose::Sign | Purpose::Decrypt => vec![Attribute::SignRecover(false)],
        Purpose::Authenticate => {
            vec![
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
                Attribute::Verify(false),
            ]
        }
    });
    template
}

fn public_template(
    label: &str,
    id: &[u8],
    algorithm: KeyAlgorithm,
    purpose: Purpose,
) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Verify(purpose == Purpose::Sign),
        Attribute::Encrypt(purpose == Purpose::Decrypt),
        Attribute::Wrap(false),
    ];
    match algorithm.ec_params() {
        Some(params) => template.push(Attribute::EcParams(params)),
        None => {
            template.push(Attribute::ModulusBits(algorithm.modulus_bits().into()));
            template.push(Attribute::PublicExponent(PUBLIC_EXPONENT.to_vec()));
        }
    }
    template
}

/// A ceremony fails.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// No label that a token can carry unchanged.
    #[error("token label {label:?}: must have 1 to 32 octets and no space at its end")]
    Label {
        /// The label.
        label: String,
    },
    /// A token carries the label already.
    #[error("token label {label:?}: a token of this label exists already; choose another label")]
    LabelTaken {
        /// The label.
        label: String,
    },
    /// The module shows no token that is blank.
    #[error("module {}: no blank token; an initialised one is never overwritten", module.display())]
    NoBlankToken {
        /// The module's file.
        module: PathBuf,
    },
    /// The token is not to be found under its new label.
    #[error("token {label:?}: initialised, but not found under its label; its user PIN is not set")]
    Vanished {
        /// The label.
        label: String,
    },
    /// A PIN for a new token must be text.
    #[error("PIN: not UTF-8, as PKCS#11 wants it; choose printable characters")]
    PinText,
    /// The token refused the PIN.
    #[error("token {token}: the PIN was refused ({answer}); correct it before another attempt")]
    PinRefused {
        /// Our name of the token.
        token: String,
        /// The token's answer.
        answer: String,
    },
    /// The token cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A key of this algorithm cannot serve this role.
    #[error("{role} key: {algorithm} cannot serve this role")]
    Algorithm {
        /// The role, by its verb.
        role: &'static str,
        /// The algorithm.
        algorithm: KeyAlgorithm,
    },
    /// The new key failed its test, and was deleted.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token does not protect its keys. The new one was deleted.
    #[error("{role} key: token {token} does not protect it: {breach}; use another token")]
    Breach {
        /// The role, by its verb.
        role: &'static str,
        /// Our name of the token.
        token: String,
        /// What succeeded and must not.
        breach: Breach,
    },
    /// A refused key is still on the token.
    #[error("{reason}; and deleting the key with CKA_ID {id} failed: {cause}; delete it by hand")]
    NotDeleted {
        /// CKA_ID in hexadecimal digits.
        id: String,
        /// Why the key was refused.
        reason: Box<CeremonyError>,
        /// Why it could not be deleted.
        cause: Box<CeremonyError>,
    },
    /// A call of the module failed.
    #[error(transparent)]
    Token(#[from] TokenError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_usage() {
        for purpose in [Purpose::Sign, Purpose::Decrypt, Purpose::Authenticate] {
            let on: Vec<_> = key_template("key", b"id", purpose)
                .into_iter()
                .filter(|attribute| {
                    matches!(
                        attribute,
                        Attribute::Sign(true)
                            | Attribute::SignRecover(true)
                            | Attribute::Decrypt(true)
                            | Attribute::Encrypt(true)
                            | Attribute::Verify(true)
                            | Attribute::Wrap(true)
                            | Attribute::Unwrap(true)
                            | Attribute::Derive(true)
                    )
                })
                .collect();
            let [usage] = on.as_slice() else {
                panic!("{purpose:?}: {on:?}")
            };
            assert_eq!(usage.attribute_type(), purpose.attribute());
        }
    }

    #[test]
    fn labels_are_carried_unchanged_or_refused() {
        let pin = Secret::new(b"1234".to_vec());
        let long = "x".repeat(33);
        for label in ["", "ends with a space ", &long] {
            let refused = initialise_token(Path::new("/none"), label, &pin, &pin);
            assert!(
                matches!(refused, Err(CeremonyError::Label { .. })),
                "{label:?}"
            );
        }
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let pin = Secret::new(b"1234".to_vec());
        let error = initialise_token(Path::new("/none.so"), "label", &pin, &pin).unwrap_err();
        assert!(matches!(
            error,
            CeremonyError::Open(OpenError::Module { .. })
        ));
        assert!(error.to_string().contains("/none.so"), "{error}");
    }
}
