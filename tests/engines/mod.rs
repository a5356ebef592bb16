//! Real engines (podman, buildah, docker, mount(8)) on what `fuse-plyfs` mounts: a room of their
//! own to run in, an image to begin with, and one life of containers to play on several drivers.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

pub(crate) mod beside;
pub(crate) mod image;
pub(crate) mod life;
pub(crate) mod podman;
pub(crate) mod room;
pub(crate) mod user;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use beside::{Beside, KERNEL, KERNEL_MAPPED, VFS, podman_is_ready};
pub(crate) use podman::{Podman, Storage};
pub(crate) use room::Room;
pub(crate) use user::User;

/// The mount program under test.
pub(crate) const PLYFS: &str = env!("CARGO_BIN_EXE_fuse-plyfs");

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A file of `fixtures/engines`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/engines").join(name)
}

/// Runs a program; its failure stops the test with what it said. Gives its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    said(command, &output.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// As [`run`], with a file as standard input.
pub(crate) fn run_with(command: &mut Command, input: &Path) -> String {
    let input = std::fs::File::open(input).unwrap_or_else(|e| panic!("{}: {e}", input.display()));
    let output = command.stdin(input).output();
    said(command, &output.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

fn said(command: &Command, output: &std::process::Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// The tree in an archive, unpacked at `dir` for that time.
pub(crate) fn unpacked(archive: &Path, dir: &Path) -> crate::support::Snapshot {
    std::fs::create_dir(dir).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file"]);
    run(tar.arg(archive).arg("--directory").arg(dir));
    let tree = crate::support::Snapshot::of(dir);
    std::fs::remove_dir_all(dir).unwrap();
    tree
}

/// Waits for something that comes by itself.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines in order: engines print changes in no order of their own.
pub(crate) fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A block of a section of docs/ENGINES.md, the first in its language.
pub(crate) fn documented_block(section: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ENGINES.md");
    let text = std::fs::read_to_string(path).unwrap();
    let heading = format!("{section}\n");
    let found = text.split("\n## ").find(|part| part.starts_with(&heading));
    let found = found.unwrap_or_else(|| panic!("no section {section}"));
    let block = found.split(&format!("```{language}\n")).nth(1);
    let block = block.unwrap_or_else(|| panic!("no {language} in the section {section}"));
    block.split("```").next().unwrap().to_owned()
}
