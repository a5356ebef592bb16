//! `diff`, `export` and `layer-tar` of layers that keep owner, mode and device in an xattr: they tell
//! what a mount shows, as engines do, which compare and archive such layers through a mount.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use shell::Shell;
use support::{Driver, Options, Policy, Scene, Snapshot, assert_same, require, rootless};

const LAYERS: &str = r#"
[lower]
file kept "kept\n" mode=0644 uid=1 gid=2
file file "content\n" mode=4755 uid=1 gid=2 xattr:user.note=n
dir  dir mode=0700 uid=3 gid=4
file dir/inside "i\n" mode=0640 uid=3 gid=4
file removed "r\n"
fifo pipe mode=0622 uid=5
symlink link file
"#;

fn change(m: &Path) {
    lchown(m.join("file"), Some(11), Some(12)).unwrap();
    fs::write(m.join("dir/new"), "new\n").unwrap();
    fs::set_permissions(m.join("dir/new"), Permissions::from_mode(0o2751)).unwrap();
    fs::hard_link(m.join("dir/new"), m.join("new-too")).unwrap();
    fs::create_dir(m.join("own")).unwrap();
    lchown(m.join("own"), Some(7), Some(8)).unwrap();
    rustix::fs::mknodat(CWD, m.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o622), 0)
        .unwrap();
    fs::remove_file(m.join("removed")).unwrap();
    // There and back: it lies in the upper, and nothing of it has changed.
    let time = fs::metadata(m.join("kept")).unwrap().modified().unwrap();
    fs::write(m.join("kept"), "kept\n").unwrap();
    fs::File::open(m.join("kept")).unwrap().set_modified(time).unwrap();
    if !rootless() {
        let null = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o660);
        rustix::fs::mknodat(CWD, m.join("null"), FileType::CharacterDevice, mode, null).unwrap();
        lchown(m.join("null"), Some(9), None).unwrap();
    }
}

fn applied(shell: &Shell, archives: &[&Path], name: &str) -> Snapshot {
    let rootfs = shell.dir.path().join(name);
    fs::create_dir(&rootfs).unwrap();
    for archive in archives {
        shell.ok(&["apply", "-i", archive.to_str().unwrap(), rootfs.to_str().unwrap()]);
    }
    without_root(Snapshot::of(&rootfs))
}

/// Archives carry what is in a tree, and not its root.
fn without_root(mut tree: Snapshot) -> Snapshot {
    tree.entries.remove(Path::new(""));
    tree
}

#[test]
fn owners_in_xattrs_are_told_as_a_mount_shows_them() {
    if !require("root") || !require("fuse") {
        return;
    }
    let levels: &[&str] = if rootless() { &["2"] } else { &["2", "1"] };
    for level in levels {
        let scene = Scene::new(LAYERS);
        let expected = {
            let options = Options::with(&[&format!("xattr_permissions={level}")]);
            let mount = scene.mount_by(Driver::Plyfs, &options);
            change(mount.root());
            without_root(mount.snapshot())
        };
        let shell = Shell::new();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (lower, upper) = (path(&scene.lowers[0]), path(&scene.upper));
        let work = path(&scene.work);
        let layers = ["--lowerdir", &lower, "--upperdir", &upper, "--workdir", &work];

        let mut listed = vec!["C /dir", "A /dir/new", "A /fifo", "C /file", "A /new-too"];
        if !rootless() {
            listed.push("A /null");
        }
        listed.extend(["A /own", "D /removed"]);
        let said = shell.ok(&[&["diff"], &layers[..]].concat());
        assert_eq!(said.lines().collect::<Vec<_>>(), listed);

        let (whole, layer) = (shell.dir.path().join("whole"), shell.dir.path().join("layer"));
        shell.ok(&[&["export", "-o", whole.to_str().unwrap()], &layers[..]].concat());
        shell.ok(&[&["layer-tar", "-o", layer.to_str().unwrap()], &layers[..]].concat());
        let base = shell.dir.path().join("base");
        shell.ok(&["export", "-o", base.to_str().unwrap(), "--lowerdir", &lower]);
        let exported = applied(&shell, &[&whole], "exported");
        assert_same("the mount", &expected, "export", &exported, Policy::SAME_TREE);
        let above = applied(&shell, &[&base, &layer], "above");
        assert_same("the mount", &expected, "layer-tar", &above, Policy::SAME_TREE);
    }
}

/// A lower that containers/storage wrote with `force_mask`.
#[test]
fn layers_with_forced_modes_are_told_as_a_mount_shows_them() {
    if !require("root") || !require("fuse") {
        return;
    }
    let scene = Scene::new(
        "[lower]
         file of-user \"u\\n\" mode=0755 xattr:user.containers.override_stat=5:6:4711:file
         file pipe \"\" mode=0755 xattr:user.containers.override_stat=1:2:0622:pipe
         dir  dir mode=0755 xattr:user.containers.override_stat=7:8:1777:dir",
    );
    let root = b"3:4:0751:dir";
    let name = "user.containers.override_stat";
    rustix::fs::lsetxattr(&scene.lowers[0], name, root, XattrFlags::empty()).unwrap();
    let expected = without_root(scene.mount_by(Driver::Plyfs, &Options::default()).snapshot());
    assert_eq!(expected.entries[Path::new("of-user")].mode, 0o4711);
    let shell = Shell::new();
    let archive = shell.dir.path().join("archive");
    let lower = scene.lowers[0].to_str().unwrap();
    shell.ok(&["export", "-o", archive.to_str().unwrap(), "--lowerdir", lower]);
    let exported = applied(&shell, &[&archive], "exported");
    assert_same("the mount", &expected, "export", &exported, Policy::SAME_TREE);
}

/// What a user set under such a name is an xattr like others, also on the root of what is copied.
#[test]
fn a_copy_out_of_a_container_believes_no_users_xattr() {
    if !require("root") || !require("fuse") {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = shell.ok(&["mount", "box"]);
    let dir = Path::new(place.trim_end()).join("forged");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "f\n").unwrap();
    let name = "user.containers.override_stat";
    let set = |path: &Path, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&dir, b"0:0:0755:dir");
    set(&dir.join("file"), b"0:0:4777:char-1-3");
    let out = shell.dir.path().join("out");
    shell.ok(&["cp", "box:/forged", out.to_str().unwrap()]);
    let copied = fs::symlink_metadata(out.join("file")).unwrap();
    assert!(copied.is_file());
    assert_eq!(copied.permissions().mode() & 0o7000, 0);
    shell.ok(&["umount", "box"]);
}
