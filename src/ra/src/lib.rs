//! The registration authority: verifies, decrypts, asks the CA, answers.
//!
//! Run by `chancery-ra`. Trusted with the PIN of the RA's token, and so with two keys: one decrypts
//! what devices send, one signs what they get back. Whoever takes this process over reads the
//! challenges that pass through it. Not trusted with anything that makes a certificate: no CA,
//! challenge or audit key, no network, no database. The CA believes nothing that comes from here
//! but runs the same checks again over the evidence.
//!
//! Hostile octets are taken apart by the parser's children; this process only follows tables of
//! numbers that it has proved over the octets it kept (`chancery-message`).
#![forbid(unsafe_code)]

mod certificates;
mod certrep;
mod failure;
mod health;
mod parser_port;
mod recorder;
mod role;
mod tally;
mod worker;
mod x509;

pub use role::main;
