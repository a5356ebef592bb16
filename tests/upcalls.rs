//! How many requests the kernel sends for one operation: exactly, by kind, for both ways of
//! serving open files. The table in docs/BENCHMARKS.md is made of what stands here.
//!
//! FORGETs are left out: they come when the kernel has time. RELEASEs are waited for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

#[path = "upcalls/cases.rs"]
mod cases;
mod support;
#[path = "upcalls/traced.rs"]
mod traced;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use cases::{Case, cases};
use plyfs::fuse::control::Control;
use plyfs::fuse::stats::Snapshot;
use support::{Driver, MountedOverlay, Options, Scene, ready, require};
use traced::Traced;

/// What was counted between two looks, FORGETs and our own questions aside.
fn difference(before: &Snapshot, after: &Snapshot) -> String {
    let counts = |snapshot: &Snapshot| -> BTreeMap<String, u64> {
        snapshot.requests.iter().map(|request| (request.kind.clone(), request.count)).collect()
    };
    let before = counts(before);
    let more = counts(after).into_iter().filter_map(|(kind, count)| {
        let own = ["ioctl", "forget", "batch_forget"].contains(&kind.as_str());
        let more = count - before.get(&kind).copied().unwrap_or(0);
        (!own && more > 0).then(|| format!("{kind} {more}"))
    });
    more.collect::<Vec<_>>().join(", ")
}

/// The figures once every file that was closed is released.
fn settled(mount: &MountedOverlay<'_>) -> Snapshot {
    let start = Instant::now();
    loop {
        let snapshot = Control::open(mount.root()).unwrap().snapshot().unwrap();
        if snapshot.overlay.open_files == 0 {
            return snapshot;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "files stay open");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn scene(cases: usize, make: fn(&str) -> Scene) -> Scene {
    let mut text = String::from("[lower]\n");
    for case in 0..cases {
        for attempt in 0..ATTEMPTS {
            let dir = format!("case{case}.{attempt}");
            text.push_str(&format!("dir {dir}\nfile {dir}/program\nsymlink {dir}/link a\n"));
            text.push_str(&format!("file {dir}/lower {}\n", "x".repeat(4096)));
        }
    }
    let scene = make(&text);
    for case in 0..cases {
        for attempt in 0..ATTEMPTS {
            let program = scene.lowers[0].join(format!("case{case}.{attempt}/program"));
            fs::copy("/bin/true", &program).unwrap();
        }
    }
    scene
}

/// Somebody else who looks at the mount just then is counted as well; never three times.
const ATTEMPTS: usize = 3;

fn count_all(options: &Options, expected: fn(&Case) -> &'static str) {
    let cases = cases();
    let scene = scene(cases.len(), Scene::new);
    let mount = scene.mount_by(Driver::Plyfs, options);
    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let mut found = String::new();
        for attempt in 0..ATTEMPTS {
            let dir = mount.path(format!("case{n}.{attempt}"));
            rustix::fs::stat(&dir).unwrap();
            (case.prepare)(&dir);
            let before = settled(&mount);
            (case.act)(&dir);
            found = difference(&before, &settled(&mount));
            if found == expected(case) {
                break;
            }
        }
        if found != expected(case) {
            wrong.push(format!("{}: {found:?}, not {:?}", case.name, expected(case)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn with_passthrough() {
    if ready() && Driver::under_test() == Driver::Plyfs {
        count_all(&Options::default(), |case| case.passed);
    }
}

#[test]
fn without_passthrough() {
    if ready() && Driver::under_test() == Driver::Plyfs {
        count_all(&Options::with(&["passthrough=off"]), |case| case.served);
    }
}

/// The system calls of the daemon are as few as they were: the most of each operation is told, the
/// least of all attempts counts.
#[test]
fn the_layers_are_asked_little() {
    if !(ready() && Driver::under_test() == Driver::Plyfs && require("tool:strace")) {
        return;
    }
    let cases = cases();
    // In memory: what a filesystem lacks would have to be done in other ways.
    let scene = scene(cases.len(), Scene::in_memory);
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["look_ahead=off"]));
    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let attempt = |attempt| {
            let dir = mount.path(format!("case{n}.{attempt}"));
            rustix::fs::stat(&dir).unwrap();
            (case.prepare)(&dir);
            settled(&mount);
            let traced = Traced::begin(mount.daemon_id().unwrap(), &scene.place("calls"));
            (case.act)(&dir);
            // One reader serves in order: a RELEASE before this is done after it.
            rustix::fs::statfs(&dir).unwrap();
            traced.end()
        };
        let found = (0..ATTEMPTS).map(attempt).min_by_key(Vec::len).unwrap();
        println!("{}: {} {}", case.name, found.len(), summary(&found));
        if found.len() > case.calls {
            wrong.push(format!(
                "{}: {}, at most {} are meant",
                case.name,
                summary(&found),
                case.calls
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn summary(calls: &[String]) -> String {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.as_str()).or_insert(0) += 1;
    }
    counts.iter().map(|(call, count)| format!("{call} {count}")).collect::<Vec<_>>().join(", ")
}
