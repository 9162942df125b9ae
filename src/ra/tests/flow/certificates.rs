//! The certificates of a test's RA, by openssl as their CA.

use std::path::Path;
use std::process::Command;

/// Issues `decryption.cer` and `signing.cer` for the keys in `decryption.spki` and `signing.spki`.
pub(crate) fn issue(folder: &Path) {
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout authority.key -out authority.pem -days 2 \
         -subj /O=Example/CN=Issuing",
    );
    for (name, usage) in [
        ("decryption", "keyEncipherment"),
        ("signing", "digitalSignature"),
    ] {
        certificate(folder, name, usage);
    }
}

/// Issues another certificate for one of the keys.
pub(crate) fn certificate(folder: &Path, name: &str, usage: &str) {
    let extensions = format!("keyUsage=critical,{usage}\nsubjectKeyIdentifier=hash\n");
    std::fs::write(folder.join("extensions"), extensions).unwrap();
    openssl(
        folder,
        &format!("pkey -pubin -inform DER -in {name}.spki -out {name}.pem"),
    );
    openssl(
        folder,
        &format!(
            "x509 -new -force_pubkey {name}.pem -subj /O=Example/CN={name} -days 2 \
             -CA authority.pem -CAkey authority.key -extfile extensions -outform DER \
             -out {name}.cer"
        ),
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
}
