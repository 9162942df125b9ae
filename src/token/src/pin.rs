//! The PIN, from a file or a systemd credential into memory that is wiped.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chancery_protocol::wire::Secret;
use zeroize::Zeroizing;

/// The longest PIN, in octets.
const MAX_PIN: usize = 256;

/// A PIN cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be opened or read.
    #[error("PIN file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("PIN file {}: not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read or write it.
    #[error(
        "PIN file {}: mode {mode:04o} lets others than its owner at it; use `chmod 600`", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no PIN.
    #[error("PIN file {}: empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds more than a PIN.
    #[error("PIN file {}: longer than {MAX_PIN} octets", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a PIN of 1 to 256 octets; one newline at its end is left out.
///
/// The file must be closed to group and others. Files of systemd's credentials directory are
/// exempt: systemd guards those itself, in part by access lists that show as group bits.
///
/// # Errors
/// [`PinError`], which names the file and never its contents.
pub fn read_pin(path: &Path) -> Result<Secret, PinError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    read(path, credentials.as_deref())
}

fn read(path: &Path, credentials: Option<&Path>) -> Result<Secret, PinError> {
    let failed = |source| PinError::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before it is opened, since opening a pipe would wait for its writer.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(PinError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 && !is_credential(path, credentials) {
        return Err(PinError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }

    // The newline, and one octet more to notice what is too long.
    let mut buffer = Zeroizing::new([0; MAX_PIN + 2]);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let contents = buffer.get(..filled).unwrap_or_default();
    let pin = contents.strip_suffix(b"\n").unwrap_or(contents);
    match pin.len() {
        0 => Err(PinError::Empty {
            path: path.to_owned(),
        }),
        1..=MAX_PIN => Ok(Secret::new(pin.to_vec())),
        _ => Err(PinError::TooLong {
            path: path.to_owned(),
        }),
    }
}

fn is_credential(path: &Path, credentials: Option<&Path>) -> bool {
    let Some(Ok(folder)) = credentials.map(Path::canonicalize) else {
        return false;
    };
    path.canonicalize()
        .is_ok_and(|path| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(contents: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn pin(contents: &[u8]) -> Result<Vec<u8>, PinError> {
        let (_folder, path) = file(contents, 0o600);
        read(&path, None).map(|pin| pin.expose().to_vec())
    }

    #[test]
    fn one_newline_is_left_out() {
        assert_eq!(pin(b"1234").unwrap(), b"1234");
        assert_eq!(pin(b"1234\n").unwrap(), b"1234");
        assert_eq!(pin(b"1234\n\n").unwrap(), b"1234\n");
        assert_eq!(pin(b" 12 34").unwrap(), b" 12 34");
    }

    #[test]
    fn its_length_is_bounded() {
        assert!(matches!(pin(b""), Err(PinError::Empty { .. })));
        assert!(matches!(pin(b"\n"), Err(PinError::Empty { .. })));
        assert_eq!(pin(&[b'7'; 256]).unwrap().len(), 256);
        assert!(matches!(pin(&[b'7'; 257]), Err(PinError::TooLong { .. })));
        assert!(matches!(pin(&[b'7'; 5000]), Err(PinError::TooLong { .. })));
        let mut longest = vec![b'7'; 256];
        longest.push(b'\n');
        assert_eq!(pin(&longest).unwrap().len(), 256);
        longest.push(b'7');
        assert!(matches!(pin(&longest), Err(PinError::TooLong { .. })));
    }

    #[test]
    fn others_may_not_read_it() {
        for mode in [0o640, 0o604, 0o620] {
            let (_folder, path) = file(b"1234", mode);
            let error = read(&path, None).map(drop).unwrap_err();
            assert!(matches!(error, PinError::Exposed { .. }), "{mode:o}");
            assert!(!error.to_string().contains("1234"));
        }
    }

    #[test]
    fn a_systemd_credential_may_show_group_bits() {
        let (folder, path) = file(b"1234", 0o440);
        assert_eq!(read(&path, Some(folder.path())).unwrap().expose(), b"1234");
        let other = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(&path, Some(other.path())),
            Err(PinError::Exposed { .. })
        ));
        let way_out = folder
            .path()
            .join("..")
            .join(folder.path().file_name().unwrap());
        let (_other, outside) = file(b"1234", 0o440);
        let link = way_out.join("link");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        assert!(matches!(
            read(&link, Some(folder.path())),
            Err(PinError::Exposed { .. })
        ));
    }

    #[test]
    fn only_regular_files_hold_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(folder.path(), None),
            Err(PinError::NotAFile { .. })
        ));
        assert!(matches!(
            read(&folder.path().join("none"), None),
            Err(PinError::Read { .. })
        ));
    }
}
