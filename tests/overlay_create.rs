//! Making names: create, mkdir, mknod, symlink, above whiteouts too. Statements 3, 4, 7 and 43.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use support::{Scene, Snapshot, names, ready, refused};

#[test]
fn a_directory_over_a_whiteout_stays_empty() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/old\nfile d/sub/older\n");
    let mut mount = scene.mount();
    fs::remove_dir_all(mount.path("d")).unwrap();
    fs::create_dir(mount.path("d")).unwrap();
    assert!(names(mount.path("d")).is_empty());
    fs::write(mount.path("d/new"), "").unwrap();
    mount.remount();
    assert_eq!(names(mount.path("d")), ["new"]);
    assert_eq!(refused(fs::metadata(mount.path("d/sub"))), Errno::NOENT);
}

#[test]
fn everything_can_be_made_over_a_whiteout() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[upper]\nwhiteout f\nwhiteout d\nwhiteout s\nwhiteout p\nwhiteout l\nfile of\n\
         [lower]\nfile f\nfile d\nfile s\nfile p\nfile l\n",
    );
    let mut mount = scene.mount();
    fs::OpenOptions::new().write(true).create_new(true).open(mount.path("f")).unwrap();
    fs::create_dir(mount.path("d")).unwrap();
    symlink("target", mount.path("s")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, mount.path("p"), FileType::Fifo, mode, 0).unwrap();
    fs::hard_link(mount.path("of"), mount.path("l")).unwrap();
    mount.remount();
    let kind = |name: &str| fs::symlink_metadata(mount.path(name)).unwrap().file_type();
    assert!(kind("f").is_file() && kind("d").is_dir() && kind("s").is_symlink());
    assert!(kind("p").is_fifo());
    assert_eq!(fs::metadata(mount.path("l")).unwrap().nlink(), 2);
}

#[test]
fn what_exists_is_not_made_again() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f\ndir d\nsymlink s nowhere\n");
    let mount = scene.mount();
    for name in ["f", "d", "s"] {
        let path = mount.path(name);
        let created = fs::OpenOptions::new().write(true).create_new(true).open(&path);
        assert_eq!(refused(created), Errno::EXIST, "{name}");
        assert_eq!(refused(fs::create_dir(&path)), Errno::EXIST, "{name}");
        assert_eq!(refused(symlink("x", &path)), Errno::EXIST, "{name}");
    }
    assert_eq!(Snapshot::of(&scene.upper).paths(), [""]);
}

#[test]
fn a_set_group_id_directory_hands_on_its_group() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d mode=2775 gid=50\nfile d/gone\n");
    let mount = scene.mount();
    fs::remove_file(mount.path("d/gone")).unwrap();
    fs::create_dir(mount.path("d/gone")).unwrap();
    fs::write(mount.path("d/file"), "").unwrap();
    let sub = fs::metadata(mount.path("d/gone")).unwrap();
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (50, 0o2000));
    assert_eq!(fs::metadata(mount.path("d/file")).unwrap().gid(), 50);
}

#[test]
fn a_new_file_belongs_to_who_makes_it() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d mode=0777\nfile d/gone\n");
    let mount = scene.mount();
    fs::remove_file(mount.path("d/gone")).unwrap();
    let script = "umask 027; mkdir gone && echo x >gone/f && ln -s f gone/s";
    let mut shell = std::process::Command::new("setpriv");
    shell.args(["--reuid=1000", "--regid=1001", "--clear-groups", "sh", "-c", script]);
    assert!(shell.current_dir(mount.path("d")).status().unwrap().success());
    for name in ["d/gone", "d/gone/f", "d/gone/s"] {
        let made = fs::symlink_metadata(mount.path(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (1000, 1001), "{name}");
    }
    assert_eq!(fs::metadata(mount.path("d/gone")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::metadata(mount.path("d/gone/f")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn names_are_bytes() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\n");
    let mut mount = scene.mount();
    let long = vec![b'n'; 255];
    let made: [&[u8]; 5] = [b"\xff\xfe", b"new\nline", b"back\\slash", b"co:lon,comma", &long];
    for name in made {
        fs::write(mount.path("d").join(OsStr::from_bytes(name)), name).unwrap();
    }
    mount.remount();
    for name in made {
        let path = mount.path("d").join(OsStr::from_bytes(name));
        assert_eq!(fs::read(path).unwrap(), name);
    }
    assert_eq!(fs::read_dir(mount.path("d")).unwrap().count(), made.len());
    let too_long = mount.path("d").join("n".repeat(256));
    assert_eq!(refused(fs::write(&too_long, "")), Errno::NAMETOOLONG);
    assert_eq!(refused(fs::metadata(&too_long)), Errno::NAMETOOLONG);
    assert_eq!(refused(fs::create_dir(&too_long)), Errno::NAMETOOLONG);
    assert_eq!(refused(fs::remove_file(&too_long)), Errno::NAMETOOLONG);
    assert_eq!(refused(symlink("x", &too_long)), Errno::NAMETOOLONG);
    let named = mount.path("d").join(OsStr::from_bytes(&long));
    assert_eq!(refused(fs::hard_link(&named, &too_long)), Errno::NAMETOOLONG);
    assert_eq!(refused(fs::rename(&named, &too_long)), Errno::NAMETOOLONG);
    fs::rename(&named, mount.path("d").join("m".repeat(255))).unwrap();
}
