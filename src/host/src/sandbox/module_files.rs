//! What a PKCS#11 module opens besides its own files.

use std::path::{Path, PathBuf};

/// Libraries and their loader's cache, OpenSSL's configuration, randomness. All of it is the
/// distribution's and public.
const SYSTEM_FILES: &[&str] = &[
    "/usr/lib",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/dev/urandom",
    "/dev/random",
];

/// The files to read for loading and using the PKCS#11 module at `module`: those of
/// the list that exist, and the module.
#[must_use]
pub fn module_files(module: &Path) -> Vec<PathBuf> {
    SYSTEM_FILES
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .chain([module.to_path_buf()])
        .collect()
}
