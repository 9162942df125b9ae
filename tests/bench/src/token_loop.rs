//! The bound: the token operations of an enrolment and nothing else, on a token of the bench's
//! own.
//!
//! A PKCS#11 module is loaded once a process and reads its environment then, so the loop runs in
//! a process of its own, which has `SOFTHSM2_CONF` from its parent. An appliance has two tokens
//! in two processes; here both parts share one, as they share the processors.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use chancery_protocol::wire::Secret;
use chancery_token::ceremony::{Ceremony, initialise_token};
use chancery_token::{
    Authenticate, Decrypt, DigestAlgorithm, Issue, Key, KeyAlgorithm, KeyTransport, PairRole,
    Respond, Session, Token, TokenConfig,
};

use crate::{Failure, processes};

/// How long each number of threads is measured.
const WINDOW: Duration = Duration::from_secs(2);

/// What a window brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    /// Threads at once, each with sessions of its own.
    pub(crate) threads: u16,
    /// Enrolments' worth of operations.
    pub(crate) enrolments: u64,
    /// How long they took.
    pub(crate) elapsed: Duration,
    /// CPU time that they took.
    pub(crate) cpu: Duration,
}

/// Measures in a process of its own, with a token folder in `folder`.
pub(crate) fn measure(
    module: &Path,
    folder: &Path,
    threads: &[u16],
) -> Result<Vec<Window>, Failure> {
    let objects = folder.join("loop-token");
    fs::create_dir(&objects)?;
    let configuration = folder.join("loop-softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        objects.display()
    );
    fs::write(&configuration, text)?;
    let list: Vec<String> = threads.iter().map(ToString::to_string).collect();
    let output = Command::new(std::env::current_exe()?)
        .args(["--token-loop", &list.join(","), "--module"])
        .arg(module)
        .env(SOFTHSM2_CONF, configuration)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the bare token loop ended with {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let windows: Option<Vec<Window>> = text.lines().map(Window::read).collect();
    windows
        .filter(|windows| windows.len() == threads.len())
        .ok_or_else(|| format!("the bare token loop printed something else: {text:?}").into())
}

/// The loop's process: makes a token, measures, and prints a line for each number of threads.
pub(crate) fn windows(module: &Path, threads: &[u16]) -> Result<(), Failure> {
    if std::env::var_os(SOFTHSM2_CONF).is_none() {
        return Err(
            "SOFTHSM2_CONF is not set; the token loop makes a token, and not in a store that may \
             be somebody's"
                .into(),
        );
    }
    let keys = Keys::make(module)?;
    for threads in threads {
        println!("{}", keys.window(*threads)?.line());
    }
    Ok(())
}

const SOFTHSM2_CONF: &str = "SOFTHSM2_CONF";

impl Window {
    fn line(&self) -> String {
        format!(
            "{} {} {} {}",
            self.threads,
            self.enrolments,
            self.elapsed.as_micros(),
            self.cpu.as_micros()
        )
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let threads = fields.next()?.parse().ok()?;
        let mut number = || fields.next()?.parse::<u64>().ok();
        let window = Self {
            threads,
            enrolments: number()?,
            elapsed: Duration::from_micros(number()?),
            cpu: Duration::from_micros(number()?),
        };
        fields.next().is_none().then_some(window)
    }
}

/// The keys on the path of an enrolment, by default a quickstart's, and what they work on. Only
/// the sizes of the texts matter, and those little: everything is hashed before a signature.
struct Keys {
    token: Token,
    decryption: Key<Decrypt>,
    response: Key<Respond>,
    issuing: Key<Issue>,
    challenge: Key<Authenticate>,
    content_key: [u8; 16],
    encrypted_key: Vec<u8>,
    challenge_row: [u8; 320],
    challenge_mac: [u8; 32],
    reservation_row: [u8; 640],
    tbs_certificate: [u8; 560],
    signed_attributes: [u8; 290],
}

impl Keys {
    fn make(module: &Path) -> Result<Self, Failure> {
        let pin = Secret::new(b"bench-pin".to_vec());
        let label = "chancery-bench";
        initialise_token(module, label, &pin, &pin)?;
        let config = TokenConfig {
            name: label.into(),
            module: module.into(),
            label: label.into(),
            serial: None,
        };
        let ceremony = Ceremony::open(&config, &pin)?;
        let decryption = pair::<Decrypt>(&ceremony, "ra-decryption", KeyAlgorithm::Rsa2048)?;
        let pinned = ceremony.generate_secret::<Authenticate>("challenge")?;
        let challenge = ceremony.token().key::<Authenticate>(&pinned)?;
        let content_key = [7; 16];
        let challenge_row = [1; 320];
        let mut session = ceremony.token().session()?;
        Ok(Self {
            encrypted_key: encrypt(&decryption, &content_key)?,
            challenge_mac: challenge.authenticate(&mut session, &challenge_row)?,
            token: ceremony.token().clone(),
            decryption,
            response: pair(&ceremony, "ra-signing", KeyAlgorithm::Rsa2048)?,
            issuing: pair(&ceremony, "issuing", KeyAlgorithm::P256)?,
            challenge,
            content_key,
            challenge_row,
            reservation_row: [2; 640],
            tbs_certificate: [3; 560],
            signed_attributes: [4; 290],
        })
    }

    fn window(&self, threads: u16) -> Result<Window, Failure> {
        let over = AtomicBool::new(false);
        let mut workers = Vec::new();
        for _ in 0..threads {
            let mut worker = Worker {
                keys: self,
                registrar: self.token.session()?,
                authority: self.token.session()?,
            };
            worker.enrolment()?;
            workers.push(worker);
        }
        let (start, cpu) = (Instant::now(), processes::own_cpu()?);
        let enrolments = thread::scope(|scope| {
            let threads: Vec<_> = workers
                .iter_mut()
                .map(|worker| scope.spawn(|| worker.work(&over)))
                .collect();
            thread::sleep(WINDOW);
            over.store(true, Ordering::Relaxed);
            let mut enrolments = 0;
            for thread in threads {
                enrolments += thread
                    .join()
                    .map_err(|_| "a thread of the token loop panicked")??;
            }
            Ok::<_, Failure>(enrolments)
        })?;
        Ok(Window {
            threads,
            enrolments,
            elapsed: start.elapsed(),
            cpu: processes::own_cpu()?.saturating_sub(cpu),
        })
    }
}

fn pair<R: PairRole>(
    ceremony: &Ceremony,
    label: &str,
    algorithm: KeyAlgorithm,
) -> Result<Key<R>, Failure> {
    let pinned = ceremony.generate_pair::<R>(label, algorithm)?;
    Ok(ceremony.token().key::<R>(&pinned)?)
}

/// RSAES-PKCS1-v1_5, as most clients send it.
fn encrypt(key: &Key<Decrypt>, content_key: &[u8]) -> Result<Vec<u8>, Failure> {
    let spki = key
        .public_key()
        .ok_or("the decryption key has no public half")?;
    let key = PublicEncryptingKey::from_der(spki)
        .map_err(|error| format!("the decryption key's public half: {error}"))?;
    let key = Pkcs1PublicEncryptingKey::new(key)
        .map_err(|_| "the decryption key's public half does not encrypt")?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(content_key, &mut encrypted)
        .map_err(|_| "the content key does not encrypt")?
        .len();
    encrypted.truncate(length);
    Ok(encrypted)
}

/// One thread, with the session of an RA's worker and that of a CA's.
struct Worker<'a> {
    keys: &'a Keys,
    registrar: Session,
    authority: Session,
}

impl Worker<'_> {
    fn work(&mut self, over: &AtomicBool) -> Result<u64, Failure> {
        let mut enrolments = 0;
        while !over.load(Ordering::Relaxed) {
            self.enrolment()?;
            enrolments += 1;
        }
        Ok(enrolments)
    }

    /// What RA and CA ask of their tokens for one certificate, in their order. Everything else
    /// that they compute (verification, digests, encryption to the device) is software.
    fn enrolment(&mut self) -> Result<(), Failure> {
        let keys = self.keys;
        let content_key = keys.decryption.decrypt(
            &mut self.registrar,
            KeyTransport::Pkcs1v15,
            &keys.encrypted_key,
            keys.content_key.len(),
        );
        // A decryption that fails gives a random key.
        if content_key.expose() != keys.content_key {
            return Err("the token does not decrypt".into());
        }
        let authority = &mut self.authority;
        let challenge = &keys.challenge;
        if !challenge.verify(authority, &keys.challenge_row, &keys.challenge_mac)? {
            return Err("the token does not know its own MAC".into());
        }
        let _serial = authority.random(16)?;
        challenge.authenticate(authority, &keys.reservation_row)?;
        keys.issuing.issue(authority, &keys.tbs_certificate)?;
        keys.response.respond(
            &mut self.registrar,
            DigestAlgorithm::Sha256,
            &keys.signed_attributes,
        )?;
        self.registrar.renew()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_survives_its_line() {
        let window = Window {
            threads: 2,
            enrolments: 1_234,
            elapsed: Duration::from_micros(2_000_123),
            cpu: Duration::from_micros(3_999_999),
        };
        assert_eq!(Window::read(&window.line()), Some(window));
        for wrong in ["", "2 1 2", "2 1 2 3 4", "2 1 2 x", "2 -1 2 3"] {
            assert_eq!(Window::read(wrong), None, "{wrong:?}");
        }
    }
}
