//! What a name means in a stack: statements 1, 2, 8, 10, 13, 14 and 15 of the contract.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::fs;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use support::{Driver, Scene, names, overlay_xattr, ready, refused};

const NOTHING: XattrFlags = XattrFlags::empty();

#[test]
fn a_removed_lower_file_is_gone_and_can_be_made_again() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/f old\nfile d/g\n");
    let mut mount = scene.mount();
    fs::remove_file(mount.path("d/f")).unwrap();
    for _ in 0..2 {
        assert_eq!(refused(fs::symlink_metadata(mount.path("d/f"))), Errno::NOENT);
        assert_eq!(names(mount.path("d")), ["g"]);
        mount.remount();
    }
    let whiteout = fs::symlink_metadata(scene.upper.join("d/f")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    fs::write(mount.path("d/f"), "new").unwrap();
    mount.remount();
    assert_eq!(fs::read(mount.path("d/f")).unwrap(), b"new");
}

#[test]
fn a_whiteout_hides_what_lies_below_it_alone() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile seen top\n[lower]\nwhiteout seen\nwhiteout gone\n[lower]\nfile seen low\nfile gone\n",
    );
    let mount = scene.mount();
    assert_eq!(fs::read(mount.path("seen")).unwrap(), b"top");
    assert_eq!(refused(fs::metadata(mount.path("gone"))), Errno::NOENT);
    assert_eq!(names(mount.root()), ["seen"]);
}

#[test]
fn an_opaque_directory_ends_the_merge() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile d/top\n[lower]\nopaque d\nfile d/middle\n[lower]\nfile d/low\nfile d/sub/x\n",
    );
    let mount = scene.mount();
    assert_eq!(names(mount.path("d")), ["middle", "top"]);
    assert_eq!(refused(fs::metadata(mount.path("d/low"))), Errno::NOENT);
    assert_eq!(refused(fs::metadata(mount.path("d/sub/x"))), Errno::NOENT);
}

#[test]
fn every_encoding_of_removal_is_read() {
    if !ready() || Driver::kernel_differs("layers as image tools unpack them are read") {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile a/.wh.file\nfile b/.wh..wh..opq\nfile b/new\ndir c\ndir d xattr:user.overlay.opaque=y\n\
         dir e xattr:user.fuseoverlayfs.opaque=y\ndir x xattr:trusted.overlay.opaque=x\nfile x/file\n\
         [lower]\nfile a/file\nfile a/kept\nfile b/old\nfile c/kept\nfile d/old\nfile e/old\nfile x/file\nfile x/kept\n",
    );
    let marked = scene.lowers[0].join("x/file");
    rustix::fs::lsetxattr(&marked, &*overlay_xattr("whiteout"), b"y", NOTHING).unwrap();
    let mount = scene.mount();
    let listed = |dir: &str| names(mount.path(dir)).join(" ");
    assert_eq!(listed("a"), "kept");
    assert_eq!(listed("b"), "new");
    assert_eq!(listed("c"), "kept");
    assert_eq!((listed("d"), listed("e")), (String::new(), String::new()));
    assert_eq!(listed("x"), "kept");
    for gone in ["a/file", "a/.wh.file", "b/old", "b/.wh..wh..opq", "d/old", "e/old", "x/file"] {
        assert_eq!(refused(fs::symlink_metadata(mount.path(gone))), Errno::NOENT, "{gone}");
    }
}

/// A small directory is read when it is entered, a larger one is asked for the file: the same shows,
/// whether it is listed first or looked into.
#[test]
fn a_file_makes_a_directory_opaque_however_many_others_are_in_it() {
    if !ready() {
        return;
    }
    for others in [0, 10, 40, 60, 70, 500] {
        let scene = Scene::new(
            "[lower]\nfile d/.wh..wh..opq\nfile e/shown\n[lower]\nfile d/hidden\nfile e/below\n\
             [lower]\nfile d/deeper\n",
        );
        let other = |n: u32| format!("{n:08}-of-a-common-length");
        for dir in ["d", "e"] {
            for n in 0..others {
                fs::write(scene.lowers[0].join(dir).join(other(n)), "").unwrap();
            }
        }
        let mut all: Vec<_> = (0..others).map(other).collect();
        let mut mount = scene.mount();
        for listed_first in [true, false] {
            if listed_first {
                assert_eq!(names(mount.path("d")), all);
            }
            for hidden in ["d/hidden", "d/deeper", "d/.wh..wh..opq"] {
                assert_eq!(refused(fs::metadata(mount.path(hidden))), Errno::NOENT, "{hidden}");
            }
            assert!(mount.path("e/below").exists(), "{others}");
            assert_eq!(names(mount.path("d")), all);
            mount.remount();
        }
        all.extend(["below".to_owned(), "shown".to_owned()]);
        assert_eq!(names(mount.path("e")), all);
    }
}

#[test]
fn a_whiteout_that_hides_nothing_is_not_seen() {
    if !ready() || Driver::kernel_differs("a stray whiteout is not listed") {
        return;
    }
    let scene = Scene::new("[lower]\nwhiteout d/stray\nfile d/f\n");
    let mount = scene.mount();
    assert_eq!(names(mount.path("d")), ["f"]);
    assert_eq!(refused(fs::symlink_metadata(mount.path("d/stray"))), Errno::NOENT);
    fs::write(mount.path("d/stray"), "x").unwrap();
    assert_eq!(names(mount.path("d")), ["f", "stray"]);
}

#[test]
fn types_that_differ_do_not_merge() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[upper]\nsymlink of-upper outside\nfile outside/child\n\
         [lower]\nfile was-dir top\ndir was-file\nsymlink link elsewhere\n\
         [lower]\nfile was-dir/child\nfile was-file low\nfile link/child\nfile of-upper/low\n",
    );
    let mut mount = scene.mount();
    // What a symlink of the upper leads to is seen through it, and nothing of the directory below.
    assert_eq!(names(mount.path("of-upper")), ["child"]);
    fs::remove_file(mount.path("of-upper")).unwrap();
    fs::remove_dir_all(mount.path("outside")).unwrap();
    assert_eq!(refused(fs::metadata(mount.path("was-dir/child"))), Errno::NOTDIR);
    assert!(names(mount.path("was-file")).is_empty());
    assert_eq!(fs::read_link(mount.path("link")).unwrap().to_str(), Some("elsewhere"));
    fs::remove_file(mount.path("was-dir")).unwrap();
    fs::remove_dir(mount.path("was-file")).unwrap();
    fs::remove_file(mount.path("link")).unwrap();
    mount.remount();
    assert!(names(mount.root()).is_empty());
}

#[test]
fn nobody_makes_a_whiteout_by_hand() {
    if !ready() || Driver::kernel_differs("mknod of 0:0 and .wh. names are refused") {
        return;
    }
    let scene = Scene::new("[lower]\nfile f\n");
    let mount = scene.mount();
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o600));
    let made = rustix::fs::mknodat(CWD, mount.path("w"), kind, mode, 0);
    assert_eq!(refused(made), Errno::PERM);
    assert_eq!(refused(fs::write(mount.path(".wh.f"), "")), Errno::INVAL);
    assert_eq!(refused(fs::create_dir(mount.path(".wh.d"))), Errno::INVAL);
    // By no verb that makes a name.
    let reserved = mount.path(".wh.x");
    assert_eq!(refused(std::os::unix::fs::symlink("f", &reserved)), Errno::INVAL);
    assert_eq!(refused(fs::hard_link(mount.path("f"), &reserved)), Errno::INVAL);
    assert_eq!(refused(fs::rename(mount.path("f"), &reserved)), Errno::INVAL);
    let fifo = rustix::fs::mknodat(CWD, &reserved, FileType::Fifo, mode, 0);
    assert_eq!(refused(fifo), Errno::INVAL);
    assert_eq!(names(mount.root()), ["f"]);
}

#[test]
fn whiteouts_in_xattr_form_hide_themselves_in_the_lowest_layer() {
    if !ready() || Driver::kernel_differs("they are not listed, as they are not found") {
        return;
    }
    for above in ["", "[lower]\nfile d/other x\nfile e/other x\nfile only/other x\n"] {
        let scene = Scene::new(&format!(
            "{above}[lower]\nfile top \"\"\nfile d/w \"\"\nfile d/empty \"\"\nfile d/full x\n\
             file e/w \"\"\nfile only/w \"\"\n"
        ));
        let lowest = scene.lowers.last().unwrap();
        for file in ["top", "d/w", "d/full", "e/w", "only/w"] {
            let file = lowest.join(file);
            rustix::fs::lsetxattr(file, &*overlay_xattr("whiteout"), b"y", NOTHING).unwrap();
        }
        for dir in ["", "d", "only"] {
            let dir = lowest.join(dir);
            rustix::fs::lsetxattr(dir, &*overlay_xattr("opaque"), b"x", NOTHING).unwrap();
        }
        let mount = scene.mount();
        // Found by name before anything is listed, and again from the listing.
        for _ in 0..2 {
            for gone in ["top", "d/w", "only/w"] {
                assert_eq!(refused(fs::metadata(mount.path(gone))), Errno::NOENT, "{gone}");
            }
            for there in ["d/empty", "d/full", "e/w"] {
                assert!(fs::metadata(mount.path(there)).is_ok(), "{there}");
            }
            let shown: Vec<_> = ["", "d", "e"].map(|dir| names(mount.path(dir))).concat();
            assert!(!shown.contains(&"top".to_owned()), "{shown:?}");
            assert_eq!(shown.iter().filter(|name| *name == "w").count(), 1, "{shown:?}");
        }
        fs::write(mount.path("d/w"), "new").unwrap();
        assert_eq!(fs::read(mount.path("d/w")).unwrap(), b"new");
        if !above.is_empty() {
            fs::remove_file(mount.path("only/other")).unwrap();
        }
        fs::remove_dir(mount.path("only")).unwrap();
        assert_eq!(refused(fs::metadata(mount.path("only"))), Errno::NOENT);
    }
}
