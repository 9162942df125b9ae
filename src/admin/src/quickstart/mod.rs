//! `chancery quickstart`: a demo appliance on SoftHSM, made and served in one go.

mod layout;
mod make;

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chancery_client::{EnrollOptions, Server, Transport, Url, UrlError, enroll_to_folder};
use chancery_config::Config;
use chancery_host::process;
use chancery_protocol::ipc::operator::NewChallenge;
use chancery_protocol::ipc::socket;
use chancery_protocol::name::{DistinguishedName, GeneralName};
use tokio::runtime::{Builder, Runtime};

use crate::challenge::mint;
use crate::cli::Quickstart;
use crate::end::End;
use crate::run;
use crate::token_step::sha256_hex;
use layout::Layout;

/// The demo's profile for managed devices.
const PROFILE: &str = "devices";

/// How long it may take from READY until devices are served, the first time.
const SERVED: Duration = Duration::from_secs(30);

/// The same for an appliance that has served before.
const SERVED_AGAIN: Duration = Duration::from_secs(5);

/// Makes the appliance in `dir` unless it is there, then serves it until interrupted. Standard
/// output is one `key value` a line, `ready` last.
pub(crate) fn quickstart(dir: &Path, options: &Quickstart) -> Result<(), End> {
    process::diagnostics("chancery");
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
    if let Some(listen) = options.listen {
        note_configured(&config, listen);
    }
    let mut supervisor = run::start(&config)?;
    let address = supervisor
        .addresses(socket::FRONT_HTTP)
        .first()
        .copied()
        .ok_or_else(|| End::Failed("front has no listener; add one to front.listen".into()))?;
    run::note_unspecified(address);
    let url = format!("http://{address}/scep/{PROFILE}");
    if layout.has_first_device() {
        // What waits for somebody may wait: a custodian's command is answered meanwhile.
        if let Err(cause) = wait_until_served(&url, SERVED_AGAIN) {
            eprintln!(
                "chancery: WARNING: devices cannot enrol: {cause}; `chancery doctor` says why"
            );
        }
    } else {
        wait_until_served(&url, SERVED)?;
        enrol_own_device(&layout, &config, &url)?;
    }
    println!("url {url}");
    println!("root-sha256 {}", layout.root_sha256()?);
    println!("ra-sha256 {}", ra_sha256(&config)?);
    println!("ready");
    run::supervise(&mut supervisor)
}

/// An appliance that is there keeps its address, whatever this start asks for.
fn note_configured(config: &Config, asked: SocketAddr) {
    if config.front.listen.contains(&asked) {
        return;
    }
    let configured: Vec<_> = config
        .front
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    eprintln!(
        "chancery: WARNING: --listen {asked} is not what the configuration says, and the \
         configuration decides: listening on {}; to change it, edit listen under [front] in {}",
        configured.join(", "),
        config.path.display()
    );
}

/// Front fetches what the CA publishes, and the RA asks the CA for its certificates; until both
/// have, devices would be told to come back.
fn wait_until_served(url: &str, patience: Duration) -> Result<(), End> {
    let failed = |error: &dyn core::fmt::Display| End::Failed(error.to_string());
    let server = Server::new(url.parse().map_err(|error: UrlError| failed(&error))?);
    let runtime = runtime()?;
    let end = Instant::now() + patience;
    loop {
        let cause = match runtime.block_on(server.get_ca_cert()) {
            Ok(_) => match runtime.block_on(server.pki_operation(Transport::Post, &[0])) {
                // No message, and the RA says so: it has what it needs.
                Ok(response) if response.status == 400 => return Ok(()),
                Ok(response) => End::Failed(format!("the RA answers {}", response.status)),
                Err(error) => failed(&error),
            },
            Err(error) => failed(&error),
        };
        if Instant::now() > end {
            return Err(cause);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn runtime() -> Result<Runtime, End> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(End::cannot("start the network runtime"))
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
        subject,
        sans,
        root_sha256: root,
        key: chancery_client::KeyKind::Rsa2048,
        out: layout.first_device(),
    };
    let runtime = runtime()?;
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
    let der = std::fs::read(&file).map_err(End::cannot(format!("read {}", file.display())))?;
    Ok(sha256_hex(&der))
}
