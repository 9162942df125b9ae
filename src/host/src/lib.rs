//! Sockets, systemd, sandbox, journald, clock: every system call that is ours.
//!
//! Trusted with what the other crates forbid themselves: `unsafe` and raw system calls. Run by
//! every process of Chancery, so it holds no secret of its own and decides nothing about
//! certificates. What comes from a peer (packets, credentials, closed connections) is hostile
//! here as everywhere: it ends in a log line and a closed connection, never in a panic.
//!
//! The order in which a role uses it: [`process::diagnostics`], [`activation::Listeners`],
//! [`process::Stop`], [`sandbox::confine`] (before any thread), its own checks,
//! [`sandbox::seal`], [`process::ready`], [`ipc::server::serve`].

pub mod activation;
pub mod clock;
pub mod ipc;
pub mod journal;
pub mod process;
pub mod sandbox;
pub mod supervise;
pub mod zygote;

mod diagnostics;
mod disk;
