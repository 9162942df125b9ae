//! What `openssl` writes: DER, and BER with indefinite lengths and chunked strings as from
//! `-stream`; each table is compared with `openssl asn1parse`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use chancery_parser::{table_of_certification_request, table_of_message};
use chancery_protocol::node::{Form, Record};
use common::assert_tiles;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with a key, a self-signed certificate and a PKCS#10 for it.
struct Client {
    folder: TempDir,
}

impl Client {
    fn new(key: &[&str]) -> Self {
        let client = Self {
            folder: TempDir::new().unwrap(),
        };
        let subject = [
            "-subj",
            "/O=Example/CN=probe-1",
            "-addext",
            "subjectAltName=DNS:probe-1",
        ];
        client.run(&[&["genpkey", "-quiet", "-out", "key.pem"], key].concat());
        let certificate = [
            "req", "-new", "-x509", "-key", "key.pem", "-out", "cert.pem",
        ];
        client.run(&[&certificate[..], &subject].concat());
        let request = [
            "req", "-new", "-key", "key.pem", "-outform", "DER", "-out", "csr.der",
        ];
        client.run(&[&request[..], &subject].concat());
        client
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.folder)
            .env("OPENSSL_CONF", minimal_configuration(self.folder.path()))
            .output()
            .expect("this test needs the openssl command (Debian package openssl)");
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        assert!(
            output.status.success(),
            "openssl {arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Wraps `csr.der` as EnvelopedData (`enveloped.der`) and that as SignedData (`message.der`).
    fn wrap(&self, enveloped: &[&str], signed: &[&str]) {
        let encrypt = [
            "cms",
            "-encrypt",
            "-binary",
            "-aes128",
            "-in",
            "csr.der",
            "-outform",
            "DER",
            "-out",
            "enveloped.der",
        ];
        self.run(&[&encrypt[..], enveloped, &["cert.pem"]].concat());
        let sign = [
            "cms",
            "-sign",
            "-binary",
            "-nodetach",
            "-in",
            "enveloped.der",
            "-signer",
            "cert.pem",
            "-inkey",
            "key.pem",
            "-outform",
            "DER",
            "-out",
            "message.der",
        ];
        self.run(&[&sign[..], signed].concat());
    }

    /// Compares a table, without what is inside opened strings, with `openssl asn1parse`.
    fn assert_as_asn1parse(&self, name: &str, table: &[Record]) {
        let text = self.run(&["asn1parse", "-inform", "DER", "-in", name]);
        let expected: Vec<Line> = text.lines().filter_map(Line::read).collect();
        let mut depths: Vec<Option<usize>> = Vec::new();
        let mut lines = Vec::new();
        for (index, record) in table.iter().enumerate() {
            let parent = usize::from(record.parent);
            let depth = match (index, table[parent].form) {
                (0, _) => Some(0),
                (_, Form::Opened) => None,
                _ => depths[parent].map(|depth| depth + 1),
            };
            depths.push(depth);
            let length = (record.form != Form::Indefinite).then_some(record.content as usize);
            let constructed = matches!(record.form, Form::Definite | Form::Indefinite);
            let (start, header) = (record.start as usize, usize::from(record.header));
            lines.extend(depth.map(|depth| Line {
                start,
                depth,
                header,
                length,
                constructed,
            }));
        }
        assert_eq!(lines, expected);
    }
}

/// An empty configuration but for what `openssl req` insists on, so that the machine's own does
/// not matter.
fn minimal_configuration(folder: &Path) -> PathBuf {
    let path = folder.join("openssl.cnf");
    let text = "[req]\ndistinguished_name = dn\nx509_extensions = x509\n[dn]\n[x509]\n";
    std::fs::write(&path, text).unwrap();
    path
}

/// A line such as `  23:d=3  hl=4 l= 123 cons: SEQUENCE`; `l=inf` for an indefinite length.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    start: usize,
    depth: usize,
    header: usize,
    length: Option<usize>,
    constructed: bool,
}

impl Line {
    /// `None` for an end of contents, which is an element to openssl.
    fn read(text: &str) -> Option<Self> {
        if text.trim_end().ends_with("EOC") {
            return None;
        }
        let (start, rest) = text.split_once(":d=").unwrap();
        let (depth, rest) = rest.split_once("hl=").unwrap();
        let (header, rest) = rest.split_once("l=").unwrap();
        let (length, rest) = rest.trim_start().split_once(' ').unwrap();
        let number = |text: &str| text.trim().parse().unwrap();
        Some(Self {
            start: number(start),
            depth: number(depth),
            header: number(header),
            length: (length != "inf").then(|| number(length)),
            constructed: rest.trim_start().starts_with("cons:"),
        })
    }
}

const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const EC: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn count(table: &[Record], form: Form) -> usize {
    table.iter().filter(|r| r.form == form).count()
}

#[test]
fn der_messages_are_taken_apart() {
    let client = Client::new(RSA);
    client.wrap(&[], &[]);
    let (message, enveloped) = (client.read("message.der"), client.read("enveloped.der"));
    let tables = table_of_message(&message).unwrap();
    let content = tables.content.unwrap();
    assert_tiles(&message, &tables.message);
    assert_tiles(&enveloped, &content);
    client.assert_as_asn1parse("message.der", &tables.message);
    client.assert_as_asn1parse("enveloped.der", &content);
    assert_eq!(count(&tables.message, Form::Indefinite), 0);
    // The signer's key and subjectAltName.
    assert_eq!(count(&tables.message, Form::Opened), 2);
}

#[test]
fn streamed_messages_are_taken_apart() {
    let client = Client::new(RSA);
    for (enveloped, signed) in [
        (&["-stream"][..], &["-stream"][..]),
        (&["-stream"], &[]),
        (&[], &["-stream"]),
    ] {
        client.wrap(enveloped, signed);
        let (message, content) = (client.read("message.der"), client.read("enveloped.der"));
        let tables = table_of_message(&message).unwrap();
        let inner = tables.content.unwrap();
        assert_tiles(&message, &tables.message);
        // The pieces of the eContent, joined, are the file that was signed.
        assert_tiles(&content, &inner);
        client.assert_as_asn1parse("message.der", &tables.message);
        client.assert_as_asn1parse("enveloped.der", &inner);
        assert_eq!(
            count(&tables.message, Form::Indefinite) > 0,
            !signed.is_empty()
        );
        assert_eq!(count(&inner, Form::Indefinite) > 0, !enveloped.is_empty());
    }
}

#[test]
fn a_signature_without_content_has_one_table() {
    let client = Client::new(EC);
    client.run(&[
        "cms",
        "-sign",
        "-binary",
        "-in",
        "csr.der",
        "-signer",
        "cert.pem",
        "-inkey",
        "key.pem",
        "-outform",
        "DER",
        "-out",
        "message.der",
    ]);
    let tables = table_of_message(&client.read("message.der")).unwrap();
    assert_eq!(tables.content, None);
    client.assert_as_asn1parse("message.der", &tables.message);
}

#[test]
fn requests_are_taken_apart() {
    for (key, opened) in [(RSA, 2), (EC, 1)] {
        let client = Client::new(key);
        let request = client.read("csr.der");
        let table = table_of_certification_request(&request).unwrap();
        assert_tiles(&request, &table);
        client.assert_as_asn1parse("csr.der", &table);
        assert_eq!(count(&table, Form::Opened), opened);
    }
}

#[test]
fn other_cms_is_refused() {
    let client = Client::new(RSA);
    client.wrap(&[], &[]);
    assert!(table_of_message(&client.read("enveloped.der")).is_err());
    assert!(table_of_message(&client.read("csr.der")).is_err());
    // Signed, but what is signed is no EnvelopedData.
    client.run(&[
        "cms",
        "-sign",
        "-binary",
        "-nodetach",
        "-in",
        "csr.der",
        "-signer",
        "cert.pem",
        "-inkey",
        "key.pem",
        "-outform",
        "DER",
        "-out",
        "message.der",
    ]);
    assert!(table_of_message(&client.read("message.der")).is_err());
}
