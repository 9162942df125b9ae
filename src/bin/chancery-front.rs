//! The front role: see `chancery_front`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_front::main()
}
