//! An index of hard links that somebody else wrote: whatever its entries are called, are or say, each
//! access has an answer, nothing of outside shows, and the mount goes on. Statement 56.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use support::{Driver, Options, Scene, overlay_xattr, require};

/// A scene whose index has one entry, of `a` and `b` that were changed through `b`.
fn indexed() -> (Scene, PathBuf) {
    let scene = Scene::new("[lower]\nfile a one\nhardlink b a\nfile c other\nhardlink d c\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let mut file = fs::OpenOptions::new().append(true).open(mount.path("b")).unwrap();
    file.write_all(b" two").unwrap();
    drop((file, mount));
    let [entry] = <[_; 1]>::try_from(
        fs::read_dir(scene.work.join("index"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    (scene, entry)
}

/// Mounts, looks at all and changes all; returns what `a` holds, where it can be read.
fn used(scene: &Scene) -> Option<String> {
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let found = fs::read_to_string(mount.path("a")).ok();
    for name in ["a", "b", "c", "d"] {
        let path = mount.path(name);
        // Success or an errno: either is an answer.
        drop((fs::metadata(&path).map(|meta| meta.nlink()), fs::read(&path)));
        drop(fs::hard_link(&path, mount.path(format!("{name}2"))));
        drop(fs::OpenOptions::new().append(true).open(&path).map(|mut f| f.write_all(b"!")));
        drop(fs::remove_file(&path));
    }
    fs::write(mount.path("new"), "still served").unwrap();
    assert_eq!(fs::read_to_string(mount.path("new")).unwrap(), "still served");
    found
}

#[test]
fn counts_that_make_no_sense_are_no_counts() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let extremes = ["U+9223372036854775807", "U-9223372036854775808", "L+9223372036854775807"];
    for value in extremes.into_iter().chain(["U+2147483647", "L-2147483648", "", "U", "x", "U+-1"])
    {
        for base in ["9223372036854775807", "-1", "4294967295", "\0"] {
            let (scene, entry) = indexed();
            let set = |name: &str, value: &str| {
                let name = overlay_xattr(name);
                rustix::fs::setxattr(&entry, name, value.as_bytes(), XattrFlags::empty()).unwrap();
            };
            set("nlink", value);
            set("plyfs.lower_nlink", base);
            assert_eq!(used(&scene).as_deref(), Some("one two"), "{value} {base}");
        }
    }
}

#[test]
fn entries_that_are_something_else_lead_nowhere() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let make: [fn(&Path, &Path); 5] = [
        |entry, outside| symlink(outside, entry).unwrap(),
        |entry, _| fs::create_dir(entry).unwrap(),
        |entry, _| fs::write(entry, "another").unwrap(),
        |entry, _| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, entry, fifo, mode, 0).unwrap();
        },
        |entry, _| {
            let mode = rustix::fs::Mode::empty();
            let device = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(rustix::fs::CWD, entry, device, mode, 0).unwrap();
        },
    ];
    for (n, make) in make.iter().enumerate() {
        let (scene, entry) = indexed();
        let outside = scene.place("outside");
        fs::write(&outside, "outside").unwrap();
        fs::remove_file(&entry).unwrap();
        make(&entry, &outside);
        let found = used(&scene);
        assert_ne!(found.as_deref(), Some("outside"), "{n}");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "outside", "{n}");
    }
}

#[test]
fn names_that_are_no_entries_are_left_alone() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let (scene, entry) = indexed();
    let index = scene.work.join("index");
    let strange = ["zz", "00", "00fb", &"f".repeat(255), "#12", "\u{fc}", "00fb21"];
    for (n, name) in strange.iter().enumerate() {
        let place = index.join(OsStr::new(name));
        match n % 3 {
            0 => fs::write(&place, "junk").unwrap(),
            1 => fs::create_dir(&place).unwrap(),
            _ => symlink("/etc/passwd", &place).unwrap(),
        }
    }
    assert_eq!(used(&scene).as_deref(), Some("one two"));
    assert!(entry.exists());
    for name in strange {
        assert!(index.join(name).symlink_metadata().is_ok(), "{name}");
    }
}
