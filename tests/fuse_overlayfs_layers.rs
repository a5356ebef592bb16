//! Uppers and layers that fuse-overlayfs made: PlyFS shows of them what fuse-overlayfs itself
//! shows after a remount. `PLYFS_TEST_FUSE_OVERLAYFS` names another build of it than the system's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod support;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags};
use support::{
    Driver, Options, Policy, Scene, Snapshot, assert_same, names, require, rootless, set_mtime,
};

const LAYERS: &str = r#"
[lower]
file plain "top\n" mode=0640 uid=5 gid=6 mtime=1500000000.123456789 xattr:user.note=kept
file shadowed "top\n"
dir  merged/top
file merged/top/file "t\n"
dir  opaque-later/sub
file opaque-later/sub/old "old\n"
file links/a "linked\n"
hardlink links/b links/a
symlink links/sym ../plain
[lower]
file shadowed "bottom\n"
file bottom "bottom\n"
dir  merged/bottom mode=0700
file merged/bottom/file "b\n"
file merged/both "b\n"
file removed "r\n"
dir  removed-tree/deep
file removed-tree/deep/leaf "l\n"
dir  recreated/inner
file recreated/inner/old "o\n"
file recreated/old "o\n"
dir  renamed/sub xattr:user.dir=d
file renamed/sub/leaf "leaf\n" mode=0600
file renamed/file "f\n"
file becomes-dir "f\n"
dir  becomes-file
file becomes-file/inside "i\n"
fifo pipe
"#;

/// How a changer of trees goes about it; where a rename is refused (EXDEV), it copies as mv does.
fn change(m: &Path) {
    fs::remove_file(m.join("removed")).unwrap();
    fs::remove_dir_all(m.join("removed-tree")).unwrap();
    fs::remove_dir_all(m.join("recreated")).unwrap();
    fs::create_dir(m.join("recreated")).unwrap();
    fs::write(m.join("recreated/new"), "n\n").unwrap();
    fs::create_dir(m.join("recreated/inner")).unwrap();
    mv(m, "renamed", "renamed-now");
    fs::create_dir(m.join("renamed")).unwrap();
    fs::write(m.join("renamed/another"), "a\n").unwrap();
    mv(m, "renamed-now/sub", "moved-out");
    fs::remove_file(m.join("becomes-dir")).unwrap();
    fs::create_dir(m.join("becomes-dir")).unwrap();
    fs::remove_dir_all(m.join("becomes-file")).unwrap();
    fs::write(m.join("becomes-file"), "now a file\n").unwrap();
    fs::remove_dir_all(m.join("opaque-later/sub")).unwrap();
    fs::create_dir(m.join("opaque-later/sub")).unwrap();
    append(&m.join("plain"), "more\n").unwrap();
    fs::set_permissions(m.join("bottom"), fs::Permissions::from_mode(0o4711)).unwrap();
    lchown(m.join("merged/both"), Some(11), Some(12)).unwrap();
    xattr(&m.join("merged/bottom"), "user.k", b"v");
    xattr(&m.join("shadowed"), "user.k", b"v");
    fs::write(m.join("new"), "new\n").unwrap();
    fs::hard_link(m.join("new"), m.join("merged/new-too")).unwrap();
    symlink("anywhere", m.join("new-link")).unwrap();
    rustix::fs::mknodat(CWD, m.join("new-pipe"), FileType::Fifo, Mode::from_raw_mode(0o622), 0)
        .unwrap();
    if !rootless() {
        let null = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, m.join("null"), FileType::CharacterDevice, mode, null).unwrap();
    }
    fs::write(m.join("two words"), "2\n").unwrap();
    mv(m, "two words", "merged/top/moved in");
    mv(m, "merged/top/file", "merged/aside");
    mv(m, "links/sym", "merged/top/file");
    mv(m, "merged/aside", "links/sym");
    set_mtime(&m.join("merged/top"), support::Time { sec: 1_400_000_000, nsec: 5 });
}

fn mv(m: &Path, from: &str, to: &str) {
    let (from, to) = (m.join(from), m.join(to));
    match fs::rename(&from, &to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let status = std::process::Command::new("mv").args([&from, &to]).status().unwrap();
            assert!(status.success(), "mv {} {}", from.display(), to.display());
        }
        other => other.unwrap(),
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// What must hold whoever shows the tree.
fn expect_changes(m: &Path) {
    for gone in ["removed", "removed-tree", "renamed-now/sub", "two words"] {
        let found = fs::symlink_metadata(m.join(gone)).map_err(|error| error.kind());
        assert_eq!(found.map(|_| ()), Err(io::ErrorKind::NotFound), "{gone}");
    }
    assert_eq!(names(m.join("recreated")), ["inner", "new"]);
    assert_eq!(names(m.join("recreated/inner")), [""; 0]);
    assert_eq!(names(m.join("renamed")), ["another"]);
    assert_eq!(names(m.join("renamed-now")), ["file"]);
    assert_eq!(names(m.join("moved-out")), ["leaf"]);
    assert_eq!(names(m.join("becomes-dir")), [""; 0]);
    assert_eq!(names(m.join("opaque-later/sub")), [""; 0]);
    assert_eq!(names(m.join("merged")), ["both", "bottom", "new-too", "top"]);
    assert_eq!(names(m.join("merged/top")), ["file", "moved in"]);
    assert_eq!(names(m.join("merged/bottom")), ["file"]);
    assert_eq!(fs::read(m.join("becomes-file")).unwrap(), b"now a file\n");
    assert_eq!(fs::read(m.join("plain")).unwrap(), b"top\nmore\n");
    let plain = fs::metadata(m.join("plain")).unwrap();
    assert_eq!((plain.uid(), plain.gid(), plain.mode() & 0o7777), (5, 6, 0o640));
    assert_eq!(fs::metadata(m.join("bottom")).unwrap().mode() & 0o7777, 0o4711);
    let both = fs::metadata(m.join("merged/both")).unwrap();
    assert_eq!((both.uid(), both.gid()), (11, 12));
    let new = (fs::metadata(m.join("new")), fs::metadata(m.join("merged/new-too")));
    let new = (new.0.unwrap(), new.1.unwrap());
    assert_eq!((new.0.ino(), new.0.nlink()), (new.1.ino(), 2));
    assert!(fs::symlink_metadata(m.join("new-pipe")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(m.join("merged/top/file")).unwrap().is_symlink());
}

/// fuse-overlayfs shows hard links of lowers by path, and directory times of its own making.
const BY_PATH: Policy =
    Policy { nlink: false, hard_links: false, dir_mtime: false, ..Policy::SAME_TREE };

/// Whether another build than the system's is asked for. Of 1.10 it is known what it keeps; 2.0.0
/// brings the old entries of a directory back that was removed and made again.
fn other_build() -> bool {
    std::env::var_os("PLYFS_TEST_FUSE_OVERLAYFS").is_some()
}

fn ready() -> bool {
    require("root") && require("fuse") && (other_build() || require("tool:fuse-overlayfs"))
}

/// The layers with an upper that fuse-overlayfs wrote, and what it shows of them afterwards.
fn written() -> (Scene, Snapshot) {
    let scene = Scene::new(LAYERS);
    let mut mount = scene.mount_by(Driver::FuseOverlayfs, &Options::default());
    change(mount.root());
    mount.remount();
    if !other_build() {
        expect_changes(mount.root());
    }
    let shown = mount.snapshot();
    drop(mount);
    (scene, shown)
}

#[test]
fn an_upper_of_fuse_overlayfs_is_read_right() {
    if !ready() {
        return;
    }
    let (scene, theirs) = written();
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    if !other_build() {
        expect_changes(mount.root());
    }
    assert_same("fuse-overlayfs", &theirs, "PlyFS", &mount.snapshot(), BY_PATH);
}

/// A layer is an upper that was written before.
#[test]
fn layers_of_fuse_overlayfs_are_read_right_and_written_over() {
    if !ready() {
        return;
    }
    let (scene, theirs) = written();
    let mut above = scene.beside();
    above.lowers.insert(0, scene.upper.clone());
    {
        let read_only = Options { read_only: true, ..Options::default() };
        let mount = above.mount_by(Driver::Plyfs, &read_only);
        assert_same("fuse-overlayfs", &theirs, "PlyFS", &mount.snapshot(), BY_PATH);
    }
    let mut mount = above.mount_by(Driver::Plyfs, &Options::default());
    let m = mount.path("");
    append(&m.join("recreated/new"), "more\n").unwrap();
    fs::rename(m.join("recreated"), m.join("recreated-and-moved")).unwrap();
    fs::rename(m.join("renamed-now"), m.join("merged/renamed-again")).unwrap();
    fs::write(m.join("removed"), "back\n").unwrap();
    fs::create_dir(m.join("removed-tree")).unwrap();
    mount.remount();
    let inside = theirs.entries.keys().filter(|path| path.parent() == Some("recreated".as_ref()));
    let inside: Vec<_> = inside.map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names(m.join("recreated-and-moved")), inside);
    assert_eq!(fs::read(m.join("recreated-and-moved/new")).unwrap(), b"n\nmore\n");
    assert_eq!(names(m.join("merged/renamed-again")), ["file"]);
    assert_eq!(fs::read(m.join("removed")).unwrap(), b"back\n");
    assert_eq!(names(m.join("removed-tree")), [""; 0]);
    if !other_build() {
        assert_eq!(names(m.join("renamed")), ["another"]);
    }
}

/// As an engine that changes its mount program: an upper goes there and back.
#[test]
fn fuse_overlayfs_goes_on_with_an_upper_of_plyfs_and_plyfs_with_its() {
    if !ready() {
        return;
    }
    if other_build() {
        return println!("2.0.0 shows what lies below an opaque directory of another's making");
    }
    // It follows no redirects, and knows nothing of metacopy and of the index.
    let plain = Options::with(&["redirect_dir=off", "metacopy=off", "index=off"]);
    let scene = Scene::new(LAYERS);
    let ours = {
        let mount = scene.mount_by(Driver::Plyfs, &plain);
        change(mount.root());
        mount.snapshot()
    };
    {
        let mount = scene.mount_by(Driver::FuseOverlayfs, &Options::default());
        expect_changes(mount.root());
        assert_same("PlyFS", &ours, "fuse-overlayfs", &mount.snapshot(), BY_PATH);
        fs::remove_dir_all(mount.path("renamed-now")).unwrap();
        fs::create_dir(mount.path("renamed-now")).unwrap();
        append(&mount.path("merged/bottom/file"), "theirs\n").unwrap();
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    assert_eq!(names(mount.path("renamed-now")), [""; 0]);
    assert_eq!(fs::read(mount.path("merged/bottom/file")).unwrap(), b"b\ntheirs\n");
    let root = rustix::fs::statat(CWD, mount.root(), AtFlags::empty()).unwrap();
    assert_eq!(root.st_mode & 0o7777, 0o755);
}

/// What every side of an upper with owners and modes in an xattr can do: 1.10 fails on fifos.
fn change_owners(m: &Path) {
    append(&m.join("plain"), "more\n").unwrap();
    lchown(m.join("plain"), Some(21), Some(22)).unwrap();
    fs::set_permissions(m.join("bottom"), fs::Permissions::from_mode(0o4711)).unwrap();
    lchown(m.join("merged"), Some(3), Some(4)).unwrap();
    fs::set_permissions(m.join("merged/bottom"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::write(m.join("merged/bottom/new"), "new\n").unwrap();
    fs::set_permissions(m.join("merged/bottom/new"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(m.join("new-dir")).unwrap();
    lchown(m.join("new-dir"), Some(5), Some(6)).unwrap();
    fs::remove_file(m.join("removed")).unwrap();
    xattr(&m.join("shadowed"), "user.k", b"v");
}

/// The user of 1.10's level 1 sees its xattr; it is not his.
fn without_its_own(mut shown: Snapshot) -> Snapshot {
    for entry in shown.entries.values_mut() {
        entry.xattrs.retain(|name, _| !name.to_string_lossy().contains("override_stat"));
    }
    shown
}

/// Owner and permissions that an xattr of a file on disk says, whoever wrote it.
fn kept_in_xattr(path: &Path) -> Option<String> {
    let owners = ["user.containers", "user.fuseoverlayfs", "security.fuseoverlayfs"];
    owners.iter().find_map(|owner| {
        let mut room = [0u8; 64];
        let n = rustix::fs::lgetxattr(path, format!("{owner}.override_stat"), &mut room).ok()?;
        let value = String::from_utf8(room.get(..n)?.to_vec()).ok()?;
        let mut parts = value.splitn(4, ':');
        let (uid, gid) = (parts.next()?, parts.next()?);
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        Some(format!("{uid}:{gid}:{:o}", mode & 0o7777))
    })
}

#[test]
fn owners_in_xattrs_are_read_from_each_other() {
    if !ready() {
        return;
    }
    let mut levels = vec!["xattr_permissions=2"];
    if !rootless() {
        levels.push("xattr_permissions=1");
    }
    for level in levels {
        let (theirs, ours) = (Driver::FuseOverlayfs, Driver::Plyfs);
        for (writer, reader) in [(theirs, ours), (ours, theirs)] {
            let scene = Scene::new(LAYERS);
            let options = Options::with(&[level]);
            let written = {
                // Marks of metacopy are nothing to it.
                let plain =
                    Options::with(&[level, "redirect_dir=off", "metacopy=off", "index=off"]);
                let ours = writer == Driver::Plyfs;
                let mut mount = scene.mount_by(writer, if ours { &plain } else { &options });
                change_owners(mount.root());
                mount.remount();
                without_its_own(mount.snapshot())
            };
            let stored = kept_in_xattr(&scene.upper.join("merged/bottom/new"));
            assert_eq!(stored.as_deref(), Some("0:0:600"), "{} with {level}", writer.name());
            // Asked for it, 1.10 marks an upper of ours a second time, and reads nothing then; what
            // the upper says of itself is enough. 2.0.0 marks none, so that it must be asked for.
            let itself = reader == Driver::FuseOverlayfs && !other_build();
            let asked = if itself { Options::default() } else { options.clone() };
            let read = without_its_own(scene.mount_by(reader, &asked).snapshot());
            let (from, to) = (format!("{} with {level}", writer.name()), reader.name());
            assert_same(&from, &written, to, &read, BY_PATH);
            if other_build() {
                // 2.0.0 leaves a copied file the owner that it had.
                continue;
            }
            let owner = fs::symlink_metadata(scene.upper.join("plain")).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (0, 0), "{from}");
        }
    }
}
