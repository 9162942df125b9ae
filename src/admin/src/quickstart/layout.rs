//! Where things are in a demo appliance.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chancery_config::{MAX_SOCKET_PATH, SOCKETS};
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
            dir: std::path::absolute(dir)
                .map_err(End::cannot(format!("resolve {}", dir.display())))?,
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

    fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The folder of quickstart's own enrolment.
    pub(crate) fn first_device(&self) -> PathBuf {
        self.dir.join("quickstart-device")
    }

    /// cert.pem is written last: where it is, the enrolment came to its end.
    pub(crate) fn has_first_device(&self) -> bool {
        self.first_device().join("cert.pem").is_file()
    }

    pub(crate) fn root_sha256(&self) -> Result<String, End> {
        let file = self.dir.join("root.pem");
        let text = fs::read(&file).map_err(End::cannot(format!("read {}", file.display())))?;
        let (_, der) = pem::decode_vec(&text)
            .map_err(|error| End::Failed(format!("{}: is not PEM: {error}", file.display())))?;
        Ok(sha256_hex(&der))
    }

    /// Whether an appliance can be made here; touches nothing. Refuses a folder with anything in
    /// it: it may be somebody's, or the rest of an interrupted attempt.
    pub(crate) fn check(&self) -> Result<(), End> {
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
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(End::cannot(format!("read {}", self.dir.display()))(error)),
        }
        let sockets = SOCKETS.iter().map(|(_, name)| self.run().join(name));
        match sockets.max_by_key(|path| path.as_os_str().len()) {
            Some(longest) if longest.as_os_str().len() > MAX_SOCKET_PATH => {
                Err(End::Failed(format!(
                    "{}: a socket's path has at most {MAX_SOCKET_PATH} octets, this one has \
                     {}; choose a shorter --dir",
                    longest.display(),
                    longest.as_os_str().len()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Makes the empty folders.
    pub(crate) fn create(&self) -> Result<(), End> {
        if !self.dir.is_dir() {
            make_folder(&self.dir)?;
        }
        make_folder(&self.run())?;
        for folder in ["pins", "state", "state/ca", "state/ra", "ledger", "tokens"] {
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
            write(&self.softhsm_conf(token), &text)?;
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
    let write = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(octets)?;
        file.sync_all()
    };
    write().map_err(cannot_write(path))
}

/// Writes a file that anybody may read whom the folder lets in.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), End> {
    fs::write(path, text).map_err(cannot_write(path))
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> End {
    End::cannot(format!("write {}", path.display()))
}
