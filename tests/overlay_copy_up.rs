//! Opening, writing and what it brings into the upper: statements 18 to 29.

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
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use plyfs::fuse::control::Control;
use rustix::fs::{Access, CWD, SeekFrom as Whence, XattrFlags};
use rustix::io::Errno;
use support::{
    Driver, MountedOverlay, Options, Policy, Scene, Snapshot, as_host_root, assert_same, ready,
    refused, require,
};

fn append(path: &std::path::Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Has a file copied up, with its data, and changes nothing but a flag of the inode. That it is
/// opened for writing may go unseen (see `negotiate::Opens`), and a write takes suid away.
fn bring_up(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::NODUMP).unwrap();
}

#[test]
fn everything_of_a_file_comes_along() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[lower]\ndir d mode=0700 uid=5 gid=6 mtime=1000.5\n\
         file d/f content mode=4755 uid=7 gid=8 mtime=-77.000000001 xattr:user.a=b xattr:trusted.c=d\n",
    );
    let mut mount = scene.mount();
    let before = mount.snapshot();
    // Nothing of what is compared is changed: only the copy happens.
    bring_up(&mount.path("d/f"));
    assert!(scene.upper.join("d/f").exists());
    assert_same("before", &before, "after copy-up", &mount.snapshot(), Policy::EXACT);
    mount.remount();
    assert_same("before", &before, "after a remount", &mount.snapshot(), Policy::EXACT);
    let upper = fs::metadata(scene.upper.join("d")).unwrap();
    assert_eq!((upper.mode() & 0o7777, upper.uid(), upper.gid()), (0o700, 5, 6));
}

#[test]
fn looking_copies_nothing_up() {
    if !ready() {
        return;
    }
    let scene = Scene::from_fixture("rich");
    let before = Snapshot::of(&scene.upper);
    let mount = scene.mount();
    mount.snapshot();
    rustix::fs::accessat(
        CWD,
        mount.path("etc/middle"),
        Access::WRITE_OK,
        rustix::fs::AtFlags::EACCESS,
    )
    .unwrap();
    drop(mount);
    let policy = Policy { xattrs: false, ..Policy::SAME_TREE };
    assert_same("before", &before, "after", &Snapshot::of(&scene.upper), policy);
}

#[test]
fn a_refused_open_copies_nothing_up() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f text mode=0644\n");
    let mount = scene.mount();
    let mut shell = std::process::Command::new("setpriv");
    shell.args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", "echo x >>f"]);
    let output = shell.current_dir(mount.root()).output().unwrap();
    assert!(!output.status.success());
    assert!(!scene.upper.join("f").exists());
}

#[test]
fn holes_and_sizes_are_kept() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nsparse big 5368709120 0:start 4294967296:far\n");
    let mount = scene.mount();
    append(&mount.path("big"), "end");
    let big = fs::File::open(mount.path("big")).unwrap();
    let seen = big.metadata().unwrap();
    assert_eq!(seen.len(), 5_368_709_123);
    assert!(seen.blocks() < 10_000, "{} blocks of a file of two small runs", seen.blocks());
    let mut text = [0u8; 3];
    big.read_exact_at(&mut text, 4_294_967_296).unwrap();
    assert_eq!(&text, b"far");
    let data = rustix::fs::seek(&big, Whence::Data(1 << 20)).unwrap();
    assert_eq!(data, 4_294_967_296);
}

#[test]
fn what_is_cut_off_is_not_copied() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a 0123456789\nfile b 0123456789\nfile c 0123456789\n");
    let mut mount = scene.mount();
    fs::write(mount.path("a"), "x").unwrap();
    fs::OpenOptions::new().write(true).open(mount.path("b")).unwrap().set_len(4).unwrap();
    fs::OpenOptions::new().write(true).open(mount.path("c")).unwrap().set_len(12).unwrap();
    mount.remount();
    assert_eq!(fs::read(mount.path("a")).unwrap(), b"x");
    assert_eq!(fs::read(mount.path("b")).unwrap(), b"0123");
    assert_eq!(fs::read(mount.path("c")).unwrap(), b"0123456789\0\0");
}

#[test]
fn an_earlier_reader_sees_what_is_written_and_no_lower_is_changed() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f before\nfile g before\n");
    let lower = Snapshot::of(&scene.lowers[0]);
    let mount = scene.mount();
    for name in ["f", "g"] {
        let mut reader = fs::File::open(mount.path(name)).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before");
        let writer = fs::OpenOptions::new().read(true).write(true).open(mount.path(name)).unwrap();
        writer.write_all_at(b"AFTER!", 0).unwrap();
        text.clear();
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "AFTER!");
        assert_eq!(reader.metadata().unwrap().len(), 6);
    }
    drop(mount);
    assert_same(
        "the lower",
        &lower,
        "it afterwards",
        &Snapshot::of(&scene.lowers[0]),
        Policy::EXACT,
    );
}

#[test]
fn a_shared_mapping_made_before_sees_what_is_written() {
    if !ready() || Driver::kernel_differs("a mapping made before copy-up sees later writes") {
        return;
    }
    let scene = Scene::new("[lower]\nfile f before\n");
    let mount = scene.mount();
    let file = fs::File::open(mount.path("f")).unwrap();
    let map = support::Mapping::new(&file, 6, false);
    assert_eq!(map.bytes(), b"before");
    fs::OpenOptions::new()
        .write(true)
        .open(mount.path("f"))
        .unwrap()
        .write_all_at(b"AFTER!", 0)
        .unwrap();
    assert_eq!(map.bytes(), b"AFTER!");
}

#[test]
fn no_concurrent_write_is_lost() {
    if !ready() {
        return;
    }
    const WRITERS: usize = 8;
    let scene = Scene::new(&format!("[lower]\nsparse f {}\nhardlink g f\n", WRITERS * 4096));
    let mut mount = scene.mount();
    let barrier = std::sync::Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = mount.path(if writer % 2 == 0 { "f" } else { "g" });
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&[writer as u8 + 1; 4096], writer as u64 * 4096).unwrap();
            });
        }
    });
    mount.remount();
    let content = fs::read(mount.path("f")).unwrap();
    for (writer, part) in content.chunks(4096).enumerate() {
        assert!(part.iter().all(|b| *b == writer as u8 + 1), "writer {writer}");
    }
    assert_eq!(content, fs::read(mount.path("g")).unwrap());
}

#[test]
fn a_child_leaves_its_parents_time_alone() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d mtime=1234.000000005\nfile d/f x\n");
    let mount = scene.mount();
    append(&mount.path("d/f"), "y");
    let seen = fs::metadata(mount.path("d")).unwrap();
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (1234, 5));
}

#[test]
fn writing_by_another_takes_privileges_away() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f text mode=6777\nfile g text mode=6777\n");
    let mount = scene.mount();
    let mut shell = std::process::Command::new("setpriv");
    let script = "echo x >>f && : >g";
    shell.args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", script]);
    assert!(shell.current_dir(mount.root()).status().unwrap().success());
    for name in ["f", "g"] {
        let mode = fs::metadata(mount.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "{name}");
    }
}

/// Data that follows attributes into the same inode is no write of anybody.
#[test]
fn data_that_follows_leaves_suid_and_sgid() {
    if !ready() {
        return;
    }
    for passthrough in ["auto", "off"] {
        let scene = Scene::new("[lower]\nfile f content mode=0755\n");
        let options = format!("passthrough={passthrough}");
        let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["metacopy=on", &options]));
        let mode = || fs::metadata(mount.path("f")).unwrap().mode() & 0o7777;
        fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o6755)).unwrap();
        bring_up(&mount.path("f"));
        assert_eq!(fs::read(scene.upper.join("f")).unwrap(), b"content");
        assert_eq!(mode(), 0o6755);
        drop(mount);
        assert_eq!(fs::metadata(scene.upper.join("f")).unwrap().mode() & 0o7777, 0o6755);
    }
}

#[test]
fn a_read_only_mount_is_one() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a x\n[lower]\nfile b y\n");
    let options = support::Options { read_only: true, ..Default::default() };
    let mount = scene.mount_by(Driver::under_test(), &options);
    assert_eq!(fs::read(mount.path("b")).unwrap(), b"y");
    let opened = fs::OpenOptions::new().write(true).open(mount.path("a"));
    assert_eq!(refused(opened), Errno::ROFS);
    assert_eq!(refused(fs::create_dir(mount.path("d"))), Errno::ROFS);
    assert_eq!(refused(fs::remove_file(mount.path("a"))), Errno::ROFS);
}

/// Statement 18: what the text of a layer cannot say.
#[test]
fn acls_capabilities_and_access_times_come_along() {
    if !ready() || !require("tool:setfacl") || !as_host_root("capabilities of files are root's") {
        return;
    }
    let scene =
        Scene::new("[lower]\nfile f text mode=0755 uid=5\ndir sticky mode=1777\nfile sticky/f\n");
    let lower = scene.lowers[0].join("f");
    let acl =
        std::process::Command::new("setfacl").args(["-m", "u:7:rwx,g:8:r"]).arg(&lower).status();
    assert!(acl.unwrap().success());
    let chown = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::lsetxattr(&lower, "security.capability", &chown, XattrFlags::empty()).unwrap();
    let time = |sec, nsec| std::time::UNIX_EPOCH + std::time::Duration::new(sec, nsec);
    let times = fs::FileTimes::new().set_accessed(time(77, 8)).set_modified(time(99, 10));
    fs::File::open(&lower).unwrap().set_times(times).unwrap();
    let mount = scene.mount();
    let copy_up = |name: &str| {
        drop(fs::OpenOptions::new().append(true).open(mount.path(name)).unwrap());
        assert!(scene.upper.join(name).exists());
    };
    copy_up("f");
    copy_up("sticky/f");
    assert_eq!(fs::metadata(scene.upper.join("sticky")).unwrap().mode() & 0o7777, 0o1777);
    for name in ["security.capability", "system.posix_acl_access"] {
        let value = |path: &std::path::Path| {
            let mut room = [0; 256];
            let n = rustix::fs::lgetxattr(path, name, &mut room).unwrap();
            room[..n].to_vec()
        };
        assert_eq!(value(&scene.upper.join("f")), value(&lower), "{name}");
        assert_eq!(value(&mount.path("f")), value(&lower), "{name}");
    }
    let seen = fs::metadata(scene.upper.join("f")).unwrap();
    assert_eq!((seen.atime(), seen.atime_nsec()), (77, 8));
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (99, 10));
}

/// Bytes that copy-ups brought, and how many files.
fn copied(mount: &MountedOverlay<'_>) -> (u64, u64) {
    let figures = Control::open(mount.root()).unwrap().snapshot().unwrap().overlay.copy_ups;
    (figures.bytes, figures.files)
}

/// Statements 21 and 23, by the daemon's own count.
#[test]
fn no_more_is_copied_than_is_kept_and_no_file_twice() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile shared x\nhardlink shared-too shared\n");
    let large = vec![1; 1 << 20];
    for name in ["trunc", "zero", "some", "unlinked", "under", "over"] {
        fs::write(scene.lowers[0].join(name), &large).unwrap();
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["metacopy=off"]));
    let truncate = |name: &str, size| {
        let path = std::ffi::CString::new(mount.path(name).into_os_string().into_encoded_bytes());
        truncate_by_name(&path.unwrap(), size);
    };
    fs::write(mount.path("trunc"), "").unwrap();
    truncate("zero", 0);
    fs::remove_file(mount.path("unlinked")).unwrap();
    fs::write(mount.path("new"), "new").unwrap();
    fs::rename(mount.path("new"), mount.path("under")).unwrap();
    assert_eq!(copied(&mount).0, 0);
    truncate("some", 4096);
    assert_eq!(copied(&mount).0, 4096);
    assert_eq!(fs::read(mount.path("some")).unwrap(), vec![1; 4096]);
    let before = copied(&mount).1;
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = mount.path(if writer % 2 == 0 { "shared" } else { "shared-too" });
            scope.spawn(move || append(&path, "w"));
        }
    });
    assert_eq!(copied(&mount).1, before + 1);
    assert_eq!(fs::read(mount.path("shared")).unwrap().len(), 9);
}

/// truncate(2) itself, which opens nothing.
#[expect(unsafe_code, reason = "no safe wrapper for truncate(2)")]
fn truncate_by_name(path: &std::ffi::CStr, size: libc::off_t) {
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), size) }, 0);
}

/// Statement 24: a program that runs, and a mount that became read-only.
#[test]
fn an_open_that_the_kernel_refuses_copies_nothing_up() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f text\n");
    fs::copy("/bin/sleep", scene.lowers[0].join("sleep")).unwrap();
    let mount = scene.mount();
    let mut running = std::process::Command::new(mount.path("sleep")).arg("60").spawn().unwrap();
    let open = |name: &str| fs::OpenOptions::new().write(true).open(mount.path(name));
    let busy = open("sleep").map(drop);
    let cut = fs::OpenOptions::new().write(true).truncate(true).open(mount.path("sleep")).map(drop);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(refused(busy), Errno::TXTBSY);
    assert_eq!(refused(cut), Errno::TXTBSY);
    assert!(!scene.upper.join("sleep").exists());
    let read_only = rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(mount.root(), read_only, "").unwrap();
    assert_eq!(refused(open("f")), Errno::ROFS);
    let mode = fs::Permissions::from_mode(0o600);
    assert_eq!(refused(fs::set_permissions(mount.path("f"), mode)), Errno::ROFS);
    assert!(!scene.upper.join("f").exists());
}
