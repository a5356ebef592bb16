//! Attributes and xattrs: statements 11, 19, 25, 26, 49 to 53.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;
use support::{
    Driver, Options, Scene, Time, overlay_xattr, ready, refused, require, rootless, set_mtime,
};

const NEW: XattrFlags = XattrFlags::empty();

#[test]
fn a_change_of_attributes_copies_no_data() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nsparse big 67108864 0:x\nfile dense\n");
    let dense = scene.lowers[0].join("dense");
    fs::write(&dense, vec![7u8; 8 << 20]).unwrap();
    let kernel = ["redirect_dir=on", "metacopy=on"];
    let options = match Driver::under_test() {
        Driver::Kernel => Options::with(&kernel),
        // Without root's rights it is by wish alone: see Limits in docs/SEMANTICS.md.
        Driver::Plyfs if rootless() => Options::with(&["metacopy=on"]),
        Driver::Plyfs | Driver::FuseOverlayfs => Options::default(),
    };
    let mut mount = scene.mount_by(Driver::under_test(), &options);
    fs::set_permissions(mount.path("dense"), fs::Permissions::from_mode(0o600)).unwrap();
    lchown(mount.path("dense"), Some(3), Some(4)).unwrap();
    set_mtime(&mount.path("dense"), Time { sec: 9, nsec: 8 });
    rustix::fs::lsetxattr(mount.path("dense"), "user.note", b"n", NEW).unwrap();
    let upper = fs::metadata(scene.upper.join("dense")).unwrap();
    assert!(upper.blocks() < 100, "{} blocks were copied", upper.blocks());
    mount.remount();
    let seen = fs::metadata(mount.path("dense")).unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o600, 3, 4));
    assert_eq!((seen.mtime(), seen.mtime_nsec(), seen.len()), (9, 8, 8 << 20));
    assert_eq!(fs::read(mount.path("dense")).unwrap(), vec![7u8; 8 << 20]);
}

#[test]
fn a_change_shows_through_descriptors_and_other_names() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile a x\nhardlink b a\n");
    let mount = scene.mount();
    let file = fs::File::open(mount.path("a")).unwrap();
    fs::set_permissions(mount.path("b"), fs::Permissions::from_mode(0o640)).unwrap();
    lchown(mount.path("a"), Some(5), Some(6)).unwrap();
    let through = file.metadata().unwrap();
    let other = fs::metadata(mount.path("b")).unwrap();
    for seen in [through, other] {
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o640, 5, 6));
    }
}

#[test]
fn times_of_all_ages_are_kept() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f\ndir d\nsymlink s nowhere\n");
    let mut mount = scene.mount();
    for (sec, nsec) in [(-1, 999_999_999), (0, 1), (4_200_000_000, 5), (-2_000_000_000, 0)] {
        for name in ["f", "d", "s"] {
            set_mtime(&mount.path(name), Time { sec, nsec });
        }
        mount.remount();
        for name in ["f", "d", "s"] {
            let seen = fs::symlink_metadata(mount.path(name)).unwrap();
            assert_eq!((seen.mtime(), seen.mtime_nsec()), (sec, i64::from(nsec)), "{name}");
        }
    }
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let set = Timespec { tv_sec: 42, tv_nsec: 43 };
    let times = Timestamps { last_access: set, last_modification: omit };
    rustix::fs::utimensat(CWD, mount.path("f"), &times, AtFlags::empty()).unwrap();
    let seen = fs::metadata(mount.path("f")).unwrap();
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (-2_000_000_000, 0));
    assert_eq!((seen.atime(), seen.atime_nsec()), (42, 43));
}

#[test]
fn xattrs_are_kept_changed_and_removed() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile f xattr:user.old=1 xattr:user.kept=2\nsymlink s x\n");
    let mut mount = scene.mount();
    let path = mount.path("f");
    rustix::fs::lsetxattr(&path, "user.new", b"3", XattrFlags::CREATE).unwrap();
    let alike = overlay_xattr("").replace("overlay.", "overlayfoo");
    rustix::fs::lsetxattr(&path, &*alike, b"4", NEW).unwrap();
    rustix::fs::lremovexattr(&path, "user.old").unwrap();
    let again = rustix::fs::lsetxattr(&path, "user.new", b"", XattrFlags::CREATE);
    assert_eq!(refused(again), Errno::EXIST);
    let absent = rustix::fs::lsetxattr(&path, "user.none", b"", XattrFlags::REPLACE);
    assert_eq!(refused(absent), Errno::NODATA);
    assert_eq!(refused(rustix::fs::lremovexattr(&path, "user.old")), Errno::NODATA);
    let on_symlink = rustix::fs::lsetxattr(mount.path("s"), "user.x", b"", NEW);
    assert_eq!(refused(on_symlink), Errno::PERM);
    let mut tiny = [0u8; 1];
    rustix::fs::lsetxattr(&path, "user.kept", b"longer", NEW).unwrap();
    assert_eq!(refused(rustix::fs::lgetxattr(&path, "user.kept", &mut tiny)), Errno::RANGE);
    mount.remount();
    let shown = mount.snapshot().entries[std::path::Path::new("f")].xattrs.clone();
    let expected = [(&*alike, "4"), ("user.kept", "longer"), ("user.new", "3")];
    let expected = expected.map(|(name, value)| (name.into(), value.as_bytes().to_vec()));
    assert_eq!(shown, expected.into());
}

#[test]
fn what_marks_layers_is_nobodys_to_see() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/f\nfile marked\n[lower]\nfile d/g\n");
    // In a lower, of whoever made it.
    let (marked, foreign) = (scene.lowers[0].join("marked"), overlay_xattr("foreign"));
    rustix::fs::lsetxattr(&marked, &*foreign, b"lower", NEW).unwrap();
    let mount = scene.mount();
    let mut value = [0u8; 64];
    let path = mount.path("marked");
    assert_eq!(refused(rustix::fs::lgetxattr(&path, &*foreign, &mut value)), Errno::NODATA);
    assert_eq!(rustix::fs::llistxattr(&path, &mut value), Ok(0), "it is not listed");
    assert_eq!(refused(rustix::fs::lremovexattr(&path, &*foreign)), Errno::NODATA);
    fs::write(&path, "copied up").unwrap();
    let upper = scene.upper.join("marked");
    assert_eq!(refused(rustix::fs::lgetxattr(&upper, &*foreign, &mut value)), Errno::NODATA);
    fs::remove_dir_all(mount.path("d")).unwrap();
    fs::create_dir(mount.path("d")).unwrap();
    let opaque = &*overlay_xattr("opaque");
    let raw = rustix::fs::lgetxattr(scene.upper.join("d"), opaque, &mut value).unwrap();
    assert_eq!(&value[..raw], b"y");
    let seen = rustix::fs::lgetxattr(mount.path("d"), opaque, &mut value);
    assert!(matches!(refused(seen), Errno::NODATA | Errno::OPNOTSUPP));
    // A nested overlay's marks are kept, escaped, and never mean anything here.
    fs::create_dir(mount.path("nested")).unwrap();
    if rustix::fs::lsetxattr(mount.path("nested"), opaque, b"y", NEW).is_ok() {
        let n = rustix::fs::lgetxattr(mount.path("nested"), opaque, &mut value).unwrap();
        assert_eq!(&value[..n], b"y");
        let escaped = overlay_xattr("overlay.opaque");
        rustix::fs::lgetxattr(scene.upper.join("nested"), &*escaped, &mut value).unwrap();
    }
}

/// One that a directory above the layers hands on is not the tree's.
#[test]
fn an_acl_of_the_workdir_is_nobodys() {
    if !ready() || !require("tool:setfacl") || !require("tool:getfacl") {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile f secret mode=0640\nhardlink g f\nfile gone x\ndir d mode=0750\n",
    );
    let mut hand_on = Command::new("setfacl");
    let handed = hand_on.args(["-d", "-m", "u:1000:rwx"]).arg(&scene.work).status();
    assert!(handed.unwrap().success());
    let mount = scene.mount();
    fs::write(mount.path("f"), "changed").unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    fs::create_dir(mount.path("gone")).unwrap();
    fs::write(mount.path("d/new"), "new").unwrap();
    for name in ["f", "g", "gone", "d", "d/new"] {
        let acl = Command::new("getfacl").arg("-cn").arg(mount.path(name)).output().unwrap().stdout;
        let acl = String::from_utf8(acl).unwrap();
        assert!(acl.starts_with("user::") && !acl.contains("1000"), "{name}: {acl}");
    }
}

#[test]
fn default_acls_are_inherited() {
    if !ready() || !require("tool:setfacl") || !require("tool:getfacl") {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\nfile d/gone\n");
    let mount = scene.mount();
    let run = |script: &str| {
        let output = Command::new("sh").arg("-c").arg(script).current_dir(mount.root()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("setfacl -d -m u:1000:rwx,g::r-x,o::--- d && rm d/gone");
    run("umask 077; echo x >d/gone; mkdir d/sub; echo y >d/sub/file");
    assert!(run("getfacl -cn d/gone").contains("user:1000:rwx"));
    assert!(run("getfacl -cn d/sub").contains("default:user:1000:rwx"));
    run("cd d/sub && setpriv --reuid=1000 --regid=1000 --clear-groups cat file");
    let other = "cd d/sub && setpriv --reuid=1001 --regid=1001 --clear-groups cat file 2>&1";
    assert!(run(&format!("{other} || echo refused")).contains("refused"));
}

#[test]
fn access_is_decided_on_the_merged_attributes() {
    if !ready() {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile secret s mode=0600\ndir sticky mode=1777\nfile sticky/of-root r\n\
         file sticky/of-1000 o uid=1000 gid=1000\ndir closed mode=0700\nfile closed/f\n",
    );
    let mount = scene.mount();
    let as_user = |script: &str| {
        let mut shell = Command::new("setpriv");
        shell.args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", script]);
        shell
            .current_dir(mount.root())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(!as_user("cat secret"));
    assert!(!as_user("ls closed"));
    assert!(!as_user("rm -f sticky/of-root && ! test -e sticky/of-root"));
    assert!(!as_user("mv sticky/of-root sticky/x"));
    assert!(!as_user("chmod 0777 secret"));
    assert!(as_user("rm sticky/of-1000"));
    fs::set_permissions(mount.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(as_user("cat secret"));
    lchown(mount.path("secret"), Some(1000), None).unwrap();
    assert!(as_user("echo more >>secret && chmod 0600 secret"));
}
