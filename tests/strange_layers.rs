//! A lower on a filesystem that tells nonsense of its directories: each access has an answer, no
//! name is listed that could lead elsewhere, and the mount goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod strange;
mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;

use strange::{Said, Strange};
use support::{Driver, MountedOverlay, Options, Scene, require};

const DIR: u32 = 4;
const FILE: u32 = 8;

fn said(name: &'static [u8], ino: u64, kind: u32, is: Option<u32>) -> Said {
    Said { name, ino, kind, is }
}

/// A stack over a good lower and a strange one with these entries, and what is tried on it.
fn with_lower(entries: Vec<Said>, look: impl FnOnce(&MountedOverlay<'_>)) {
    if !(require("root") && require("fuse")) {
        return;
    }
    let mut scene = Scene::new("[lower]\nfile fine x\n");
    let place = scene.place("strange");
    let lower = Strange::new(&place, entries);
    scene.lowers.push(place);
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    look(&mount);
    assert_eq!(fs::read_to_string(mount.path("fine")).unwrap(), "x");
    fs::write(mount.path("fine"), "still served").unwrap();
    drop(mount);
    drop(lower);
}

fn listed(mount: &MountedOverlay<'_>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(mount.root())? {
        names.push(entry?.file_name().as_bytes().to_vec());
    }
    names.sort();
    Ok(names)
}

/// The same name twice, `.` and `..` over and over, numbers that are 0 or another's, types that are
/// not so, and names that a lookup does not find: each real name shows once.
#[test]
fn doubled_and_wrong_entries_show_each_name_once() {
    let entries = vec![
        said(b".", 1, DIR, None),
        said(b".", 0, FILE, None),
        said(b"..", 1, DIR, None),
        said(b"..", 77, FILE, None),
        said(b"twice", 5, FILE, Some(FILE)),
        said(b"twice", 6, DIR, None),
        said(b"zero", 0, FILE, Some(FILE)),
        said(b"dir-said-file", 8, FILE, Some(DIR)),
        said(b"file-said-dir", 9, DIR, Some(FILE)),
        said(b"unknown", 9, 0, Some(FILE)),
        said(b"no-such-type", 11, 15, Some(FILE)),
        said(b"fine", 12, DIR, Some(DIR)),
        said(b"ghost", 13, FILE, None),
    ];
    with_lower(entries, |mount| {
        let names = listed(mount).unwrap();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(names, once);
        for name in ["twice", "zero", "dir-said-file", "file-said-dir", "unknown", "no-such-type"] {
            assert!(names.contains(&name.as_bytes().to_vec()), "{name} is missing: {names:?}");
        }
        assert!(names.iter().all(|name| name != b"." && name != b".."));
        assert!(fs::metadata(mount.path("dir-said-file")).unwrap().is_dir());
        assert!(fs::metadata(mount.path("file-said-dir")).unwrap().is_file());
        assert!(fs::metadata(mount.path("fine")).unwrap().is_file());
        for name in &names {
            let path = mount.path(std::ffi::OsStr::from_bytes(name));
            // What cannot be is an errno; what can is done.
            drop(fs::write(&path, "changed"));
            drop(fs::rename(&path, mount.path("moved")));
            drop(fs::rename(mount.path("moved"), &path));
        }
        fs::remove_file(mount.path("file-said-dir")).unwrap();
        assert!(!mount.path("file-said-dir").exists());
        fs::write(mount.path("fine"), "x").unwrap();
    });
}

/// A `/` in a name, or none at all: the kernel refuses them below us, so the listing is an error,
/// and nothing of it shows.
#[test]
fn a_name_with_a_slash_is_never_shown() {
    for name in [&b"../../escape"[..], b"/etc", b"a/b", b""] {
        let entries = vec![said(b"first", 3, FILE, Some(FILE)), said(name, 4, FILE, Some(FILE))];
        with_lower(entries, |mount| {
            let names = listed(mount).unwrap_or_default();
            let bad = |name: &Vec<u8>| name.is_empty() || name.contains(&b'/');
            assert!(!names.iter().any(bad), "{names:?}");
            assert_eq!(fs::read(mount.path("first")).unwrap(), b"");
        });
    }
}
