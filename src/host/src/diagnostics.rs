//! Diagnostics: what an operator reads to find out what is wrong. Audit records go another way
//! (`crate::journal`), since this one drops what it cannot deliver.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends this process's diagnostics to the journal if stderr leads there (`JOURNAL_STREAM`), else
/// to stderr, each line beginning with `role`. `CHANCERY_LOG` filters, by default at `info`.
/// Called once; a second call changes nothing.
pub fn diagnostics(role: &str) {
    let filter = EnvFilter::try_from_env("CHANCERY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = stderr_is_the_journal()
        .then(tracing_journald::layer)
        .and_then(Result::ok);
    // The only error is that diagnostics are set up already.
    let _ = match journal {
        Some(layer) => registry
            .with(
                layer
                    .with_field_prefix(None)
                    .with_syslog_identifier(role.to_owned()),
            )
            .try_init(),
        None => {
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(io::stderr().is_terminal())
                .with_writer(Lines {
                    role: role.to_owned(),
                });
            registry.with(layer).try_init()
        }
    };
}

/// systemd.exec(5): `JOURNAL_STREAM` is the device and inode of the stream it connected. A
/// redirection afterwards changes them.
fn stderr_is_the_journal() -> bool {
    let Ok(announced) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr().as_fd())
        .is_ok_and(|actual| announced == format!("{}:{}", actual.st_dev, actual.st_ino))
}

/// Writes whole lines, since several roles may share one stderr.
struct Lines {
    role: String,
}

struct Line<'a>(&'a str);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.role)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = Vec::with_capacity(self.0.len() + 2 + event.len());
        line.extend_from_slice(self.0.as_bytes());
        line.extend_from_slice(b": ");
        line.extend_from_slice(event);
        io::stderr().lock().write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
