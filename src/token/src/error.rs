//! What can go wrong between us and a token, sorted by what the caller does about it.

use core::fmt;
use std::path::PathBuf;

use cryptoki::error::{Error as CryptokiError, RvError};

/// What a failure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// This request cannot be served; the token is well.
    Request,
    /// The session is spent. Every verb has already tried once more on a new one.
    Session,
    /// The object handle is stale. Every verb has already found the key again and tried once more.
    Handle,
    /// The login is gone. It is not repeated here, since the PIN is not kept: end the process.
    Login,
    /// The token answers, but not as a key of ours may: end the process and raise an alarm.
    Fatal,
    /// The token is gone or broken: end the process, the supervisor starts it anew.
    Token,
}

impl Class {
    pub(crate) fn of(error: &CryptokiError) -> Self {
        let CryptokiError::Pkcs11(code, _) = error else {
            // A module without a function that we need, or with values that cannot be.
            return Self::Fatal;
        };
        match code {
            RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::SignatureInvalid
            | RvError::SignatureLenRange
            | RvError::AttributeReadOnly
            | RvError::AttributeSensitive
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent => Self::Request,

            RvError::ObjectHandleInvalid | RvError::KeyHandleInvalid => Self::Handle,

            RvError::UserNotLoggedIn => Self::Login,

            RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyTypeInconsistent
            | RvError::KeySizeRange
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::FunctionNotSupported
            | RvError::RandomNoRng
            | RvError::FipsSelfTestFailed => Self::Fatal,

            RvError::GeneralError
            | RvError::HostMemory
            | RvError::SlotIdInvalid
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::CryptokiNotInitialized
            | RvError::MutexBad
            | RvError::MutexNotLocked => Self::Token,

            // Spent sessions and stuck operations, and whatever else a module may say, its own
            // codes included: a new session is worth one try, and tells the two apart.
            _ => Self::Session,
        }
    }

    /// The class of a failure that a new session and a fresh handle did not mend.
    pub(crate) fn after_retry(self) -> Self {
        match self {
            Self::Session | Self::Handle => Self::Token,
            other => other,
        }
    }

    fn is_fatal(self) -> bool {
        matches!(self, Self::Login | Self::Fatal | Self::Token)
    }
}

/// The call that failed and the module's answer, by their names in PKCS#11.
#[derive(Debug)]
pub struct Cause(CryptokiError);

impl Cause {
    pub(crate) fn class(&self) -> Class {
        Class::of(&self.0)
    }
}

impl From<CryptokiError> for Cause {
    fn from(error: CryptokiError) -> Self {
        Self(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            CryptokiError::Pkcs11(RvError::VendorDefined(code), function) => {
                write!(f, "C_{function:?} answered vendor code {code:#x}")
            }
            CryptokiError::Pkcs11(RvError::UnknownErrorCode(code), function) => {
                write!(f, "C_{function:?} answered unknown code {code:#x}")
            }
            CryptokiError::Pkcs11(code, function) => {
                write!(f, "C_{function:?} answered {}", return_value_name(*code))
            }
            other => write!(f, "{other}"),
        }
    }
}

/// `PinIncorrect` as the standard writes it, `CKR_PIN_INCORRECT`.
fn return_value_name(code: RvError) -> String {
    let mut name = String::from("CKR");
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A verb failed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A call of the module failed.
    #[error("token {token}: {cause}")]
    Call {
        /// Our name of the token.
        token: String,
        /// What the failure asks for.
        class: Class,
        /// The module's answer.
        cause: Cause,
    },
    /// The token's answer is no value of the kind asked for.
    #[error("token {token}: the {what} that it returned is malformed; check the module's version")]
    Malformed {
        /// Our name of the token.
        token: String,
        /// What was asked for.
        what: &'static str,
    },
    /// A key was given to the session of another token.
    #[error(
        "key of token {key} used with a session of token {session}; this is a programming error"
    )]
    OtherToken {
        /// Our name of the key's token.
        key: String,
        /// Our name of the session's token.
        session: String,
    },
    /// The operating system gave no random octets.
    #[error("the operating system's random number generator failed; nothing may be signed without")]
    Random,
    /// The key failed a test, or is not the one that was pinned any more.
    #[error(transparent)]
    Key(Box<KeyError>),
}

impl TokenError {
    /// What the failure asks for.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Call { class, .. } => *class,
            Self::Malformed { .. } => Class::Token,
            Self::OtherToken { .. } | Self::Random => Class::Fatal,
            Self::Key(error) => error.class(),
        }
    }

    /// Whether going on is unsafe or of no use: end the process, so that its supervisor starts it
    /// anew with a freshly loaded module, one login, and keys that were tested again.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.class().is_fatal()
    }

    pub(crate) fn call(token: &str, error: CryptokiError) -> Self {
        let class = Class::of(&error);
        Self::Call {
            token: token.to_owned(),
            class,
            cause: error.into(),
        }
    }

    pub(crate) fn call_after_retry(token: &str, error: CryptokiError) -> Self {
        let class = Class::of(&error).after_retry();
        Self::Call {
            token: token.to_owned(),
            class,
            cause: error.into(),
        }
    }
}

impl From<KeyError> for TokenError {
    fn from(error: KeyError) -> Self {
        Self::Key(Box::new(error))
    }
}

/// A key is refused.
#[derive(Debug, thiserror::Error)]
#[error("{role} key with CKA_ID {id} on token {token}: {fault}")]
pub struct KeyError {
    /// The purpose that the key was to serve, by its verb.
    pub role: &'static str,
    /// CKA_ID in hexadecimal digits.
    pub id: String,
    /// Our name of the token.
    pub token: String,
    /// Why the key is refused.
    pub fault: KeyFault,
}

impl KeyError {
    /// What the refusal asks for. At start every one of them keeps the service down.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.fault {
            // A token whose storage went away finds nothing and reports no error.
            KeyFault::Missing => Class::Token,
            KeyFault::Call(cause) => match cause.class().after_retry() {
                Class::Request => Class::Fatal,
                other => other,
            },
            KeyFault::Several(_)
            | KeyFault::Unsuitable(_)
            | KeyFault::Attribute { .. }
            | KeyFault::PublicKeyDiffers
            | KeyFault::Pairwise(_) => Class::Fatal,
        }
    }
}

/// Why a key is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// The token holds no such key.
    #[error(
        "not found; check that this is the right token and that its storage is there (a missing \
         key is never replaced by a new one)"
    )]
    Missing,
    /// The token holds several keys with this identifier.
    #[error("found {0} keys where there must be one; remove or re-identify the others")]
    Several(usize),
    /// The pinned public key cannot serve this purpose.
    #[error("the pinned key is unsuitable: {0}")]
    Unsuitable(&'static str),
    /// An attribute is not as it must be.
    #[error(
        "{name} is {}, must be {wanted}; {remedy}", found.map_or("not reported", |found| if found {
        "true" } else { "false" })
    )]
    Attribute {
        /// The attribute's name in PKCS#11.
        name: &'static str,
        /// What the token reports, if it does.
        found: Option<bool>,
        /// What it must be.
        wanted: bool,
        /// What to do.
        remedy: &'static str,
    },
    /// The key on the token has another public key, or as a secret key another check value, than
    /// the pinned one.
    #[error(
        "its public key (of a secret key: its check value) is not the pinned one; the key was \
         replaced, or the wrong one is pinned"
    )]
    PublicKeyDiffers,
    /// The key does not do what its pinned counterpart expects.
    #[error("pairwise test failed: {0}")]
    Pairwise(&'static str),
    /// A call of the module failed.
    #[error("{0}")]
    Call(Cause),
}

impl From<CryptokiError> for KeyFault {
    fn from(error: CryptokiError) -> Self {
        Self::Call(error.into())
    }
}

/// A token cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The PIN must not be tried: serve "unavailable" until a custodian clears it.
    #[error(
        "token {token}: {refusal}; correct the PIN, then remove the marker {} with `chancery token \
         clear-pin --token {token}`", marker.display()
    )]
    PinRefused {
        /// Our name of the token.
        token: String,
        /// What happened.
        refusal: PinRefusal,
        /// The file that holds further logins back.
        marker: PathBuf,
    },
    /// The files that guard the login cannot be read or written.
    #[error("token {token}: login marker {}: {source}; the PIN was not tried", path.display())]
    Marker {
        /// Our name of the token.
        token: String,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The module cannot be loaded or initialised.
    #[error("token {token}: module {}: {cause}; check the path and the module's own configuration", path.display())]
    Module {
        /// Our name of the token.
        token: String,
        /// The module's file.
        path: PathBuf,
        /// What it says.
        cause: Cause,
    },
    /// No token of this label, and serial number if one is given, is present.
    #[error(
        "token {token}: the module shows no token labelled {label:?}{}; it shows: {seen}",
        serial.as_ref().map(|serial| format!(" with serial number {serial:?}")).unwrap_or_default()
    )]
    NotFound {
        /// Our name of the token.
        token: String,
        /// The label looked for.
        label: String,
        /// The serial number looked for.
        serial: Option<String>,
        /// The labels and serial numbers of the tokens present.
        seen: String,
    },
    /// Several tokens carry this label.
    #[error(
        "token {token}: several tokens are labelled {label:?}; name one by its serial number: {seen}"
    )]
    Ambiguous {
        /// Our name of the token.
        token: String,
        /// The label looked for.
        label: String,
        /// The labels and serial numbers of the tokens present.
        seen: String,
    },
    /// The token has no user PIN yet.
    #[error("token {token}: its user PIN was never set; initialise the token first")]
    PinNotInitialised {
        /// Our name of the token.
        token: String,
    },
    /// A call of the module failed.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Why the PIN must not be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinRefusal {
    /// The token refused it just now.
    #[error("the PIN was refused ({0})")]
    Now(String),
    /// The token refused it at an earlier start; it was not tried again.
    #[error("the PIN was refused at an earlier start and has not been tried since")]
    Earlier,
    /// A login was interrupted, and the token reports failed attempts, or nothing at all.
    #[error("a login was interrupted, and {0}")]
    Interrupted(&'static str),
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn class(code: RvError) -> Class {
        Class::of(&CryptokiError::Pkcs11(code, Function::Sign))
    }

    #[test]
    fn return_values_have_the_class_of_their_remedy() {
        assert_eq!(class(RvError::EncryptedDataInvalid), Class::Request);
        assert_eq!(class(RvError::OperationActive), Class::Session);
        assert_eq!(class(RvError::SessionHandleInvalid), Class::Session);
        assert_eq!(class(RvError::VendorDefined(0x8000_0001)), Class::Session);
        assert_eq!(class(RvError::ObjectHandleInvalid), Class::Handle);
        assert_eq!(class(RvError::UserNotLoggedIn), Class::Login);
        assert_eq!(class(RvError::PinLocked), Class::Fatal);
        assert_eq!(class(RvError::DeviceError), Class::Token);
        assert_eq!(class(RvError::GeneralError), Class::Token);
    }

    #[test]
    fn what_a_retry_did_not_mend_is_the_token() {
        assert_eq!(Class::Session.after_retry(), Class::Token);
        assert_eq!(Class::Handle.after_retry(), Class::Token);
        assert_eq!(Class::Request.after_retry(), Class::Request);
    }

    #[test]
    fn causes_speak_pkcs11() {
        let cause = Cause(CryptokiError::Pkcs11(
            RvError::PinIncorrect,
            Function::Login,
        ));
        assert_eq!(cause.to_string(), "C_Login answered CKR_PIN_INCORRECT");
        let cause = Cause(CryptokiError::Pkcs11(
            RvError::VendorDefined(0x8000_0001),
            Function::Sign,
        ));
        assert_eq!(cause.to_string(), "C_Sign answered vendor code 0x80000001");
    }
}
