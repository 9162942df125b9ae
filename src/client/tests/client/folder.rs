//! `chancery enroll`: what it leaves in its folder.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chancery_client::{Challenge, CommandError, EnrollOptions, Enrolled, KeyKind, enroll_command};
use chancery_protocol::name::{DistinguishedName, GeneralName};
use tempfile::TempDir;

use crate::enrolment::{Fault, SmallCa};

struct Scene {
    ca: Arc<SmallCa>,
    options: EnrollOptions,
    challenge: Challenge,
    folder: TempDir,
    // Serves while it lives.
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new(fault: Fault) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (ca, server) = runtime.block_on(SmallCa::new(fault).start());
        let folder = tempfile::tempdir().unwrap();
        let challenge = folder.path().join("challenge");
        std::fs::write(&challenge, "0123ABCD\r\nsecond line\n").unwrap();
        let options = EnrollOptions {
            url: server.url(),
            subject: DistinguishedName::parse("CN=probe-1").unwrap(),
            sans: vec![GeneralName::parse("dns:probe-1.example").unwrap()],
            root_sha256: Some(ca.pki.certificate("root").sha256()),
            key: KeyKind::Rsa2048,
            out: folder.path().join("a/b"),
        };
        Self {
            ca,
            options,
            challenge: Challenge::File(challenge),
            folder,
            _runtime: runtime,
        }
    }

    fn run(&self) -> Result<Enrolled, CommandError> {
        enroll_command(&self.options, &self.challenge)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.options.out.join(name)
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_folder_holds_key_certificate_and_chain() {
    let scene = Scene::new(Fault::None);
    scene.run().unwrap();
    assert_eq!(mode(&scene.file("key.pem")), 0o600);
    assert_eq!(mode(&scene.options.out), 0o700);
    let names = std::fs::read_dir(&scene.options.out).unwrap().count();
    assert_eq!(names, 3);
    let path = |name: &str| scene.file(name).to_str().unwrap().to_owned();
    let pki = &scene.ca.pki;
    pki.openssl(&[
        "verify",
        "-CAfile",
        "root.pem",
        "-untrusted",
        &path("chain.pem"),
        &path("cert.pem"),
    ]);
    let of_key = pki.openssl(&["pkey", "-in", &path("key.pem"), "-pubout"]);
    let of_certificate = pki.openssl(&["x509", "-in", &path("cert.pem"), "-noout", "-pubkey"]);
    assert_eq!(of_key, of_certificate);
    // The first line of the file, and nothing else of it, was the challenge.
    let csr = pki.openssl(&["req", "-in", "issued.csr", "-noout", "-text"]);
    assert!(
        csr.contains("challengePassword        :0123ABCD\n"),
        "{csr}"
    );
}

#[test]
fn nothing_is_overwritten() {
    let scene = Scene::new(Fault::None);
    scene.run().unwrap();
    let before = std::fs::read(scene.file("cert.pem")).unwrap();
    let error = scene.run().unwrap_err();
    assert!(matches!(error, CommandError::Enrolled(_)));
    assert_eq!(std::fs::read(scene.file("cert.pem")).unwrap(), before);
}

#[test]
fn a_failed_enrolment_goes_on_with_its_key() {
    let mut scene = Scene::new(Fault::Refuse);
    let error = scene.run().unwrap_err().to_string();
    assert!(
        error.contains("badRequest") && !error.contains("0123ABCD"),
        "{error}"
    );
    let key = std::fs::read(scene.file("key.pem")).unwrap();
    assert!(!scene.file("cert.pem").exists());
    scene.options.key = KeyKind::Rsa3072;
    assert!(matches!(scene.run(), Err(CommandError::OtherKind { .. })));
    scene.options.key = KeyKind::Rsa2048;
    *scene.ca.fault.lock().unwrap() = Fault::None;
    scene.run().unwrap();
    assert_eq!(std::fs::read(scene.file("key.pem")).unwrap(), key);
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let scene = Scene::new(Fault::Refuse);
    scene.run().unwrap_err();
    let open = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(scene.file("key.pem"), open).unwrap();
    assert!(matches!(scene.run(), Err(CommandError::OpenKey(_))));
}

#[test]
fn a_challenge_is_one_line() {
    let mut scene = Scene::new(Fault::None);
    for (name, text) in [
        ("empty", String::new()),
        ("blank", "\n".into()),
        ("long", "x".repeat(256)),
    ] {
        let path = scene.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        scene.challenge = Challenge::File(path);
        assert!(
            matches!(scene.run(), Err(CommandError::Challenge)),
            "{name}"
        );
    }
    let absent = scene.folder.path().join("absent");
    scene.challenge = Challenge::File(absent.clone());
    let error = scene.run().unwrap_err().to_string();
    let expected = format!("cannot read the challenge from {}: ", absent.display());
    assert!(error.starts_with(&expected), "{error}");
    assert!(!scene.options.out.exists());
}
