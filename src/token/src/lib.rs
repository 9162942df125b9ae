//! PKCS#11: one type for each purpose of a key, with one verb each.
//!
//! Trusted with everything: this crate loads the token's module, presents the PIN and asks for
//! private operations. It runs in `chancery-ra` (decrypt, respond), in `chancery-ca` (issue,
//! authenticate, checkpoint), and, for a ceremony, in the command line; nobody else may name it,
//! and nobody but it may name cryptoki.
//!
//! Not trusted with any decision: what is signed, for whom, and whether at all, its callers know.
//! It holds no private key, generates none outside [`ceremony`], and never in answer to a key that
//! it could not find.
//!
//! # Order in a service
//! 1. [`read_pin`], then [`Token::open`]: the module is loaded and initialised once a process, and
//!    the PIN is tried once (see [`OpenError::PinRefused`]).
//! 2. [`Token::watch`], so that a call that hangs ends the process.
//! 3. [`Token::key`] for each key. This finds it, reads its attributes back and runs a pairwise
//!    test, so that every mechanism has been used before the last system calls are given up.
//! 4. [`Token::session`] for each worker, which owns it from then on.
//!
//! After an error with [`TokenError::is_fatal`] the process ends, and its supervisor starts it
//! anew: a module that has lost its token often cannot find it again without that.
//!
//! # Any token
//! Digests are computed here and sent as `CKM_RSA_PKCS` over a DigestInfo or as `CKM_ECDSA`,
//! the mechanisms that every token has. No decision hangs on one exact return value: they are
//! sorted into classes ([`Class`]), and what has no known class is tried again on a new session.

// Lets the fixture, which the tests of this folder share, name the crate as they do.
#[cfg(test)]
extern crate self as chancery_token;

mod attributes;
pub mod ceremony;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod context;
mod error;
mod key;
mod login;
mod module;
mod pin;
mod public_key;
mod role;
mod session;
mod verbs;
mod watch;

pub use context::{Token, TokenConfig, TokenInfo};
pub use error::{Cause, Class, KeyError, KeyFault, OpenError, PinRefusal, TokenError};
pub use key::{Key, Pinned, PinnedKey};
pub use login::clear_pin;
pub use pin::{PinError, read_pin};
pub use public_key::{KeyAlgorithm, UnknownKeyAlgorithm};
pub use role::{Authenticate, Checkpoint, Decrypt, Issue, PairRole, Respond, Role, SecretRole};
pub use session::Session;
pub use verbs::{DigestAlgorithm, KeyTransport, SignatureAlgorithm};
