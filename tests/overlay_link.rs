//! Hard links and symlinks: statements 35, 36 and 12's neighbours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use support::{Scene, names, ready, refused};

#[test]
fn names_of_a_lower_file_stay_one_file() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a one\nhardlink b a\nhardlink d/c a\n");
    let mut mount = scene.mount();
    let mut file = fs::OpenOptions::new().append(true).open(mount.path("b")).unwrap();
    file.write_all(b" two").unwrap();
    drop(file);
    for _ in 0..2 {
        let ino = fs::metadata(mount.path("a")).unwrap().ino();
        for name in ["a", "b", "d/c"] {
            assert_eq!(fs::read(mount.path(name)).unwrap(), b"one two", "{name}");
            let seen = fs::metadata(mount.path(name)).unwrap();
            assert_eq!((seen.nlink(), seen.ino()), (3, ino), "{name}");
        }
        mount.remount();
    }
    fs::remove_file(mount.path("a")).unwrap();
    assert_eq!(fs::metadata(mount.path("b")).unwrap().nlink(), 2);
    fs::remove_file(mount.path("b")).unwrap();
    mount.remount();
    assert_eq!(fs::metadata(mount.path("d/c")).unwrap().nlink(), 1);
    assert_eq!(fs::read(mount.path("d/c")).unwrap(), b"one two");
}

#[test]
fn a_new_name_of_a_lower_file_is_the_same_file() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a one\nfile gone\nsymlink s nowhere\n");
    let mut mount = scene.mount();
    let ino = fs::metadata(mount.path("a")).unwrap().ino();
    fs::hard_link(mount.path("a"), mount.path("b")).unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    fs::hard_link(mount.path("a"), mount.path("gone")).unwrap();
    fs::hard_link(mount.path("s"), mount.path("s2")).unwrap();
    mount.remount();
    for name in ["a", "b", "gone"] {
        let seen = fs::metadata(mount.path(name)).unwrap();
        assert_eq!((seen.nlink(), seen.ino()), (3, ino), "{name}");
    }
    assert_eq!(fs::read_link(mount.path("s2")).unwrap().to_str(), Some("nowhere"));
    assert_eq!(fs::symlink_metadata(mount.path("s")).unwrap().nlink(), 2);
}

#[test]
fn links_that_cannot_be_are_refused() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a\ndir d\nfile b\n");
    let mount = scene.mount();
    assert_eq!(refused(fs::hard_link(mount.path("d"), mount.path("x"))), Errno::PERM);
    assert_eq!(refused(fs::hard_link(mount.path("a"), mount.path("b"))), Errno::EXIST);
    assert_eq!(refused(fs::hard_link(mount.path("x"), mount.path("y"))), Errno::NOENT);
    assert!(names(&scene.upper).is_empty(), "a refused link copies nothing up");
}

#[test]
fn a_file_without_a_name_gets_one() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/gone old\n");
    let mut mount = scene.mount();
    fs::remove_file(mount.path("d/gone")).unwrap();
    let (flags, mode) = (OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o640));
    let fd = rustix::fs::open(mount.path("d"), flags, mode).unwrap();
    rustix::io::write(&fd, b"unnamed").unwrap();
    assert!(names(mount.path("d")).is_empty());
    rustix::fs::linkat(&fd, "", CWD, mount.path("d/gone"), AtFlags::EMPTY_PATH).unwrap();
    drop(fd);
    mount.remount();
    assert_eq!(fs::read(mount.path("d/gone")).unwrap(), b"unnamed");
    assert_eq!(fs::metadata(mount.path("d/gone")).unwrap().nlink(), 1);
}

#[test]
fn symlinks_are_what_they_say() {
    if !ready() {
        return;
    }
    let scene =
        Scene::new("[lower]\nfile d/f content\nsymlink rel d/f\nsymlink up ../../../../etc\n");
    let mut mount = scene.mount();
    symlink("rel", mount.path("new")).unwrap();
    let long = "t/".repeat(2000);
    symlink(&long, mount.path("long")).unwrap();
    std::os::unix::fs::lchown(mount.path("rel"), Some(5), Some(6)).unwrap();
    mount.remount();
    assert_eq!(fs::read(mount.path("new")).unwrap(), b"content");
    assert_eq!(fs::read_link(mount.path("long")).unwrap().to_str(), Some(long.as_str()));
    assert_eq!(fs::symlink_metadata(mount.path("long")).unwrap().len(), long.len() as u64);
    let owner = fs::symlink_metadata(mount.path("rel")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (5, 6));
    assert_eq!(fs::metadata(mount.path("d/f")).unwrap().uid(), 0);
    assert_eq!(fs::read_link(mount.path("up")).unwrap().to_str(), Some("../../../../etc"));
}
