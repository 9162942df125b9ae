//! What this executable becomes: the programs under test, and stand-ins for their neighbours.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chancery_host::activation::Listeners;
use chancery_host::ipc::server::{Admission, Answer, Call, Gate, Limits, Worker, serve};
use chancery_host::process::{self, Stop};
use chancery_message::SignedMessage;
use chancery_protocol::audit::{Receipt, field};
use chancery_protocol::hex;
use chancery_protocol::ipc::{append, enrol, parse, socket};
use chancery_protocol::refusal::Refusal;
use chancery_protocol::wire::{self, Octets, Secret};
use chancery_token::ceremony::{Ceremony, initialise_token};
use chancery_token::{Decrypt, KeyAlgorithm, Pinned, PinnedKey, Respond, TokenConfig};
use der::asn1::{Null, OctetString};

use crate::appliance::PIN;

pub(crate) fn run(program: &str) -> ExitCode {
    match program {
        "ra" => return chancery_ra::main(),
        "parser" => return chancery_parser::main(),
        "ceremony" => ceremony(&folder()),
        "ledger" => stand_in(socket::LEDGER_APPEND_RA, Ledger),
        "ca" => stand_in(socket::CA_ENROL, Authority),
        "false-parser" => stand_in(socket::PARSER_PARSE, FalseParser),
        other => panic!("no program {other}"),
    }
    ExitCode::SUCCESS
}

fn folder() -> PathBuf {
    std::env::var_os("FLOW_FOLDER").unwrap().into()
}

fn stand_in(socket: &str, worker: impl Worker + Copy + 'static) {
    let stop = Stop::on_signals().unwrap();
    let mut listeners = Listeners::from_environment().unwrap();
    let listener = listeners.seqpacket(socket).unwrap();
    listeners.finish().unwrap();
    process::ready();
    let admitted = Admission::AnyOf(vec![process::current_uid()]);
    let limits = Limits {
        connections: 64,
        queue: 64,
        idle: Duration::from_secs(60),
    };
    let workers = (0..2)
        .map(|_| Box::new(worker) as Box<dyn Worker>)
        .collect();
    serve(vec![Gate { listener, admitted }], workers, limits, &stop).unwrap();
}

fn now<T: der::Encode>(reply: &T) -> Answer {
    Answer::Now(wire::encode(reply).unwrap())
}

/// Notes every event, a line each, and confirms it.
#[derive(Clone, Copy)]
struct Ledger;

impl Worker for Ledger {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        let append: append::Request = wire::decode(call.packet).unwrap();
        let event = append.event;
        assert!(event.is_valid() && append::RA_KINDS.contains(&event.kind));
        let value = |name| event.value(name).unwrap_or("-").to_owned();
        let line = [
            event.kind.name().into(),
            value(field::REASON),
            value(field::PEER),
            value(field::COUNT),
        ];
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder().join("events"))
            .unwrap();
        writeln!(file, "{}", line.join(" ")).unwrap();
        now(&append::Reply::Done(Receipt {
            seq: 0,
            leaf: Octets([0; 32]),
        }))
    }
}

/// Checks the evidence as the CA does, then decides by the challenge: it is what is to happen.
#[derive(Clone, Copy)]
struct Authority;

impl Worker for Authority {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        let read = |name: &str| OctetString::new(fs::read(folder().join(name)).unwrap()).unwrap();
        match wire::decode(call.packet).unwrap() {
            enrol::Request::RaCertificates(_) if folder().join("ca-waits").exists() => now(
                &enrol::Reply::Unavailable("it waits for a custodian".into()),
            ),
            enrol::Request::RaCertificates(_) => {
                now(&enrol::Reply::RaCertificates(enrol::RaChain {
                    decryption: read("decryption.cer"),
                    signing: read("signing.cer"),
                    authorities: Vec::new(),
                }))
            }
            enrol::Request::Issue(issue) => {
                assert_eq!(
                    (issue.profile.as_str(), issue.peer.as_str()),
                    ("devices", "192.0.2.7")
                );
                let refused = |refusal| now(&enrol::Reply::Refused(enrol::Refused { refusal }));
                match challenge(&issue).as_str() {
                    "genuine" => now(&enrol::Reply::Issued(read("issued.cer"))),
                    "for another key" => now(&enrol::Reply::Issued(read("signing.cer"))),
                    "no certificate" => now(&enrol::Reply::Issued(read("softhsm2.conf"))),
                    "away" => now(&enrol::Reply::Unavailable("its ledger is gone".into())),
                    "one death" => match folder().join("died").try_exists() {
                        Ok(true) => now(&enrol::Reply::Issued(read("issued.cer"))),
                        _ => {
                            fs::write(folder().join("died"), "").unwrap();
                            std::process::exit(1)
                        }
                    },
                    "spent" => refused(Refusal::ChallengeSpent),
                    "evidence refused" => refused(Refusal::Signature),
                    "none" => refused(Refusal::ChallengeMissing),
                    _ => refused(Refusal::ChallengeUnknown),
                }
            }
        }
    }
}

fn challenge(issue: &enrol::Issue) -> String {
    let table = |n: usize| issue.tables[n].as_bytes();
    assert_eq!(issue.tables.len(), 3);
    let message = issue.message.as_bytes();
    let signed = SignedMessage::read(message, table(0), Some(table(1))).unwrap();
    let verified = signed.verify().unwrap();
    let plaintext = verified.decrypt(&issue.content_key);
    let opened = match verified.open(&plaintext, Some(table(2))) {
        Ok(opened) => opened,
        Err(error) => panic!("{error}"),
    };
    let challenge = opened.request.challenge;
    challenge.map_or("none".into(), |c| {
        String::from_utf8(c.expose().to_vec()).unwrap()
    })
}

/// Takes blobs apart as the parser does, and then does what `parser-mode` says: `WHAT BLOB`.
#[derive(Clone, Copy)]
struct FalseParser;

impl Worker for FalseParser {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        let request: parse::Request = wire::decode(call.packet).unwrap();
        let mode = fs::read_to_string(folder().join("parser-mode")).unwrap();
        let (what, blob) = mode.split_once(' ').unwrap();
        let concerned = match &request {
            parse::Request::Message(_) => blob == "message",
            parse::Request::CertificationRequest(_) => blob == "plaintext",
        };
        let reply = chancery_parser::take_apart(&request);
        if !concerned {
            return now(&reply);
        }
        let parse::Reply::Tables(mut tables) = reply else {
            return now(&reply);
        };
        match what {
            "die" => return Answer::Close,
            "babble" => return Answer::Now(b"no packet at all".to_vec().into()),
            "more" => tables
                .tables
                .extend([OctetString::new([0; 10]).unwrap(), tables.tables[0].clone()]),
            "none" => tables.tables.clear(),
            "lie" => {
                // One octet more of content in the last record than there is.
                let mut table = tables.tables.remove(0).into_bytes().into_vec();
                let at = table.len() - 2;
                table[at] ^= 1;
                tables.tables.insert(0, OctetString::new(table).unwrap());
            }
            "refuse" => return now(&parse::Reply::Malformed(Null)),
            other => panic!("no mode {other}"),
        }
        now(&parse::Reply::Tables(tables))
    }
}

/// Token, keys, configuration.
fn ceremony(folder: &Path) {
    let module = Path::new("/usr/lib/softhsm/libsofthsm2.so");
    let pin = Secret::new(PIN.into());
    initialise_token(
        module,
        "chancery-ra",
        &Secret::new(b"4711-officer".to_vec()),
        &pin,
    )
    .unwrap();
    let config = TokenConfig {
        name: "ra".into(),
        module: module.into(),
        label: "chancery-ra".into(),
        serial: None,
    };
    let ceremony = Ceremony::open(&config, &pin).unwrap();
    let algorithm = KeyAlgorithm::Rsa2048;
    let decryption = ceremony
        .generate_pair::<Decrypt>("decryption", algorithm)
        .unwrap();
    let signing = ceremony
        .generate_pair::<Respond>("signing", algorithm)
        .unwrap();
    let keys: String = [("decryption", decryption), ("signing", signing)]
        .map(|(name, pinned)| key(folder, name, &pinned))
        .concat();
    fs::write(folder.join("chancery.toml"), configuration(folder, &keys)).unwrap();
    write_pin(folder, PIN);
    fs::create_dir(folder.join("state")).unwrap();
}

pub(crate) fn write_pin(folder: &Path, pin: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join("ra.pin");
    let mut options = OpenOptions::new();
    let mut file = options
        .mode(0o600)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    writeln!(file, "{pin}").unwrap();
}

/// Writes the public key to a file, and returns its entry in the configuration.
fn key(folder: &Path, name: &str, pinned: &PinnedKey) -> String {
    let Pinned::Public(spki) = &pinned.material else {
        panic!("no key pair")
    };
    fs::write(folder.join(format!("{name}.spki")), spki).unwrap();
    let (id, public) = (hex::encode(&pinned.id), base64(spki));
    format!(
        "[[key]]\nname = \"{name}\"\ntoken = \"ra\"\nid = \"{id}\"\npublic_key = \"{public}\"\n"
    )
}

fn base64(octets: &[u8]) -> String {
    let pem = der::pem::encode_string("X", der::pem::LineEnding::LF, octets).unwrap();
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

/// Two workers; the CA's part is only what the file must have.
fn configuration(folder: &Path, keys: &str) -> String {
    let folder = folder.display();
    let others: String = [
        ("challenge", "check", "00".repeat(32)),
        ("audit", "public_key", "MAA=".into()),
        ("issuing", "public_key", "MAA=".into()),
    ]
    .iter()
    .enumerate()
    .map(|(n, (name, what, value))| {
        format!("[[key]]\nname = \"{name}\"\ntoken = \"ca\"\nid = \"0{n}\"\n{what} = \"{value}\"\n")
    })
    .collect();
    format!(
        r#"
[appliance]
name = "flow"
development = true
state = "{folder}/state"
run = "{folder}/run"
[ra]
decryption_key = "decryption"
signing_key = "signing"
workers = 2
[challenge]
key = "challenge"
[audit]
key = "audit"
[ledger]
database = "ledger.db"
[[token]]
name = "ra"
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "chancery-ra"
pin_file = "{folder}/ra.pin"
files = ["{folder}/tokens", "{folder}/softhsm2.conf"]
[token.environment]
SOFTHSM2_CONF = "{folder}/softhsm2.conf"
[[token]]
name = "ca"
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "chancery-ca"
pin_file = "ca.pin"
{keys}{others}
[[ca]]
id = "issuing"
certificate = "issuing.pem"
key = "issuing"
[[profile]]
name = "devices"
ca = "issuing"
"#
    )
}
