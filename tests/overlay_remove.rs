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
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use support::{Driver, Mapping, Policy, Scene, Snapshot, assert_same, names, ready, refused};

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
    for place in ["d", "o"] {
        fs::write(mount.path(place).join("moving"), "").unwrap();
        fs::create_dir(mount.path(place).join("moving-dir")).unwrap();
        for name in ["moving", "moving-dir"] {
            fs::rename(mount.path(place).join(name), mount.path(name)).unwrap();
        }
        fs::remove_file(mount.path("moving")).unwrap();
        fs::remove_dir(mount.path("moving-dir")).unwrap();
    }
    mount.unmount();
    assert_eq!(names(&scene.upper), ["d", "o"]);
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

#[test]
fn who_stands_in_a_directory_goes_on_after_a_refused_rmdir() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[upper]\nwhiteout d/gone\n[lower]\nfile d/gone\nfile d/kept k\n");
    let mount = scene.mount();
    let script = "echo ready; read go; cat kept; echo new >made; cd .. && cat d/made";
    let mut inside = Command::new("sh");
    inside.args(["-ec", script]).current_dir(mount.path("d"));
    let mut inside = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(inside.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(refused(fs::remove_dir(mount.path("d"))), Errno::NOTEMPTY);
    inside.stdin.take().unwrap().write_all(b"go\n").unwrap();
    line.clear();
    said.read_to_string(&mut line).unwrap();
    assert!(inside.wait().unwrap().success(), "{line}");
    assert_eq!(line, "knew\n");
}

/// Everything that can be done to a file by a descriptor, as on any file without a name.
fn expect_whole(file: &fs::File, what: &str) {
    let stat = || file.metadata().unwrap();
    assert_eq!(stat().nlink(), 0, "{what}");
    file.write_all_at(b"written", 0).unwrap();
    let mut map = Mapping::new(file, 7, true);
    assert_eq!(map.bytes(), b"written", "{what}");
    map.write(b"MAP");
    map.sync();
    let mut text = [0; 7];
    file.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"MAPtten", "{what}");
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    file.set_len(3).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 7);
    file.set_modified(time).unwrap();
    assert_eq!((stat().mode() & 0o7777, stat().len()), (0o640, 3), "{what}");
    assert_eq!((stat().mtime(), stat().mtime_nsec()), (1_000_000, 7), "{what}");
    rustix::fs::fsetxattr(file, "user.late", b"yes", XattrFlags::empty()).unwrap();
    let mut value = [0; 8];
    assert_eq!(rustix::fs::fgetxattr(file, "user.late", &mut value), Ok(3), "{what}");
    // Opened once more, for writing, it is the same file.
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = fs::OpenOptions::new().read(true).write(true).open(again).unwrap();
    again.write_all_at(b"again", 3).unwrap();
    file.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"MAPagai", "{what}");
    assert_eq!(stat().len(), 8, "{what}");
    assert_eq!(again.metadata().unwrap().ino(), stat().ino(), "{what}");
    file.sync_all().unwrap();
}

/// Statement 44: whatever took the name away, and whoever got its inode number since.
#[test]
fn an_open_file_is_whole_however_its_name_went() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[upper]\nfile up/unlinked u\nfile up/replaced u\nfile up/dir/inside u\nfile up/other x\n\
         [lower]\nfile low/unlinked l\nfile low/replaced l\nfile low/dir/inside l\nfile low/other x\n",
    );
    let mount = scene.mount();
    for place in ["up", "low"] {
        let place = mount.path(place);
        let open = |name: &str| {
            fs::OpenOptions::new().read(true).write(true).open(place.join(name)).unwrap()
        };
        let held = ["unlinked", "replaced", "dir/inside"].map(|name| (open(name), name));
        fs::remove_file(place.join("unlinked")).unwrap();
        fs::rename(place.join("other"), place.join("replaced")).unwrap();
        fs::remove_dir_all(place.join("dir")).unwrap();
        for n in 0..50 {
            fs::write(place.join(format!("fresh-{n}")), "fresh").unwrap();
        }
        for (file, name) in &held {
            expect_whole(file, &format!("{}/{name}", place.display()));
        }
        for n in 0..50 {
            assert_eq!(fs::read(place.join(format!("fresh-{n}"))).unwrap(), b"fresh");
        }
        assert_eq!(fs::read(place.join("replaced")).unwrap(), b"x");
        expect_numbers_of_their_own(&place, &held.map(|(file, _)| file));
    }
}

/// No file with a name has the number of one that is still open.
fn expect_numbers_of_their_own(place: &Path, held: &[fs::File]) {
    let taken: Vec<u64> = held.iter().map(|file| file.metadata().unwrap().ino()).collect();
    for entry in fs::read_dir(place).unwrap().map(Result::unwrap) {
        assert!(!taken.contains(&entry.metadata().unwrap().ino()), "{:?}", entry.path());
    }
}
