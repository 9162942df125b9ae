//! Audit records to journald, by its native protocol, with every failure reported. (The
//! diagnostics' way there drops errors; see `process::diagnostics`.)

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// How long a record waits for a journald whose queue is full.
const PATIENCE_SECONDS: i64 = 2;

/// A connection to journald.
#[derive(Debug)]
pub struct Journal {
    socket: OwnedFd,
    address: UnixAddr,
}

impl Journal {
    /// Connects to the journal socket at `path` (normally `/run/systemd/journal/socket`).
    ///
    /// # Errors
    /// Of socket(2) and connect(2): there is no journald at this path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        let address = UnixAddr::new(path)?;
        setsockopt(
            &socket,
            sockopt::SendTimeout,
            &TimeVal::seconds(PATIENCE_SECONDS),
        )?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, address })
    }

    /// Sends one entry. It is in journald's hands when this returns; whether it is on disk is
    /// journald's affair. A journald that was restarted is found again.
    ///
    /// # Errors
    /// `InvalidInput` for a field name that journald would drop, `TimedOut` after two seconds of
    /// full queue, or the error of the socket.
    pub fn send(&self, fields: &[(&str, &str)]) -> io::Result<()> {
        let entry = encode(fields)?;
        match self.send_entry(&entry) {
            Err(Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::ENOTCONN | Errno::EPIPE) => {
                connect(self.socket.as_raw_fd(), &self.address)?;
                self.send_entry(&entry)
            }
            sent => sent,
        }
        .map_err(|error| match error {
            Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
            other => other.into(),
        })
    }

    fn send_entry(&self, entry: &[u8]) -> Result<(), Errno> {
        let sent = retry(|| send(self.socket.as_raw_fd(), entry, MsgFlags::MSG_NOSIGNAL));
        match sent {
            Err(Errno::EMSGSIZE | Errno::ENOBUFS) => self.send_sealed(entry),
            other => other.map(drop),
        }
    }

    /// What exceeds a datagram goes as a file that nobody can change any more.
    fn send_sealed(&self, entry: &[u8]) -> Result<(), Errno> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"journal-entry", flags)?);
        file.write_all(entry)
            .map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        let seals = SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SEAL;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        let descriptors = [file.as_raw_fd()];
        let passed = [ControlMessage::ScmRights(&descriptors)];
        let raw = self.socket.as_raw_fd();
        retry(|| sendmsg::<()>(raw, &[], &passed, MsgFlags::MSG_NOSIGNAL, None)).map(drop)
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            // With a send timeout set, a signal interrupts in spite of SA_RESTART.
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Each field as name, newline, length in 64 bits little-endian, value, newline: the form in which
/// no value can be mistaken for another field.
fn encode(fields: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let mut entry = Vec::new();
    for (name, value) in fields {
        if !is_field_name(name) {
            let text = format!(
                "{name:?} is no journal field name: 1 to 64 of A-Z, 0-9 and _, beginning with a letter"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    if entry.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a journal entry needs a field",
        ));
    }
    Ok(entry)
}

fn is_field_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    name.len() <= 64
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_uppercase())
        && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    use std::io::{IoSliceMut, Read};
    use std::os::fd::FromRawFd;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixDatagram;

    fn journald() -> (tempfile::TempDir, UnixDatagram, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        (folder, socket, journal)
    }

    #[test]
    fn a_newline_in_a_value_makes_no_field() {
        let (_folder, socket, journal) = journald();
        journal
            .send(&[("MESSAGE", "a\nPRIORITY=0"), ("CHANCERY_SEQ", "7")])
            .unwrap();
        let mut entry = [0; 256];
        let length = socket.recv(&mut entry).unwrap();
        let mut expected = b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n".to_vec();
        expected.extend_from_slice(b"CHANCERY_SEQ\n\x01\0\0\0\0\0\0\x007\n");
        assert_eq!(&entry[..length], expected);
    }

    #[test]
    fn names_that_journald_would_drop_are_refused() {
        let (_folder, _socket, journal) = journald();
        let long = "A".repeat(65);
        for name in ["", "_UID", "1A", "a", "A-B", "A\nB", "A=", long.as_str()] {
            let error = journal.send(&[(name, "x")]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(journal.send(&[]).is_err());
    }

    #[test]
    fn an_entry_beyond_a_datagram_arrives_whole_and_sealed() {
        let (_folder, socket, journal) = journald();
        let value = "v".repeat(2 << 20);
        journal.send(&[("CHANCERY_LARGE", &value)]).unwrap();
        let mut octets = [0; 16];
        let mut slices = [IoSliceMut::new(&mut octets)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let Some(ControlMessageOwned::ScmRights(passed)) = message.cmsgs().unwrap().next() else {
            panic!("no descriptor was passed");
        };
        #[allow(unsafe_code)]
        // SAFETY: recvmsg has just made this descriptor.
        let mut file = unsafe { File::from_raw_fd(passed[0]) };
        assert!(file.write_at(b"x", 0).is_err());
        let mut entry = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut entry).unwrap();
        assert_eq!(entry, encode(&[("CHANCERY_LARGE", &value)]).unwrap());
    }

    #[test]
    fn a_restarted_journald_is_found_again_and_a_missing_one_is_an_error() {
        let (folder, socket, journal) = journald();
        let path = folder.path().join("socket");
        drop(socket);
        assert!(journal.send(&[("MESSAGE", "lost")]).is_err());
        std::fs::remove_file(&path).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        journal.send(&[("MESSAGE", "back")]).unwrap();
        assert!(socket.recv(&mut [0; 64]).unwrap() > 0);
        assert!(Journal::connect(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_full_queue_is_an_error_and_no_silence() {
        let (_folder, _socket, journal) = journald();
        let error = (0..10_000)
            .find_map(|_| journal.send(&[("MESSAGE", "x")]).err())
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
