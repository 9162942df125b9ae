//! A root, an issuing CA and RA certificates in a folder of their own, made by `openssl`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use chancery_client::{Certificate, ClientKey, Signer};
use tempfile::TempDir;

const CONFIG: &str = "
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[issuing]
basicConstraints = critical,CA:true,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[decryption]
keyUsage = critical,keyEncipherment
subjectKeyIdentifier = hash
[signing]
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
[device]
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = clientAuth
[odd]
keyUsage = critical,digitalSignature,keyEncipherment
1.2.3.4 = critical,DER:0500
";

pub(crate) struct Pki {
    folder: TempDir,
}

impl Pki {
    /// A folder of the test's own. The keys in it are made once and copied: RSA takes its time.
    pub(crate) fn new() -> Self {
        static FILES: OnceLock<Vec<(OsString, Vec<u8>)>> = OnceLock::new();
        let files = FILES.get_or_init(|| {
            let made = Self::with_new_keys();
            let entries = made.folder.path().read_dir().unwrap().map(Result::unwrap);
            entries
                .map(|e| (e.file_name(), std::fs::read(e.path()).unwrap()))
                .collect()
        });
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn with_new_keys() -> Self {
        let pki = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(pki.path("openssl.cnf"), CONFIG).unwrap();
        pki.make_root("root");
        pki.certify("issuing", "ec", "issuing", "root", 30);
        pki.certify("decryption", "rsa", "decryption", "issuing", 30);
        pki.certify("signing", "rsa", "signing", "issuing", 30);
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `openssl` in the folder; its failure fails the test.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> String {
        let (success, text) = self.try_openssl(arguments);
        assert!(success, "openssl {arguments:?}: {text}");
        text
    }

    pub(crate) fn try_openssl(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("the openssl command is installed");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    pub(crate) fn make_root(&self, name: &str) {
        self.make_key(name, "ec");
        self.openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &format!("{name}.key"),
            "-subj",
            &format!("/O=Test/CN={name}"),
            "-days",
            "30",
            "-config",
            "openssl.cnf",
            "-extensions",
            "root",
            "-out",
            &format!("{name}.pem"),
        ]);
    }

    fn make_key(&self, name: &str, kind: &str) {
        let options = match kind {
            "ec" => ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            _ => ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        let out = format!("{name}.key");
        let arguments = [&["genpkey", "-out", &out, "-algorithm"], &options[..]].concat();
        self.openssl(&arguments);
    }

    /// Makes a key and its certificate. Negative days make one that has expired.
    pub(crate) fn certify(&self, name: &str, kind: &str, section: &str, issuer: &str, days: i32) {
        self.make_key(name, kind);
        self.openssl(&[
            "req",
            "-new",
            "-key",
            &format!("{name}.key"),
            "-subj",
            &format!("/CN={name}"),
            "-config",
            "openssl.cnf",
            "-out",
            &format!("{name}.csr"),
        ]);
        self.sign(name, section, issuer, days);
    }

    /// Certifies NAME.csr into NAME.pem.
    pub(crate) fn sign(&self, name: &str, section: &str, issuer: &str, days: i32) {
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &format!("{name}.csr"),
            "-CA",
            &format!("{issuer}.pem"),
            "-CAkey",
            &format!("{issuer}.key"),
            "-CAcreateserial",
            "-days",
            &days.to_string(),
            "-extfile",
            "openssl.cnf",
            "-extensions",
            section,
            "-out",
            &format!("{name}.pem"),
        ]);
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        let pem = std::fs::read_to_string(self.path(&format!("{name}.pem"))).unwrap();
        Certificate::from_pem(&pem).unwrap()
    }

    pub(crate) fn certificates(&self, names: &[&str]) -> Vec<Certificate> {
        names.iter().map(|name| self.certificate(name)).collect()
    }

    pub(crate) fn key(&self, name: &str) -> ClientKey {
        let pem = std::fs::read_to_string(self.path(&format!("{name}.key"))).unwrap();
        ClientKey::from_pkcs8_pem(&pem).unwrap()
    }

    pub(crate) fn signer<'a>(&self, key: &'a ClientKey, name: &str) -> Signer<'a> {
        Signer {
            key,
            certificate: self.certificate(name),
        }
    }

    /// Verifies the SignedData in `message` and writes its content to content.der.
    pub(crate) fn verify(&self, message: &[u8]) -> Vec<u8> {
        std::fs::write(self.path("message.der"), message).unwrap();
        self.openssl(&[
            "cms",
            "-verify",
            "-noverify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "message.der",
            "-out",
            "content.der",
        ]);
        std::fs::read(self.path("content.der")).unwrap()
    }

    /// Decrypts an EnvelopedData with the key and certificate called `name`.
    pub(crate) fn decrypt(&self, envelope: &[u8], name: &str) -> Vec<u8> {
        std::fs::write(self.path("envelope.der"), envelope).unwrap();
        self.openssl(&[
            "cms",
            "-decrypt",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "envelope.der",
            "-inkey",
            &format!("{name}.key"),
            "-recip",
            &format!("{name}.pem"),
            "-out",
            "plaintext.der",
        ]);
        std::fs::read(self.path("plaintext.der")).unwrap()
    }
}
