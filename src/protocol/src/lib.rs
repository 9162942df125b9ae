//! The contract between the processes of Chancery: read it first, change it last.
//!
//! Trusted with nothing and run by everyone: values, their encodings, and the messages of each
//! socket. No I/O, no cryptography, no clock; time, randomness and hash functions are arguments.
#![forbid(unsafe_code)]

pub mod audit;
pub mod hex;
pub mod ipc;
pub mod name;
pub mod node;
pub mod refusal;
pub mod scep;
pub mod seal;
pub mod tree;
pub mod wire;
