//! What programs see of any filesystem, and what passing files through must not take from them:
//! times of what is written and read, files that may only grow, marks of groups, no handles.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plyfs::sys::extended;
use plyfs::sys::file_handle::handle_at;
use rustix::fs::{FallocateFlags, IFlags};
use rustix::io::Errno;
use support::{Driver, Mapping, MountedOverlay, Options, Scene, as_host_root, names, require};

const LAYERS: &str = "
[lower]
file below \"lower data\\n\"
[upper]
file above \"upper data\\n\"
dir  full
file full/inside x
";

/// Longer than the kernel's coarse clock, by which filesystems tell the time, takes to go on.
const A_WHILE: Duration = Duration::from_millis(25);

fn with_each_policy(test: impl Fn(&MountedOverlay<'_>, &str)) {
    if !(require("root") && require("fuse")) {
        return;
    }
    for policy in ["auto", "off"] {
        let scene = Scene::new(LAYERS);
        let options = Options::with(&[&format!("passthrough={policy}")]);
        test(&scene.mount_by(Driver::Plyfs, &options), policy);
    }
}

fn for_both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn changed(path: &Path) -> (i64, i64) {
    let stat = fs::metadata(path).unwrap();
    (stat.mtime(), stat.mtime_nsec())
}

fn accessed(path: &Path) -> (i64, i64) {
    let stat = fs::metadata(path).unwrap();
    (stat.atime(), stat.atime_nsec())
}

/// What is written to a mapping comes to nobody's knowledge where the kernel does it by itself; it
/// must be asked for, also when the descriptor is long closed.
#[test]
fn a_write_through_a_mapping_shows_in_the_times() {
    with_each_policy(|mount, policy| {
        for name in ["below", "above", "new", "new and written", "new and allocated"] {
            let path = mount.path(name);
            let is_new = name.starts_with("new");
            if !is_new {
                // As long as it may, the kernel keeps what it was told here.
                names(mount.root());
                changed(&path);
            }
            let file = for_both(&path);
            if is_new {
                changed(&path);
            }
            match name {
                "new and written" => file.write_all_at(&[0; 10], 0).unwrap(),
                "new and allocated" => {
                    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 10).unwrap();
                }
                _ => file.set_len(10).unwrap(),
            }
            let before = changed(&path);
            let mut mapping = Mapping::new(&file, 10, true);
            let mut written = |what: &str, before: (i64, i64)| {
                std::thread::sleep(A_WHILE);
                mapping.write(b"MAPPED");
                mapping.sync();
                names(mount.root());
                let after = changed(&path);
                assert!(after > before, "{name}, passthrough={policy}: written {what}");
                after
            };
            let open = written("while open", before);
            assert_eq!(file.metadata().unwrap().mtime_nsec(), open.1, "{name}");
            drop(file);
            let closed = written("after it was closed", open);
            written("and after it was asked for", closed);
            drop(mapping);
            assert_eq!(changed(&path), changed(&mount.scene().upper.join(name)), "{name}");
            assert!(fs::read(&path).unwrap().starts_with(b"MAPPED"), "{name}");
        }
    });
}

/// Who asks for the attributes of a file just closed must not stand in the way of who opens it.
#[test]
fn a_file_that_is_looked_at_all_the_time_can_be_opened_and_removed() {
    with_each_policy(|mount, policy| {
        let path = mount.path("above");
        let looking = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while looking.load(std::sync::atomic::Ordering::Relaxed) {
                    changed(&path);
                }
            });
            for round in 0..500 {
                let opened = OpenOptions::new().read(true).write(true).open(&path);
                let file = opened.unwrap_or_else(|error| panic!("{policy}, {round}: {error}"));
                file.write_all_at(b"x", 0).unwrap();
                drop(file);
                OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
            }
            looking.store(false, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

/// `noatime` and `strictatime` are meant for what is read through the mount, by whomever.
#[test]
fn access_times_are_kept_as_the_mount_was_asked_to() {
    if !as_host_root("it changes which access times a mount keeps") || !require("fuse") {
        return;
    }
    for (option, kept) in [("noatime", false), ("strictatime", true)] {
        let scene = Scene::new(LAYERS);
        let mount = scene.mount_by(Driver::Plyfs, &Options::with(&[option]));
        let path = mount.path("above");
        for _ in 0..2 {
            let before = accessed(&path);
            std::thread::sleep(A_WHILE);
            fs::read(&path).unwrap();
            assert_eq!(accessed(&path) > before, kept, "{option}");
        }
    }
}

#[test]
fn a_change_of_inode_flags_changes_the_time_of_attributes() {
    with_each_policy(|mount, _| {
        let file = File::open(mount.path("above")).unwrap();
        let time = || file.metadata().map(|stat| (stat.ctime(), stat.ctime_nsec())).unwrap();
        let before = time();
        std::thread::sleep(A_WHILE);
        let flags = rustix::fs::ioctl_getflags(&file).unwrap();
        rustix::fs::ioctl_setflags(&file, flags ^ IFlags::NODUMP).unwrap();
        assert!(time() > before);
    });
}

/// Also in their longer form, which xfs_io and those who set projects use.
#[test]
fn inode_flags_in_their_longer_form_are_those_of_the_layer() {
    const NODUMP: u8 = 0x80;
    with_each_policy(|mount, _| {
        let (path, below) = (mount.path("above"), mount.scene().upper.join("above"));
        let flags = || extended::get(File::open(&below).unwrap()).unwrap();
        let file = File::open(&path).unwrap();
        let mut set = extended::get(&file).unwrap();
        assert_eq!(set, flags());
        set[0] ^= NODUMP;
        extended::set(&file, &set).unwrap();
        assert_eq!((extended::get(&file), flags()), (Ok(set), set));
        let mut of_lower = extended::get(File::open(mount.path("below")).unwrap()).unwrap();
        of_lower[0] ^= NODUMP;
        extended::set(File::open(mount.path("below")).unwrap(), &of_lower).unwrap();
        assert_eq!(
            extended::get(File::open(mount.path("below")).unwrap()).unwrap()[0],
            of_lower[0]
        );
    });
}

/// Has `chattr` set `flags` as long as it lives.
struct Frozen(File, IFlags);

impl Frozen {
    fn new(path: &Path, flags: IFlags) -> Frozen {
        let file = File::open(path).unwrap();
        let before = rustix::fs::ioctl_getflags(&file).unwrap();
        rustix::fs::ioctl_setflags(&file, before | flags).unwrap();
        Frozen(file, before)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Else the layers could not be removed.
        rustix::fs::ioctl_setflags(&self.0, self.1).unwrap();
    }
}

#[test]
fn a_file_that_may_only_grow_is_appended_to_and_not_written() {
    if !as_host_root("chattr +a") {
        return;
    }
    with_each_policy(|mount, policy| {
        let path = mount.path("above");
        let _frozen = Frozen::new(&path, IFlags::APPEND);
        for how in [OpenOptions::new().append(true), OpenOptions::new().append(true).read(true)] {
            how.open(&path).unwrap().write_all(b"more\n").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"upper data\nmore\nmore\n", "{policy}");
        let write = || OpenOptions::new().write(true).open(&path)?.write_all_at(b"x", 0);
        assert_eq!(write().unwrap_err().raw_os_error(), Some(libc::EPERM), "{policy}");
        assert_eq!(fs::read(&path).unwrap(), b"upper data\nmore\nmore\n", "{policy}");
    });
}

#[test]
fn what_is_frozen_is_said_before_that_it_is_full() {
    if !as_host_root("chattr +i") {
        return;
    }
    with_each_policy(|mount, _| {
        let remove = || fs::remove_dir(mount.path("full")).unwrap_err().raw_os_error();
        assert_eq!(remove(), Some(libc::ENOTEMPTY));
        let _frozen = Frozen::new(mount.root(), IFlags::IMMUTABLE);
        assert_eq!(remove(), Some(libc::EPERM));
    });
}

/// A set-group-id bit without the right to execute stays with members of the group alone.
#[test]
fn allocation_by_a_stranger_takes_the_mark_of_a_group_away() {
    if !as_host_root("it acts as several users") {
        return;
    }
    with_each_policy(|mount, policy| {
        fs::set_permissions(mount.root(), Permissions::from_mode(0o755)).unwrap();
        let path = mount.path("above");
        std::os::unix::fs::chown(&path, None, Some(4321)).unwrap();
        for (ids, kept) in [
            (["--regid=65534", "--clear-groups"], false),
            (["--regid=65534", "--groups=4321,17"], true),
            (["--regid=4321", "--clear-groups"], true),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(0o2666)).unwrap();
            let done = Command::new("setpriv")
                .arg("--reuid=65534")
                .args(ids)
                .args(["fallocate", "--length", "64K"])
                .arg(&path)
                .status()
                .unwrap();
            assert!(done.success());
            let marked = fs::metadata(&path).unwrap().mode() & 0o2000 != 0;
            assert_eq!(marked, kept, "{ids:?}, passthrough={policy}");
        }
    });
}

/// A node's number would be the handle, and lead to another file after a remount.
#[test]
fn no_handle_is_given_that_would_lead_to_another_file() {
    with_each_policy(|mount, _| {
        let root = File::open(mount.root()).unwrap();
        assert_eq!(handle_at(&root, OsStr::new("above")), Err(Errno::OPNOTSUPP));
    });
}

/// A copy-up changes what is told of the file and of the directories above it, which the kernel keeps.
/// Who reads them then sees no change: tar would call it one.
#[test]
fn a_copy_up_shows_in_the_attributes_of_all_that_came_along() {
    if !(require("root") && require("fuse")) {
        return;
    }
    for policy in ["auto", "off"] {
        let scene = Scene::new("[lower]\nfile a/b/c/f data\nfile a/b/c/g data\n");
        let options = Options::with(&[&format!("passthrough={policy}")]);
        let mount = scene.mount_by(Driver::Plyfs, &options);
        let seen = || {
            ["", "a", "a/b", "a/b/c", "a/b/c/f", "a/b/c/g"].map(|name| {
                let stat = rustix::fs::stat(mount.path(name)).unwrap();
                (name, stat.st_ctime, stat.st_ctime_nsec, stat.st_blocks)
            })
        };
        seen();
        for change in ["f", "g"] {
            std::thread::sleep(A_WHILE);
            let path = mount.path(format!("a/b/c/{change}"));
            match change {
                "f" => for_both(&path).write_all(b"x").unwrap(),
                _ => fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap(),
            }
            let before = seen();
            for dir in ["", "a", "a/b", "a/b/c"] {
                names(mount.path(dir));
            }
            fs::read(mount.path("a/b/c/f")).unwrap();
            assert_eq!(seen(), before, "{policy}");
        }
    }
}
