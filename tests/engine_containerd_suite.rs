//! containerd's own suite for snapshotters (Debian's package of its source), played on
//! `plyfs snapshotter` with each driver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod engines;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use engines::{Room, fixture, run};
use support::require;

/// Where Debian has the source of Go packages.
const SOURCES: &str = "/usr/share/gocode";

/// How many cases the suite of containerd 1.6 has; it leaves one out itself.
const CASES: usize = 21;

#[test]
fn containerds_own_suite_passes() {
    let needs = ["root", "fuse", "overlayfs", "tool:go", "tool:mount.fuse3"];
    if !needs.into_iter().all(require) {
        return;
    }
    let suite = Path::new(SOURCES).join("src/github.com/containerd/containerd/snapshots/testsuite");
    assert!(suite.exists(), "the package golang-github-containerd-containerd-dev is needed");
    let room = Room::enter();
    let sources = room.dir("go/src/suite");
    fs::copy(fixture("snapshots_suite_test.go"), sources.join("suite_test.go")).unwrap();
    let program = room.path("suite.test");
    let mut go = Command::new("go");
    go.args(["test", "-c", "-o"]).arg(&program).arg(".").current_dir(&sources);
    go.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOTOOLCHAIN", "local");
    go.env("GOPATH", format!("{}:{SOURCES}", room.path("go").display()));
    // It is compiled once for all runs of the tests.
    run(go.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache")));
    for driver in ["fuse", "kernel"] {
        let mut suite = Command::new(&program);
        suite.args(["-test.root", "-test.v", "-test.timeout=5m"]).current_dir(room.dir(driver));
        suite.env("PLYFS", env!("CARGO_BIN_EXE_plyfs")).env("DRIVER", driver);
        suite.env("TMPDIR", room.dir(driver)).stdin(Stdio::null());
        let output = suite.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let lines = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
        assert!(output.status.success() && lines("    --- FAIL") == 0, "--driver {driver}: {said}");
        assert_eq!(lines("    --- PASS"), CASES - 1, "--driver {driver}: {said}");
        assert_eq!(lines("    --- SKIP: TestPlyFS/Rename"), 1, "--driver {driver}: {said}");
    }
}
