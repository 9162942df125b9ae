//! Enrolments a second, beside a bare loop of the token operations they need.
//!
//! Makes one appliance in a temporary folder, prepares messages beforehand, and times how long
//! their answers take with one client and with eight. Every answer must be a SUCCESS with the
//! right certificate; anything else ends the bench. Then the appliance is stopped and a process
//! of its own does nothing but the token operations of an enrolment: the bound.
//!
//! Trusted with nothing: it runs on demo appliances that it made.
#![forbid(unsafe_code)]

mod appliance;
mod device;
mod load;
mod processes;
mod report;
mod token_loop;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use chancery_client::{CaCertificates, Url};
use chancery_host::process::Stop;
use clap::Parser;

use crate::appliance::Appliance;
use crate::device::{Device, Enrolment};
use crate::processes::Roles;
use crate::report::{Report, Row};

/// Measures enrolments a second of a demo appliance, beside a bare loop of the token operations.
#[derive(Debug, Parser)]
#[command(name = "chancery-bench", version)]
struct Options {
    /// Folder of the programs chancery, chancery-ca and the others, as built.
    #[arg(long, value_name = "DIR", required_unless_present = "token_loop")]
    programs: Option<PathBuf>,
    /// Enrolments a run.
    #[arg(long, value_name = "N", default_value_t = 400,
          value_parser = clap::value_parser!(u32).range(10..=100_000))]
    messages: u32,
    /// Runs the bare token loop for each of these numbers of threads, on a token that it makes.
    #[arg(long, value_name = "THREADS", value_delimiter = ',', hide = true, requires = "module",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    token_loop: Vec<u16>,
    /// The PKCS#11 module of the bare token loop.
    #[arg(long, value_name = "FILE", hide = true)]
    module: Option<PathBuf>,
}

/// Keys are made once and used in turn: a key takes longer to make than to enrol.
const DEVICES: usize = 32;

/// Clients at once, one run each.
const CLIENTS: [usize; 2] = [1, 8];

/// Untimed enrolments before the first run: connections are made, caches are filled.
const WARM_UP: usize = 16;

/// Threads of the bare loop, one window each.
const LOOP_THREADS: [u16; 2] = [1, 2];

/// An end of the bench, with its cause in words.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match (&options.programs, &options.module) {
        (_, Some(module)) if !options.token_loop.is_empty() => {
            token_loop::windows(module, &options.token_loop)
        }
        (Some(programs), _) => bench(programs, options.messages),
        (None, _) => Err("--programs is missing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn bench(programs: &Path, messages: u32) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let folder = tempfile::Builder::new()
        .prefix("chancery-bench")
        .tempdir()?;
    let bench = Bench {
        messages: usize::try_from(messages)?,
        stop: &stop,
    };
    progress("making and starting a demo appliance");
    let appliance = Appliance::start(programs, folder.path())?;
    let module = appliance.module()?;
    let rows = bench.appliance(&appliance);
    if rows.is_err() && !stop.requested() {
        eprintln!(
            "bench: the end of the appliance's log:\n{}",
            appliance.log_end()
        );
    }
    drop(appliance);
    let rows = rows?;
    progress("the bare token loop");
    let windows = token_loop::measure(&module, folder.path(), &LOOP_THREADS)?;
    let report = Report {
        messages: bench.messages,
        processors: thread::available_parallelism()?.get(),
        windows,
        rows,
    };
    print!("{report}");
    Ok(())
}

struct Bench<'a> {
    messages: usize,
    stop: &'a Stop,
}

impl Bench<'_> {
    /// Every run on one appliance.
    fn appliance(&self, appliance: &Appliance) -> Result<Vec<Row>, Failure> {
        let url: Url = appliance.url().parse()?;
        let roles = Roles::of(appliance.pid())?;
        let ca = load::ca_certificates(&url)?;
        progress("making the devices' keys");
        let devices = load::in_parallel(DEVICES, self.stop, |_| Device::new())?;
        let prepare = |count: usize, run: &str| {
            progress(&format!("preparing {count} messages"));
            load::in_parallel(count, self.stop, |number| {
                let name = format!("{run}-{number}");
                let device = devices
                    .get(number % DEVICES)
                    .ok_or("there are no devices")?;
                Enrolment::prepare(device, &ca, &name, |asked| appliance.mint(asked))
            })
        };
        let warm_up = prepare(WARM_UP, "warm-up")?;
        self.run(&url, &ca, &warm_up, CLIENTS.into_iter().max().unwrap_or(1))?;
        let mut rows = Vec::new();
        for clients in CLIENTS {
            let enrolments = prepare(self.messages, &format!("of-{clients}"))?;
            progress(&format!(
                "{} enrolments, {clients} at a time",
                self.messages
            ));
            let before = (roles.cpu()?, processes::own_cpu()?);
            let run = self.run(&url, &ca, &enrolments, clients)?;
            let after = (roles.cpu()?, run.own_cpu);
            rows.push(Row {
                clients,
                elapsed: run.elapsed,
                latencies: run.latencies,
                roles: roles.usage(&before.0, &after.0),
                own_cpu: after.1.saturating_sub(before.1),
            });
        }
        Ok(rows)
    }

    /// One run; the answers are examined after the clock has stopped.
    fn run(
        &self,
        url: &Url,
        ca: &CaCertificates,
        enrolments: &[Enrolment<'_>],
        clients: usize,
    ) -> Result<load::Run, Failure> {
        let run = load::run(url, enrolments, clients, self.stop)?;
        for (enrolment, reply) in enrolments.iter().zip(&run.replies) {
            enrolment.examine(reply, ca)?;
        }
        Ok(run)
    }
}

fn progress(text: &str) {
    eprintln!("bench: {text}");
}
