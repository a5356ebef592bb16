//! The `plyfs` command as a person runs it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as expected")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The command, on a store in a directory of its own.
pub(crate) struct Shell {
    pub(crate) dir: tempfile::TempDir,
}

impl Shell {
    pub(crate) fn new() -> Shell {
        Shell { dir: tempfile::tempdir().unwrap() }
    }

    /// A store with the fixture image in it.
    pub(crate) fn with_busybox() -> Shell {
        let shell = Shell::new();
        shell.ok(&["load", "-q", "-i", fixture("busybox-oci.tar").to_str().unwrap()]);
        shell
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.args(arguments).env("PLYFS_ROOT", self.dir.path().join("root"));
        command.stdin(Stdio::null()).env_remove("PLYFS_LOG");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints, where it must succeed in silence on standard error.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its one line on standard error, where it must fail.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said.trim_end().strip_prefix("plyfs: ").unwrap().to_owned()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }
}

/// A fixture archive of the repository.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives").join(name)
}
