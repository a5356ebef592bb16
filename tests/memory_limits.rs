//! Too little memory: a daemon that gets no more, and one that the kernel kills for it. Whatever it
//! answered before holds, the dead mount can be taken off, and the next mount is clean.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use support::{Driver, MountedOverlay, Options, Scene, names, require};

/// Names in a directory, enough that a daemon needs memory to list it.
const NAMES: usize = 30_000;

fn crowded() -> Scene {
    let scene = Scene::in_memory("[lower]\nfile fine x\ndir crowd\n");
    for n in 0..NAMES {
        File::create(scene.lowers[0].join(format!("crowd/{n}-{}", "n".repeat(120)))).unwrap();
    }
    scene
}

fn write_synced(mount: &MountedOverlay<'_>, name: &str) -> std::io::Result<()> {
    let mut file = File::create(mount.path(name))?;
    file.write_all(name.as_bytes())?;
    file.sync_all()
}

/// Makes files, durably, and lists directories until the daemon is gone or all was done. Returns
/// the files that are promised.
fn load(mount: &MountedOverlay<'_>) -> Vec<String> {
    let mut promised = Vec::new();
    for n in 0..40 {
        let name = format!("made-{n}");
        if write_synced(mount, &name).is_ok() {
            promised.push(name);
        }
        // An errno, or the end of the daemon: either is an answer.
        drop(fs::read_dir(mount.path("crowd")).map(Iterator::count));
        drop(fs::read(mount.path("fine")));
    }
    promised
}

/// Holds what was promised, and that the next mount is as any other.
fn assert_all_is_there(mount: &mut MountedOverlay<'_>, promised: &[String]) {
    mount.kill_daemon();
    mount.take_off_dead();
    mount.remount();
    for name in promised {
        assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), *name);
    }
    assert_eq!(names(mount.path("crowd")).len(), NAMES);
    assert_eq!(names(mount.scene().work.join("work")), [""; 0]);
    write_synced(mount, "after").unwrap();
}

/// The kernel gives no more address space: an allocation that fails ends the daemon, which is as
/// if it had been killed; or the caller gets an errno.
#[test]
fn a_daemon_that_gets_no_more_memory_loses_nothing() {
    if !(require("root") && require("fuse") && require("tool:prlimit")) {
        return;
    }
    let scene = crowded();
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    write_synced(&mount, "before").unwrap();
    let daemon = mount.daemon_id().unwrap().to_string();
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = format!("--as={0}:{0}", size * 1024);
    let done = Command::new("prlimit").args(["--pid", &daemon, &limit]).status().unwrap();
    assert!(done.success());
    let mut promised = load(&mount);
    promised.push("before".to_owned());
    assert_all_is_there(&mut mount, &promised);
}

/// A memory cgroup of this test; goes with the value.
struct Group(PathBuf);

impl Group {
    /// In version 2 of the interface, or in version 1, as the machine has it.
    fn new(limit: u64) -> Group {
        let name = format!("plyfs-test-{}", std::process::id());
        let places =
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        for (place, file) in places {
            let group = PathBuf::from(place).join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let group = Group(group);
            // Where the directory is none of cgroups, the file is not there.
            let limit_file = File::options().write(true).open(group.0.join(file));
            if limit_file.and_then(|mut file| file.write_all(limit.to_string().as_bytes())).is_ok()
            {
                return group;
            }
        }
        panic!("no memory cgroup takes a limit");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is busy until its last process has gone.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} stays", self.0.display());
    }
}

/// The kernel kills the daemon, whose cgroup has no memory left.
#[test]
fn a_daemon_that_is_killed_for_its_memory_loses_nothing() {
    if !(require("root") && require("fuse") && require("memory-cgroup")) {
        return;
    }
    let scene = crowded();
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    write_synced(&mount, "before").unwrap();
    let group = Group::new(1 << 20);
    let daemon = mount.daemon_id().unwrap();
    fs::write(group.0.join("cgroup.procs"), daemon.to_string()).unwrap();
    let mut promised = load(&mount);
    promised.push("before".to_owned());
    let error = fs::read(mount.path("fine")).expect_err("it was killed");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    assert_all_is_there(&mut mount, &promised);
    drop(mount);
    drop(group);
}
