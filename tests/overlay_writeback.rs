//! A disk that fails below a live mount: what fsync tells, and to whom.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod power;
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use power::disk::{Disk, Image};
use power::{Filesystem, Mounted, run};
use rustix::io::Errno;
use support::{Driver, Options, Scene, as_host_root, require};

fn available() -> bool {
    ["root", "fuse", "tool:losetup", "tool:mkfs.ext4", "filesystem:ext4"].into_iter().all(require)
        && as_host_root("it makes a filesystem on a loop device")
}

/// An ext4 without a journal: a failed write makes it no read-only filesystem.
fn filesystem(scratch: &Path) -> (Mounted, Disk) {
    let disk = Disk::new(&scratch.join("disk"), 64 << 20, Image::default());
    run(Command::new("mkfs.ext4")
        .args(["-q", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=0"])
        .arg(disk.device()));
    let place = scratch.join("disk-mounted");
    (Mounted::new(Filesystem::Ext4, disk.device(), &place, "errors=continue"), disk)
}

fn put_upper_on(scene: &mut Scene, mounted: &Mounted) {
    (scene.upper, scene.work) = (mounted.path().join("upper"), mounted.path().join("work"));
    fs::create_dir(&scene.upper).unwrap();
    fs::create_dir(&scene.work).unwrap();
}

fn writer(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

fn answer(result: std::io::Result<()>) -> Result<(), Option<Errno>> {
    result.map_err(|error| error.raw_os_error().map(Errno::from_raw_os_error))
}

/// What each descriptor of a file is told of a write that did not reach the disk.
fn told(path: &Path, disk: &Disk) -> Vec<(&'static str, Result<(), Option<Errno>>)> {
    let (mut first, second, reader) = (writer(path), writer(path), File::open(path).unwrap());
    first.write_all(b"safe").unwrap();
    first.sync_all().unwrap();
    let mut told = Vec::new();
    disk.set_broken(true);
    first.write_all(&[b'x'; 20_000]).unwrap();
    told.push(("who wrote", answer(first.sync_all())));
    disk.set_broken(false);
    told.push(("who wrote, again", answer(first.sync_all())));
    told.push(("another writer", answer(second.sync_data())));
    told.push(("another writer, again", answer(second.sync_all())));
    told.push(("a reader", answer(reader.sync_all())));
    told.push(("a reader, again", answer(reader.sync_all())));
    told.push(("who came later", answer(writer(path).sync_all())));
    first.write_all(b"well again").unwrap();
    told.push(("who writes later", answer(first.sync_all())));
    told
}

/// As the filesystem itself tells it: once to each descriptor that was open.
#[test]
fn a_failed_write_is_told_once_to_each_descriptor() {
    if !available() {
        return;
    }
    for options in [&[][..], &["passthrough=all"]] {
        let mut scene = Scene::new("[lower]\nfile from-below \"b\\n\"\ndir d\n");
        let (mounted, disk) = filesystem(&scene.place(""));
        let place = |name: &str| {
            let dir = mounted.path().join(name);
            fs::create_dir(&dir).unwrap();
            dir
        };
        let plain = place("plain");
        (scene.upper, scene.work) = (place("upper"), place("work"));
        fs::write(plain.join("file"), "f\n").unwrap();
        let expected = told(&plain.join("file"), &disk);
        let eio = Err(Some(Errno::IO));
        assert_eq!(expected.first().map(|(_, answer)| *answer), Some(eio), "the disk did fail");

        let mount = scene.mount_by(Driver::Plyfs, &Options::with(options));
        fs::write(mount.path("file"), "f\n").unwrap();
        assert_eq!(told(&mount.path("file"), &disk), expected, "a new file, {options:?}");
        assert_eq!(told(&mount.path("from-below"), &disk), expected, "copied up, {options:?}");
        drop(mount);
        drop(mounted);
    }
}

/// Where the kernel opens files without asking, fsync names no descriptor: then it is told once to
/// each thread that syncs.
#[test]
fn without_passthrough_a_failed_write_is_told_once_to_each_thread() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("[lower]\nfile from-below \"b\\n\"\n");
    let (mounted, disk) = filesystem(&scene.place(""));
    put_upper_on(&mut scene, &mounted);
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["passthrough=off"]));
    for name in ["new", "from-below"] {
        let path = mount.path(name);
        fs::write(&path, "f\n").unwrap();
        let (mut first, reader) = (writer(&path), File::open(&path).unwrap());
        first.sync_all().unwrap();
        disk.set_broken(true);
        first.write_all(&[b'x'; 20_000]).unwrap();
        let eio = Err(Some(Errno::IO));
        assert_eq!(answer(first.sync_all()), eio, "{name}");
        disk.set_broken(false);
        let twice = || (answer(reader.sync_data()), answer(reader.sync_all()));
        assert_eq!(twice(), (Ok(()), Ok(())), "{name}: this thread was told");
        let other = std::thread::scope(|scope| scope.spawn(twice).join().unwrap());
        assert_eq!(other, (eio, Ok(())), "{name}: another thread");
        first.write_all(b"well again").unwrap();
        assert_eq!(answer(first.sync_all()), Ok(()), "{name}");
    }
    drop(mount);
    drop(mounted);
}

/// With `volatile` nothing is synced, and nobody is told.
#[test]
fn a_volatile_mount_tells_of_no_failed_write() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("[lower]\ndir d\n");
    let (mounted, disk) = filesystem(&scene.place(""));
    put_upper_on(&mut scene, &mounted);
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["volatile"]));
    fs::write(mount.path("file"), "f\n").unwrap();
    assert!(told(&mount.path("file"), &disk).iter().all(|(_, answer)| answer.is_ok()));
    drop(mount);
    drop(mounted);
}

/// A copy-up whose data does not reach the disk fails, and the lower file still shows.
#[test]
fn a_copy_that_does_not_reach_the_disk_is_no_copy() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("[lower]\nfile from-below \"below\\n\"\n");
    let (mounted, disk) = filesystem(&scene.place(""));
    put_upper_on(&mut scene, &mounted);
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    disk.set_broken(true);
    let refused = OpenOptions::new().append(true).open(mount.path("from-below"));
    assert_eq!(answer(refused.map(drop)), Err(Some(Errno::IO)));
    disk.set_broken(false);
    assert_eq!(fs::read(mount.path("from-below")).unwrap(), b"below\n");
    assert!(!scene.upper.join("from-below").exists());
    writer(&mount.path("from-below")).write_all(b"more\n").unwrap();
    assert_eq!(fs::read(mount.path("from-below")).unwrap(), b"below\nmore\n");
    drop(mount);
    drop(mounted);
}

/// But once a write is known to have failed, no fsync of a volatile mount says that all is well.
#[test]
fn a_failed_write_that_shows_on_a_volatile_mount_stays() {
    if !available() {
        return;
    }
    for options in [&["volatile"][..], &["volatile", "passthrough=off"]] {
        let mut scene = Scene::new("[lower]\nfile other \"o\\n\"\n");
        let (mounted, disk) = filesystem(&scene.place(""));
        put_upper_on(&mut scene, &mounted);
        let mount = scene.mount_by(Driver::Plyfs, &Options::with(options));
        fs::write(mount.path("file"), "f\n").unwrap();
        let (mut first, mut second) = (writer(&mount.path("file")), writer(&mount.path("other")));
        first.write_all(&[b'x'; 20_000]).unwrap();
        second.write_all(b"x").unwrap();
        assert_eq!(answer(first.sync_all()), Ok(()));
        disk.set_broken(true);
        // As the kernel does by itself, after a while.
        let whole = File::open(mounted.path()).unwrap();
        assert!(rustix::fs::syncfs(&whole).is_err(), "the disk did fail");
        disk.set_broken(false);
        let eio = Err(Some(Errno::IO));
        assert_eq!(answer(first.sync_all()), eio, "{options:?}");
        assert_eq!(answer(first.sync_all()), eio, "again");
        assert_eq!(answer(second.sync_data()), eio, "another file");
        assert_eq!(answer(File::open(mount.root()).unwrap().sync_all()), eio, "a directory");
        fs::write(mount.path("goes-on"), "written").unwrap();
        drop((first, second, whole, mount));
        drop(mounted);
    }
}
