//! Layers on filesystems that daemons serve, whose file handles are numbers of a mount's nodes and lead
//! to other files after the next one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use plyfs::layer::origin::Origin;
use support::{Driver, Options, Scene, require};

const PAIRS: std::ops::Range<usize> = 0..200;

/// The first line of a file.
fn says(path: &Path) -> String {
    fs::read_to_string(path).unwrap().lines().next().unwrap_or_default().to_owned()
}

/// A copied-up hard link was found again by a handle that, by then, was another file's.
#[test]
fn no_hard_link_shows_another_file_after_a_remount_of_a_lower_on_fuse() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let outer = Scene::empty(1);
    let below = &outer.lowers[0];
    for n in PAIRS {
        fs::write(below.join(format!("a{n}")), format!("{n}\n")).unwrap();
        fs::hard_link(below.join(format!("a{n}")), below.join(format!("b{n}"))).unwrap();
    }
    let mut inner = Scene::empty(0);
    inner.lowers.push(outer.mountpoint.clone());
    let options = Options::with(&["look_ahead=off"]);
    {
        let _outer = outer.mount_by(Driver::Plyfs, &options);
        // Who is looked at first gets the lowest number.
        assert!((0..PAIRS.end).all(|n| outer.merged(&format!("a{n}")).exists()));
        let _inner = inner.mount_by(Driver::Plyfs, &options);
        for n in PAIRS {
            let name = inner.merged(&format!("a{n}"));
            let number = fs::metadata(&name).unwrap().ino();
            if n % 2 == 0 {
                fs::write(&name, format!("changed {n}\n")).unwrap();
            }
            assert_eq!(fs::metadata(&name).unwrap().ino(), number);
            assert_eq!(says(&inner.merged(&format!("b{n}"))), says(&name));
        }
    }
    let _outer = outer.mount_by(Driver::Plyfs, &options);
    assert!(PAIRS.rev().all(|n| outer.merged(&format!("b{n}")).exists()));
    let _inner = inner.mount_by(Driver::Plyfs, &options);
    for n in PAIRS.rev() {
        let changed = format!("changed {n}");
        let (a, b) = (says(&inner.merged(&format!("a{n}"))), says(&inner.merged(&format!("b{n}"))));
        assert_eq!(a, if n % 2 == 0 { changed.clone() } else { n.to_string() });
        // As with `index=off`, the names may part; none shows another's content.
        assert!(b == n.to_string() || (n % 2 == 0 && b == changed), "b{n} says {b}");
    }
}

/// Other daemons give handles, too.
#[test]
fn no_origin_is_recorded_of_what_lies_on_fuse() {
    if !(require("root") && require("fuse") && require("tool:fuse-overlayfs")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile f content\n");
    let mount = scene.mount_by(Driver::FuseOverlayfs, &Options::default());
    let root = File::open(mount.root()).unwrap();
    assert!(fs::metadata(mount.path("f")).unwrap().is_file());
    assert_eq!(Origin::of(&root, OsStr::new("f"), [0; 16]), None);
}
