//! The operations that are counted.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support;

/// One operation in a directory of its own: made ready, then counted.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Makes ready; what the kernel learns here it knows.
    pub(crate) prepare: fn(&Path),
    pub(crate) act: fn(&Path),
    /// Requests with files passed through (as root).
    pub(crate) passed: &'static str,
    /// Requests with every file served by the daemon (rootless, or `passthrough=off`).
    pub(crate) served: &'static str,
    /// The most system calls that the daemon makes for it with files passed through, on two layers
    /// that have no marks; reading requests and answering them is left out.
    pub(crate) calls: usize,
}

fn case(
    name: &'static str,
    prepare: fn(&Path),
    act: fn(&Path),
    passed: &'static str,
    served: &'static str,
    calls: usize,
) -> Case {
    Case { name, prepare, act, passed, served, calls }
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
pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("stat, first time", nothing, look, "lookup 1", "lookup 1", 2),
        case("stat, hot", look, look, "", "", 0),
        case("stat of no such name, first time", nothing, look_for_none, "lookup 1", "lookup 1", 2),
        case("stat of no such name, hot", look_for_none, look_for_none, "", "", 0),
        case("getxattr", look, get_xattr, "getxattr 1", "getxattr 1", 1),
        case(
            "readdir, first time",
            nothing,
            list,
            "readdir 1, readdirplus 1",
            "readdir 1, readdirplus 1",
            8,
        ),
        case("readdir, hot", list_twice, list, "", "", 0),
        case(
            "statx with the time of creation, first time",
            look,
            |dir| assert_eq!(fs::metadata(dir.join("lower")).unwrap().len(), 4096),
            "statx 1",
            "statx 1",
            1,
        ),
        case(
            "readlink, hot",
            |dir| drop(fs::read_link(dir.join("link")).unwrap()),
            |dir| drop(fs::read_link(dir.join("link")).unwrap()),
            "",
            "",
            0,
        ),
        case("open, read, close, first time", look, read_lower, "open 1, release 1", "read 1", 3),
        case("open, read, close, hot", read_lower, read_lower, "open 1, release 1", "", 1),
        case(
            "create, write 4 KiB, close",
            nothing,
            make,
            "create 1, getattr 1, getxattr 1, lookup 1, release 1",
            "create 1, getattr 1, getxattr 1, lookup 1, write 1",
            22,
        ),
        case(
            "create for reading and writing, write 4 KiB, close",
            nothing,
            |dir| {
                let mut both = File::options();
                let file = both.read(true).write(true).create_new(true).open(dir.join("new"));
                file.unwrap().write_all_at(&[1; 4096], 0).unwrap();
            },
            "create 1, getattr 1, getxattr 1, lookup 1, release 1",
            "create 1, getattr 1, getxattr 1, lookup 1, write 1",
            22,
        ),
        case(
            "write 4 KiB, 100 times, in an open file",
            nothing,
            |dir| {
                let file = File::create(dir.join("new")).unwrap();
                (0..100).for_each(|n| file.write_all_at(&[1; 4096], n * 4096).unwrap());
            },
            "create 1, getattr 1, getxattr 1, lookup 1, release 1",
            "create 1, getattr 1, getxattr 1, lookup 1, write 100",
            22,
        ),
        case(
            "unlink",
            make,
            |dir| fs::remove_file(dir.join("new")).unwrap(),
            "getattr 1, unlink 1",
            "getattr 1, unlink 1",
            7,
        ),
        case(
            "unlink of a lower file",
            look,
            |dir| fs::remove_file(dir.join("lower")).unwrap(),
            "getattr 1, unlink 1",
            "getattr 1, unlink 1",
            20,
        ),
        case(
            "mkdir in a directory just changed",
            change,
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            "getattr 1, lookup 1, mkdir 1",
            "getattr 1, lookup 1, mkdir 1",
            9,
        ),
        case(
            "create, write 4 KiB, close in a directory just changed",
            change,
            make,
            "create 1, getattr 1, getxattr 1, lookup 1, release 1",
            "create 1, getattr 1, getxattr 1, lookup 1, write 1",
            9,
        ),
        case(
            "mkdir",
            nothing,
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            "getattr 1, lookup 1, mkdir 1",
            "getattr 1, lookup 1, mkdir 1",
            22,
        ),
        case(
            "rmdir",
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            |dir| fs::remove_dir(dir.join("new")).unwrap(),
            "getattr 1, rmdir 1",
            "getattr 1, rmdir 1",
            11,
        ),
        case(
            "symlink",
            nothing,
            |dir| symlink("a", dir.join("new")).unwrap(),
            "getattr 1, lookup 1, symlink 1",
            "getattr 1, lookup 1, symlink 1",
            22,
        ),
        case(
            "link",
            make,
            |dir| fs::hard_link(dir.join("new"), dir.join("other")).unwrap(),
            "getattr 1, link 1, lookup 1",
            "getattr 1, link 1, lookup 1",
            10,
        ),
        case(
            "rename",
            make,
            |dir| fs::rename(dir.join("new"), dir.join("other")).unwrap(),
            "getattr 1, lookup 1, rename 1",
            "getattr 1, lookup 1, rename 1",
            17,
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
            21,
        ),
        case(
            "chmod",
            make_and_look,
            |dir| fs::set_permissions(dir.join("new"), Permissions::from_mode(0o600)).unwrap(),
            "setattr 1",
            "setattr 1",
            2,
        ),
        case(
            "chmod of a lower file",
            look,
            |dir| fs::set_permissions(dir.join("lower"), Permissions::from_mode(0o600)).unwrap(),
            "getattr 1, setattr 1",
            "getattr 1, setattr 1",
            33,
        ),
        case(
            "append to a lower file (copy-up)",
            look,
            append,
            "getattr 1, getxattr 1, open 1, release 1",
            "getattr 1, getxattr 1, write 1",
            33,
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
            1,
        ),
        case(
            "exec of a lower program, first time",
            nothing,
            execute,
            "getxattr 1, lookup 1, open 1, release 1",
            "getxattr 1, lookup 1, read 2",
            5,
        ),
        case(
            "exec of a lower program, hot",
            execute,
            execute,
            "getxattr 1, open 1, release 1",
            "getxattr 1",
            2,
        ),
    ]
}
