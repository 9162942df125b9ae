//! Front from outside: over TCP on one side, over the real IPC server on the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;
mod http;
mod scep;
