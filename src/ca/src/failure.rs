//! Why a certificate was not issued.

use chancery_protocol::refusal::Refusal;
use chancery_protocol::wire::{Digest, WireError};
use chancery_token::TokenError;
use der::asn1::OctetString;

use crate::certificate::BuildError;
use crate::challenge::SealError;
use crate::ledger::LedgerError;
use crate::witness::WitnessError;

/// One enrolment did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The request is refused. With the challenge's id once the requester has proved to hold one.
    #[error("refused: {refusal}")]
    Refused {
        /// The reason.
        refusal: Refusal,
        /// SHA-256 of the challenge's handle.
        challenge: Option<Digest>,
    },
    /// What the RA handed over does not bear out what it asks for.
    #[error("the RA's evidence does not hold: {cause}")]
    Unborne {
        /// What does not hold.
        cause: String,
        /// What the RA is told.
        refusal: Refusal,
    },
    /// The ledger returned a row that we never sealed: a defect of the database, or an attack.
    #[error("the {what} row {id} does not bear our seal")]
    BrokenSeal {
        /// What the row should be.
        what: &'static str,
        /// What it was found by.
        id: Digest,
    },
    /// The ledger did not do what was asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The log cannot be trusted.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The token did not do what was asked.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The signature that the token made does not verify: a wrong handle or a fault. Nothing was
    /// released.
    #[error("the token's signature does not verify")]
    BadSignature,
    /// A defect of this program.
    #[error("internal: {0}")]
    Internal(String),
}

impl Failure {
    /// A refusal after the proof of a challenge: it gets an audit record of its own.
    pub(crate) fn recorded(refusal: Refusal, challenge: Digest) -> Self {
        Self::Refused {
            refusal,
            challenge: Some(challenge),
        }
    }

    /// Whether the process should end, so that its supervisor starts it with a fresh token.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Token(error) | Self::Witness(WitnessError::Token(error)) => error.is_fatal(),
            Self::BadSignature => true,
            _ => false,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            refusal,
            challenge: None,
        }
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Token(error) => Self::Token(error),
            SealError::Wire(error) => error.into(),
            SealError::Encode(error) => Self::Internal(error.to_string()),
        }
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// An OCTET STRING for a packet.
pub(crate) fn octets(bytes: &[u8]) -> Result<OctetString, Failure> {
    OctetString::new(bytes).map_err(|error| Failure::Internal(error.to_string()))
}
