//! The ledger role: see `chancery_ledger`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery_ledger::main()
}
