//! unlink and rmdir: statements 1, 5, 6, 7 and 44.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use support::{Driver, Policy, Scene, Snapshot, assert_same, names, ready, refused};

#[test]
fn a_directory_of_whiteouts_is_empty_and_goes_as_one() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/a\nfile d/b\nfile d/sub/c\n");
    let mut mount = scene.mount();
    assert_eq!(refused(fs::remove_dir(mount.path("d"))), Errno::NOTEMPTY);
    fs::remove_dir_all(mount.path("d")).unwrap();
    mount.remount();
    assert!(names(mount.root()).is_empty());
    assert_eq!(Snapshot::of(&scene.upper).paths(), ["", "d"]);
}

#[test]
fn a_refused_rmdir_changes_nothing() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[upper]\nwhiteout d/gone\n[lower]\nfile d/gone\nfile d/kept k\n");
    let mount = scene.mount();
    let before = mount.snapshot();
    assert_eq!(refused(fs::remove_dir(mount.path("d"))), Errno::NOTEMPTY);
    assert_same("before", &before, "after", &mount.snapshot(), Policy::EXACT);
    assert_eq!(refused(fs::remove_dir(mount.path("d/kept"))), Errno::NOTDIR);
    assert_eq!(refused(fs::remove_file(mount.path("d"))), Errno::ISDIR);
}

#[test]
fn no_whiteout_is_left_where_nothing_is_below() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[upper]\nfile d/own\nopaque o\nfile o/f\n[lower]\ndir d\nfile o/f\n");
    let mut mount = scene.mount();
    fs::remove_file(mount.path("d/own")).unwrap();
    fs::write(mount.path("d/new"), "").unwrap();
    fs::remove_file(mount.path("d/new")).unwrap();
    fs::remove_file(mount.path("o/f")).unwrap();
    mount.unmount();
    assert!(names(scene.upper.join("d")).is_empty());
    assert!(names(scene.upper.join("o")).is_empty());
}

#[test]
fn removal_copies_no_data_up() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nsparse big 1073741824 5:x\n");
    let mount = scene.mount();
    fs::remove_file(mount.path("big")).unwrap();
    assert_eq!(fs::symlink_metadata(scene.upper.join("big")).unwrap().blocks(), 0);
}

#[test]
fn an_open_file_outlives_its_name() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[upper]\nfile own mine\n[lower]\nfile low lower\n");
    let mount = scene.mount();
    for (name, content) in [("own", "mine"), ("low", "lower")] {
        let open = fs::OpenOptions::new().read(true).write(true).open(mount.path(name));
        let mut file = open.unwrap();
        fs::remove_file(mount.path(name)).unwrap();
        fs::write(mount.path(name), "another").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{name}");
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b" on").unwrap();
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{content} on"));
        file.set_len(1).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1);
        assert_eq!(fs::read(mount.path(name)).unwrap(), b"another");
    }
}

#[test]
fn a_lower_file_that_was_only_read_outlives_its_name() {
    if !ready() || Driver::kernel_differs("an unlinked lower file has no links") {
        return;
    }
    let scene = Scene::new("[lower]\nfile low lower\n");
    let mount = scene.mount();
    let mut file = fs::File::open(mount.path("low")).unwrap();
    fs::remove_file(mount.path("low")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "lower");
}
