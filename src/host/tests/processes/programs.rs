//! The programs that the tests start.

use crate::{activation, sandbox, supervise, zygote};
use chancery_host::activation::Listeners;
use chancery_host::ipc::server::{Admission, Answer, Call, Gate, Limits, Worker, serve};
use chancery_host::process::{self, Stop};
use std::io::Write;
use std::process::{abort, exit};
use std::time::Duration;
use zeroize::Zeroizing;

pub(crate) fn run(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["activation", case] => activation::program(case),
        ["sandbox", stage, action, folder] => sandbox::program(stage, action, folder),
        ["cell", action, folder] => zygote::cell(action, folder),
        ["zygote"] => zygote::zygote(),
        ["echo", ref more @ ..] => echo(more),
        ["web"] => web(),
        ["mute"] => loop {
            std::thread::park();
        },
        ["dead"] => exit(7),
        ["stubborn"] => stubborn(),
        ["supervisor", socket] => supervise::supervisor(socket),
        ["logs"] => {
            process::diagnostics("logs");
            tracing::info!(answer = 42, "a line");
            tracing::debug!("a detail");
        }
        _ => panic!("unknown program {arguments:?}"),
    }
}

struct Echo;

impl Worker for Echo {
    fn answer(&mut self, call: Call<'_>) -> Answer {
        let answer = match call.packet {
            b"pid" => std::process::id().to_string(),
            b"environment" => {
                let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                names.sort();
                names.join(" ")
            }
            b"descriptors" => {
                let folder = std::fs::read_dir("/proc/self/fd").unwrap();
                let links = folder.filter_map(|e| std::fs::read_link(e.unwrap().path()).ok());
                let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:"));
                sockets.count().to_string()
            }
            b"exit" => exit(3),
            b"panic" => panic!("as asked"),
            b"abort" => abort(),
            other => String::from_utf8_lossy(other).into_owned(),
        };
        Answer::Now(Zeroizing::new(answer.into_bytes()))
    }
}

/// Serves the socket `echo` until SIGTERM; then appends its first argument to the file that its
/// second names.
fn echo(more: &[&str]) {
    let mut listeners = Listeners::from_environment().unwrap();
    let listener = listeners.seqpacket("echo").unwrap();
    listeners.finish().unwrap();
    let stop = Stop::on_signals().unwrap();
    process::ready();
    let admitted = Admission::AnyOf(vec![process::current_uid()]);
    let limits = Limits {
        connections: 8,
        queue: 8,
        idle: Duration::from_secs(60),
    };
    serve(
        vec![Gate { listener, admitted }],
        vec![Box::new(Echo)],
        limits,
        &stop,
    )
    .unwrap();
    process::stopping();
    if let [name, file] = more {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .unwrap();
        writeln!(file, "{name}").unwrap();
    }
}

/// Greets on every TCP socket `web`.
fn web() {
    let mut listeners = Listeners::from_environment().unwrap();
    let web = listeners.tcp("web").unwrap();
    listeners.finish().unwrap();
    process::ready();
    std::thread::scope(|scope| {
        for listener in &web {
            scope.spawn(|| {
                for stream in listener.incoming() {
                    stream.unwrap().write_all(b"hello").unwrap();
                }
            });
        }
    });
}

fn stubborn() {
    let stop = Stop::on_signals().unwrap();
    process::ready();
    while stop.wait(Duration::from_secs(3600)) {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
