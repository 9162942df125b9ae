//! SoftHSM with a folder of this test process's own.

#![allow(dead_code)] // Each test program uses a part of it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use chancery_protocol::wire::Secret;
use chancery_token::ceremony::{Ceremony, initialise_token};
use chancery_token::{Token, TokenConfig};
use cryptoki::context::Pkcs11;
use cryptoki::session::{Session as RawSession, UserType};
use cryptoki::types::AuthPin;

pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &[u8] = b"1234-user";
const SO_PIN: &[u8] = b"1234-officer";

/// More than any test program has tests.
const TOKENS: usize = 24;

pub(crate) fn secret(text: &[u8]) -> Secret {
    Secret::new(text.to_vec())
}

/// One blank folder, configuration file and set of tokens for the whole process.
struct Hsm {
    folder: PathBuf,
    used: AtomicUsize,
}

static HSM: LazyLock<Hsm> = LazyLock::new(|| {
    let folder = folder();
    std::fs::create_dir(folder.join("tokens")).unwrap();
    let configuration = folder.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        folder.join("tokens").display()
    );
    std::fs::write(&configuration, text).unwrap();
    aws_lc_rs::init();
    // SAFETY: no other thread reads the environment at this time but through the standard library,
    // which locks it. The two readers outside Rust are aws-lc, when it is initialised, which is
    // done, and the module, which no test loads before it has waited for this.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("SOFTHSM2_CONF", &configuration);
    }
    // All at once and before any test: SoftHSM does not lock its list of slots when it grows.
    for number in 0..TOKENS {
        initialise_token(
            Path::new(MODULE),
            &label(number),
            &secret(SO_PIN),
            &secret(PIN),
        )
        .unwrap();
    }
    Hsm {
        folder,
        used: AtomicUsize::new(0),
    }
});

/// A folder that is removed when the process ends, by a child that waits for that.
fn folder() -> PathBuf {
    let folder = tempfile::tempdir().unwrap().keep();
    std::process::Command::new("sh")
        .args(["-c", "read _; rm -rf -- \"$1\"", "sh"])
        .arg(&folder)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .map(|mut child| std::mem::forget(child.stdin.take()))
        .unwrap();
    folder
}

fn label(number: usize) -> String {
    format!("test {number}")
}

/// A token that no other test uses, and a folder for its markers.
pub(crate) struct Fixture {
    pub(crate) config: TokenConfig,
    pub(crate) state: PathBuf,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let number = HSM.used.fetch_add(1, Ordering::Relaxed);
        assert!(number < TOKENS, "raise TOKENS");
        let config = TokenConfig {
            name: format!("t{number}"),
            module: MODULE.into(),
            label: label(number),
            serial: None,
        };
        let state = HSM.folder.join(format!("state-{number}"));
        std::fs::create_dir(&state).unwrap();
        Self { config, state }
    }

    pub(crate) fn token(&self) -> Token {
        Token::open(&self.config, secret(PIN), &self.state).unwrap()
    }

    pub(crate) fn ceremony(&self) -> Ceremony {
        Ceremony::open(&self.config, &secret(PIN)).unwrap()
    }

    /// The module without our crate in between, logged in.
    pub(crate) fn raw(&self) -> RawSession {
        let _login = self.ceremony();
        let module = Pkcs11::new(MODULE).unwrap();
        let slots = module.get_slots_with_token().unwrap();
        let slot = slots
            .into_iter()
            .find(|slot| module.get_token_info(*slot).unwrap().label() == self.config.label)
            .unwrap();
        let session = module.open_rw_session(slot).unwrap();
        let pin = AuthPin::from(String::from_utf8(PIN.to_vec()).unwrap());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) => {}
            Err(error) => assert!(error.to_string().contains("already logged"), "{error}"),
        }
        session
    }
}

/// Where SoftHSM keeps its tokens.
pub(crate) fn token_folder() -> PathBuf {
    HSM.folder.join("tokens")
}
