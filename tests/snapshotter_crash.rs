//! Every verb of the snapshotter that changes something, stopped at or failing in each of its
//! steps: afterwards there is the state before or the state after, and nothing is left over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use plyfs::error::Errno;
use plyfs::snapshotter::{Driver, Outcome, Snapshotter, Start};
use plyfs::store::Store;
use plyfs::sys::fault::{self, Action};

fn open(root: &Path) -> Snapshotter {
    let daemon = Path::new(env!("CARGO_BIN_EXE_fuse-plyfs"));
    Snapshotter::open(Store::open(root).unwrap(), Driver::Fuse, daemon).unwrap()
}

fn start(key: &str, parent: &str) -> Start {
    Start { key: key.to_owned(), parent: parent.to_owned(), labels: BTreeMap::new() }
}

/// A store with a committed snapshot and an active one on it.
fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let snapshotter = open(dir.path());
    snapshotter.prepare(start("base key", "")).unwrap();
    snapshotter.commit("base", "base key", BTreeMap::new()).unwrap();
    let mounts = snapshotter.prepare(start("lone", "")).unwrap();
    std::fs::write(Path::new(&mounts.first().unwrap().source).join("written"), "x").unwrap();
    snapshotter.prepare(start("active", "base")).unwrap();
    dir
}

/// What clients see, without times: name, kind, parent, labels.
fn view(snapshotter: &Snapshotter) -> Vec<String> {
    let records = snapshotter.list(&[]).unwrap();
    let line = |r: plyfs::store::SnapshotRecord| {
        format!("{} {:?} {:?} {:?}", r.name, r.kind, r.parent, r.labels)
    };
    records.into_iter().map(line).collect()
}

fn run(verb: &str, snapshotter: &Snapshotter) -> Outcome<()> {
    let labels = || BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    match verb {
        "prepare" => snapshotter.prepare(start("new", "base")).map(drop),
        "view" => snapshotter.view(start("new", "base")).map(drop),
        "commit" => snapshotter.commit("done", "active", labels()),
        "update" => snapshotter.update("active", &labels(), &[]).map(drop),
        "remove" => snapshotter.remove("lone"),
        _ => panic!("no such verb: {verb}"),
    }
}

/// Runs in a process of its own, because the step that stops it stops the process.
#[test]
#[ignore = "a part of the tests below, which start it"]
fn stopped_at_a_step() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let snapshotter = open(Path::new(&variable("PLYFS_CRASH_ROOT")));
    let step = variable("PLYFS_CRASH_STEP").parse().unwrap();
    let action = match variable("PLYFS_CRASH_ACTION").as_str() {
        "stop" => Action::Stop,
        _ => Action::Fail(Errno::NOSPC),
    };
    fault::arm(step, action);
    let outcome = run(&variable("PLYFS_CRASH_VERB"), &snapshotter);
    let taken = fault::disarm();
    // What memory says must be what the disk says, also after a failure.
    let seen = view(&snapshotter);
    drop(snapshotter);
    assert_eq!(seen, view(&open(Path::new(&variable("PLYFS_CRASH_ROOT")))));
    // 3 tells that the step was not reached: the verb has no more of them.
    let code = if taken <= u64::from(step) { 3 } else { i32::from(outcome.is_err()) };
    std::process::exit(code);
}

fn stop(root: &Path, verb: &str, step: u32, action: &str) -> Option<i32> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stopped_at_a_step", "--ignored", "--nocapture"])
        .env("PLYFS_CRASH_ROOT", root)
        .env("PLYFS_CRASH_VERB", verb)
        .env("PLYFS_CRASH_STEP", step.to_string())
        .env("PLYFS_CRASH_ACTION", action)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(101), "{verb} step {step}: {said}");
    output.status.code()
}

fn at_every_step(verb: &str, action: &str) {
    let dir = prepared();
    let before = view(&open(dir.path()));
    run(verb, &open(dir.path())).unwrap();
    let after = view(&open(dir.path()));
    assert_ne!(before, after);
    let (mut seen_before, mut seen_after) = (0, 0);
    for step in 0.. {
        let dir = prepared();
        let code = stop(dir.path(), verb, step, action);
        let snapshotter = open(dir.path());
        let seen = view(&snapshotter);
        if code == Some(3) {
            assert_eq!(seen, after);
            break;
        }
        assert_eq!(code.is_none(), action == "stop", "{verb} step {step}: {code:?}");
        assert!(seen == before || seen == after, "{verb} step {step}: {seen:?}");
        if seen == before {
            seen_before += 1
        } else {
            seen_after += 1
        }
        // Nothing is left over, and what is there can be removed, children first.
        let swept = std::fs::read_dir(dir.path().join("staging")).unwrap().count();
        assert_eq!(swept, 0, "{verb} step {step}");
        for name in ["done", "new", "active", "lone", "base"] {
            if snapshotter.stat(name).is_ok() {
                snapshotter.remove(name).unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 0);
    }
    assert!(seen_before >= 2 && seen_after > 0, "{verb}: {seen_before} before, {seen_after} after");
}

#[test]
fn prepare_stopped_at_every_step() {
    at_every_step("prepare", "stop");
}

#[test]
fn prepare_failing_in_every_step() {
    at_every_step("prepare", "fail");
}

#[test]
fn view_stopped_at_every_step() {
    at_every_step("view", "stop");
}

#[test]
fn commit_stopped_at_every_step() {
    at_every_step("commit", "stop");
}

#[test]
fn commit_failing_in_every_step() {
    at_every_step("commit", "fail");
}

#[test]
fn update_stopped_at_every_step() {
    at_every_step("update", "stop");
}

#[test]
fn update_failing_in_every_step() {
    at_every_step("update", "fail");
}

#[test]
fn remove_stopped_at_every_step() {
    at_every_step("remove", "stop");
}

#[test]
fn remove_failing_in_every_step() {
    at_every_step("remove", "fail");
}
