//! How a command ends: exit codes that scripts rely on.

use core::fmt::Display;
use std::io;
use std::process::ExitCode;

use chancery_config::ConfigError;
use chancery_host::ipc::CallError;

/// A command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error("{0}")]
    NotFound(String),
    /// Exit code 4.
    #[error("{0}")]
    Refused(String),
    /// Exit code 5.
    #[error("{0}")]
    TokenUnavailable(String),
}

impl End {
    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::TokenUnavailable(_) => 5,
        })
    }

    /// A role that does not answer.
    pub(crate) fn unreachable(role: &str, error: &CallError) -> Self {
        Self::Failed(format!(
            "{}; `chancery doctor` tells more",
            no_answer(role, error)
        ))
    }

    /// A system call that failed, for `map_err`: `action` says what it was for, with the path or
    /// address.
    pub(crate) fn cannot(action: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Failed(format!("cannot {action}: {error}"))
    }
}

impl From<ConfigError> for End {
    fn from(error: ConfigError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What is known of a role that does not answer, with the first remedy.
pub(crate) fn no_answer(role: &str, error: &CallError) -> String {
    format!(
        "{role} does not answer: {error}; is the appliance running, and may this user open its \
         sockets?"
    )
}
