//! `chancery enroll`: the client crate's command.

use chancery_client::{
    Challenge, CommandError, EnrolError, EnrollOptions, KeyKind, Url, enroll_command,
};
use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::wire::Digest;

use crate::cli::Enroll;
use crate::end::End;

/// Enrols and says where the files are.
pub(crate) fn enroll(options: &Enroll) -> Result<(), End> {
    let usage = |error: &dyn core::fmt::Display| End::Usage(error.to_string());
    let root_sha256 = options
        .root_sha256
        .as_deref()
        .map(|hex| {
            Digest::from_hex(&hex.replace(':', ""))
                .ok_or_else(|| End::Usage("--root-sha256: expected 64 hexadecimal digits".into()))
        })
        .transpose()?;
    let sans = options
        .san
        .iter()
        .map(|san| GeneralName::parse(san))
        .collect::<Result<_, _>>();
    let enrol = EnrollOptions {
        url: options.url.parse::<Url>().map_err(|error| usage(&error))?,
        subject: DistinguishedName::parse(&options.subject).map_err(|error| usage(&error))?,
        sans: sans.map_err(|error| usage(&error))?,
        root_sha256,
        key: options
            .key
            .parse::<KeyKind>()
            .map_err(|error| usage(&error))?,
        out: options.out.clone(),
    };
    let challenge = match options.challenge_file.to_str() {
        Some("-") => Challenge::StandardInput,
        _ => Challenge::File(options.challenge_file.clone()),
    };
    enroll_command(&enrol, &challenge).map_err(|error| match error {
        CommandError::Enrol(EnrolError::Refused { .. }) => End::Refused(error.to_string()),
        other => End::Failed(other.to_string()),
    })?;
    eprintln!(
        "chancery: enrolled; key.pem, cert.pem and chain.pem are in {}",
        options.out.display()
    );
    Ok(())
}
