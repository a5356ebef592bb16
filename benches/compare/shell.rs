//! Running programs.

use std::path::Path;
use std::process::{Command, Output};

use crate::Res;

/// Runs `command` to its end; its output where it succeeded, else what it said.
pub(crate) fn run(command: &mut Command) -> Res<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or("").to_owned();
    Err(format!("{name} ended with {}: {said}", output.status))
}

/// Runs a program with arguments.
pub(crate) fn call(program: &str, arguments: &[&str]) -> Res<String> {
    let output = run(Command::new(program).args(arguments))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is in PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// An error of the standard library about a path.
pub(crate) fn on<T>(path: &Path, result: std::io::Result<T>) -> Res<T> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn make_dir(path: &Path) -> Res<()> {
    on(path, std::fs::create_dir_all(path))
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Res<()> {
    on(path, std::fs::write(path, content))
}

pub(crate) fn text(path: &Path) -> Res<String> {
    on(path, std::fs::read_to_string(path))
}
