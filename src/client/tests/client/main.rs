//! The client before independent judges: the `openssl` command, the cms crate, and a small HTTP
//! server that plays the other side.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod cert_rep;
mod enrolment;
mod folder;
mod messages;
mod pki;
mod server;
mod trust;
