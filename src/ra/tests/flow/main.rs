//! The RA as a process, with its token and the real parser; CA and ledger are stand-ins that keep
//! what they were asked.
//!
//! This executable is also the programs: with `FLOW_PROGRAM` set it becomes one of them, before any
//! thread exists, which the standard test harness cannot offer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod appliance;
mod certificates;
mod device;
mod enrolment;
mod harness;
mod programs;
mod refusal;
mod trouble;

fn main() -> std::process::ExitCode {
    if let Some(program) = std::env::var_os("FLOW_PROGRAM") {
        return programs::run(program.to_str().unwrap());
    }
    let tests = [enrolment::TESTS, refusal::TESTS, trouble::TESTS].concat();
    harness::run(&std::env::args().skip(1).collect::<Vec<_>>(), &tests)
}
