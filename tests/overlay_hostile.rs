//! Layers that somebody else wrote: links out of them, crafted marks, many of them, deep ones.
//! Statements 15, 43 and 54 to 59.

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
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags};
use support::{Driver, Options, Scene, Snapshot, overlay_xattr, require, rootless};

fn mark(path: &std::path::Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Statement 54: a link in a layer leads nowhere but where it leads users; the daemon stays in
/// the layer while somebody swaps a directory of it for a link to the outside.
#[test]
fn no_link_in_a_layer_leads_the_daemon_out_of_it() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile dir/name inside\nfile dir/deep/name inside\n");
    let outside = scene.place("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("name"), "outside").unwrap();
    fs::write(outside.join("deep/name"), "outside").unwrap();
    let (dir, link) = (scene.lowers[0].join("dir"), scene.lowers[0].join("link"));
    symlink(&outside, &link).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..20 {
            let mount = scene.mount_by(Driver::Plyfs, &Options::default());
            for round in 0..50 {
                for name in ["dir/name", "dir/deep/name"] {
                    // The link itself is shown to users, who follow it by themselves.
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                    let resolve = ResolveFlags::NO_SYMLINKS;
                    let root = fs::File::open(mount.root()).unwrap();
                    let Ok(file) = rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve)
                    else {
                        continue;
                    };
                    let content = std::io::read_to_string(fs::File::from(file)).unwrap();
                    assert_eq!(content, "inside", "{name}, round {round}");
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// The same in the upper, while everything that changes a tree is done through the mount: nothing
/// outside is changed, made or removed.
#[test]
fn no_link_in_the_upper_leads_a_change_out_of_it() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let dirs = "dir dir\nfile dir/name x\ndir dir/deep\nfile dir/deep/name x\n";
    let scene = Scene::new(&format!("[upper]\n{dirs}[lower]\n{dirs}file dir/lower x\n"));
    let outside = scene.place("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    for name in ["name", "lower", "deep/name"] {
        fs::write(outside.join(name), "outside").unwrap();
    }
    let kept = Snapshot::of(&outside);
    let (dir, link) = (scene.upper.join("dir"), scene.upper.join("link"));
    let over = AtomicBool::new(false);
    let mut done = 0;
    for round in 0..12 {
        let mount = scene.mount_by(Driver::Plyfs, &Options::default());
        symlink(&outside, &link).unwrap();
        over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE)
                        .unwrap();
                }
                if dir.is_symlink() {
                    rustix::fs::renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE)
                        .unwrap();
                }
            });
            for step in 0..40 {
                done += changes_below(mount.root(), step);
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(Snapshot::of(&outside), kept, "round {round}");
        drop(mount);
        fs::remove_file(&link).unwrap();
    }
    assert!(done > 0, "nothing was done at all");
}

/// Tries every kind of change in `dir` and tells how many were done. Nothing of it follows a symlink
/// that users would follow by themselves.
fn changes_below(root: &std::path::Path, step: usize) -> usize {
    let root = fs::File::open(root).unwrap();
    let beneath = |path: &str, flags: OFlags| {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let mode = Mode::from_raw_mode(if flags.contains(OFlags::CREATE) { 0o644 } else { 0 });
        rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, mode, resolve)
    };
    let mut done = 0;
    for path in ["dir", "dir/deep"] {
        let Ok(dir) = beneath(path, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
        let (new, other) = (format!("new{step}"), format!("other{step}"));
        let mode = Mode::from_raw_mode(0o755);
        let made = rustix::fs::openat(
            &dir,
            &new,
            OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            mode,
        );
        let write = |fd: rustix::fd::OwnedFd| rustix::io::write(fd, b"mine").map(drop);
        let open = |name: &str| {
            let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, name, flags, Mode::empty())
        };
        let no_flags = AtFlags::empty();
        let tries = [
            made.and_then(write),
            open("name").and_then(write),
            open("lower").and_then(write),
            rustix::fs::renameat(&dir, &new, &dir, &other),
            rustix::fs::linkat(&dir, &other, &dir, &new, no_flags),
            rustix::fs::mkdirat(&dir, format!("d{step}"), mode),
            rustix::fs::symlinkat("x", &dir, format!("l{step}")),
            rustix::fs::chmodat(&dir, "name", Mode::from_raw_mode(0o600), no_flags),
            rustix::fs::unlinkat(&dir, if step % 8 == 7 { "lower" } else { &other }, no_flags),
            rustix::fs::unlinkat(&dir, format!("d{step}"), AtFlags::REMOVEDIR),
            rustix::fs::fsync(&dir),
        ];
        done += tries.iter().filter(|done| done.is_ok()).count();
    }
    done
}

/// What a layer calls its files is up to its author, but for `/` and NUL: names of 255 bytes, with
/// line ends, that are no UTF-8, and that look like marks of some overlay.
#[test]
fn strange_names_of_a_lower_are_names_as_any() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\ndir strange\n");
    let long = [b'n'; 255];
    let names: [&[u8]; 9] = [
        b"line\nend",
        b"\xff\xfe\x80",
        &long,
        b" ",
        b"...",
        b"\\",
        b"-rf",
        b"a:b,c=d",
        b"\x1b[31m",
    ];
    let at =
        |root: &std::path::Path, name: &[u8]| root.join("strange").join(OsStr::from_bytes(name));
    for name in names {
        fs::write(at(&scene.lowers[0], name), name).unwrap();
    }
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let listed = || {
        let entries = fs::read_dir(mount.path("strange")).unwrap().map(Result::unwrap);
        let mut found: Vec<_> = entries.map(|e| e.file_name().as_bytes().to_vec()).collect();
        found.sort();
        found
    };
    let mut expected: Vec<_> = names.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    assert_eq!(listed(), expected);
    for name in names {
        let path = at(mount.root(), name);
        assert_eq!(fs::read(&path).unwrap(), name);
        fs::write(&path, "changed").unwrap();
        fs::rename(&path, mount.path("strange/moved")).unwrap();
        assert!(!path.exists());
        fs::rename(mount.path("strange/moved"), &path).unwrap();
    }
    assert_eq!(listed(), expected);
    mount.remount();
    for name in names {
        assert_eq!(fs::read(at(mount.root(), name)).unwrap(), b"changed");
        fs::remove_file(at(mount.root(), name)).unwrap();
    }
    assert_eq!(fs::read_dir(mount.path("strange")).unwrap().count(), 0);
}

/// What a killed daemon, or anybody, left in the workdir is removed however deep and wide it is.
#[test]
fn a_workdir_of_any_depth_is_emptied() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::in_memory("[lower]\nfile a x\n");
    let left = scene.work.join("work");
    fs::create_dir(&left).unwrap();
    let mut at = fs::File::open(&left).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap().into();
        rustix::fs::symlinkat("/", &at, "link").unwrap();
    }
    for n in 0..3000 {
        fs::create_dir_all(left.join(format!("wide/{n}/below"))).unwrap();
    }
    drop(at);
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    assert_eq!(support::names(&left), [""; 0]);
    fs::write(mount.path("a"), "served").unwrap();
}

/// Statement 55: a redirect that leads astray gives an error for its directory alone, and one in
/// the namespace that anybody can write is not followed.
#[test]
fn redirects_that_lead_astray_are_not_followed() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let dirs = "dir up\ndir long\ndir twice\n";
    let scene = Scene::new(&format!(
        "[upper]\n{dirs}[lower]\n{dirs}dir user\nfile fine x\n[lower]\nfile secret/key k\n"
    ));
    // In a user namespace only the upper's redirects are followed at all.
    let top = if rootless() { &scene.upper } else { &scene.lowers[0] };
    let long = format!("/secret/{}", "a".repeat(300));
    let redirect = overlay_xattr("redirect");
    mark(&top.join("up"), &redirect, b"/../secret");
    mark(&top.join("twice"), &redirect, b"//secret");
    mark(&top.join("long"), &redirect, long.as_bytes());
    mark(&scene.lowers[0].join("user"), "user.overlay.redirect", b"/secret");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    for name in ["up", "twice", "long"] {
        assert!(fs::read_dir(mount.path(name)).is_err(), "{name}");
    }
    assert_eq!(fs::read_dir(mount.path("user")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(mount.path("fine")).unwrap(), "x");
    assert_eq!(fs::read_to_string(mount.path("secret/key")).unwrap(), "k");
}

/// Statement 56: whatever the marks of layers hold, each access has an answer and the mount goes
/// on.
#[test]
fn damaged_marks_give_an_errno_and_no_more() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let names = ["redirect", "metacopy", "origin", "opaque", "nlink", "impure", "whiteout"];
    let values: [&[u8]; 5] = [b"", b"\0", b"\xff\xff\xff\xff", b"/", &[0xfb; 200]];
    let scene = Scene::new("[upper]\ndir marked\n[lower]\ndir marked\nfile fine x\n");
    for layer in [&scene.upper, &scene.lowers[0]] {
        for (n, name) in names.iter().enumerate() {
            for (v, value) in values.iter().enumerate() {
                let dir = layer.join(format!("marked/dir-{n}-{v}"));
                let file = layer.join(format!("marked/file-{n}-{v}"));
                fs::create_dir(&dir).unwrap();
                fs::write(&file, "content").unwrap();
                mark(&dir, &overlay_xattr(name), value);
                mark(&file, &overlay_xattr(name), value);
            }
        }
        mark(&layer.join("marked"), &overlay_xattr("impure"), b"y");
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let mut listed = 0;
    for entry in fs::read_dir(mount.path("marked")).unwrap().map(Result::unwrap) {
        // Success or an errno: either is an answer.
        drop((fs::read(entry.path()), fs::read_dir(entry.path()).map(Iterator::count)));
        drop(fs::write(entry.path(), "changed"));
        drop(fs::rename(entry.path(), mount.path(format!("moved-{listed}"))));
        listed += 1;
    }
    assert_eq!(listed, 2 * names.len() * values.len());
    assert_eq!(fs::read_to_string(mount.path("fine")).unwrap(), "x");
    fs::write(mount.path("fine"), "still served").unwrap();
}

/// Statement 15: a layer may be named through a symlink, as podman does.
#[test]
fn a_layer_may_be_named_through_a_symlink() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let mut scene = Scene::new("[lower]\nfile a content\n");
    let link = scene.place("link");
    symlink(&scene.lowers[0], &link).unwrap();
    scene.lowers = vec![link];
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    assert_eq!(fs::read_to_string(mount.path("a")).unwrap(), "content");
}

/// Statement 59.
#[test]
fn one_hundred_and_five_hundred_layers_merge() {
    if !(require("root") && require("fuse")) {
        return;
    }
    for count in [1, 128, 500] {
        let scene = Scene::empty(count);
        for (n, lower) in scene.lowers.iter().enumerate() {
            fs::create_dir(lower.join("dir")).unwrap();
            fs::write(lower.join("dir").join(n.to_string()), n.to_string()).unwrap();
            fs::write(lower.join("dir/same"), n.to_string()).unwrap();
        }
        let mount = scene.mount_by(Driver::Plyfs, &Options::default());
        assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), count + 1);
        assert_eq!(fs::read_to_string(mount.path("dir/same")).unwrap(), "0");
        let last = (count - 1).to_string();
        fs::write(mount.path("dir").join(&last), "changed").unwrap();
        assert_eq!(
            fs::read_to_string(scene.lowers[count - 1].join("dir").join(&last)).unwrap(),
            last
        );
    }
}

/// Statement 43: no path of a layer is ever joined to one string.
#[test]
fn a_path_longer_than_path_max_can_be_walked_and_changed() {
    if !(require("root") && require("fuse")) {
        return;
    }
    const DEPTH: usize = 60;
    let scene = Scene::new("[lower]\nfile file x\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let name = "n".repeat(200);
    let mode = Mode::from_raw_mode(0o755);
    let open = |at: &fs::File, name: &str, flags: OFlags| {
        rustix::fs::openat(at, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
            .map(fs::File::from)
    };
    let mut dirs = vec![fs::File::open(mount.root()).unwrap()];
    for _ in 0..DEPTH {
        let at = dirs.last().unwrap();
        rustix::fs::mkdirat(at, &name, mode).unwrap();
        dirs.push(open(at, &name, OFlags::RDONLY | OFlags::DIRECTORY).unwrap());
    }
    let bottom = dirs.last().unwrap();
    open(bottom, "file", OFlags::WRONLY | OFlags::CREATE).unwrap();
    rustix::fs::renameat(bottom, "file", bottom, "moved").unwrap();
    assert!(open(bottom, "moved", OFlags::RDONLY).is_ok());
    rustix::fs::unlinkat(bottom, "moved", rustix::fs::AtFlags::empty()).unwrap();
    for at in dirs.iter().rev().skip(1) {
        rustix::fs::unlinkat(at, &name, rustix::fs::AtFlags::REMOVEDIR).unwrap();
    }
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 1);
    drop(dirs);
}
