//! The certification authority.
//!
//! Trusted with the issuing, challenge and audit keys, which it uses through one token session a
//! worker; with policy; and with what gets signed. Not trusted with a network (but to its HSM),
//! HTTP, SQL, or the parsing of anything that a stranger sent: it runs the check of
//! `chancery-message` over the evidence that the RA hands it, as the RA did. Run by `chancery-ca`;
//! ceremonies use [`certificate`] to build root and issuing CA certificates.
#![forbid(unsafe_code)]

mod authorise;
mod authority;
pub mod certificate;
mod challenge;
mod digest;
mod failure;
mod infrastructure;
mod issue;
mod key_quality;
mod ledger;
mod lint;
mod names;
mod notary;
mod role;
mod service;
mod witness;

pub use authority::AuthorityError;
pub use role::{StartError, main};
