//! Typed packets over `AF_UNIX` `SOCK_SEQPACKET`: one packet a request, one a reply, one request
//! in flight on a connection.

mod channel;
mod packet;
pub mod server;

pub use channel::{CallError, Channel, ask_once};
pub(crate) use packet::listen_at;
