//! Large numbers, small enough for every run; `scripts/scale` has the same at full size, with times.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::{Driver, Options, Scene, require};

fn ready() -> bool {
    require("root") && require("fuse")
}

fn names(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Of a large directory all files are listed, looked at, removed, and as many others made, which go
/// again in the end.
#[test]
fn ten_thousand_files_of_one_directory_are_replaced() {
    if !ready() {
        return;
    }
    const COUNT: usize = 10_000;
    let scene = Scene::in_memory("[lower]\ndir d\n");
    let all = |letter: char| (0..COUNT).map(move |n| format!("{letter}{n}")).collect();
    let (old, new): (BTreeSet<String>, BTreeSet<String>) = (all('f'), all('g'));
    for name in &old {
        fs::write(scene.lowers[0].join("d").join(name), name).unwrap();
    }
    let mut mount = scene.mount_by(Driver::under_test(), &Options::default());
    let dir = mount.path("d");
    assert_eq!(names(&dir), old);
    for name in &old {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().len(), name.len() as u64);
        fs::remove_file(dir.join(name)).unwrap();
    }
    assert!(names(&dir).is_empty());
    new.iter().for_each(|name| fs::write(dir.join(name), name).unwrap());
    mount.remount();
    assert_eq!(names(&dir), new);
    for name in &new {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), *name);
        fs::remove_file(dir.join(name)).unwrap();
    }
    fs::remove_dir(&dir).unwrap();
    mount.remount();
    assert!(names(mount.root()).is_empty());
}

#[test]
fn a_tree_of_two_hundred_directories_is_changed_at_its_bottom_moved_and_removed() {
    if !ready() {
        return;
    }
    const DEPTH: usize = 200;
    let scene = Scene::new("[lower]\n");
    let below: PathBuf = std::iter::repeat_n("d", DEPTH - 1).collect();
    fs::create_dir_all(scene.lowers[0].join("d").join(&below)).unwrap();
    fs::write(scene.lowers[0].join("d").join(&below).join("f"), "bottom").unwrap();
    let mut mount = scene.mount_by(Driver::under_test(), &Options::default());
    fs::write(mount.path("d").join(&below).join("f"), "changed").unwrap();
    fs::rename(mount.path("d"), mount.path("e")).unwrap();
    mount.remount();
    let bottom = mount.path("e").join(&below).join("f");
    assert_eq!(fs::read_to_string(bottom).unwrap(), "changed");
    fs::remove_dir_all(mount.path("e")).unwrap();
    mount.remount();
    assert!(names(mount.root()).is_empty());
}

/// Each mount of the same lower has an upper of its own, and sees its own changes alone.
#[test]
fn sixty_four_mounts_are_there_at_once() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f lower\n");
    let scenes: Vec<Scene> = (0..64).map(|_| scene.beside()).collect();
    let mounts: Vec<_> =
        scenes.iter().map(|s| s.mount_by(Driver::under_test(), &Options::default())).collect();
    for (n, mount) in mounts.iter().enumerate() {
        assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "lower");
        fs::write(mount.path("f"), n.to_string()).unwrap();
    }
    for (n, mount) in mounts.iter().enumerate() {
        assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), n.to_string());
    }
    drop(mounts);
    assert_eq!(fs::read_to_string(scene.lowers[0].join("f")).unwrap(), "lower");
}
