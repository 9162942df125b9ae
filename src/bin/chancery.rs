//! The command line: see `chancery_admin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_admin::main()
}
