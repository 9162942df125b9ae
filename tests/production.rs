//! A production configuration, in which each role has a user of its own: every role looks its peers
//! up before the sandbox closes the list of users.

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
use std::time::Duration;

use chancery_host::process::{Stop, current_uid};
use chancery_host::supervise::{Role, Socket, Supervisor};
use common::{Appliance, CHANCERY};

/// The role's program, in a mount namespace with a list of users of its own.
fn role(name: &str, folder: &Path, sockets: &[&str]) -> Role {
    let program = Path::new(CHANCERY).with_file_name(format!("chancery-{name}"));
    let passwd = folder.join("passwd").display().to_string();
    let script = format!("mount --bind '{passwd}' /etc/passwd && exec \"$0\" \"$@\"");
    let mut arguments = vec!["--mount".to_owned()];
    if current_uid() != 0 {
        arguments.push("--map-root-user".into());
    }
    arguments.extend([
        "sh".into(),
        "-c".into(),
        script,
        program.display().to_string(),
    ]);
    if name != "parser" {
        arguments.extend([
            "--config".into(),
            folder.join("a/chancery.toml").display().to_string(),
        ]);
    }
    let sockets = sockets.iter().map(|name| Socket::Unix {
        name: (*name).into(),
        path: folder.join("a/run").join(name),
    });
    Role {
        name: name.into(),
        program: "/usr/bin/unshare".into(),
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        sockets: sockets.collect(),
    }
}

#[test]
fn roles_start_with_users_of_their_own() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let folder = appliance.folder.path();
    // Within a user namespace the caller is root.
    let users = ["chancery-front", "chancery-ra", "chancery-ca", "root"];
    let passwd: String = users
        .iter()
        .map(|user| format!("{user}:x:0:0::/nonexistent:/usr/sbin/nologin\n"))
        .collect();
    fs::write(folder.join("passwd"), passwd).unwrap();
    let file = folder.join("a/chancery.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text
        .replace("development = true", "development = false")
        .replace("operators = []", "operators = [\"root\"]");
    fs::write(&file, text).unwrap();

    let roles = vec![
        role(
            "ledger",
            folder,
            &[
                "ledger.store",
                "ledger.public",
                "ledger.query",
                "ledger.append-ra",
                "ledger.append-front",
            ],
        ),
        role("ca", folder, &["ca.enrol", "ca.operator"]),
        role("parser", folder, &["parser.parse"]),
        role("ra", folder, &["ra.message"]),
    ];
    let stop = Stop::new().unwrap();
    let mut supervisor = Supervisor::start(roles, &stop).unwrap();
    supervisor.wait_ready(Duration::from_secs(60)).unwrap();
    if current_uid() == 0 {
        let minted = appliance.chancery(&["challenge", "new", "--profile", "devices"]);
        assert!(
            minted.status.success(),
            "{}",
            String::from_utf8_lossy(&minted.stderr)
        );
    }
}
