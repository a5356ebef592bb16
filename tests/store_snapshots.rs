//! df, check and gc of a store in which containerd's snapshots lie, beside who serves them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use plyfs::image::Timestamp;
use plyfs::store::{SnapshotId, SnapshotKind, SnapshotRecord, Snapshots, Store};
use shell::Shell;

fn record(name: &str, parent: Option<&str>, kind: SnapshotKind) -> SnapshotRecord {
    let (created, parent) = (Timestamp::now(), parent.map(str::to_owned));
    let (labels, name) = (BTreeMap::new(), name.to_owned());
    SnapshotRecord { name, parent, kind, created, updated: created, labels, usage: None }
}

fn root(shell: &Shell) -> PathBuf {
    shell.dir.path().join("root")
}

/// A committed snapshot, an active one and a view on it.
fn populated(shell: &Shell) -> (Snapshots, [SnapshotId; 3]) {
    let snapshots = Snapshots::open(Store::open(&root(shell)).unwrap()).unwrap();
    let base = snapshots.add(&record("base", None, SnapshotKind::Active), None).unwrap();
    fs::write(snapshots.tree(&base).join("file"), vec![7; 100_000]).unwrap();
    snapshots.commit(&base, &record("base", None, SnapshotKind::Committed)).unwrap();
    let add = |name, kind| snapshots.add(&record(name, Some("base"), kind), Some(&base)).unwrap();
    let (run, look) = (add("run", SnapshotKind::Active), add("look", SnapshotKind::View));
    fs::write(snapshots.tree(&run).join("file"), vec![7; 5000]).unwrap();
    (snapshots, [base, run, look])
}

#[test]
fn snapshots_are_counted() {
    let shell = Shell::with_busybox();
    assert!(!shell.ok(&["df"]).contains("Snapshots"));
    let (snapshots, _) = populated(&shell);
    let usage = shell.json(&["df", "--json"]);
    assert_eq!(usage["snapshots"]["total"], 3);
    assert_eq!(usage["snapshots"]["active"], 2);
    assert_eq!(usage["snapshots"]["reclaimable"], 0);
    let sizes: Vec<_> = usage["by_snapshot"].as_array().unwrap().iter().collect();
    assert_eq!(sizes[0]["name"], "base");
    let size = |i: usize| sizes[i]["size"].as_u64().unwrap();
    assert!(size(0) >= 100_000 && size(1) == 0 && (5000..100_000).contains(&size(2)), "{usage}");
    assert_eq!(usage["snapshots"]["size"].as_u64().unwrap(), size(0) + size(2));
    let table = shell.ok(&["df", "-v"]);
    assert!(table.contains("Snapshots space usage:"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("run    active")), "{table}");
    drop(snapshots);
    assert!(shell.ok(&["df"]).lines().last().unwrap().starts_with("Snapshots"));
}

#[test]
fn what_is_wrong_with_a_snapshot_is_named_and_left_alone() {
    let shell = Shell::with_busybox();
    let (snapshots, [base, run, look]) = populated(&shell);
    assert_eq!(shell.ok(&["check"]), "");
    let dir = |id: &SnapshotId| root(&shell).join("snapshots").join(id.as_str());
    let (kept, away) = (dir(&base), shell.dir.path().join("away"));
    fs::rename(&kept, &away).unwrap();
    let output = shell.run(&["check", "--repair"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    for name in ["run", "look"] {
        let line = format!("{name}: it lies on base, which is not there");
        assert!(said.lines().any(|said| said.contains(&line) && said.contains("export")), "{said}");
    }
    assert!(dir(&run).join("diff/file").exists() && dir(&look).exists());
    fs::rename(&away, &kept).unwrap();
    for (path, expected) in [
        (dir(&run).join("work"), "run: its directory work is missing"),
        (dir(&base).join("diff"), "base: its directory diff is missing"),
        (dir(&look).join("snapshot.json"), "it has no record"),
    ] {
        fs::rename(&path, &away).unwrap();
        let said = shell.run(&["check"]).stdout;
        fs::rename(&away, &path).unwrap();
        assert!(String::from_utf8(said).unwrap().contains(expected), "{expected}");
    }
    assert_eq!(shell.ok(&["check"]), "");
    drop(snapshots);
}

#[test]
fn a_workdir_that_a_commit_left_is_removed_where_nobody_serves() {
    let shell = Shell::with_busybox();
    for verb in [&["gc"][..], &["check", "--repair"]] {
        let shell = if verb[0] == "gc" { &shell } else { &Shell::with_busybox() };
        let (snapshots, [base, run, _]) = populated(shell);
        let (work, live) = (snapshots.work(&base), snapshots.work(&run));
        fs::create_dir_all(work.join("work/left")).unwrap();
        // Whoever serves them removes it at the next start, and may be at work there.
        assert_eq!(shell.ok(&["check"]), "");
        shell.ok(verb);
        assert!(work.exists());
        drop(snapshots);
        let said = shell.run(&["check"]).stdout;
        assert!(String::from_utf8(said).unwrap().contains("left by a commit"));
        shell.ok(verb);
        assert!(!work.exists() && live.exists(), "{verb:?}");
        assert_eq!(shell.ok(&["check"]), "");
    }
}
