//! The command line, as clap sees it.

use std::net::SocketAddr;
use std::path::PathBuf;

use chancery_token::KeyAlgorithm;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// A hardened, HSM-backed certification authority for networks whose devices an MDM manages.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "dir")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of an appliance: means --config DIR/chancery.toml.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a demo appliance on SoftHSM in --dir and serves it; an existing one is served again.
    Quickstart(Quickstart),
    /// Runs every role under one user, for development; systemd does this in production.
    Run,
    /// Challenges.
    #[command(subcommand)]
    Challenge(Challenge),
    /// Certificates.
    #[command(subcommand)]
    Cert(Cert),
    /// PKCS#11 tokens.
    #[command(subcommand)]
    Token(Token),
    /// Enrols a key over SCEP, as a device would.
    Enroll(Enroll),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Checks an installation and says what to do about what is wrong.
    Doctor,
    /// One token's part of a ceremony: reads a plan from standard input (used by quickstart).
    #[command(hide = true)]
    TokenStep,
}

#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Address for HTTP of a new appliance, by default 127.0.0.1:8080; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Key of the issuing CA: rsa2048, rsa3072, rsa4096, p256 or p384.
    #[arg(long, value_name = "ALGORITHM", default_value = "p256")]
    pub(crate) ca_key: KeyAlgorithm,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Challenge {
    /// Mints a challenge and prints it alone on one line.
    New(NewChallenge),
}

#[derive(Debug, Args)]
pub(crate) struct NewChallenge {
    /// The profile that it is for.
    #[arg(long)]
    pub(crate) profile: String,
    /// The subject that the certificate will carry (RFC 4514), for example CN=laptop-1. Without
    /// it: what the profile leaves open.
    #[arg(long, value_name = "DN")]
    pub(crate) subject: Option<String>,
    /// A subject alternative name that the certificate will carry: dns:, email:, uri: or ip:.
    /// Without any: what the profile leaves open.
    #[arg(long, value_name = "KIND:VALUE")]
    pub(crate) san: Vec<String>,
    /// How long it may be used: a number and s, m, h or d.
    #[arg(long, default_value = "60m", value_parser = crate::challenge::duration)]
    pub(crate) ttl: u64,
    /// How many certificates it is good for.
    #[arg(long, default_value_t = 1)]
    pub(crate) uses: u32,
    /// The MDM's name for the device, to find the certificate by.
    #[arg(long, value_name = "ID")]
    pub(crate) device_id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Finds certificates by serial number, name (or its beginning), device id, transaction or
    /// SHA-256; without TEXT the newest.
    Find {
        /// What to look for.
        text: Option<String>,
        /// Most rows.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Shows one certificate by serial number or SHA-256.
    Show {
        /// Serial number or SHA-256, hexadecimal.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Lets a refused PIN be tried again, once; first put the right one into its file.
    ClearPin {
        /// The token, by its name in the configuration.
        #[arg(long, value_name = "NAME")]
        token: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Enroll {
    /// The profile's URL, for example http://ca.example:8080/scep/devices.
    #[arg(long)]
    pub(crate) url: String,
    /// File that holds the challenge; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) challenge_file: PathBuf,
    /// The subject to ask for (RFC 4514).
    #[arg(long, value_name = "DN")]
    pub(crate) subject: String,
    /// A subject alternative name to ask for.
    #[arg(long, value_name = "KIND:VALUE")]
    pub(crate) san: Vec<String>,
    /// SHA-256 of the root certificate; without it the root that the server shows is believed.
    #[arg(long, value_name = "HEX")]
    pub(crate) root_sha256: Option<String>,
    /// Key to make: rsa2048, rsa3072 or rsa4096.
    #[arg(long, value_name = "ALGORITHM", default_value = "rsa2048")]
    pub(crate) key: String,
    /// Folder for key.pem, cert.pem and chain.pem.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Checks the file without touching anything else.
    Check,
}
