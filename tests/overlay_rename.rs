//! rename: statements 30 to 34.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::fs;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use support::{Driver, Options, Scene, names, ready, refused};

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

const LAYERS: &str = "[upper]\nfile upper/file u\nfile of-upper u\n\
    [lower]\nfile merged/top t\nfile lower/sub/file l\nfile of-lower l\n\
    [lower]\nfile merged/low m\nfile merged/sub/x x\n";

#[test]
fn directories_move_with_all_that_is_in_them() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mut mount = scene.mount();
    fs::rename(mount.path("merged"), mount.path("moved")).unwrap();
    fs::rename(mount.path("lower"), mount.path("moved/inside")).unwrap();
    fs::rename(mount.path("upper"), mount.path("up")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(mount.path("moved")), ["inside", "low", "sub", "top"]);
        assert_eq!(fs::read(mount.path("moved/sub/x")).unwrap(), b"x");
        assert_eq!(fs::read(mount.path("moved/inside/sub/file")).unwrap(), b"l");
        assert_eq!(fs::read(mount.path("up/file")).unwrap(), b"u");
        for old in ["merged", "lower", "upper"] {
            assert_eq!(refused(fs::metadata(mount.path(old))), Errno::NOENT, "{old}");
        }
        mount.remount();
    }
    assert!(!scene.upper.join("moved/low").exists(), "a rename moves no content");
}

#[test]
fn what_is_made_at_an_old_name_is_new() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mut mount = scene.mount();
    fs::rename(mount.path("merged"), mount.path("moved")).unwrap();
    fs::create_dir(mount.path("merged")).unwrap();
    fs::rename(mount.path("of-upper"), mount.path("of-lower")).unwrap();
    fs::remove_file(mount.path("of-lower")).unwrap();
    mount.remount();
    assert!(names(mount.path("merged")).is_empty());
    assert_eq!(names(mount.path("moved")), ["low", "sub", "top"]);
    assert_eq!(refused(fs::metadata(mount.path("of-lower"))), Errno::NOENT);
}

#[test]
fn without_redirects_a_directory_from_below_does_not_move() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount_by(Driver::under_test(), &Options::with(&["redirect_dir=off"]));
    for dir in ["merged", "lower"] {
        assert_eq!(refused(fs::rename(mount.path(dir), mount.path("m"))), Errno::XDEV, "{dir}");
    }
    fs::rename(mount.path("upper"), mount.path("m")).unwrap();
    assert_eq!(fs::read(mount.path("merged/sub/x")).unwrap(), b"x");
}

#[test]
fn everything_can_be_exchanged_with_everything() {
    if !ready() {
        return;
    }
    let kinds = ["upper", "merged", "lower", "of-upper", "of-lower"];
    for one in kinds {
        for two in kinds.iter().filter(|two| **two > one) {
            let scene = Scene::new(LAYERS);
            let mut mount = scene.mount();
            let before = mount.snapshot();
            rename_with(&mount.path(one), &mount.path(two), RenameFlags::EXCHANGE).unwrap();
            mount.remount();
            let after = mount.snapshot();
            let strip = |snapshot: &support::Snapshot, name: &str| -> Vec<_> {
                let below = snapshot.below(name).entries;
                let entries = below.into_iter();
                entries
                    .map(|(path, e)| (path.strip_prefix(name).unwrap().to_owned(), e.kind, e.mode))
                    .collect()
            };
            assert_eq!(strip(&before, one), strip(&after, two), "{one} and {two}");
            assert_eq!(strip(&before, two), strip(&after, one), "{one} and {two}");
        }
    }
}

#[test]
fn no_replace_replaces_nothing_but_a_whiteout() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    let flags = RenameFlags::NOREPLACE;
    let moved = rename_with(&mount.path("of-upper"), &mount.path("of-lower"), flags);
    assert_eq!(refused(moved), Errno::EXIST);
    fs::remove_file(mount.path("of-lower")).unwrap();
    rename_with(&mount.path("of-upper"), &mount.path("of-lower"), flags).unwrap();
    assert_eq!(fs::read(mount.path("of-lower")).unwrap(), b"u");
}

#[test]
fn a_users_whiteout_is_refused() {
    if !ready() || Driver::kernel_differs("RENAME_WHITEOUT is refused with EINVAL") {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    let moved = rename_with(&mount.path("of-upper"), &mount.path("x"), RenameFlags::WHITEOUT);
    assert_eq!(refused(moved), Errno::INVAL);
    assert_eq!(fs::read(mount.path("of-upper")).unwrap(), b"u");
}

#[test]
fn targets_that_cannot_be_are_refused() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    let refuse = |from: &str, to: &str| refused(fs::rename(mount.path(from), mount.path(to)));
    assert_eq!(refuse("upper", "merged"), Errno::NOTEMPTY);
    assert_eq!(refuse("merged", "merged/sub/in"), Errno::INVAL);
    assert_eq!(refuse("upper", "of-lower"), Errno::NOTDIR);
    assert_eq!(refuse("of-lower", "upper"), Errno::ISDIR);
    assert_eq!(refuse("nothing", "x"), Errno::NOENT);
    fs::remove_dir_all(mount.path("merged")).unwrap();
    fs::create_dir(mount.path("merged")).unwrap();
    fs::rename(mount.path("upper"), mount.path("merged")).unwrap();
    assert_eq!(names(mount.path("merged")), ["file"]);
}

#[test]
fn a_directory_that_holds_only_whiteouts_is_replaced() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mut mount = scene.mount();
    for name in ["merged/top", "merged/low", "merged/sub/x"] {
        fs::remove_file(mount.path(name)).unwrap();
    }
    fs::remove_dir(mount.path("merged/sub")).unwrap();
    fs::rename(mount.path("lower"), mount.path("merged")).unwrap();
    mount.remount();
    assert_eq!(names(mount.path("merged")), ["sub"]);
    assert_eq!(names(mount.path("merged/sub")), ["file"]);
}

#[test]
fn a_name_onto_another_of_the_same_file_stays() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a x\nhardlink b a\n");
    let mount = scene.mount();
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    assert_eq!(names(mount.root()), ["a", "b"]);
}
