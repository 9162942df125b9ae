//! A small test runner with the standard one's habits: names as filters, `--exact`, `--list`,
//! tests in parallel, the same last line.

use chancery_host::process::Stop;
use std::panic::catch_unwind;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Tests at a time: most of them wait for processes.
const THREADS: usize = 8;

pub(crate) type Test = (&'static str, fn());

/// Names the functions of a list of tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

/// Ends a supervisor on another thread, also when the test fails and its scope waits for that.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// This executable as the program `arguments[0]`.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("as").args(arguments);
    command
}

pub(crate) fn run(arguments: &[String], tests: &[Test]) {
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<Test> = tests
        .iter()
        .copied()
        .filter(|(name, _)| {
            filters.is_empty()
                || filters
                    .iter()
                    .any(|f| *f == name || !flag("--exact") && name.contains(*f))
        })
        .collect();
    if flag("--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    println!("\nrunning {} tests", chosen.len());
    let (started, next, failed) = (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((name, test)) = chosen.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let passed = catch_unwind(test).is_ok();
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    failed.fetch_add(usize::from(!passed), Ordering::SeqCst);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        tests.len() - chosen.len(),
        started.elapsed().as_secs_f32()
    );
    if failed > 0 {
        exit(101);
    }
}
