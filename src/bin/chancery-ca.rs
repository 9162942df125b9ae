//! The ca role: see `chancery_ca`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_ca::main()
}
