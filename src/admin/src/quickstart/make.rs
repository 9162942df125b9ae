//! Makes a demo appliance: three SoftHSM tokens, a root, an issuing CA, an RA, one profile.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_config::raw;
use chancery_host::clock;
use chancery_protocol::hex;
use zeroize::Zeroizing;

use super::PROFILE;
use super::layout::{Layout, TOKENS, write, write_private};
use crate::cli::Quickstart;
use crate::end::End;
use crate::token_step::{CertifyPlan, KeyPlan, Made, MadeKey, Plan, Purpose};
use crate::{pem, run};

/// Where Debian installs SoftHSM.
const SOFTHSM: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// The address of a new appliance, if none is asked for.
const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

const DAY: u64 = 86_400;

/// Makes everything; the configuration last. What can be seen to fail is refused before anything
/// is made.
pub(crate) fn make(layout: &Layout, options: &Quickstart) -> Result<(), End> {
    layout.check()?;
    let module = softhsm()?;
    let listen = options.listen.unwrap_or(LISTEN);
    drop(TcpListener::bind(listen).map_err(|error| {
        End::Failed(format!(
            "cannot listen on {listen}: {error}; choose another address with --listen"
        ))
    })?);
    layout.create()?;
    for token in TOKENS {
        write_private(&layout.pin(token), new_pin()?.as_bytes())?;
        write_private(&layout.so_pin(token), new_pin()?.as_bytes())?;
    }
    eprintln!("chancery: generating keys in three SoftHSM tokens");
    let algorithm = options.ca_key.to_string();
    let ca = step(
        layout,
        &plan(
            layout,
            &module,
            "ca",
            &[
                ("issuing", Purpose::Issue, Some(algorithm.as_str())),
                ("challenge", Purpose::Authenticate, None),
                ("audit", Purpose::Checkpoint, Some("p256")),
            ],
        ),
    )?;
    let ra = step(
        layout,
        &plan(
            layout,
            &module,
            "ra",
            &[
                ("ra-decryption", Purpose::Decrypt, Some("rsa2048")),
                ("ra-signing", Purpose::Respond, Some("rsa2048")),
            ],
        ),
    )?;
    let mut root_plan = plan(
        layout,
        &module,
        "root",
        &[("root", Purpose::Issue, Some(algorithm.as_str()))],
    );
    root_plan.certify = Some(hierarchy(layout, &ca)?);
    let root = step(layout, &root_plan)?;
    write_certificates(layout, &root.certificates)?;

    let config = configuration(layout, listen, &module, &ca, &ra);
    let text = toml::to_string(&config)
        .map_err(|error| End::Failed(format!("the configuration does not encode: {error}")))?;
    let draft = layout.dir.join("chancery.toml.new");
    write(&draft, &format!("{HEADER}{text}"))?;
    create_ledger(layout, &draft)?;
    fs::rename(&draft, layout.config()).map_err(End::cannot(format!("rename {}", draft.display())))
}

const HEADER: &str =
    "# A demo appliance, made by `chancery quickstart`. Every key is documented in the sample
# configuration. Not for production: all roles share one user, and SoftHSM keeps keys in files.

";

fn softhsm() -> Result<PathBuf, End> {
    SOFTHSM
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| {
            End::Failed(
                "SoftHSM is not installed; the demo keeps its keys there: apt-get install softhsm2"
                    .into(),
            )
        })
}

fn new_pin() -> Result<Zeroizing<String>, End> {
    let mut octets = Zeroizing::new([0; 16]);
    rand::fill(octets.as_mut())
        .map_err(|_| End::Failed("no random numbers from the operating system".into()))?;
    Ok(Zeroizing::new(hex::encode(octets.as_ref())))
}

fn plan(
    layout: &Layout,
    module: &Path,
    token: &str,
    keys: &[(&str, Purpose, Option<&str>)],
) -> Plan {
    Plan {
        name: token.into(),
        module: module.into(),
        label: format!("chancery-{token}"),
        so_pin_file: layout.so_pin(token),
        pin_file: layout.pin(token),
        keys: keys
            .iter()
            .map(|(name, purpose, algorithm)| KeyPlan {
                name: (*name).into(),
                purpose: *purpose,
                algorithm: algorithm.map(Into::into),
            })
            .collect(),
        certify: None,
    }
}

/// Carries out a plan in a process of its own.
fn step(layout: &Layout, plan: &Plan) -> Result<Made, End> {
    let failed = |cause: String| End::Failed(format!("token {}: {cause}", plan.name));
    let input = serde_json::to_string(plan).map_err(|error| failed(error.to_string()))?;
    let own = run::own_program()?;
    let run = || End::cannot(format!("run {} for token {}", own.display(), plan.name));
    let mut child = Command::new(&own)
        .arg("token-step")
        .env("SOFTHSM2_CONF", layout.softhsm_conf(&plan.name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(run())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(run())?;
    }
    let output = child.wait_with_output().map_err(run())?;
    if !output.status.success() {
        return Err(failed("its part of the ceremony failed, see above".into()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

fn hierarchy(layout: &Layout, ca: &Made) -> Result<CertifyPlan, End> {
    let now = clock::now();
    let issuing = find(&ca.keys, "issuing");
    let issuing_public_key = issuing
        .and_then(|key| key.public_key)
        .ok_or_else(|| End::Failed("token ca: has no issuing key".into()))?;
    let mark = STANDARD
        .decode(&issuing_public_key)
        .map(|spki| {
            crate::token_step::sha256_hex(&spki)
                .chars()
                .take(8)
                .collect::<String>()
        })
        .unwrap_or_default();
    Ok(CertifyPlan {
        root_subject: format!("CN=Chancery DEMO root {mark}"),
        issuing_subject: format!("CN=Chancery DEMO issuing {mark}"),
        issuing_public_key,
        not_before: now.saturating_sub(300),
        root_not_after: now.saturating_add(3650 * DAY),
        issuing_not_after: now.saturating_add(1825 * DAY),
        transcript: layout.transcript(),
    })
}

fn find(keys: &[MadeKey], name: &str) -> Option<MadeKey> {
    keys.iter().find(|key| key.name == name).cloned()
}

fn write_certificates(layout: &Layout, certificates: &[String]) -> Result<(), End> {
    let [root, issuing] = certificates else {
        return Err(End::Failed("token root: returned no certificates".into()));
    };
    let pem = |text: &String| {
        let der = STANDARD
            .decode(text)
            .map_err(|error| End::Failed(error.to_string()))?;
        pem::certificate(&der)
    };
    let (root, issuing) = (pem(root)?, pem(issuing)?);
    write(&layout.dir.join("root.pem"), &root)?;
    write(&layout.dir.join("issuing.pem"), &issuing)?;
    write(&layout.dir.join("chain.pem"), &format!("{issuing}{root}"))
}

/// SQLite writes beside its file, so the ledger has a folder of its own; `ledger.db` points there.
fn create_ledger(layout: &Layout, config: &Path) -> Result<(), End> {
    let program = run::program("ledger")?;
    let status = Command::new(&program)
        .arg("--create")
        .arg("--config")
        .arg(config)
        .arg("--transcript")
        .arg(layout.transcript())
        .status()
        .map_err(End::cannot(format!("run {}", program.display())))?;
    if !status.success() {
        return Err(End::Failed(
            "the ledger could not be made, see above".into(),
        ));
    }
    let link = layout.dir.join("ledger.db");
    symlink("ledger/ledger.db", &link).map_err(End::cannot(format!("make {}", link.display())))
}

fn configuration(
    layout: &Layout,
    listen: SocketAddr,
    module: &Path,
    ca: &Made,
    ra: &Made,
) -> raw::Config {
    let keys = [("ca", ca), ("ra", ra)];
    raw::Config {
        appliance: raw::Appliance {
            name: "demo.chancery.example/node-1".into(),
            state: "state".into(),
            run: "run".into(),
            journal: "/run/systemd/journal/socket".into(),
            development: true,
            operators: Vec::new(),
        },
        front: raw::Front {
            listen: vec![listen],
            ..raw::Front::default()
        },
        ra: raw::Ra {
            decryption_key: "ra-decryption".into(),
            signing_key: "ra-signing".into(),
            workers: 8,
        },
        challenge: raw::Challenge {
            key: "challenge".into(),
        },
        audit: raw::Audit {
            key: "audit".into(),
            checkpoint_seconds: 10,
            ca_workers: 8,
        },
        ledger: raw::Ledger {
            database: "ledger/ledger.db".into(),
        },
        token: keys
            .iter()
            .map(|(name, _)| token(layout, module, name))
            .collect(),
        key: keys
            .iter()
            .flat_map(|(token, made)| {
                made.keys.iter().map(|key| raw::Key {
                    name: key.name.clone(),
                    token: (*token).into(),
                    id: key.id.clone(),
                    public_key: key.public_key.clone(),
                    check: key.check.clone(),
                })
            })
            .collect(),
        ca: vec![
            raw::Authority {
                id: "root".into(),
                certificate: "root.pem".into(),
                issuer: None,
                key: None,
            },
            raw::Authority {
                id: "issuing".into(),
                certificate: "issuing.pem".into(),
                issuer: Some("root".into()),
                key: Some("issuing".into()),
            },
        ],
        profile: vec![raw::Profile {
            name: PROFILE.into(),
            ca: "issuing".into(),
            validity_days: 365,
            backdate_seconds: 300,
            open_subject: vec!["CN".into()],
            open_sans: vec!["dns".into()],
            extended_key_usage: vec!["client".into()],
            challenge_minutes_max: 7 * 24 * 60,
        }],
    }
}

fn token(layout: &Layout, module: &Path, name: &str) -> raw::Token {
    let conf = layout.softhsm_conf(name).to_string_lossy().into_owned();
    raw::Token {
        name: name.into(),
        module: module.into(),
        label: format!("chancery-{name}"),
        serial: None,
        pin_file: layout.pin(name),
        files: vec![layout.token_folder(name)],
        environment: BTreeMap::from([("SOFTHSM2_CONF".into(), conf)]),
    }
}
