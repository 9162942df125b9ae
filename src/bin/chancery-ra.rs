//! The ra role: see `chancery_ra`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_ra::main()
}
