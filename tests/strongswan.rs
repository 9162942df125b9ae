//! A client that nobody here wrote: strongSwan's `pki --scepca` and `pki --scep`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Appliance, run};

struct StrongSwan<'a> {
    folder: &'a Path,
    url: String,
}

impl StrongSwan<'_> {
    /// Fetches the certificates; returns the RA's for receiving and for signing.
    fn fetch(&self) -> (String, String) {
        run(
            self.folder,
            "pki",
            &[
                "--scepca",
                "--url",
                &self.url,
                "--caout",
                "ca.crt",
                "--raout",
                "ra.crt",
                "--outform",
                "pem",
                "--force",
            ],
        );
        let with = |usage: &str| {
            fs::read_dir(self.folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .find(|name| {
                    name.starts_with("ra")
                        && name.ends_with(".crt")
                        && run(
                            self.folder,
                            "openssl",
                            &["x509", "-in", name, "-noout", "-ext", "keyUsage"],
                        )
                        .contains(usage)
                })
                .unwrap()
        };
        (with("Key Encipherment"), with("Digital Signature"))
    }

    fn enrol(&self, challenge: &str, arguments: &[&str], certificate: &str) -> bool {
        let (receive, sign) = self.fetch();
        if !self.folder.join("key.pem").exists() {
            run(
                self.folder,
                "openssl",
                &["genrsa", "-out", "key.pem", "2048"],
            );
        }
        let output = Command::new("pki")
            .current_dir(self.folder)
            .args([
                "--scep",
                "--url",
                &self.url,
                "--in",
                "key.pem",
                "--password",
                challenge,
            ])
            .args(["--cacert-enc", &receive, "--cacert-sig", &sign])
            .args(["--cacert", "a/root.pem", "--cacert", "a/issuing.pem"])
            .args(["--interval", "1", "--maxpolltime", "5", "--outform", "pem"])
            .args(arguments)
            .output()
            .unwrap();
        if output.status.success() {
            fs::write(self.folder.join(certificate), output.stdout).unwrap();
            run(
                self.folder,
                "openssl",
                &[
                    "verify",
                    "-CAfile",
                    "a/root.pem",
                    "-untrusted",
                    "a/issuing.pem",
                    certificate,
                ],
            );
        }
        output.status.success()
    }
}

#[test]
fn strongswan_enrols_with_every_digest_and_is_refused_the_second_time() {
    let appliance = Appliance::start();
    let client = StrongSwan {
        folder: appliance.folder.path(),
        url: appliance.url(),
    };
    for digest in ["sha256", "sha384", "sha512"] {
        let name = format!("CN=probe-{digest}");
        let san = format!("probe-{digest}.example");
        let challenge = appliance.challenge(&["--subject", &name, "--san", &format!("dns:{san}")]);
        let certificate = format!("{digest}.pem");
        let arguments = [
            "--dn", &name, "--san", &san, "--digest", digest, "--cipher", "aes",
        ];
        assert!(
            client.enrol(&challenge, &arguments, &certificate),
            "{}",
            appliance.log()
        );
        let text = run(
            client.folder,
            "openssl",
            &["x509", "-in", &certificate, "-noout", "-text"],
        );
        assert!(text.contains(&format!("DNS:{san}")), "{text}");
    }

    fs::remove_file(client.folder.join("key.pem")).unwrap();
    let challenge = appliance.challenge(&["--subject", "CN=once"]);
    assert!(client.enrol(&challenge, &["--dn", "CN=once"], "once.pem"));
    fs::remove_file(client.folder.join("key.pem")).unwrap();
    assert!(!client.enrol(&challenge, &["--dn", "CN=once"], "twice.pem"));
    assert_eq!(appliance.refusals(), ["challenge-spent"]);
}

#[test]
fn strongswan_enrols_below_an_rsa_issuing_ca() {
    let appliance = Appliance::start_with(&["--ca-key", "rsa3072"]);
    let client = StrongSwan {
        folder: appliance.folder.path(),
        url: appliance.url(),
    };
    let challenge = appliance.challenge(&["--subject", "CN=probe-1"]);
    assert!(
        client.enrol(&challenge, &["--dn", "CN=probe-1"], "cert.pem"),
        "{}",
        appliance.log()
    );
}

#[test]
fn a_key_with_a_small_exponent_is_not_certified() {
    let appliance = Appliance::start();
    let client = StrongSwan {
        folder: appliance.folder.path(),
        url: appliance.url(),
    };
    run(
        client.folder,
        "openssl",
        &["genrsa", "-3", "-out", "key.pem", "2048"],
    );
    let challenge = appliance.challenge(&["--subject", "CN=probe-1"]);
    assert!(!client.enrol(&challenge, &["--dn", "CN=probe-1"], "cert.pem"));
    let log = appliance.log();
    assert!(log.contains("key-quality"), "{log}");

    // The challenge is not spent by it.
    fs::remove_file(client.folder.join("key.pem")).unwrap();
    assert!(client.enrol(&challenge, &["--dn", "CN=probe-1"], "cert.pem"));
}
