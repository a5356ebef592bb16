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
    // A directory of the upper, and one of a lower, come to the name of a lower one.
    fs::remove_dir_all(mount.path("lower")).unwrap();
    fs::rename(mount.path("upper"), mount.path("lower")).unwrap();
    fs::rename(mount.path("moved/sub"), mount.path("upper")).unwrap();
    mount.remount();
    assert_eq!(names(mount.path("lower")), ["file"]);
    assert_eq!(names(mount.path("upper")), ["x"]);
    fs::rename(mount.path("upper"), mount.path("moved/sub")).unwrap();
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
    for kind in ["upper", "merged", "lower", "of-lower"] {
        let inode = |name: &str| {
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(mount.path(name)).unwrap())
        };
        let number = inode(kind);
        for occupied in ["upper", "merged", "lower", "of-lower"].iter().filter(|to| **to != kind) {
            let moved = rename_with(&mount.path(kind), &mount.path(occupied), flags);
            assert_eq!(refused(moved), Errno::EXIST, "{kind} to {occupied}");
        }
        // To a free name, and back over the whiteout that it left.
        rename_with(&mount.path(kind), &mount.path("free"), flags).unwrap();
        assert_eq!(refused(fs::metadata(mount.path(kind))), Errno::NOENT);
        rename_with(&mount.path("free"), &mount.path(kind), flags).unwrap();
        assert_eq!(inode(kind), number, "{kind}");
    }
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

/// Statement 30: three uppers above each other, each with redirects of its own into the ones
/// below; every one of them is looked at by the other driver, too.
#[test]
fn redirects_lead_through_the_layers_that_moved_before() {
    let host = "redirects of lowers count in trusted.* alone";
    if !ready() || !support::require("overlayfs") || !support::as_host_root(host) {
        return;
    }
    let first = Scene::new(
        "[lower]\nfile a/b/c/file deep\nfile a/b/other o\nfile a/kept k\n[lower]\nfile a/b/c/low l\n",
    );
    let options = Options::with(&["redirect_dir=on", "index=on", "metacopy=on"]);
    let generations: [fn(&Path); 3] = [
        |m| {
            fs::rename(m.join("a/b"), m.join("x")).unwrap();
            fs::rename(m.join("x/c"), m.join("a/c-moved")).unwrap();
            fs::create_dir(m.join("a/b")).unwrap();
            fs::write(m.join("a/b/fresh"), "f").unwrap();
        },
        |m| {
            fs::rename(m.join("a"), m.join("aa")).unwrap();
            fs::rename(m.join("aa/c-moved"), m.join("x/c")).unwrap();
            fs::rename(m.join("x"), m.join("aa/b/x")).unwrap();
            fs::write(m.join("aa/b/x/c/file"), "changed").unwrap();
        },
        |m| {
            fs::rename(m.join("aa/b/x/c"), m.join("c")).unwrap();
            fs::rename(m.join("aa/b"), m.join("c/b")).unwrap();
            fs::rename(m.join("aa"), m.join("c/b/x/a")).unwrap();
            fs::remove_file(m.join("c/low")).unwrap();
        },
    ];
    let mut scenes = vec![first];
    for change in generations {
        let scene = scenes.last().unwrap();
        let mut mount = scene.mount_by(Driver::under_test(), &options);
        change(mount.root());
        let before = mount.snapshot();
        mount.remount();
        let same = support::Policy::SAME_TREE;
        support::assert_same("before", &before, "after a remount", &mount.snapshot(), same);
        drop(mount);
        for driver in [Driver::Plyfs, Driver::Kernel] {
            let shown = scene.mount_by(driver, &options).snapshot();
            support::assert_same("the writer", &before, driver.name(), &shown, same);
        }
        let mut next = Scene::empty(0);
        next.lowers = std::iter::once(&scene.upper).chain(&scene.lowers).cloned().collect();
        scenes.push(next);
    }
    let mount = scenes.last().unwrap().mount_by(Driver::under_test(), &options);
    for (path, content) in
        [("c/file", "changed"), ("c/b/fresh", "f"), ("c/b/x/other", "o"), ("c/b/x/a/kept", "k")]
    {
        assert_eq!(fs::read_to_string(mount.path(path)).unwrap(), content, "{path}");
    }
    assert_eq!(names(mount.root()), ["c"]);
    assert_eq!(names(mount.path("c")), ["b", "file"]);
}
