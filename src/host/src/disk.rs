//! Room on disk.

use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;

/// How many octets this process may still write to the file system of `path`; blocks that are
/// reserved for root do not count (statvfs(3): `f_bavail`).
///
/// # Errors
/// If `path` is missing or cannot be reached.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok(found
        .blocks_available()
        .saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_within_the_file_system_and_of_a_missing_path_an_error() {
        let total = statvfs("/tmp").unwrap();
        let total = total.blocks() * total.fragment_size();
        assert!(free_space(Path::new("/tmp")).unwrap() <= total);
        assert_eq!(
            free_space(Path::new("/none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_file_system_without_room_has_none() {
        assert_eq!(free_space(Path::new("/proc")).unwrap(), 0);
    }
}
