//! A pkiMessage from the user's side: made by the builder beside (judged by the cms and x509-cert
//! crates) or by other programs, taken apart by the parser, then read, verified and opened.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod accepted;
mod asn1;
mod builder;
mod foreign;
mod keys;
mod lies;
mod mutated;
mod refused_messages;
mod refused_requests;
mod run;
mod shape;
