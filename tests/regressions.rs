//! One test for each fault that was found by a public suite or by use: what went wrong, and that
//! it does so no more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use support::{Driver, MountedOverlay, Options, Scene, as_host_root, require};

const MARKS_OF_LOWERS: &str = "redirects and metacopies of lowers count in trusted.* alone";

/// Mounts with `scene`'s upper as the topmost lower, under a fresh upper, and runs `test`.
fn stacked(scene: &Scene, options: &Options, test: impl FnOnce(&MountedOverlay<'_>)) {
    let mut next = Scene::empty(0);
    next.lowers = std::iter::once(&scene.upper).chain(&scene.lowers).cloned().collect();
    test(&next.mount_by(Driver::Plyfs, options));
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// unionmount-testsuite, rename-mass-5 with rotating layers: the redirect of a moved file named
/// the place of its data within its layer, which a layer in between had hidden: EIO, and with
/// another file there its data.
#[test]
fn a_moved_metacopy_finds_its_data_past_a_layer_that_moved_it_too() {
    if !(require("root") && require("fuse") && as_host_root(MARKS_OF_LOWERS)) {
        return;
    }
    let scene = Scene::new("[lower]\nfile one first\nfile two second\n");
    let options = Options::with(&["metacopy=on"]);
    let mount = scene.mount_by(Driver::Plyfs, &options);
    fs::rename(mount.path("one"), mount.path("three")).unwrap();
    fs::rename(mount.path("two"), mount.path("one")).unwrap();
    drop(mount);
    stacked(&scene, &options, |mount| {
        fs::rename(mount.path("three"), mount.path("four")).unwrap();
        assert_eq!(fs::read_to_string(mount.path("four")).unwrap(), "first");
        assert_eq!(fs::read_to_string(mount.path("one")).unwrap(), "second");
        drop_caches();
        assert_eq!(fs::read_to_string(mount.path("four")).unwrap(), "first");
    });
}

/// The same of directories: `a/b` is `c/b` in the bottom layer, and `c` is hidden above it.
#[test]
fn a_moved_directory_finds_its_lower_part_past_a_layer_that_moved_its_parent() {
    if !(require("root") && require("fuse") && as_host_root(MARKS_OF_LOWERS)) {
        return;
    }
    let scene = Scene::new("[lower]\nfile c/b/file content\n");
    let options = Options::default();
    let mount = scene.mount_by(Driver::Plyfs, &options);
    fs::rename(mount.path("c"), mount.path("a")).unwrap();
    drop(mount);
    let mut next = Scene::empty(0);
    next.lowers = vec![scene.upper.clone(), scene.lowers[0].clone()];
    let mut mount = next.mount_by(Driver::Plyfs, &options);
    fs::rename(mount.path("a/b"), mount.path("moved")).unwrap();
    assert_eq!(fs::read_to_string(mount.path("moved/file")).unwrap(), "content");
    mount.remount();
    assert_eq!(fs::read_to_string(mount.path("moved/file")).unwrap(), "content");
    assert_eq!(fs::read_dir(mount.path("a")).unwrap().count(), 0);
}

/// A file whose attributes alone lie in a middle layer showed, and copied up, those of the layer
/// that has its data; its inode number changed at copy-up.
#[test]
fn attributes_come_from_the_layer_that_has_them_and_data_from_the_one_below() {
    if !(require("root") && require("fuse") && as_host_root(MARKS_OF_LOWERS)) {
        return;
    }
    let scene = Scene::new("[lower]\nfile data content mode=0644\n");
    let options = Options::with(&["metacopy=on"]);
    let mount = scene.mount_by(Driver::Plyfs, &options);
    set_mode(&mount.path("data"), 0o700);
    drop(mount);
    stacked(&scene, &options, |mount| {
        let path = mount.path("data");
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.mode() & 0o777, 0o700);
        drop_caches();
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.mode() & 0o777, after.ino()), (0o700, before.ino()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
        fs::write(&path, "changed").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    });
}

/// Of what nobody uses, the kernel's names and attributes are forgotten.
fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// Statement 37, and copies of an upper made with all its xattrs: two files with one origin had
/// one inode number, and two directories with one redirect were one.
#[test]
fn copies_of_what_was_copied_up_are_things_of_their_own() {
    if !(require("root") && require("fuse") && require("tool:cp")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile file content\nfile dir/inner x\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    set_mode(&mount.path("file"), 0o600);
    fs::rename(mount.path("dir"), mount.path("one")).unwrap();
    drop(mount);
    for (from, to) in [("file", "twin"), ("one", "two")] {
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([scene.upper.join(from), scene.upper.join(to)])
            .status();
        assert!(copied.unwrap().success());
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let number = |name: &str| fs::metadata(mount.path(name)).unwrap().ino();
    assert_ne!(number("file"), number("twin"));
    assert_ne!(number("one"), number("two"));
    fs::write(mount.path("one/mine"), "").unwrap();
    assert!(!mount.path("two/mine").exists());
    assert!(mount.path("two/inner").exists());
    fs::write(mount.path("twin"), "changed").unwrap();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "content");
}

/// model_mount, seed 0x8e1d20fe90d5c0bb: a file made executable in this mount, its data still in
/// the lower, was passed through, and a descriptor on it stayed behind what was written later.
#[test]
fn a_reader_of_a_file_made_executable_here_sees_what_is_written_later() {
    use std::io::{Read, Write};
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile tool old\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["metacopy=on"]));
    set_mode(&mount.path("tool"), 0o755);
    let mut reader = fs::File::open(mount.path("tool")).unwrap();
    let mut writer = fs::OpenOptions::new().append(true).open(mount.path("tool")).unwrap();
    writer.write_all(b" and new").unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 11);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old and new");
}

/// Rootless, chown or rename of a symlink or fifo with several names in a lower gave EPERM: what
/// keeps hard links together is an xattr that only files and directories may have there. The names
/// part at copy-up instead, as they do without an index.
#[test]
fn anything_with_several_names_in_a_lower_can_be_changed() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new(
        "[lower]\nsymlink s nowhere\nhardlink s2 s\nhardlink s3 s\nfifo p\nhardlink p2 p\n",
    );
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    for name in ["s", "p"] {
        std::os::unix::fs::lchown(mount.path(name), Some(7), None).unwrap();
    }
    fs::rename(mount.path("s2"), mount.path("moved")).unwrap();
    fs::remove_file(mount.path("s3")).unwrap();
    fs::remove_file(mount.path("p2")).unwrap();
    for _ in 0..2 {
        let owner = |name: &str| fs::symlink_metadata(mount.path(name)).unwrap().uid();
        assert_eq!((owner("s"), owner("p")), (7, 7));
        let together = !support::rootless();
        assert_eq!(owner("moved") == 7, together);
        assert_eq!(fs::read_link(mount.path("moved")).unwrap(), Path::new("nowhere"));
        assert_eq!(support::names(mount.root()), ["moved", "p", "s"]);
        mount.remount();
    }
}

/// Rootless podman gives a layer other owners by a mount, and has it as a lower from then on: a
/// file of 1 MiB, whose attributes alone had been copied up, was all zeros there, because no mark
/// `user.overlay.metacopy` of a lower is believed.
#[test]
fn data_is_there_when_an_upper_with_user_marks_becomes_a_lower() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/small x\n");
    let data: Vec<u8> = (0..3u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    for name in ["d/large", "d/linked"] {
        fs::write(scene.lowers[0].join(name), &data).unwrap();
    }
    fs::hard_link(scene.lowers[0].join("d/linked"), scene.lowers[0].join("d/other")).unwrap();
    let options = Options::with(&["userxattr"]);
    let mount = scene.mount_by(Driver::Plyfs, &options);
    for name in ["large", "linked", "other", "small"] {
        std::os::unix::fs::lchown(mount.path(format!("d/{name}")), Some(5), Some(6)).unwrap();
    }
    drop(mount);
    stacked(&scene, &options, |mount| {
        for name in ["large", "linked", "other"] {
            let path = mount.path(format!("d/{name}"));
            assert_eq!(fs::metadata(&path).unwrap().uid(), 5, "{name}");
            assert!(fs::read(&path).unwrap() == data, "{name} has lost its data");
        }
    });
}

/// unionmount-testsuite unmounts a layer's filesystem right after the mount, and found it busy: the
/// daemon was not gone yet. Here it is stopped, so that it is there for certain.
#[test]
fn what_lies_below_a_mount_can_be_unmounted_when_the_mount_is() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let mut scene = Scene::new("[lower]\nfile a \"a\\n\"\n");
    let below = scene.place("below");
    std::fs::create_dir(&below).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &below, "tmpfs", flags, None).unwrap();
    (scene.upper, scene.work) = (below.join("upper"), below.join("work"));
    std::fs::create_dir(&scene.upper).unwrap();
    std::fs::create_dir(&scene.work).unwrap();
    let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
    std::fs::write(mount.path("a"), "changed\n").unwrap();
    let daemon = rustix::process::Pid::from_raw(mount.daemon_id().unwrap() as i32).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    // Lazily: a child of another test that has just been forked does not count.
    let nothing = rustix::mount::UnmountFlags::empty();
    rustix::mount::unmount(mount.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let free = rustix::mount::unmount(&below, nothing);
    rustix::process::kill_process(daemon, rustix::process::Signal::CONT).unwrap();
    mount.was_unmounted();
    drop(mount);
    if free.is_err() {
        rustix::mount::unmount(&below, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    assert_eq!(free, Ok(()));
}
