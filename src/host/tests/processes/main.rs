//! Behaviour that needs processes of its own: sandbox, zygote, supervision, signals.
//!
//! This executable is also the programs under test: with `as NAME ARGUMENTS…` it becomes one of
//! them, before any thread exists, which the standard test harness cannot offer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod activation;
mod harness;
mod programs;
mod sandbox;
mod supervise;
mod zygote;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, program)) if first == "as" => programs::run(program),
        _ => harness::run(
            &arguments,
            &[
                activation::TESTS,
                sandbox::TESTS,
                supervise::TESTS,
                zygote::TESTS,
            ]
            .concat(),
        ),
    }
}
