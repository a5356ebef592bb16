//! `plyfs`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
