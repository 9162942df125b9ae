//! The device-facing HTTP listeners; process `chancery-front`.
//!
//! Trusted with: the network address that a request is logged and limited by, and with handing
//! bodies to ra and answers to devices unchanged. Not with: any key, any PIN, the database, or the
//! meaning of a message. It reads HTTP and never looks into a pkiMessage. Whoever takes it over
//! sees what passes over plain HTTP anyway, can refuse service, and can lie about peer addresses.
//!
//! [`request`] reads the request line, [`serve`] runs listeners and connections, [`process`] is
//! the process around them.
#![forbid(unsafe_code)]

pub mod process;
pub mod request;
pub mod serve;

mod blobs;
mod exchange;
mod pace;
mod peers;
mod ra;
mod warnings;

pub use process::main;
