//! What the options on owners, link counts, xattrs and caching do; `docs/OPTIONS.md` lists all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::process::Command;

use plyfs::overlay::options::Options as Parsed;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use support::{Driver, MountedOverlay, Options, Scene, refused, require};

const LAYERS: &str = r#"
[lower]
file a "a\n" uid=1 gid=2 xattr:user.k=v
file b "b\n" uid=30 gid=40
dir  dir/sub uid=3 gid=4
dir  dir/other
symlink link a
"#;

fn ready() -> bool {
    require("root") && require("fuse")
}

fn with<'a>(scene: &'a Scene, options: &[&str]) -> MountedOverlay<'a> {
    scene.mount_by(Driver::Plyfs, &Options::with(options))
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

#[test]
fn squashed_everything_belongs_to_one() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    for (options, expected) in [
        (vec!["squash_to_root"], (0, 0)),
        (vec!["squash_to_uid=7", "squash_to_gid=8"], (7, 8)),
        (vec!["squash_to_root", "squash_to_uid=7"], (7, 0)),
    ] {
        let mount = with(&scene, &options);
        fs::write(mount.path("new"), "n\n").unwrap();
        for name in ["", "a", "b", "dir", "dir/sub", "link", "new"] {
            assert_eq!(owner(mount.path(name)), expected, "{name} with {options:?}");
        }
        drop(mount);
        fs::remove_file(scene.upper.join("new")).unwrap();
    }
}

/// What is on disk outside of all ranges is shown as nobody's; who has no id there cannot be made
/// an owner (fuse-overlayfs makes the file nobody's and says that all went well).
#[test]
fn mapped_owners_are_kept_as_those_of_the_layer() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = with(&scene, &["uidmapping=0:1000:10:20:3000:20", "gidmapping=0:2000:50"]);
    assert_eq!(owner(mount.path("a")), (1001, 2002));
    assert_eq!(owner(mount.path("b")), (3010, 2040));
    lchown(mount.path("a"), Some(3001), Some(2009)).unwrap();
    assert_eq!(owner(mount.path("a")), (3001, 2009));
    assert_eq!(owner(scene.upper.join("a")), (21, 9));
    assert_eq!(refused(lchown(mount.path("b"), Some(5000), None)), Errno::INVAL);
    assert_eq!(refused(lchown(mount.path("b"), None, Some(5000))), Errno::INVAL);
    assert_eq!(owner(mount.path("b")), (3010, 2040));
    assert!(!scene.upper.join("b").exists(), "a refused change copies nothing up");
    drop(mount);
    let other = scene.beside();
    let mount = with(&other, &["uidmapping=0:1000:10", "gidmapping=0:2000:10"]);
    assert_eq!(owner(mount.path("b")), (65534, 65534));
}

#[test]
fn static_nlink_counts_one_link_of_each_directory() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let links = |mount: &MountedOverlay<'_>| fs::metadata(mount.path("dir")).unwrap().nlink();
    assert_eq!(links(&with(&scene, &[])), 4);
    assert_eq!(links(&with(&scene, &["static_nlink"])), 1);
    assert_eq!(links(&with(&scene, &["static_nlink=0"])), 4);
}

#[test]
fn noxattrs_knows_no_xattrs() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = with(&scene, &["noxattrs"]);
    let mut room = [0u8; 64];
    let got = rustix::fs::lgetxattr(mount.path("a"), "user.k", &mut room);
    assert_eq!(got, Err(Errno::OPNOTSUPP));
    let set = rustix::fs::lsetxattr(mount.path("a"), "user.k", b"w", XattrFlags::empty());
    assert_eq!(set, Err(Errno::OPNOTSUPP));
    let list = rustix::fs::llistxattr(mount.path("a"), &mut room);
    assert!(matches!(list, Ok(0) | Err(Errno::OPNOTSUPP)), "{list:?}");
}

/// Without ACLs the mode bits alone decide.
#[test]
fn noacl_gives_and_takes_no_acls() {
    if !ready() || !require("tool:setfacl") {
        return;
    }
    let acl = |mount: &MountedOverlay<'_>| {
        let mut setfacl = Command::new("setfacl");
        setfacl.args(["-m", "u:5:rw"]).arg(mount.path("a")).output().unwrap().status.success()
    };
    let scene = Scene::new(LAYERS);
    assert!(acl(&with(&scene, &[])));
    let other = scene.beside();
    let mount = with(&other, &["noacl"]);
    assert!(!acl(&mount));
    assert_eq!(fs::metadata(mount.path("a")).unwrap().mode() & 0o7777, 0o644);
}

/// What changes behind a mount is not promised to be seen; it shows what the kernel asks again.
#[test]
fn without_a_timeout_the_kernel_asks_again() {
    if !ready() {
        return;
    }
    for (options, shown) in [(vec![], 0o644), (vec!["timeout=0"], 0o600)] {
        let scene = Scene::new("[upper]\nfile a \"a\\n\"\n[lower]\ndir d\n");
        let mount = with(&scene, &options);
        let mode = || fs::metadata(mount.path("a")).unwrap().mode() & 0o7777;
        assert_eq!(mode(), 0o644);
        fs::set_permissions(scene.upper.join("a"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(mode(), shown, "{options:?}");
    }
}

/// Each option of the table in `docs/OPTIONS.md` is taken with each value that stands there.
#[test]
fn the_table_of_options_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPTIONS.md");
    let text = fs::read_to_string(path).unwrap();
    let mut count = 0;
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split('|').nth(1).unwrap();
        for option in cell.split('`').skip(1).step_by(2) {
            let given = format!("lowerdir=/a,upperdir=/u,workdir=/w,{option}");
            let parsed = Parsed::parse([&given]);
            assert!(parsed.is_ok(), "{option}: {parsed:?}");
            assert!(Parsed::knows(option), "{option} is not known");
            count += 1;
        }
    }
    assert!(count > 80, "{count} options stand in the table");
}
