//! Blocking packets with a deadline, for whoever asks; shared socket set-up.

use chancery_protocol::wire::MAX_PACKET;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;
use zeroize::Zeroizing;

/// Why no packet came back. The difference that matters to a caller is whether the peer may have
/// acted on the request.
pub(crate) enum Failure {
    /// The peer has certainly not read the request.
    Unread(Errno),
    /// The peer may have read it.
    Deadline,
    /// The peer has read it, or may have, and closed the connection.
    Closed,
    /// The answer is larger than any packet.
    TooLarge(usize),
}

fn seqpacket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

/// Connects by `end` at the latest, even while the server's backlog is full.
pub(crate) fn connect_by(path: &Path, end: Instant) -> Result<OwnedFd, Failure> {
    let fd = seqpacket().map_err(Failure::Unread)?;
    let address = UnixAddr::new(path).map_err(Failure::Unread)?;
    loop {
        // unix(7) does not say so, but connect(2) on a stream-like socket waits for room in the
        // backlog no longer than SO_SNDTIMEO.
        limit(&fd, sockopt::SendTimeout, end)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Failure::Deadline),
            Err(error) => return Err(Failure::Unread(error)),
        }
    }
}

/// Binds and listens at `path`.
pub(crate) fn listen_at(path: &Path) -> nix::Result<OwnedFd> {
    let fd = seqpacket()?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(fd)
}

/// Sends one packet and waits for one. On any failure the connection must be dropped: a late
/// answer would be taken for the answer to the next request.
pub(crate) fn exchange(
    fd: &OwnedFd,
    packet: &[u8],
    end: Instant,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    loop {
        limit(fd, sockopt::SendTimeout, end)?;
        match send(fd.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Failure::Deadline),
            Err(error) => return Err(Failure::Unread(error)),
        }
    }
    // Looking first tells the length, so that the answer lands in one exact, wiped buffer.
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let length = receive(fd, &mut [], peek, end)?;
    if length > MAX_PACKET {
        return Err(Failure::TooLarge(length));
    }
    let mut answer = Zeroizing::new(vec![0; length]);
    if receive(fd, &mut answer, MsgFlags::empty(), end)? != length {
        return Err(Failure::Closed);
    }
    Ok(answer)
}

fn receive(
    fd: &OwnedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
    end: Instant,
) -> Result<usize, Failure> {
    loop {
        limit(fd, sockopt::ReceiveTimeout, end)?;
        match recv(fd.as_raw_fd(), buffer, flags) {
            Ok(0) => return Err(Failure::Closed),
            Ok(length) => return Ok(length),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Failure::Deadline),
            // The kernel resets a connection whose other end was closed with unread packets in
            // it. One request is in flight, so it is the one that was not read.
            Err(Errno::ECONNRESET) => return Err(Failure::Unread(Errno::ECONNRESET)),
            Err(_) => return Err(Failure::Closed),
        }
    }
}

/// Lets the next blocking call on `fd` end at `end`.
fn limit<O>(fd: &impl AsFd, option: O, end: Instant) -> Result<(), Failure>
where
    O: nix::sys::socket::SetSockOpt<Val = TimeVal>,
{
    let left = end.saturating_duration_since(Instant::now()).as_micros();
    if left == 0 {
        // A timeout of zero would mean none at all.
        return Err(Failure::Deadline);
    }
    let left = TimeVal::microseconds(i64::try_from(left).unwrap_or(i64::MAX / 2));
    setsockopt(fd, option, &left).map_err(Failure::Unread)
}
