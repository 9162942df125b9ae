//! Proves node tables, verifies and opens a pkiMessage (RFC 8894 §3): the one check that the
//! registration authority and the certification authority share.
//!
//! Trusted with every decision that is made on a device's octets before a challenge is looked up:
//! which octets are signed, by whose key, over which digest; which public key, names and challenge
//! a request carries. Not trusted with any key of ours: the content-encryption key is an argument.
//! Run by `chancery-ra` and `chancery-ca`. Octets come from the network and tables from a child
//! that read them, so neither is believed: [`prove()`] shows that a table describes its octets, and
//! every field is found by tag and position in what was proved.
//!
//! The order is in the types, each step consuming the one before:
//! [`SignedMessage`] → [`VerifiedMessage`] → [`OpenedMessage`].
//!
//! Pure: no I/O, no clock, no random numbers. Nothing recurses, nothing panics, and no allocation
//! grows beyond a small multiple of what came in.
#![forbid(unsafe_code)]

mod algorithm;
mod certificate;
mod decrypt;
mod element;
mod envelope;
mod key;
mod message;
mod name;
mod open;
mod prove;
mod request;
mod signature;
mod tag;
mod verify;

pub use algorithm::{ContentCipher, DigestAlgorithm, KeyTransport, SignatureAlgorithm};
pub use decrypt::Plaintext;
pub use envelope::{Recipient, RecipientId};
pub use key::{Curve, PublicKey, PublicKeyKind};
pub use message::{ReadError, Requester, SignedMessage};
pub use open::{OpenError, OpenedMessage};
pub use prove::{Nodes, Unproved, prove};
pub use request::CertificationRequest;
pub use signature::{BadSignature, sha256, verify as verify_signature};
pub use verify::{Rejected, Signer, VerifiedMessage};
