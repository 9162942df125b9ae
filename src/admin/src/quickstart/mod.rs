//! `chancery quickstart`: a demo appliance on SoftHSM, made and served in one go.

mod layout;
mod make;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chancery_client::{Challenge, EnrollOptions, Server, Url, UrlError, enroll_to_folder};
use chancery_config::Config;
use chancery_protocol::ipc::operator::NewChallenge;
use chancery_protocol::ipc::socket;
use chancery_protocol::name::{DistinguishedName, GeneralName};

use crate::challenge::mint;
use crate::cli::Quickstart;
use crate::end::End;
use crate::run;
use crate::token_step::sha256_hex;
use layout::Layout;

/// The demo's profile for managed devices.
const PROFILE: &str = "devices";

/// How long front may take to fetch what the CA has published.
const SERVED: Duration = Duration::from_secs(30);

/// Makes the appliance in `dir` unless it is there, then serves it until interrupted. Standard
/// output is one `key value` a line, `ready` last.
pub(crate) fn quickstart(dir: &Path, options: &Quickstart) -> Result<(), End> {
    let layout = Layout::new(dir)?;
    let made = layout.is_made();
    if made {
        eprintln!(
            "chancery: serving the appliance in {} again",
            layout.dir.display()
        );
    } else {
        make::make(&layout, options)?;
    }
    let config = Config::load(&layout.config())?;
    let mut supervisor = run::start(&config)?;
    let address = supervisor
        .addresses(socket::FRONT_HTTP)
        .first()
        .copied()
        .ok_or_else(|| End::Failed("front has no listener; add one to front.listen".into()))?;
    let url = format!("http://{address}/scep/{PROFILE}");
    wait_until_served(&url)?;
    if !made {
        enrol_own_device(&layout, &config, &url)?;
    }
    println!("url {url}");
    println!("root-sha256 {}", layout.root_sha256()?);
    println!("ra-sha256 {}", ra_sha256(&config)?);
    println!("ready");
    run::supervise(&mut supervisor)
}

/// Front fetches what the CA publishes; until it has, devices would be told to come back.
fn wait_until_served(url: &str) -> Result<(), End> {
    let failed = |error: &dyn core::fmt::Display| End::Failed(error.to_string());
    let server = Server::new(url.parse().map_err(|error: UrlError| failed(&error))?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let end = Instant::now() + SERVED;
    loop {
        match runtime.block_on(server.get_ca_cert()) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(failed(&error)),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// One enrolment over the real path, so that `ready` means that a device can enrol.
fn enrol_own_device(layout: &Layout, config: &Config, url: &str) -> Result<(), End> {
    eprintln!("chancery: enrolling a first device over {url}");
    let failed = |error: &dyn core::fmt::Display| End::Failed(error.to_string());
    let subject = DistinguishedName::parse("CN=quickstart").map_err(|error| failed(&error))?;
    let sans = vec![GeneralName::dns("quickstart.example").map_err(|error| failed(&error))?];
    let asked = NewChallenge {
        profile: PROFILE.into(),
        ttl: 600,
        uses: 1,
        subject: Some(subject.clone()),
        sans: Some(sans.clone()),
        device_id: Some("quickstart".into()),
    };
    let (challenge, _) = mint(config, asked)?;
    let root = chancery_protocol::wire::Digest::from_hex(&layout.root_sha256()?);
    let options = EnrollOptions {
        url: url.parse::<Url>().map_err(|error| failed(&error))?,
        challenge: Challenge::StandardInput,
        subject,
        sans,
        root_sha256: root,
        key: chancery_client::KeyKind::Rsa2048,
        out: layout.first_device(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(enroll_to_folder(&options, challenge))
        .map_err(|error| failed(&error))?;
    eprintln!(
        "chancery: enrolled; key and certificate are in {}",
        layout.first_device().display()
    );
    Ok(())
}

/// SHA-256 of the RA's decryption certificate, as the CA keeps it.
fn ra_sha256(config: &Config) -> Result<String, End> {
    let file = config.state_dir("ca").join("ra-decryption-issuing.der");
    Ok(sha256_hex(&std::fs::read(file)?))
}
