//! `chancery cert`.

use std::time::Duration;

use chancery_config::Config;
use chancery_host::clock;
use chancery_host::ipc::Channel;
use chancery_protocol::ipc::query::{Find, MAX_ROWS, Reply, Request, Row, Show};
use chancery_protocol::ipc::socket;
use serde::Serialize;

use crate::cli::{Cert, Output};
use crate::end::End;
use crate::{pem, text};

/// How long the ledger may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A row as scripts see it.
#[derive(Serialize)]
struct Printed {
    serial: String,
    subject: String,
    sans: Vec<String>,
    not_before: String,
    not_after: String,
    status: &'static str,
    profile: String,
    device_id: String,
    sha256: String,
    ca: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<String>,
}

impl Printed {
    fn new(row: Row, pem: Option<String>) -> Self {
        Self {
            status: row.status.text(row.not_after, clock::now()),
            serial: row.serial,
            subject: row.subject,
            sans: row.sans,
            not_before: text::time(row.not_before),
            not_after: text::time(row.not_after),
            profile: row.profile,
            device_id: row.device_id,
            sha256: row.sha256.to_string(),
            ca: row.ca,
            pem,
        }
    }
}

/// `cert find` and `cert show`.
pub(crate) fn cert(config: &Config, command: &Cert, output: Output) -> Result<(), End> {
    let ledger = Channel::new(config.socket(socket::LEDGER_QUERY), DEADLINE);
    match command {
        Cert::Find { text, limit } => {
            find(&ledger, text.as_deref().unwrap_or_default(), *limit, output)
        }
        Cert::Show { id } => show(&ledger, id, output),
    }
}

fn ask(ledger: &Channel, request: &Request) -> Result<Reply, End> {
    match ledger.call(request) {
        Ok(Reply::Unavailable(cause)) => Err(End::Failed(cause)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(End::unreachable("ledger", &error)),
    }
}

fn find(ledger: &Channel, text: &str, limit: u32, output: Output) -> Result<(), End> {
    let mut rows = Vec::new();
    let mut more = true;
    while more && rows.len() < limit as usize {
        let offset = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let page = limit.saturating_sub(offset).min(MAX_ROWS);
        let request = Request::Find(Find {
            text: text.into(),
            offset,
            limit: page,
        });
        let Reply::Found(found) = ask(ledger, &request)? else {
            return Err(End::Failed("the ledger answered another question".into()));
        };
        more = found.more && !found.rows.is_empty();
        rows.extend(found.rows.into_iter().map(|row| Printed::new(row, None)));
    }
    if output == Output::Json {
        print_json(&rows)?;
    } else {
        for row in &rows {
            println!(
                "{}  {}  {}  until {}  {}  {}",
                row.serial,
                row.status,
                row.profile,
                row.not_after,
                row.subject,
                row.sans.join(" ")
            );
        }
    }
    if more {
        eprintln!("more certificates match; see --limit");
    }
    if rows.is_empty() {
        return Err(End::NotFound(format!("no certificate matches \"{text}\"")));
    }
    Ok(())
}

fn show(ledger: &Channel, id: &str, output: Output) -> Result<(), End> {
    let shown = match ask(ledger, &Request::Show(Show { id: id.into() }))? {
        Reply::Certificate(shown) => shown,
        Reply::Absent(_) => {
            return Err(End::NotFound(format!(
                "there is no certificate {id}; try `chancery cert find`"
            )));
        }
        Reply::Ambiguous(_) => {
            return Err(End::Failed(format!(
                "several certificates match {id}; give the SHA-256"
            )));
        }
        _ => return Err(End::Failed("the ledger answered another question".into())),
    };
    let row = Printed::new(
        shown.row,
        Some(pem::certificate(shown.certificate.as_bytes())?),
    );
    if output == Output::Json {
        return print_json(&row);
    }
    println!("serial      {}", row.serial);
    println!("subject     {}", row.subject);
    println!("sans        {}", row.sans.join(" "));
    println!("not before  {}", row.not_before);
    println!("not after   {}", row.not_after);
    println!("status      {}", row.status);
    println!("ca          {}", row.ca);
    println!("profile     {}", row.profile);
    println!("device id   {}", row.device_id);
    println!("sha256      {}", row.sha256);
    print!("{}", row.pem.unwrap_or_default());
    Ok(())
}

fn print_json(value: &impl Serialize) -> Result<(), End> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| End::Failed(format!("the result does not encode: {error}")))?;
    println!("{text}");
    Ok(())
}
