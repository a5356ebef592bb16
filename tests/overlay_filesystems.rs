//! Layers on filesystems of several kinds: one without types in its directories, several with equal
//! inode numbers; xattr calls fail, and privileges go, as on the filesystem below.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod power;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use power::run;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use support::{Driver, Options, Scene, as_host_root, require};

const LOOPS: &str = "it makes filesystems on loop devices";

/// A filesystem in a file, or in memory; unmounted with its value.
struct Below(PathBuf);

impl Below {
    fn ext4(place: PathBuf, options: &[&str]) -> Below {
        let image = place.with_extension("image");
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").args(options).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).args([&image, &place]));
        Below(place)
    }

    fn tmpfs(place: PathBuf) -> Below {
        fs::create_dir(&place).unwrap();
        rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None).unwrap();
        Below(place)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        fs::create_dir(&dir).unwrap();
        dir
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        if let Err(errno) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {errno}", self.0.display());
        }
    }
}

fn fill(dir: &Path, tag: &str) {
    let path = |name: &str| dir.join(format!("{tag}-{name}"));
    fs::write(path("file"), "f\n").unwrap();
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("dir").join("inside"), "i\n").unwrap();
    std::os::unix::fs::symlink("file", path("link")).unwrap();
    for (name, kind, dev) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("loop", FileType::BlockDevice, rustix::fs::makedev(7, 99)),
    ] {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o600), dev).unwrap();
    }
}

/// The types as the directory lists them, without a look at the entries.
fn listed(dir: &Path) -> BTreeMap<OsString, FileType> {
    let entries = rustix::fs::Dir::read_from(File::open(dir).unwrap()).unwrap();
    entries
        .map(Result::unwrap)
        .map(|entry| (OsString::from_vec(entry.file_name().to_bytes().to_vec()), entry.file_type()))
        .filter(|(name, _)| name != "." && name != "..")
        .collect()
}

#[test]
fn types_are_listed_where_the_layers_list_none() {
    if !(require("root") && require("fuse") && require("tool:mkfs.ext4") && as_host_root(LOOPS)) {
        return;
    }
    let mut scene = Scene::empty(1);
    let below = Below::ext4(scene.place("ext4"), &["-O", "^filetype"]);
    (scene.upper, scene.work) = (below.dir("upper"), below.dir("work"));
    let lower = below.dir("lower");
    fill(&lower, "lower");
    let raw = listed(&lower);
    assert!(raw.values().all(|kind| *kind == FileType::Unknown), "{raw:?}");
    fs::write(lower.join("removed"), "r\n").unwrap();
    scene.lowers.insert(0, lower);
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    fill(mount.root(), "upper");
    fs::remove_file(mount.path("removed")).unwrap();
    lchown(mount.path("lower-fifo"), Some(1), None).unwrap();
    for _ in 0..2 {
        let found = listed(mount.root());
        assert_eq!(found.len(), 14, "{found:?}");
        for (name, kind) in found {
            let stat = fs::symlink_metadata(mount.path(&name)).unwrap();
            assert_eq!(kind, FileType::from_raw_mode(stat.mode()), "{}", name.display());
        }
        mount.remount();
    }
}

/// Two filesystems that give the same numbers, and an upper on a third.
#[test]
fn equal_inode_numbers_of_several_filesystems_stay_apart_and_the_same() {
    if !(require("root") && require("fuse") && as_host_root("origins need file handles")) {
        return;
    }
    let mut scene = Scene::empty(0);
    let layers = ["one", "two"].map(|name| Below::tmpfs(scene.place(name)));
    for (below, name) in layers.iter().zip(["one", "two"]) {
        let layer = below.dir("layer");
        for number in 0..20 {
            fs::write(layer.join(format!("{name}-{number}")), "x\n").unwrap();
        }
        fs::create_dir(layer.join(format!("{name}-dir"))).unwrap();
        fs::hard_link(layer.join(format!("{name}-0")), layer.join(format!("{name}-hard"))).unwrap();
        scene.lowers.push(layer);
    }
    let raw =
        |n: usize, name: &str| fs::metadata(layers[n].0.join("layer").join(name)).unwrap().ino();
    assert_eq!(raw(0, "one-7"), raw(1, "two-7"), "the numbers are equal below");
    let seen = |root: &Path| -> BTreeMap<OsString, u64> {
        let entries = fs::read_dir(root).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let ino = entry.metadata().unwrap().ino();
                let listed = std::os::unix::fs::DirEntryExt::ino(&entry);
                assert_eq!(listed, ino, "{}", entry.path().display());
                (entry.file_name(), ino)
            })
            .collect()
    };
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let first = seen(mount.root());
    let distinct: BTreeSet<u64> = first.values().copied().collect();
    assert_eq!(distinct.len(), first.len() - 2, "only hard links share a number");
    mount.remount();
    assert_eq!(seen(mount.root()), first, "after a remount");
    for name in first.keys() {
        fs::set_permissions(mount.path(name), Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(seen(mount.root()), first, "after copy-up");
    mount.remount();
    assert_eq!(seen(mount.root()), first, "after copy-up and a remount");
}

/// Every way in which an xattr call can fail, on one thing.
fn xattr_answers(path: &Path) -> Vec<String> {
    let mut answers = Vec::new();
    let mut say = |what: String, answer: Result<usize, Errno>| {
        answers.push(format!("{what}: {answer:?}"));
    };
    let long = format!("user.{}", "n".repeat(251));
    let names = [
        "user.a",
        "user.",
        "user",
        "",
        "nodot",
        "none.such",
        &long,
        "trusted.t",
        "trusted.",
        "security.s",
        "security.capability",
        "system.none",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ];
    for name in names {
        for size in [0, 1, 200, 5000, 65536, 65537] {
            let value = vec![b'v'; size];
            let set = rustix::fs::lsetxattr(path, name, &value, XattrFlags::empty());
            say(format!("set {name} to {size}"), set.map(|()| 0));
        }
        let mut room = vec![0u8; 70_000];
        for size in [0, 1, 199, 70_000] {
            let got = rustix::fs::lgetxattr(path, name, room.get_mut(..size).unwrap());
            say(format!("get {name} into {size}"), got);
        }
        for (flags, word) in [(XattrFlags::CREATE, "create"), (XattrFlags::REPLACE, "replace")] {
            let set = rustix::fs::lsetxattr(path, name, b"w", flags);
            say(format!("{word} {name}"), set.map(|()| 0));
        }
        for times in ["", " again"] {
            let removed = rustix::fs::lremovexattr(path, name);
            say(format!("remove {name}{times}"), removed.map(|()| 0));
        }
    }
    let set = rustix::fs::lsetxattr(path, "user.listed", b"l", XattrFlags::empty());
    say("set user.listed".to_owned(), set.map(|()| 0));
    let mut room = [0u8; 4096];
    for size in [0, 1, 4096] {
        let listed = rustix::fs::llistxattr(path, room.get_mut(..size).unwrap());
        say(format!("list into {size}"), listed);
    }
    answers
}

/// Call by call beside the filesystem of the upper: new things, and those of a lower.
#[test]
fn xattr_calls_fail_as_on_the_filesystem_below() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile lower-file x\ndir lower-dir\nsymlink lower-link x\nfifo lower-fifo\n",
    );
    let plain = scene.place("plain");
    fs::create_dir(&plain).unwrap();
    let make = |root: &Path| {
        fs::write(root.join("file"), "x").unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        std::os::unix::fs::symlink("x", root.join("link")).unwrap();
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    };
    make(&plain);
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    make(mount.root());
    for kind in ["file", "dir", "link", "fifo"] {
        let expected = xattr_answers(&plain.join(kind));
        for name in [kind.to_owned(), format!("lower-{kind}")] {
            let found = xattr_answers(&mount.path(&name));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected, "of {name}");
            }
            assert_eq!(found.len(), expected.len());
        }
    }
}

const CAPABILITY: &str = "security.capability";
/// cap_chown+ep, version 2.
const CHOWN: [u8; 20] = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What others do to a file; `F` is its path.
const CHANGES: &[(&str, &str)] = &[
    ("write", "echo more >>F"),
    ("truncate by opening", ": >F"),
    ("truncate", "truncate -s 1 F"),
    ("allocate", "fallocate -l 100 F"),
    (
        "copy into",
        "python3 -c 'import os; f = os.open(\"F\", os.O_RDWR); os.copy_file_range(f, f, 4, 0, 100)'",
    ),
    ("nothing", "cat F"),
];

/// What changes a file takes its capabilities and suid away, as on the filesystem below: whoever
/// writes, truncates or gives it away.
#[test]
fn capabilities_go_when_a_file_is_changed() {
    let user = "it writes as a user without rights";
    let tools = require("tool:setpriv") && require("tool:python3");
    if !(tools && require("root") && require("fuse") && as_host_root(user)) {
        return;
    }
    for options in [&[][..], &["passthrough=off"], &["xattr_permissions=2"]] {
        let mut lower = String::from("[lower]\n");
        for n in 0..CHANGES.len() + 1 {
            lower += &format!("file f{n} \"content\\n\" mode=4777\n");
        }
        let scene = Scene::new(&lower);
        let plain = scene.place("plain");
        fs::create_dir(&plain).unwrap();
        for n in 0..CHANGES.len() + 1 {
            let path = plain.join(format!("f{n}"));
            fs::write(&path, "content\n").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o4777)).unwrap();
            for path in [path, scene.lowers[0].join(format!("f{n}"))] {
                rustix::fs::lsetxattr(path, CAPABILITY, &CHOWN, XattrFlags::empty()).unwrap();
            }
        }
        let mount = scene.mount_by(Driver::Plyfs, &Options::with(options));
        let state = |path: &Path| {
            let mut room = [0u8; 64];
            let capable = rustix::fs::lgetxattr(path, CAPABILITY, &mut room).is_ok();
            (capable, fs::metadata(path).unwrap().mode() & 0o7777)
        };
        for (n, (name, script)) in CHANGES.iter().enumerate() {
            let [on_plain, on_mount] = [plain.as_path(), mount.root()].map(|root| {
                let path = root.join(format!("f{n}"));
                assert_eq!(state(&path), (true, 0o4777), "before {name}");
                run(Command::new("setpriv")
                    .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"])
                    .arg(script.replace('F', &path.display().to_string())));
                state(&path)
            });
            assert_eq!(on_mount, on_plain, "{name} with {options:?}");
        }
        let [on_plain, on_mount] = [plain.as_path(), mount.root()].map(|root| {
            let path = root.join(format!("f{}", CHANGES.len()));
            lchown(&path, Some(5), None).unwrap();
            state(&path)
        });
        assert_eq!(on_plain, (false, 0o777));
        assert_eq!(on_mount, on_plain, "a change of owner with {options:?}");
    }
}

/// Statement 20: where the filesystem can, a copy-up shares the blocks of the lower file.
#[test]
fn copies_share_their_blocks_where_the_filesystem_can() {
    let tools = require("tool:mkfs.xfs") && require("filesystem:xfs");
    if !(tools && require("root") && require("fuse") && as_host_root(LOOPS)) {
        return;
    }
    let mut scene = Scene::empty(0);
    let place = scene.place("xfs");
    let image = place.with_extension("image");
    File::create(&image).unwrap().set_len(320 << 20).unwrap();
    fs::create_dir(&place).unwrap();
    run(Command::new("mkfs.xfs").args(["-q", "-K"]).arg(&image));
    run(Command::new("mount").args(["-o", "loop"]).args([&image, &place]));
    let below = Below(place);
    (scene.upper, scene.work) = (below.dir("upper"), below.dir("work"));
    scene.lowers.push(below.dir("lower"));
    let data: Vec<u8> = (0..8u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    fs::write(scene.lowers[0].join("large"), &data).unwrap();
    rustix::fs::syncfs(File::open(&below.0).unwrap()).unwrap();
    let free = || rustix::fs::statvfs(&below.0).unwrap().f_bfree;
    let before = free();
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    drop(fs::OpenOptions::new().append(true).open(mount.path("large")).unwrap());
    rustix::fs::syncfs(File::open(&below.0).unwrap()).unwrap();
    assert_eq!(fs::metadata(scene.upper.join("large")).unwrap().len(), 8 << 20);
    let taken = before.saturating_sub(free());
    assert!(taken < 512, "{taken} blocks were taken for a clone of 2,048");
    // Two files of a mount, too: what a lower has is cloned into one of the upper.
    let (from, to) = (File::open(mount.path("large")), File::create(mount.path("copy")));
    let (from, to) = (from.unwrap(), to.unwrap());
    let (mut here, mut there) = (0, 0);
    let copied =
        rustix::fs::copy_file_range(&from, Some(&mut here), &to, Some(&mut there), 8 << 20);
    assert_eq!(copied, Ok(8 << 20));
    assert!(fs::read(mount.path("copy")).unwrap() == data);
    drop((from, to, mount));
}
