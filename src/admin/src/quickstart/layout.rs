//! Where things are in a demo appliance.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use der::pem;

use crate::end::End;
use crate::token_step::sha256_hex;

/// The tokens of a demo appliance.
pub(crate) const TOKENS: &[&str] = &["root", "ca", "ra"];

/// A demo appliance's folder.
pub(crate) struct Layout {
    /// Absolute.
    pub(crate) dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Result<Self, End> {
        Ok(Self {
            dir: std::path::absolute(dir)?,
        })
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("chancery.toml")
    }

    /// The configuration is written last: where it is, everything is.
    pub(crate) fn is_made(&self) -> bool {
        self.config().is_file()
    }

    pub(crate) fn softhsm_conf(&self, token: &str) -> PathBuf {
        self.token_folder(token).join("softhsm2.conf")
    }

    pub(crate) fn token_folder(&self, token: &str) -> PathBuf {
        self.dir.join("tokens").join(token)
    }

    pub(crate) fn pin(&self, token: &str) -> PathBuf {
        self.dir.join("pins").join(token)
    }

    pub(crate) fn so_pin(&self, token: &str) -> PathBuf {
        self.dir.join("pins").join(format!("{token}.so"))
    }

    pub(crate) fn transcript(&self) -> PathBuf {
        self.dir.join("transcript.json")
    }

    pub(crate) fn first_device(&self) -> PathBuf {
        self.dir.join("quickstart-device")
    }

    pub(crate) fn root_sha256(&self) -> Result<String, End> {
        let text = fs::read(self.dir.join("root.pem"))?;
        let (_, der) = pem::decode_vec(&text)
            .map_err(|error| End::Failed(format!("root.pem: is not PEM: {error}")))?;
        Ok(sha256_hex(&der))
    }

    /// Makes the empty folders. Refuses a folder with anything in it: it may be somebody's, or the
    /// rest of an interrupted attempt.
    pub(crate) fn create(&self) -> Result<(), End> {
        match fs::read_dir(&self.dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(End::Refused(format!(
                        "{}: holds something, but no chancery.toml; name an empty or a new folder, \
                         or remove this one if an earlier quickstart was interrupted",
                        self.dir.display()
                    )));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => make_folder(&self.dir)?,
            Err(error) => return Err(error.into()),
        }
        for folder in [
            "pins", "run", "state", "state/ca", "state/ra", "ledger", "tokens",
        ] {
            make_folder(&self.dir.join(folder))?;
        }
        for token in TOKENS {
            make_folder(&self.token_folder(token))?;
            let objects = self.token_folder(token).join("objects");
            make_folder(&objects)?;
            let text = format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
                objects.display()
            );
            fs::write(self.softhsm_conf(token), text)?;
        }
        Ok(())
    }
}

fn make_folder(path: &Path) -> Result<(), End> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|error| End::Failed(format!("{}: cannot be made: {error}", path.display())))
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_private(path: &Path, octets: &[u8]) -> Result<(), End> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(octets)?;
    file.sync_all()?;
    Ok(())
}
