//! Trees to archives and back: by PlyFS both ways, and with GNU tar on either side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod archives;
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use archives::{Archive, shell};
use plyfs::archive::tar_read::{apply_layer, unpack_layer};
use plyfs::archive::tar_write::{export, layer_tar};
use plyfs::changeset::diff;
use support::{Driver, Options, Policy, Scene, Snapshot, assert_same, require};

/// Something of everything that an archive can carry.
const EVERYTHING: &str = r#"
    [lower]
    dir empty mode=0711 mtime=1500000000.000000001
    dir sticky mode=1777 uid=5 gid=6
    file plain "content"
    file suid "x" mode=4755
    file sgid "x" mode=2711 uid=1000 gid=1000
    file nothing "" mode=0000
    file big-ids "x" uid=3000000 gid=4000000000
    file before-1970 "x" mtime=-1.5
    file after-2038 "x" mtime=4102444800.999999999
    file whole-second "x" mtime=1700000000
    file xattrs "x" xattr:user.text=value xattr:user.empty= xattr:trusted.mine="a\n=\x00b"
    file odd-xattr "x" xattr:user.a%3Db%=1
    dir dir-xattr xattr:user.on-dir=1
    symlink link plain uid=7
    symlink dangling ../../nowhere
    symlink into-empty empty
    file links/one "linked"
    hardlink links/two links/one
    symlink links/symlink one
    hardlink links/symlink2 links/symlink
    fifo links/fifo mode=0640
    hardlink links/fifo2 links/fifo
    char null 1:3 mode=0666
    block disk 259:70000 mode=0660 gid=6
    file "new\nline" "x"
    file "not\xff\xfeutf8" "x"
    file "back\\slash\ttab \"quote\"" "x"
    file "-dash" "x"
    file "a-b" "x"
    file "a/b" "x"
    sparse sparse 3000000 0:head 1500000:middle 2999996:tail
    sparse all-hole 1000000
"#;

/// Makes the tree of [`EVERYTHING`], with what the text cannot say.
fn everything() -> Scene {
    let scene = Scene::new(EVERYTHING);
    let long = "n".repeat(255);
    let deep: Vec<&str> = vec!["directory"; 30];
    shell(
        &scene.lowers[0],
        &format!(
            "echo x > {long}; mkdir -p {deep}; echo x > {deep}/{long}
             ln -s {deep}/{long} long-link; ln {deep}/{long} hard-link-to-long
             head -c 700000 /dev/urandom > random
             setfattr -n security.capability \
                -v 0x0100000201000000000000000000000000000000 plain
             setfattr -n 'user.a=b' -v 1 odd-xattr
             setfacl -m u:1234:rwx,g:77:r xattrs; setfacl -d -m u:1234:rwx sticky
             touch -d @1600000000.5 .",
            deep = deep.join("/")
        ),
    );
    scene
}

fn exported(layers: &[PathBuf]) -> Vec<u8> {
    let mut tar = Vec::new();
    export(layers, None, &mut tar).expect("exports");
    tar
}

fn unpacked(scene: &Scene, name: &str, mut tar: &[u8]) -> PathBuf {
    let into = scene.place(name);
    std::fs::create_dir(&into).unwrap();
    unpack_layer(&mut tar, &into, name).expect("unpacks");
    into
}

/// Compares two trees but for their roots, which an export does not carry.
fn assert_same_below(left: &Path, right: &Path) {
    let [mut left, mut right] = [left, right].map(Snapshot::of);
    left.entries.remove(Path::new(""));
    right.entries.remove(Path::new(""));
    assert!(!left.entries.is_empty());
    assert_same("the original", &left, "the copy", &right, Policy::SAME_TREE);
}

#[test]
fn a_tree_comes_back_as_it_was() {
    if !require("root") || !require("tool:setfacl") || !require("tool:setfattr") {
        return;
    }
    let scene = everything();
    let tar = exported(&scene.lowers);
    let copy = unpacked(&scene, "copy", &tar);
    assert_same_below(&scene.lowers[0], &copy);
    assert_eq!(exported(&[copy]), tar, "equal trees give equal archives");
}

#[test]
fn holes_stay_holes() {
    let scene = everything();
    let copy = unpacked(&scene, "copy", &exported(&scene.lowers));
    let blocks = |name| std::fs::metadata(copy.join(name)).unwrap().blocks();
    assert_eq!(blocks("all-hole"), 0);
    assert!(blocks("sparse") * 512 < 400_000, "{} blocks", blocks("sparse"));
}

#[test]
fn gnu_tar_reads_an_export() {
    let scene = everything();
    let copy = scene.place("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::write(scene.place("tar"), exported(&scene.lowers)).unwrap();
    shell(&copy, "tar -xpf ../tar --numeric-owner --xattrs --xattrs-include='*' --sparse");
    assert_same_below(&scene.lowers[0], &copy);
    let listing = shell(&copy, "tar -tf ../tar --quoting-style=literal | head -3");
    assert_eq!(String::from_utf8_lossy(&listing), "-dash\na/\na/b\n");
}

#[test]
fn archives_of_gnu_tar_unpack() {
    let scene = everything();
    // GNU tar does not link fifos.
    shell(&scene.lowers[0], "rm links/fifo2");
    let formats = [
        "--format=posix --xattrs --xattrs-include=*",
        "--format=posix --xattrs --xattrs-include=* --sparse --sparse-version=0.0",
        "--format=posix --xattrs --xattrs-include=* --sparse --sparse-version=0.1",
        "--format=posix --xattrs --xattrs-include=* --sparse --sparse-version=1.0",
    ];
    for (n, format) in formats.iter().enumerate() {
        let tar = shell(&scene.lowers[0], &format!("set -f; tar -c --numeric-owner {format} ."));
        let copy = unpacked(&scene, &format!("copy{n}"), &tar);
        let [left, right] = [&scene.lowers[0], &copy].map(|root| Snapshot::of(root));
        assert_same("the original", &left, format, &right, Policy::SAME_TREE);
    }
}

#[test]
fn archives_without_pax_unpack_as_far_as_they_go() {
    let scene = everything();
    let without =
        "rm links/fifo2 before-1970 after-2038 odd-xattr; setfattr -x security.capability plain";
    shell(&scene.lowers[0], without);
    // More pieces than one sparse header has room for, and times that these formats can hold.
    shell(
        &scene.lowers[0],
        "for i in $(seq 60); do
            printf x | dd of=many-holes bs=1 seek=$((i * 100000)) conv=notrunc status=none; done
         find . -depth -exec touch -h -d @1600000000 {} +",
    );
    let policy = Policy { xattrs: false, ..Policy::SAME_TREE };
    for (n, format) in ["gnu", "oldgnu --sparse", "gnu --sparse"].iter().enumerate() {
        let tar = shell(&scene.lowers[0], &format!("tar -c --numeric-owner --format={format} ."));
        let copy = unpacked(&scene, &format!("copy{n}"), &tar);
        let [left, right] = [&scene.lowers[0], &copy].map(|root| Snapshot::of(root));
        // Modes of files with an ACL show its mask; the archive has that, too.
        assert_same("the original", &left, format, &right, policy);
    }
}

#[test]
fn an_old_archive_tells_directories_by_a_slash() {
    let scene = Scene::new("[lower]\nfile d/f \"x\"\n");
    let tar = shell(&scene.lowers[0], "tar -c --format=v7 d");
    let copy = unpacked(&scene, "copy", &tar);
    assert_eq!(Snapshot::of(&copy).paths(), ["", "d", "d/f"]);
    let tar = Archive::new().entry(0, "d/", "", b"").entry(0, "f", "", b"x").finish();
    let copy = unpacked(&scene, "copy2", &tar);
    assert!(copy.join("d").is_dir() && copy.join("f").is_file());
}

#[test]
fn missing_parents_are_made_with_the_time_of_what_needed_them() {
    let scene = Scene::new("[lower]\n");
    let tar = Archive::new().file("a/b/c", "x").finish();
    let copy = unpacked(&scene, "copy", &tar);
    for dir in ["a", "a/b"] {
        let meta = std::fs::metadata(copy.join(dir)).unwrap();
        assert_eq!(
            (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()),
            (0o755, 1_700_000_000, 0)
        );
    }
}

#[test]
fn entries_go_through_symlinks_of_their_own_archive() {
    let scene = Scene::new("[lower]\n");
    let tar = Archive::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("lib64", "/usr/lib")
        .file("lib/one", "1")
        .file("lib64/two", "2")
        .hard_link("lib/three", "lib64/two")
        .finish();
    let copy = unpacked(&scene, "copy", &tar);
    assert!(
        Snapshot::of(&copy)
            .paths()
            .ends_with(&["usr/lib/one", "usr/lib/three", "usr/lib/two"].map(str::to_owned))
    );
    assert_eq!(std::fs::metadata(copy.join("usr/lib/two")).unwrap().nlink(), 2);
}

#[test]
fn whiteouts_become_those_of_overlayfs_and_hide() {
    let scene = Scene::new(
        "[lower]\nfile d/gone \"x\"\nfile d/stays \"x\"\nfile gone/x \"x\"\nfile opaque/old \"x\"",
    );
    let tar = Archive::new()
        .file("d/.wh.gone", "")
        .file(".wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "x")
        .file("no-such/.wh.name", "")
        .finish();
    let upper = unpacked(&scene, "unpacked", &tar);
    let meta = std::fs::symlink_metadata(upper.join("d/gone")).unwrap();
    assert_eq!((meta.mode() & 0o170_000, meta.rdev()), (0o020_000, 0));
    let changes = diff(&scene.lowers, &upper).expect("diff");
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "C /d",
            "D /d/gone",
            "D /gone",
            "A /no-such",
            "C /opaque",
            "A /opaque/new",
            "D /opaque/old"
        ]
    );
}

const LAYERS: &str = r#"
    [upper]
    [lower]
    file top/only "x" mtime=1500000000.25
    whiteout hidden
    opaque replaced
    file replaced/now "x"
    file both/from-top "x"
    [lower]
    file hidden/f "x"
    file replaced/before "x"
    file both/from-bottom "x"
    file both/sub/f "x"
    file links/one "x"
    hardlink links/two links/one
    file edit "x"
    file linked "x"
    file meta "content"
    file tree/a/b/f "x"
    symlink link edit
    file type "x"
"#;

const SCRIPT: &str = r#"
    echo more >> edit; ln linked linked2; chmod 600 meta; mv meta meta2
    mv both/sub both/moved; mv tree tree2; rm tree2/a/b/f; echo x > tree2/a/new
    rm -r replaced; mkdir replaced; echo x > replaced/again
    rm type; mkdir type; mkfifo type/fifo; rm link; ln -s nowhere link
    echo 1 > pair; ln pair pair2; mknod null c 1 3; chown 5:6 null
    rm -r top; mkdir new; setfattr -n user.a -v 1 new; touch -d @1.5 new
"#;

/// A scene that kernel overlayfs changed, and the tree that it showed.
fn changed_by_the_kernel(script: &str) -> Option<(Scene, Snapshot)> {
    if !require("root") || !require("overlayfs") {
        return None;
    }
    let scene = Scene::new(LAYERS);
    let options = Options::with(&["redirect_dir=on", "metacopy=on", "index=off"]);
    let mut mount = scene.mount_by(Driver::Kernel, &options);
    shell(mount.root(), script);
    mount.remount();
    let merged = mount.snapshot();
    drop(mount);
    Some((scene, merged))
}

#[test]
fn an_export_is_the_merged_tree() {
    let Some((scene, mut merged)) = changed_by_the_kernel(SCRIPT) else { return };
    let layers: Vec<PathBuf> =
        std::iter::once(scene.upper.clone()).chain(scene.lowers.clone()).collect();
    let copy = unpacked(&scene, "copy", &exported(&layers));
    let mut copied = Snapshot::of(&copy);
    merged.entries.remove(Path::new(""));
    copied.entries.remove(Path::new(""));
    assert_same("overlayfs", &merged, "the export", &copied, Policy::SAME_TREE);
}

#[test]
fn a_layer_archive_over_the_same_lowers_is_the_same_tree() {
    let Some((scene, merged)) = changed_by_the_kernel(SCRIPT) else { return };
    let mut tar = Vec::new();
    layer_tar(&scene.upper, &scene.lowers, &mut tar).expect("archives");
    let layer = unpacked(&scene, "layer", &tar);
    let mut layers = vec![layer.clone()];
    layers.extend(scene.lowers.clone());
    let copy = unpacked(&scene, "copy", &exported(&layers));
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (mut one, mut two) = (merged, Snapshot::of(&copy));
    one.entries.remove(Path::new(""));
    two.entries.remove(Path::new(""));
    assert_same("overlayfs", &one, "the layer", &two, Policy::SAME_TREE);

    // The layer of the layer is the same archive, byte by byte.
    let mut again = Vec::new();
    layer_tar(&layer, &scene.lowers, &mut again).expect("archives");
    assert!(tar == again, "the inverse of unpacking");
}

#[test]
fn a_layer_archive_applied_to_the_lower_tree_is_the_merged_tree() {
    let Some((scene, mut merged)) = changed_by_the_kernel(SCRIPT) else { return };
    let tree = unpacked(&scene, "tree", &exported(&scene.lowers));
    let mut tar = Vec::new();
    layer_tar(&scene.upper, &scene.lowers, &mut tar).expect("archives");
    apply_layer(&mut tar.as_slice(), &tree, "changes").expect("applies");
    let mut applied = Snapshot::of(&tree);
    for root in [&mut merged, &mut applied] {
        // The directory that is the root has a time of its own in each place.
        root.entries.remove(Path::new(""));
    }
    assert_same("overlayfs", &merged, "the tree", &applied, Policy::SAME_TREE);
}

#[test]
fn applied_deletions_spare_what_the_same_archive_made() {
    let scene = Scene::new(
        "[lower]\nfile d/old \"x\"\nfile e/old \"x\"\nfile e/sub/old \"x\"\nfile f \"x\"\n\
         file g/h/old \"x\"\ndir x xattr:user.old=1\nfile gone/a/b \"x\"\nfile first \"x\"",
    );
    let tar = Archive::new()
        .file("d/new", "x")
        .file(".wh.d", "")
        .dir("e")
        .file("e/sub/new", "x")
        .file("e/.wh..wh..opq", "")
        .file("f", "new")
        .file(".wh.f", "")
        .file(".wh.g", "")
        .file("g/h/new", "x")
        .pax(&[("SCHILY.xattr.user.new", b"1")])
        .dir("x")
        .file(".wh.gone", "")
        .file(".wh.never-was", "")
        .hard_link("second", "first")
        .file(".wh.first", "")
        .finish();
    let tree = &scene.lowers[0];
    apply_layer(&mut tar.as_slice(), tree, "changes").expect("applies");
    let snapshot = Snapshot::of(tree);
    assert_eq!(
        snapshot.paths(),
        ["", "d", "d/new", "e", "e/sub", "e/sub/new", "f", "g", "g/h", "g/h/new", "second", "x"]
    );
    let names: Vec<_> = snapshot.entries[Path::new("x")].xattrs.keys().collect();
    assert_eq!(names, ["user.new"]);
}

#[test]
fn a_layer_archive_spells_deletions_as_oci_does() {
    let Some((scene, _)) = changed_by_the_kernel("rm -r top links/one; rm -r both/sub; echo x > n")
    else {
        return;
    };
    let mut tar = Vec::new();
    layer_tar(&scene.upper, &scene.lowers, &mut tar).expect("archives");
    std::fs::write(scene.place("tar"), tar).unwrap();
    let names = shell(&scene.place(""), "tar -tf tar");
    assert_eq!(
        String::from_utf8(names).unwrap().lines().collect::<Vec<_>>(),
        ["./", "both/", "both/.wh.sub", "links/", "links/.wh.one", "n", ".wh.top"]
    );
}

#[test]
fn overlays_own_xattrs_and_sockets_stay_behind() {
    let scene = Scene::new(
        "[lower]\nopaque d\nfile d/f \"x\" xattr:trusted.overlay.origin=o xattr:user.a=1\n\
         file d/g \"x\" xattr:trusted.overlay.overlay.opaque=y\nsocket s\nsocket s1\n\
         hardlink s2 s1",
    );
    let copy = unpacked(&scene, "copy", &exported(&scene.lowers));
    let snapshot = Snapshot::of(&copy);
    assert_eq!(snapshot.paths(), ["", "d", "d/f", "d/g"]);
    let names: Vec<_> = snapshot.entries.values().flat_map(|e| e.xattrs.keys()).collect();
    assert_eq!(names, ["user.a"]);
}

#[test]
fn source_date_epoch_limits_times() {
    let scene = Scene::new(
        "[lower]\nfile old \"x\" mtime=5.5\nfile edge \"x\" mtime=1000000000\n\
         file late \"x\" mtime=1000000000.000000001\ndir d mtime=2000000000",
    );
    // The environment belongs to the whole process, so another one is asked.
    let child = |epoch: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "exports_for_another_test", "--ignored"])
            .env("SOURCE_DATE_EPOCH", epoch)
            .env("PLYFS_TEST_EXPORT", &scene.lowers[0])
            .env("PLYFS_TEST_EXPORT_TO", scene.place("tar"))
            .output()
            .unwrap()
    };
    assert!(child("1000000000").status.success());
    let copy = unpacked(&scene, "copy", &std::fs::read(scene.place("tar")).unwrap());
    let times: Vec<String> =
        Snapshot::of(&copy).entries.values().skip(1).map(|e| e.mtime.to_string()).collect();
    let limit = "1000000000.000000000";
    assert_eq!(times, [limit, limit, limit, "5.500000000"]);
    let refused = child("yesterday");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stdout).contains("SOURCE_DATE_EPOCH"));
}

#[test]
#[ignore = "the other half of source_date_epoch_limits_times, which runs it"]
fn exports_for_another_test() {
    let layer = PathBuf::from(std::env::var_os("PLYFS_TEST_EXPORT").unwrap());
    let mut tar = Vec::new();
    if let Err(error) = export(&[layer], None, &mut tar) {
        panic!("{error}");
    }
    std::fs::write(std::env::var_os("PLYFS_TEST_EXPORT_TO").unwrap(), tar).unwrap();
}

#[test]
fn a_failed_write_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(28))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let scene = Scene::new("[lower]\nfile f \"x\"");
    let error = export(&scene.lowers, None, &mut Full).expect_err("it is full").to_string();
    assert!(error.contains("write") && error.contains("no space"), "{error}");
}
