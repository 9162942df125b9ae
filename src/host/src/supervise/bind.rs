//! The sockets of a role.

use super::{Role, Socket, SuperviseError};
use crate::activation::FIRST_FD;
use crate::ipc::listen_at;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `sun_path` has 108 octets; every part of the system agrees on fewer than 107.
const PATH_LIMIT: usize = 107;

/// A listening socket. Its file is removed with it.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) name: String,
    /// Above every number that a role gets its sockets at, so that moving them there overwrites
    /// none.
    pub(super) fd: OwnedFd,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Path(PathBuf),
    Address(SocketAddr),
}

impl Bound {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Address(address) => Some(address),
            Place::Path(_) => None,
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Place::Path(path) = &self.place {
            // Whoever removed it before has done our work.
            let _ = fs::remove_file(path);
        }
    }
}

/// Binds the sockets of `role`.
pub(super) fn all(role: &Role) -> Result<Vec<Bound>, SuperviseError> {
    let lowest = RawFd::try_from(role.sockets.len()).unwrap_or(RawFd::MAX / 2) + FIRST_FD;
    role.sockets
        .iter()
        .map(|socket| {
            let (Socket::Unix { name, .. } | Socket::Tcp { name, .. }) = socket;
            let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(SuperviseError::Name { name: name.clone() });
            }
            let failed = |source: io::Error, address: String| SuperviseError::Bind {
                name: name.clone(),
                address,
                source,
            };
            let (fd, place) = match socket {
                Socket::Unix { path, .. } => {
                    prepare_path(path)?;
                    let fd = bind_unix(path).map_err(|e| failed(e, path.display().to_string()))?;
                    (fd, Place::Path(path.clone()))
                }
                Socket::Tcp { address, .. } => {
                    let bound = TcpListener::bind(address).and_then(|l| Ok((l.local_addr()?, l)));
                    let (bound, listener) = bound.map_err(|e| failed(e, address.to_string()))?;
                    (listener.into(), Place::Address(bound))
                }
            };
            // From here on a failure removes the socket file.
            let bound = Bound {
                name: name.clone(),
                fd,
                place,
            };
            let fd = move_above(&bound.fd, lowest).map_err(|source| SuperviseError::System {
                action: "duplicate a listener",
                source,
            })?;
            Ok(bound.with(fd))
        })
        .collect()
}

impl Bound {
    fn with(mut self, fd: OwnedFd) -> Self {
        self.fd = fd;
        self
    }
}

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let fd = listen_at(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(fd)
}

#[allow(unsafe_code)]
fn move_above(fd: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let moved = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// Sees to a folder that is ours alone and to a free path in it.
fn prepare_path(path: &Path) -> Result<(), SuperviseError> {
    if path.as_os_str().len() >= PATH_LIMIT {
        return Err(SuperviseError::PathTooLong {
            path: path.to_owned(),
        });
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let failed = |source| SuperviseError::Folder {
        path: folder.to_owned(),
        source,
    };
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(folder)
        .map_err(failed)?;
    let found = fs::metadata(folder).map_err(failed)?;
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    // First: whoever it does not belong to could not change its mode.
    if uid != nix::unistd::geteuid().as_raw() {
        return Err(SuperviseError::FolderForeign {
            path: folder.to_owned(),
            uid,
        });
    }
    if mode & 0o077 != 0 {
        return Err(SuperviseError::FolderOpen {
            path: folder.to_owned(),
            mode,
        });
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => Err(SuperviseError::NotASocket {
            path: path.to_owned(),
        }),
        Ok(_) if is_served(path) => Err(SuperviseError::InUse {
            path: path.to_owned(),
        }),
        Ok(_) => fs::remove_file(path).map_err(failed),
    }
}

/// Whether somebody listens there; a socket left over by a process that died refuses.
fn is_served(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let attempt = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &UnixAddr::new(path)?));
    attempt != Err(nix::errno::Errno::ECONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::chown;

    #[test]
    fn a_folder_of_another_user_asks_for_that_user_and_not_for_a_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, owner) = if nix::unistd::geteuid().is_root() {
            fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
            chown(folder.path(), Some(65_534), None).unwrap();
            (folder.path(), 65_534)
        } else {
            (Path::new("/"), 0)
        };
        let error = prepare_path(&folder.join("socket")).unwrap_err();
        assert!(
            matches!(error, SuperviseError::FolderForeign { uid, .. } if uid == owner),
            "{error}"
        );
        assert!(error.to_string().ends_with("run as that user"), "{error}");
    }
}
