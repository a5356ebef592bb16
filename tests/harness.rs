//! The test harness itself: what a layer's text makes, and that a difference of trees is seen.

mod support;

use std::os::unix::fs::MetadataExt;

use support::{Driver, Kind, Options, Policy, Scene, Snapshot, as_host_root, differences, require};

const EVERY_KIND: &str = r#"
[upper]
whiteout etc/gone
[lower]
dir      etc mode=0700 uid=1 gid=2 mtime=1500000000.000000001
file     etc/hosts "127.0.0.1 a=b\n" mode=4755 xattr:user.note="a b"
hardlink etc/hosts2 etc/hosts
file     etc/gone
symlink  etc/link "no where"
sparse   big 1048576 4096:abc
char     null 1:3
fifo     pipe
socket   sock
file     "a name\n\xff" x
opaque   dark
"#;

#[test]
fn a_text_makes_the_tree_that_it_describes() {
    if !require("root") {
        return;
    }
    if !as_host_root("it makes a device") {
        return;
    }
    let scene = Scene::new(EVERY_KIND);
    let lower = Snapshot::of(&scene.lowers[0]);
    let of = |path: &str| &lower.entries[std::path::Path::new(path)];
    assert_eq!((of("etc").mode, of("etc").uid, of("etc").gid), (0o700, 1, 2));
    assert_eq!(of("etc").mtime.to_string(), "1500000000.000000001");
    assert_eq!(of("etc/hosts").mode, 0o4755);
    assert_eq!(of("etc/hosts").nlink, 2);
    assert_eq!(of("etc/hosts2").same_as.as_deref(), Some("etc/hosts".as_ref()));
    assert_eq!(of("etc/link").kind, Kind::Symlink("no where".into()));
    assert_eq!(of("null").kind, Kind::Char(1, 3));
    assert_eq!(of("dark").xattrs[std::ffi::OsStr::new("trusted.overlay.opaque")], b"y");
    let big = std::fs::metadata(scene.lowers[0].join("big")).unwrap();
    assert_eq!(big.len(), 1 << 20);
    assert!(big.blocks() < 64, "a sparse file takes {} blocks", big.blocks());
    assert_eq!(lower.entries.len(), 12);
    assert_eq!(Snapshot::of(&scene.upper).paths(), ["", "etc", "etc/gone"]);
}

#[test]
fn each_kind_of_difference_is_seen() {
    if !require("root") {
        return;
    }
    let base = "[lower]\nfile a one\nfile b x\ndir d\nsymlink s a\nhardlink c a\n";
    let changes = [
        "[lower]\nfile a two\nfile b x\ndir d\nsymlink s a\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x mode=0600\ndir d\nsymlink s a\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x uid=5\ndir d\nsymlink s a\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x\ndir d\nsymlink s b\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x\ndir d\nsymlink s a\nfile c one\n",
        "[lower]\nfile a one\nfile b x\ndir d\nsymlink s a\nhardlink c a\nfile new\n",
        "[lower]\nfile a one\ndir d\nsymlink s a\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x\nfile d\nsymlink s a\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x xattr:user.k=v\ndir d\nsymlink s a\nhardlink c a\n",
        "[lower]\nfile a one\nfile b x mtime=5.5\ndir d\nsymlink s a\nhardlink c a\n",
    ];
    let left_scene = Scene::new(base);
    let left = Snapshot::of(&left_scene.lowers[0]);
    let again = Scene::new(base);
    let same = Snapshot::of(&again.lowers[0]);
    assert_eq!(differences("a", &left, "b", &same, Policy::SAME_TREE), Vec::<String>::new());
    for change in changes {
        let right_scene = Scene::new(change);
        let right = Snapshot::of(&right_scene.lowers[0]);
        let found = differences("a", &left, "b", &right, Policy::SAME_TREE);
        assert!(!found.is_empty(), "unseen: {change}");
    }
}

#[test]
fn a_kernel_mount_merges_and_ends() {
    if !require("root") || !require("overlayfs") {
        return;
    }
    if !as_host_root("it makes a device") {
        return;
    }
    let scene = Scene::new(EVERY_KIND);
    let before = std::fs::metadata(&scene.mountpoint).unwrap().dev();
    let mut mount = scene.mount_by(Driver::Kernel, &Options::default());
    std::fs::write(mount.path("new"), "x").unwrap();
    let seen = mount.snapshot();
    assert!(!seen.paths().contains(&"etc/gone".to_owned()));
    mount.remount();
    assert_eq!(differences("a", &seen, "b", &mount.snapshot(), Policy::SAME_TREE), [""; 0]);
    drop(mount);
    assert_eq!(std::fs::metadata(&scene.mountpoint).unwrap().dev(), before);
}
