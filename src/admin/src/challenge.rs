//! `chancery challenge`.

use std::io::{self, Write};
use std::time::Duration;

use chancery_config::Config;
use chancery_host::ipc::Channel;
use chancery_protocol::ipc::operator::{NewChallenge as Asked, Reply, Request};
use chancery_protocol::ipc::socket;
use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::wire::Secret;

use crate::cli::{NewChallenge, Output};
use crate::end::End;
use crate::text;

/// How long the CA may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// `challenge new`: the challenge goes to standard output, alone on its line.
pub(crate) fn new(config: &Config, options: &NewChallenge, output: Output) -> Result<(), End> {
    let usage = |error: chancery_protocol::name::NameError| End::Usage(error.to_string());
    let subject = options
        .subject
        .as_deref()
        .map(DistinguishedName::parse)
        .transpose()
        .map_err(|error| End::Usage(format!("--subject: {error}")))?;
    let sans = options
        .san
        .iter()
        .map(|san| GeneralName::parse(san))
        .collect::<Result<Vec<_>, _>>()
        .map_err(usage)?;
    let asked = Asked {
        profile: options.profile.clone(),
        ttl: options.ttl,
        uses: options.uses,
        subject,
        sans: (!sans.is_empty()).then_some(sans),
        device_id: options.device_id.clone(),
    };
    let (handle, expires) = mint(config, asked)?;
    print(&handle, expires, output).map_err(End::cannot("write the challenge to standard output"))
}

fn print(handle: &Secret, expires: u64, output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if output == Output::Json {
        stdout.write_all(b"{\"challenge\":\"")?;
        stdout.write_all(handle.expose())?;
        writeln!(stdout, "\",\"expires\":\"{}\"}}", text::time(expires))
    } else {
        stdout.write_all(handle.expose())?;
        stdout.write_all(b"\n")
    }
}

/// Asks the CA for a challenge; returns it and when it expires.
pub(crate) fn mint(config: &Config, asked: Asked) -> Result<(Secret, u64), End> {
    let channel = Channel::new(config.socket(socket::CA_OPERATOR), DEADLINE);
    match channel.call(&Request::NewChallenge(asked)) {
        Ok(Reply::Challenge(challenge)) => Ok((challenge.handle, challenge.expires)),
        Ok(Reply::Refused(cause)) => Err(End::Refused(cause)),
        Ok(Reply::Unavailable(cause)) => Err(End::TokenUnavailable(cause)),
        Ok(Reply::Failed(cause)) => Err(End::Failed(cause)),
        Ok(Reply::Status(_)) => Err(End::Failed("the ca answered another question".into())),
        Err(error) => Err(End::unreachable("ca", &error)),
    }
}

/// Reads a number and its unit as seconds.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "expected a number and s, m, h or d, for example 60m".into())
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations() {
        assert_eq!(duration("60m"), Ok(3600));
        assert_eq!(duration("90"), Ok(90));
        assert_eq!(duration("7d"), Ok(604_800));
        for wrong in [
            "",
            "m",
            "0",
            "1w",
            "-1m",
            "1.5h",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
