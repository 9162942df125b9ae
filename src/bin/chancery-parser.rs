//! The parser role: see `chancery_parser`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_parser::main()
}
