//! Owner, mode and device in an xattr: layers that containers/storage wrote so (`force_mask`), and
//! uppers with `xattr_permissions`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use support::{
    Driver, MountedOverlay, Options, Policy, Scene, assert_same, refused, require, rootless,
};

const CONTAINERS: &str = "user.containers.override_stat";
const PRIVILEGED: &str = "security.fuseoverlayfs.override_stat";

fn ready() -> bool {
    require("root") && require("fuse")
}

fn with<'a>(scene: &'a Scene, options: &[&str]) -> MountedOverlay<'a> {
    scene.mount_by(Driver::Plyfs, &Options::with(options))
}

/// The levels that can be tested here, with the xattr of each.
fn levels() -> Vec<(&'static str, &'static str)> {
    let mut levels = vec![("xattr_permissions=2", CONTAINERS)];
    if !rootless() {
        levels.push(("xattr_permissions=1", PRIVILEGED));
    }
    levels
}

fn value(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0u8; 256];
    match rustix::fs::lgetxattr(path, name, &mut value) {
        Ok(n) => Some(String::from_utf8(value[..n].to_vec()).unwrap()),
        Err(Errno::NODATA) => None,
        Err(error) => panic!("{name} of {}: {error}", path.display()),
    }
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid(), stat.mode() & 0o7777)
}

const LAYERS: &str = r#"
[lower]
file file "content\n" mode=4755 uid=1 gid=2 xattr:user.note=n
dir  dir mode=0700 uid=3 gid=4
file dir/inside "i\n" mode=0640 uid=3 gid=4
dir  sgid mode=2775 uid=0 gid=7
symlink link file
fifo pipe mode=0622 uid=5
"#;

/// Everything that a user does to owners and modes, through a mount.
fn change(m: &Path) {
    fs::set_permissions(m.join("dir/inside"), Permissions::from_mode(0o600)).unwrap();
    lchown(m.join("dir"), Some(30), None).unwrap();
    lchown(m.join("file"), Some(11), Some(12)).unwrap();
    fs::write(m.join("new"), "new\n").unwrap();
    fs::set_permissions(m.join("new"), Permissions::from_mode(0o2751)).unwrap();
    fs::create_dir(m.join("sgid/dir")).unwrap();
    fs::write(m.join("sgid/dir/file"), "f\n").unwrap();
    lchown(m.join("pipe"), Some(6), Some(6)).unwrap();
    rustix::fs::mknodat(CWD, m.join("sock"), FileType::Socket, Mode::from_raw_mode(0o711), 0)
        .unwrap();
    symlink("new", m.join("new-link")).unwrap();
    if !rootless() {
        let zero = rustix::fs::makedev(1, 5);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, m.join("zero"), FileType::CharacterDevice, mode, zero).unwrap();
    }
    fs::remove_file(m.join("link")).unwrap();
    fs::hard_link(m.join("new"), m.join("dir/new-too")).unwrap();
    let unnamed = rustix::fs::open(m, OFlags::TMPFILE | OFlags::WRONLY, Mode::from_raw_mode(0o604));
    let unnamed = unnamed.unwrap();
    rustix::fs::fchown(&unnamed, Some(rustix::fs::Uid::from_raw(8)), None).unwrap();
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&unnamed));
    let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(CWD, own, CWD, m.join("was-unnamed"), flags).unwrap();
}

fn expect_changes(m: &Path) {
    let expected = [
        ("dir/inside", (3, 4, 0o600)),
        ("dir", (30, 4, 0o700)),
        // A change of owner takes suid away.
        ("file", (11, 12, 0o755)),
        ("new", (0, 0, 0o2751)),
        ("dir/new-too", (0, 0, 0o2751)),
        ("sgid", (0, 7, 0o2775)),
        ("sgid/dir", (0, 7, 0o2755)),
        ("sgid/dir/file", (0, 7, 0o644)),
        ("pipe", (6, 6, 0o622)),
        ("sock", (0, 0, 0o711)),
        ("was-unnamed", (8, 0, 0o604)),
    ];
    for (name, shown) in expected {
        let (uid, gid, mode) = owner_and_mode(&m.join(name));
        assert_eq!(
            (uid, gid, format!("{mode:o}")),
            (shown.0, shown.1, format!("{:o}", shown.2)),
            "{name}"
        );
    }
    assert!(fs::symlink_metadata(m.join("pipe")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(m.join("sock")).unwrap().file_type().is_socket());
    let listed = |name: &str| {
        let found = fs::read_dir(m).unwrap().map(Result::unwrap).find(|e| e.file_name() == name);
        found.unwrap_or_else(|| panic!("{name} is not listed")).file_type().unwrap()
    };
    assert!(listed("pipe").is_fifo() && listed("sock").is_socket());
    if !rootless() {
        let zero = fs::symlink_metadata(m.join("zero")).unwrap();
        assert_eq!((zero.rdev(), zero.mode() & 0o7777), (rustix::fs::makedev(1, 5), 0o644));
        assert!(listed("zero").is_char_device());
        let mut zeros = [1u8; 4];
        std::io::Read::read_exact(&mut File::open(m.join("zero")).unwrap(), &mut zeros).unwrap();
        assert_eq!(zeros, [0; 4]);
    }
}

/// Every file of the upper is the mounter's, and closed to others.
fn expect_real_files_of_our_own(upper: &Path, xattr: &str) {
    let mut dirs = vec![upper.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let (path, stat) = (entry.path(), entry.metadata().unwrap());
            if stat.is_symlink() || stat.file_type().is_char_device() {
                continue;
            }
            assert!(stat.is_file() || stat.is_dir(), "{}", path.display());
            assert_eq!((stat.uid(), stat.gid()), (0, 0), "{}", path.display());
            assert_eq!(stat.mode() & 0o7077, 0, "{} is {:o}", path.display(), stat.mode());
            assert!(value(&path, xattr).is_some(), "{}", path.display());
            if stat.is_dir() {
                dirs.push(path);
            }
        }
    }
}

#[test]
fn owners_modes_and_devices_of_an_upper_stand_in_an_xattr() {
    if !ready() {
        return;
    }
    for (level, xattr) in levels() {
        let scene = Scene::new(LAYERS);
        let mut mount = with(&scene, &[level]);
        rustix::process::umask(Mode::from_raw_mode(0o022));
        change(mount.root());
        expect_changes(mount.root());
        let before = mount.snapshot();
        mount.remount();
        expect_changes(mount.root());
        assert_same("before", &before, "after a remount", &mount.snapshot(), Policy::SAME_TREE);
        drop(mount);
        expect_real_files_of_our_own(&scene.upper, xattr);
        // What the root of the upper says counts without the option, too.
        let mount = with(&scene, &[]);
        expect_changes(mount.root());
        lchown(mount.path("new"), Some(40), Some(41)).unwrap();
        drop(mount);
        assert_eq!(owner_and_mode(&scene.upper.join("new")), (0, 0, 0o600));
        let full = if xattr == CONTAINERS { "0751" } else { "100751" };
        let stored = value(&scene.upper.join("new"), xattr);
        assert_eq!(stored.as_deref(), Some(format!("40:41:{full}:file").as_str()));
    }
}

#[test]
fn level_one_is_refused_where_it_is_not_permitted() {
    if !ready() || !rootless() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fuse-plyfs"))
        .arg("-o")
        .arg(format!(
            "lowerdir={},upperdir={},workdir={},xattr_permissions=1",
            scene.lowers[0].display(),
            scene.upper.display(),
            scene.work.display()
        ))
        .arg(&scene.mountpoint)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("keep owners and modes in an xattr"), "{said}");
}

/// Writes by somebody who is not privileged take suid away, wherever it is kept.
#[test]
fn a_write_takes_a_stored_suid_bit_away() {
    if !ready() || !support::as_host_root("it writes as a user without rights") {
        return;
    }
    let scene = Scene::new("[lower]\nfile program \"p\\n\" mode=4777\n");
    let mount = with(&scene, &["xattr_permissions=2"]);
    let script = format!("echo more >>'{}'", mount.path("program").display());
    let status = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(owner_and_mode(&mount.path("program")), (0, 0, 0o777));
    assert_eq!(fs::read(mount.path("program")).unwrap(), b"p\nmore\n");
}

const FORCED: &str = r#"
[lower]
file plain "p\n" mode=0755
file of-user "u\n" mode=0755 xattr:user.containers.override_stat=5:6:0640:file
file three "3\n" mode=0755 xattr:user.containers.override_stat=5:6:4711
file null "" mode=0755 xattr:user.containers.override_stat=0:0:0666:char-1-3
file disk "" mode=0755 xattr:user.containers.override_stat=0:6:0660:block-7-300
file pipe "" mode=0755 xattr:user.containers.override_stat=1:2:0622:pipe
file damaged "d\n" mode=0755 xattr:user.containers.override_stat=junk
file whiteout "w\n" mode=0755 xattr:user.containers.override_stat=0:0:0000:char-0-0
dir  dir mode=0755 xattr:user.containers.override_stat=7:8:1777:dir
file dir/inside "i\n" mode=0755 xattr:user.containers.override_stat=7:8:0600:file
symlink link plain
"#;

fn mark_root(scene: &Scene) {
    rustix::fs::lsetxattr(&scene.lowers[0], CONTAINERS, b"0:0:0751:dir", XattrFlags::empty())
        .unwrap();
}

#[test]
fn layers_with_forced_modes_show_what_their_xattrs_say() {
    if !ready() {
        return;
    }
    let scene = Scene::new(FORCED);
    mark_root(&scene);
    let mut mount = with(&scene, &[]);
    let m = mount.root().to_path_buf();
    let expected = [
        ("plain", (0, 0, 0o755)),
        ("of-user", (5, 6, 0o640)),
        ("three", (5, 6, 0o4711)),
        ("null", (0, 0, 0o666)),
        ("disk", (0, 6, 0o660)),
        ("pipe", (1, 2, 0o622)),
        ("dir", (7, 8, 0o1777)),
        ("dir/inside", (7, 8, 0o600)),
    ];
    for (name, shown) in expected {
        assert_eq!(owner_and_mode(&m.join(name)), shown, "{name}");
        assert_eq!(value(&m.join(name), CONTAINERS), None, "{name}");
    }
    let null = fs::symlink_metadata(m.join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.len()), (rustix::fs::makedev(1, 3), 0));
    let disk = fs::symlink_metadata(m.join("disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!(disk.rdev(), rustix::fs::makedev(7, 300));
    for damaged in ["damaged", "whiteout"] {
        assert_eq!(refused(fs::symlink_metadata(m.join(damaged))), Errno::IO, "{damaged}");
    }
    assert_eq!(support::names(&m).len(), 10, "all are listed");
    assert_eq!(fs::read_link(m.join("link")).unwrap(), Path::new("plain"));

    // Copied up to an upper of the usual kind, they are what they were shown as.
    fs::set_permissions(m.join("of-user"), Permissions::from_mode(0o604)).unwrap();
    lchown(m.join("dir/inside"), Some(9), None).unwrap();
    fs::rename(m.join("pipe"), m.join("dir/pipe")).unwrap();
    mount.remount();
    for (name, shown) in [
        ("of-user", (5, 6, 0o604)),
        ("dir/inside", (9, 8, 0o600)),
        ("dir/pipe", (1, 2, 0o622)),
        ("dir", (7, 8, 0o1777)),
    ] {
        assert_eq!(owner_and_mode(&m.join(name)), shown, "{name}");
        assert_eq!(owner_and_mode(&scene.upper.join(name)), shown, "{name} in the upper");
        assert_eq!(value(&scene.upper.join(name), CONTAINERS), None, "{name}");
    }
    assert!(fs::symlink_metadata(scene.upper.join("dir/pipe")).unwrap().file_type().is_fifo());
    drop(mount);

    // And to one that keeps them in the xattr, too, as that.
    let other = scene.beside();
    let mount = with(&other, &["xattr_permissions=2"]);
    let m = mount.root();
    fs::set_permissions(m.join("null"), Permissions::from_mode(0o600)).unwrap();
    lchown(m.join("dir/inside"), Some(9), None).unwrap();
    assert_eq!(owner_and_mode(&m.join("null")), (0, 0, 0o600));
    assert!(fs::symlink_metadata(m.join("null")).unwrap().file_type().is_char_device());
    let on_disk = |name: &str| value(&other.upper.join(name), CONTAINERS);
    assert_eq!(on_disk("null").as_deref(), Some("0:0:0600:char-1-3"));
    assert_eq!(on_disk("dir/inside").as_deref(), Some("9:8:0600:file"));
    assert_eq!(on_disk("dir").as_deref(), Some("7:8:1777:dir"));
}

/// Only a mark on the root, which users of a mount cannot set, lets the xattrs count.
#[test]
fn nobody_gives_himself_another_owner_by_an_xattr() {
    if !ready() {
        return;
    }
    let scene = Scene::new(FORCED);
    let mut mount = with(&scene, &[]);
    assert_eq!(owner_and_mode(&mount.path("of-user")), (0, 0, 0o755));
    assert_eq!(value(&mount.path("of-user"), CONTAINERS), None);
    let forged = b"0:0:4777:file";
    for name in ["", "plain", "dir"] {
        for xattr in [CONTAINERS, "user.fuseoverlayfs.override_stat", "user.fuseoverlayfs.opaque"] {
            rustix::fs::lsetxattr(mount.path(name), xattr, forged, XattrFlags::empty()).unwrap();
        }
    }
    mount.remount();
    for name in ["plain", "dir"] {
        assert_eq!(owner_and_mode(&mount.path(name)), (0, 0, 0o755), "{name}");
        // A nested fuse-overlayfs gets back what it set.
        let nested = value(&mount.path(name), "user.fuseoverlayfs.override_stat");
        assert_eq!(nested.as_deref(), Some("0:0:4777:file"), "{name}");
        assert_eq!(value(&scene.upper.join(name), CONTAINERS), None, "{name}");
    }
    assert_eq!(owner_and_mode(&mount.path("of-user")), (0, 0, 0o755));
    assert!(mount.path("dir/inside").exists(), "dir is not opaque");
}

/// Ids in the xattr are those of the layer: maps and squashing come on top.
#[test]
fn stored_ids_are_mapped_like_any_others() {
    if !ready() {
        return;
    }
    let scene = Scene::new(FORCED);
    mark_root(&scene);
    let maps = ["uidmapping=0:1000:100", "gidmapping=0:2000:100", "xattr_permissions=2"];
    let mount = with(&scene, &maps);
    assert_eq!(owner_and_mode(&mount.path("of-user")), (1005, 2006, 0o640));
    lchown(mount.path("of-user"), Some(1009), Some(2001)).unwrap();
    assert_eq!(owner_and_mode(&mount.path("of-user")), (1009, 2001, 0o640));
    let stored = value(&scene.upper.join("of-user"), CONTAINERS);
    assert_eq!(stored.as_deref(), Some("9:1:0640:file"));
    drop(mount);
    let other = scene.beside();
    let mount = with(&other, &["squash_to_uid=3,squash_to_gid=4"]);
    assert_eq!(owner_and_mode(&mount.path("of-user")), (3, 4, 0o640));
}

#[test]
fn acls_are_refused_where_modes_are_stored() {
    if !ready() || !require("tool:setfacl") {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = with(&scene, &["xattr_permissions=2"]);
    let output = std::process::Command::new("setfacl")
        .args(["-m", "u:5:rw"])
        .arg(mount.path("file"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(owner_and_mode(&mount.path("file")), (1, 2, 0o4755));
}
