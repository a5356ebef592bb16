//! `mount` and `umount` of containers, by the real daemon.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shell::Shell;

/// A store with a container called box; whatever is mounted is unmounted at the end.
struct Boxed {
    shell: Shell,
    id: String,
}

impl Boxed {
    fn new() -> Boxed {
        let shell = Shell::with_busybox();
        let id = shell.ok(&["create", "--name", "box", "busybox:1.35"]).trim().to_owned();
        Boxed { shell, id }
    }

    fn mount(&self, arguments: &[&str]) -> PathBuf {
        let said = self.shell.ok(&[&["mount", "box"], arguments].concat());
        PathBuf::from(said.strip_suffix('\n').unwrap())
    }

    fn container(&self) -> PathBuf {
        self.shell.dir.path().join("root/containers").join(&self.id)
    }

    fn status(&self) -> String {
        let listing = self.shell.json(&["ps", "-a", "--json"]);
        listing[0]["mounted"].to_string()
    }

    /// The process that serves the mount.
    fn daemon(&self) -> String {
        let source = format!("plyfs-{}", self.id);
        let serves = |pid: &Path| {
            let arguments = fs::read(pid.join("cmdline")).unwrap_or_default();
            arguments.split(|b| *b == 0).any(|argument| argument == source.as_bytes())
        };
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let pid = processes.into_iter().find(|pid| serves(pid)).unwrap();
        pid.file_name().unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        if self.status() == "true" {
            self.shell.ok(&["umount", "box"]);
        }
    }
}

fn able() -> bool {
    support::require("root") && support::require("fuse")
}

fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn a_container_is_mounted_written_and_unmounted() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let place = boxed.mount(&[]);
    assert_eq!(place, boxed.container().canonicalize().unwrap().join("merged"));
    assert!(is_mount_point(&place) && place.join("bin/busybox").is_file());
    assert_eq!(boxed.mount(&[]), place, "mounting again says where it is");
    let listed = format!("{} {}\n", &boxed.id[..12], place.display());
    assert_eq!(boxed.shell.ok(&["mount"]), listed);
    let listing = boxed.shell.ok(&["ps"]);
    assert!(listing.lines().nth(1).unwrap().contains("   Mounted   box"), "{listing}");

    fs::write(place.join("etc/new"), "written").unwrap();
    let refusal = boxed.shell.fails(&["rm", "box"]);
    assert!(refusal.starts_with("container box is in use: mounted on "), "{refusal}");
    boxed.shell.ok(&["umount", "box"]);
    assert!(!is_mount_point(&place));
    assert_eq!(fs::read_to_string(boxed.container().join("diff/etc/new")).unwrap(), "written");
    assert!(fs::read_dir(boxed.container().join("work")).unwrap().next().is_none());
    assert_eq!(boxed.shell.fails(&["umount", "box"]), "container box is not mounted");

    let again = boxed.mount(&[]);
    assert_eq!(fs::read_to_string(again.join("etc/new")).unwrap(), "written");
    boxed.shell.ok(&["umount", "box"]);
    boxed.shell.ok(&["rm", "box"]);
    assert!(!boxed.container().exists());
}

#[test]
fn a_container_is_mounted_where_it_is_asked_for() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let place = boxed.shell.dir.path().canonicalize().unwrap().join("a b,c:d");
    let other = place.with_file_name("other");
    for dir in [&place, &other] {
        fs::create_dir(dir).unwrap();
    }
    let refusal = boxed.shell.fails(&["mount", "box", "/no/where"]);
    assert_eq!(refusal, "cannot open mount point /no/where: no such file or directory");
    assert_eq!(boxed.mount(&[place.to_str().unwrap()]), place);
    assert!(boxed.shell.ok(&["ps"]).contains("Mounted on "));
    assert_eq!(boxed.mount(&[]), place);
    let refusal = boxed.shell.fails(&["mount", "box", other.to_str().unwrap()]);
    assert!(refusal.starts_with("container box is in use: mounted on "), "{refusal}");
    let refusal = boxed.shell.fails(&["umount", other.to_str().unwrap()]);
    assert!(refusal.starts_with("nothing is mounted on "), "{refusal}");
    let refusal = boxed.shell.fails(&["umount", "/proc/"]);
    assert!(refusal.contains("not of plyfs"), "{refusal}");
    boxed.shell.ok(&["umount", place.to_str().unwrap()]);
    assert!(!is_mount_point(&place));
}

/// A process between its fork and its exec holds what its parent had open, whoever that is.
#[test]
fn who_only_passes_through_a_mount_is_no_use_of_it() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let place = boxed.mount(&[]);
    let passing = fs::File::open(place.join("bin/busybox")).unwrap();
    let passed = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(passing);
    });
    boxed.shell.ok(&["umount", "box"]);
    passed.join().unwrap();

    let place = boxed.mount(&[]);
    let staying = fs::File::open(place.join("bin/busybox")).unwrap();
    let refusal = boxed.shell.fails(&["umount", "box"]);
    assert!(refusal.contains(": device or resource busy"), "{refusal}");
    drop(staying);
    boxed.shell.ok(&["umount", "box"]);
}

#[test]
fn a_daemon_that_was_killed_leaves_a_container_that_mounts_again() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let place = boxed.mount(&[]);
    fs::write(place.join("kept"), "x").unwrap();
    let killed = Command::new("kill").args(["-9", &boxed.daemon()]).status().unwrap();
    assert!(killed.success());
    // The kernel still has the mount, so the container counts as mounted.
    assert_eq!(boxed.status(), "true");
    boxed.shell.ok(&["umount", "box"]);
    assert_eq!(boxed.status(), "false");
    assert_eq!(fs::read_to_string(boxed.mount(&[]).join("kept")).unwrap(), "x");
}

/// `dir=$(plyfs mount box)` never gives a directory that nobody serves, also where somebody still
/// stands in what is left; nor does a copy fail by it.
#[test]
fn what_a_killed_daemon_left_is_mounted_anew() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let place = boxed.mount(&[]);
    fs::write(place.join("kept"), "x").unwrap();
    let open = fs::File::open(place.join("kept")).unwrap();
    let kill = || {
        let killed = Command::new("kill").args(["-9", &boxed.daemon()]).status().unwrap();
        assert!(killed.success());
        let asks = || fs::metadata(place.join("new")).unwrap_err().kind();
        while asks() == std::io::ErrorKind::NotFound {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    kill();
    assert_eq!(boxed.mount(&[]), place);
    assert_eq!(fs::read_to_string(place.join("kept")).unwrap(), "x");
    kill();
    let copied = boxed.shell.dir.path().join("copied");
    boxed.shell.ok(&["cp", "box:/kept", copied.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(copied).unwrap(), "x");
    assert_eq!(boxed.status(), "false", "the copy leaves nothing mounted");
    drop(open);
}

/// Nobody could unmount it again: the store would be below the mount.
#[test]
fn a_mount_that_would_hide_the_store_is_refused() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let root = fs::canonicalize(boxed.shell.dir.path().join("root")).unwrap();
    let layers = root.join("layers");
    for (dir, why) in [
        (root.parent().unwrap(), "would be hidden"),
        (root.as_path(), "would be hidden"),
        (layers.as_path(), "keeps its own there"),
    ] {
        let said = boxed.shell.fails(&["mount", "box", dir.to_str().unwrap()]);
        let (dir, root) = (dir.display(), root.display());
        assert_eq!(said, format!("cannot mount on {dir}: the store {root} {why}"));
    }
    assert_eq!(boxed.status(), "false");
}

#[test]
fn a_mount_that_fails_says_why_and_leaves_nothing() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let layers = boxed.shell.dir.path().join("root/layers");
    let layer = fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path();
    fs::rename(layer.join("diff"), layer.join("gone")).unwrap();
    let refusal = boxed.shell.fails(&["mount", "box"]);
    assert!(refusal.starts_with("cannot mount container box: "), "{refusal}");
    assert!(refusal.contains("no such file or directory"), "{refusal}");
    assert_eq!(boxed.status(), "false");
}

#[test]
fn two_containers_of_one_image_do_not_see_each_other() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    boxed.shell.ok(&["create", "--name", "second", "busybox:1.35"]);
    let (one, two) = (boxed.mount(&[]), boxed.shell.ok(&["mount", "second"]));
    fs::remove_file(one.join("etc/hosts")).unwrap();
    fs::write(one.join("mine"), "").unwrap();
    let two = Path::new(two.trim_end());
    assert!(two.join("etc/hosts").is_file() && !two.join("mine").exists());
    boxed.shell.ok(&["umount", "second", "box"]);
}

#[test]
fn looking_at_a_container_never_disturbs_its_mount() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    boxed.shell.ok(&["ps", "-aq"]);
                }
            });
        }
        let rounds = || {
            for _ in 0..15 {
                boxed.mount(&[]);
                boxed.shell.ok(&["umount", "box"]);
            }
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[test]
fn the_kernel_mounts_what_the_daemon_wrote_and_the_other_way_round() {
    if !(support::require("root") && support::require("fuse") && support::require("overlayfs")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let script = [
        "echo 1 >first; mv root moved; chmod 700 bin/busybox; ln etc/passwd etc/again; rm etc/hosts",
        "echo 2 >second; rm first; mv moved/ root; mkdir srv2; chmod 600 etc/again",
        "echo 3 >third; rmdir srv2; mv etc etc2",
    ];
    let mut seen: Option<support::Snapshot> = None;
    for (driver, changes) in ["kernel", "fuse", "auto"].into_iter().zip(script) {
        let place = shell.ok(&["mount", "--driver", driver, "box"]);
        let place = std::path::Path::new(place.trim_end());
        let before = support::Snapshot::of(place);
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(place.to_str().unwrap())).unwrap();
        let kind = if driver == "fuse" { " - fuse.plyfs plyfs-" } else { " - overlay plyfs-" };
        assert!(line.contains(kind), "{driver}: {line}");
        assert!(shell.ok(&["ps"]).contains("Mounted"));
        let status = std::process::Command::new("sh")
            .args(["-euc", changes])
            .current_dir(place)
            .status()
            .unwrap();
        let after = support::Snapshot::of(place);
        let diff = shell.ok(&["diff", "box"]);
        shell.ok(&["umount", "box"]);
        assert!(status.success(), "{driver}");
        assert_eq!(shell.ok(&["diff", "box"]), diff, "{driver}");
        if let Some(seen) = seen.replace(after) {
            support::assert_same("before", &seen, driver, &before, support::Policy::SAME_TREE);
        }
    }
    shell.ok(&["rm", "box"]);
}

/// Of several that unmount at once one is the first, and the others find their wish fulfilled, or
/// nothing mounted any more.
#[test]
fn a_container_is_unmounted_by_several_at_once() {
    if !able() {
        return;
    }
    let boxed = Boxed::new();
    for round in 0..15 {
        let place = boxed.mount(&[]);
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    let out = boxed.shell.run(&["umount", "box"]);
                    let said = String::from_utf8_lossy(&out.stderr).into_owned();
                    let late = said.trim_end().ends_with("container box is not mounted");
                    assert!(out.status.success() || late, "round {round}: {said}");
                });
            }
        });
        assert!(!is_mount_point(&place));
    }
}
