//! The parser process by itself, as the tests of this crate start it.

fn main() -> std::process::ExitCode {
    chancery_parser::main()
}
