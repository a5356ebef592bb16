//! `plyfs`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    plyfs::cli::run()
}
