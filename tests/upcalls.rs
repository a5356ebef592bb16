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

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plyfs::fuse::control::Control;
use plyfs::fuse::stats::Snapshot;
use support::{Driver, MountedOverlay, Options, Scene, ready};

/// One operation in a directory of its own: made ready, then counted.
struct Case {
    name: &'static str,
    /// Makes ready; what the kernel learns here it knows.
    prepare: fn(&Path),
    act: fn(&Path),
    /// Requests with files passed through (as root).
    passed: &'static str,
    /// Requests with every file served by the daemon (rootless, or `passthrough=off`).
    served: &'static str,
}

fn case(
    name: &'static str,
    prepare: fn(&Path),
    act: fn(&Path),
    passed: &'static str,
    served: &'static str,
) -> Case {
    Case { name, prepare, act, passed, served }
}

fn nothing(_: &Path) {}

fn make(dir: &Path) {
    fs::write(dir.join("new"), [b'x'; 4096]).unwrap();
}

fn make_and_look(dir: &Path) {
    make(dir);
    rustix::fs::stat(dir.join("new")).unwrap();
}

/// Leaves the directory as one that has just been changed: the kernel keeps its attributes no
/// more.
fn change(dir: &Path) {
    fs::create_dir(dir.join("before")).unwrap();
}

/// By stat(2): the standard library asks for the time of creation as well, which the kernel does
/// not keep.
fn look(dir: &Path) {
    rustix::fs::stat(dir.join("lower")).unwrap();
}

fn look_for_none(dir: &Path) {
    rustix::fs::stat(dir.join("none")).unwrap_err();
}

fn read_lower(dir: &Path) {
    assert_eq!(fs::File::open(dir.join("lower")).unwrap().read(&mut [0; 4096]).unwrap(), 4096);
}

fn get_xattr(dir: &Path) {
    rustix::fs::getxattr(dir.join("lower"), "user.none", &mut [0; 16][..]).unwrap_err();
}

fn append(dir: &Path) {
    let mut file = OpenOptions::new().append(true).open(dir.join("lower")).unwrap();
    file.write_all(b"more").unwrap();
}

fn list(dir: &Path) {
    assert!(!support::names(dir).is_empty());
}

/// The first time changes the time of access, which the second asks for.
fn list_twice(dir: &Path) {
    list(dir);
    list(dir);
}

fn execute(dir: &Path) {
    assert!(Command::new(dir.join("program")).status().unwrap().success());
}

/// The operations. Where the two engines differ, both are told.
fn cases() -> Vec<Case> {
    vec![
        case("stat, first time", nothing, look, "lookup 1", "lookup 1"),
        case("stat, hot", look, look, "", ""),
        case("stat of no such name, first time", nothing, look_for_none, "lookup 1", "lookup 1"),
        case("stat of no such name, hot", look_for_none, look_for_none, "", ""),
        case("getxattr", look, get_xattr, "getxattr 1", "getxattr 1"),
        case(
            "readdir, first time",
            nothing,
            list,
            "readdir 1, readdirplus 1",
            "readdir 1, readdirplus 1",
        ),
        case("readdir, hot", list_twice, list, "", ""),
        case(
            "statx with the time of creation, first time",
            look,
            |dir| assert_eq!(fs::metadata(dir.join("lower")).unwrap().len(), 4096),
            "statx 1",
            "statx 1",
        ),
        case(
            "readlink, hot",
            |dir| drop(fs::read_link(dir.join("link")).unwrap()),
            |dir| drop(fs::read_link(dir.join("link")).unwrap()),
            "",
            "",
        ),
        case("open, read, close, first time", look, read_lower, "open 1, release 1", "read 1"),
        case("open, read, close, hot", read_lower, read_lower, "open 1, release 1", ""),
        case(
            "create, write 4 KiB, close",
            nothing,
            make,
            "create 1, getxattr 1, lookup 1, release 1",
            "create 1, getxattr 1, lookup 1, write 1",
        ),
        case(
            "write 4 KiB, 100 times, in an open file",
            nothing,
            |dir| {
                let file = File::create(dir.join("new")).unwrap();
                (0..100).for_each(|n| file.write_all_at(&[1; 4096], n * 4096).unwrap());
            },
            "create 1, getxattr 1, lookup 1, release 1",
            "create 1, getxattr 1, lookup 1, write 100",
        ),
        case(
            "unlink",
            make,
            |dir| fs::remove_file(dir.join("new")).unwrap(),
            "getattr 1, unlink 1",
            "getattr 1, unlink 1",
        ),
        case(
            "unlink of a lower file",
            look,
            |dir| fs::remove_file(dir.join("lower")).unwrap(),
            "unlink 1",
            "unlink 1",
        ),
        case(
            "mkdir in a directory just changed",
            change,
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            "getattr 1, lookup 1, mkdir 1",
            "getattr 1, lookup 1, mkdir 1",
        ),
        case(
            "create, write 4 KiB, close in a directory just changed",
            change,
            make,
            "create 1, getattr 1, getxattr 1, lookup 1, release 1",
            "create 1, getattr 1, getxattr 1, lookup 1, write 1",
        ),
        case(
            "mkdir",
            nothing,
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            "lookup 1, mkdir 1",
            "lookup 1, mkdir 1",
        ),
        case(
            "rmdir",
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            |dir| fs::remove_dir(dir.join("new")).unwrap(),
            "getattr 1, rmdir 1",
            "getattr 1, rmdir 1",
        ),
        case(
            "symlink",
            nothing,
            |dir| symlink("a", dir.join("new")).unwrap(),
            "lookup 1, symlink 1",
            "lookup 1, symlink 1",
        ),
        case(
            "link",
            make,
            |dir| fs::hard_link(dir.join("new"), dir.join("other")).unwrap(),
            "getattr 1, link 1, lookup 1",
            "getattr 1, link 1, lookup 1",
        ),
        case(
            "rename",
            make,
            |dir| fs::rename(dir.join("new"), dir.join("other")).unwrap(),
            "getattr 1, lookup 1, rename 1",
            "getattr 1, lookup 1, rename 1",
        ),
        case(
            "rename over another file",
            |dir| {
                make(dir);
                fs::write(dir.join("other"), "x").unwrap();
            },
            |dir| fs::rename(dir.join("new"), dir.join("other")).unwrap(),
            "getattr 1, lookup 1, rename 1",
            "getattr 1, lookup 1, rename 1",
        ),
        case(
            "chmod",
            make_and_look,
            |dir| fs::set_permissions(dir.join("new"), Permissions::from_mode(0o600)).unwrap(),
            "setattr 1",
            "setattr 1",
        ),
        case(
            "chmod of a lower file",
            look,
            |dir| fs::set_permissions(dir.join("lower"), Permissions::from_mode(0o600)).unwrap(),
            "setattr 1",
            "setattr 1",
        ),
        case(
            "append to a lower file (copy-up)",
            look,
            append,
            "getxattr 1, open 1, release 1",
            "getxattr 1, write 1",
        ),
        case(
            "stat after a write of one's own",
            |dir| {
                make_and_look(dir);
                let mut file = OpenOptions::new().append(true).open(dir.join("new")).unwrap();
                file.write_all(b"more").unwrap();
            },
            |dir| assert_eq!(rustix::fs::stat(dir.join("new")).unwrap().st_size, 4100),
            "getattr 1",
            "getattr 1",
        ),
        case(
            "exec of a lower program, first time",
            nothing,
            execute,
            "getxattr 1, lookup 1, open 1, release 1",
            "getxattr 1, lookup 1, read 2",
        ),
        case(
            "exec of a lower program, hot",
            execute,
            execute,
            "getxattr 1, open 1, release 1",
            "getxattr 1",
        ),
    ]
}

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

fn scene(cases: usize) -> Scene {
    let mut text = String::from("[lower]\n");
    for case in 0..cases {
        for attempt in 0..ATTEMPTS {
            let dir = format!("case{case}.{attempt}");
            text.push_str(&format!("dir {dir}\nfile {dir}/program\nsymlink {dir}/link a\n"));
            text.push_str(&format!("file {dir}/lower {}\n", "x".repeat(4096)));
        }
    }
    let scene = Scene::new(&text);
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
    let scene = scene(cases.len());
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
