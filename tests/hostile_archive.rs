//! Archives that want out of the directory they are unpacked into, or more than they are worth.
//! Every test compares what lies around that directory before and after.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod archives;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use plyfs::archive::tar_read::{apply_layer, unpack_layer};

use archives::Archive;
use support::{Snapshot, require};

/// A directory with something worth attacking around the one that is unpacked into.
struct Scene {
    scratch: tempfile::TempDir,
    before: Snapshot,
}

impl Scene {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let outside = scratch.path().join("outside");
        fs::create_dir_all(outside.join("dir")).expect("mkdir");
        fs::write(outside.join("secret"), "secret").expect("write");
        fs::create_dir(scratch.path().join("into")).expect("mkdir");
        let before = Snapshot::of(&outside);
        Scene { scratch, before }
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join("into")
    }

    fn outside(&self) -> PathBuf {
        self.scratch.path().join("outside")
    }

    /// Unpacks, checks that nothing outside changed, and gives the error's text or the names.
    fn unpack(&self, archive: Archive) -> Result<Vec<String>, String> {
        self.unpack_bytes(&archive.finish())
    }

    fn unpack_bytes(&self, mut bytes: &[u8]) -> Result<Vec<String>, String> {
        let unpacked = unpack_layer(&mut bytes, &self.target(), "layer");
        assert_eq!(Snapshot::of(&self.outside()), self.before, "something outside changed");
        assert_eq!(fs::read_dir(self.scratch.path()).expect("readdir").count(), 2);
        unpacked.map_err(|error| error.to_string())?;
        Ok(self.names())
    }

    /// Everything that was unpacked; no content is read.
    fn names(&self) -> Vec<String> {
        let listing =
            archives::shell(&self.target(), "find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort");
        String::from_utf8(listing).expect("text").lines().map(str::to_owned).collect()
    }

    fn xattr_names(&self, path: &str) -> Vec<String> {
        let snapshot = Snapshot::of(&self.target());
        let names = snapshot.entries[&PathBuf::from(path)].xattrs.keys();
        names.map(|name| name.display().to_string()).collect()
    }
}

/// Unpacks `archive` and gives the reason why it was refused.
fn refusal(archive: Archive) -> String {
    Scene::new().unpack(archive).expect_err("it must be refused")
}

fn out(scene: &Scene, name: &str) -> String {
    scene.outside().join(name).display().to_string()
}

#[test]
fn absolute_names_land_inside() {
    let scene = Scene::new();
    let file = out(&scene, "secret");
    let names = scene.unpack(Archive::new().file(&file, "stolen")).expect("unpacks");
    assert!(names.contains(&file.trim_start_matches('/').to_owned()), "{names:?}");
}

#[test]
fn dot_dot_is_refused_wherever_it_stands() {
    for path in ["../outside/secret", "a/../../outside/secret", "a/..", "..", "./../x", "/.."] {
        let reason = refusal(Archive::new().dir("a/").file(path, "stolen"));
        assert!(reason.contains("`..`"), "{path}: {reason}");
    }
    let reason = refusal(Archive::new().hard_link("link", "../outside/secret"));
    assert!(reason.contains("`..`"), "{reason}");
}

#[test]
fn a_symlink_never_leads_out() {
    let scene = Scene::new();
    let outside = out(&scene, "");
    let archive = Archive::new().symlink("a", &outside).file("a/secret", "stolen");
    scene.unpack(archive).expect_err("the link dangles inside the root");

    for target in ["../outside", "../../../../../../../../outside", "b/../../outside"] {
        let scene = Scene::new();
        let archive = Archive::new().dir("b").symlink("a", target).file("a/secret", "stolen");
        if let Ok(names) = scene.unpack(archive) {
            panic!("{target} dangles inside the root: {names:?}");
        }
    }
    // With the target present inside, the entry lands there.
    let scene = Scene::new();
    let archive =
        Archive::new().dir("outside").symlink("a", "/../../outside").file("a/secret", "mine");
    let names = scene.unpack(archive).expect("unpacks");
    assert_eq!(names, ["a", "outside", "outside/secret"]);
}

#[test]
fn an_applied_deletion_never_reaches_out() {
    for name in [".wh.dir", ".wh.secret", "dir/.wh..wh..opq"] {
        let scene = Scene::new();
        let outside = out(&scene, "");
        let archive = Archive::new().symlink("s", &outside).file(&format!("s/{name}"), "");
        let applied = apply_layer(&mut archive.finish().as_slice(), &scene.target(), "layer");
        assert_eq!(Snapshot::of(&scene.outside()), scene.before, "{name}");
        applied.expect_err("the link dangles inside the root");
    }
    // The name of a symlink is removed, not what it leads to.
    let scene = Scene::new();
    std::os::unix::fs::symlink(scene.outside(), scene.target().join("s")).expect("symlink");
    let archive = Archive::new().file(".wh.s", "").finish();
    apply_layer(&mut archive.as_slice(), &scene.target(), "layer").expect("applies");
    assert_eq!(Snapshot::of(&scene.outside()), scene.before);
    assert!(scene.names().is_empty());
}

#[test]
fn a_chain_of_symlinks_never_leads_out() {
    let scene = Scene::new();
    let archive = Archive::new()
        .dir("d")
        .symlink("d/up", "..")
        .symlink("d/up2", "up/..")
        .symlink("d/up3", "up2/../outside")
        .file("d/up3/secret", "stolen");
    scene.unpack(archive).expect_err("the chain dangles");
    let looped = refusal(Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", ""));
    assert!(looped.contains("symbolic links"), "{looped}");
}

#[test]
fn the_last_component_is_never_followed() {
    let scene = Scene::new();
    let secret = out(&scene, "secret");
    let dir = out(&scene, "dir");
    let archive = Archive::new()
        .symlink("a", &secret)
        .file("a", "mine")
        .symlink("b", &dir)
        .dir("b")
        .file("b/x", "mine")
        .symlink("c", &secret)
        .hard_link("d", "c");
    let names = scene.unpack(archive).expect("unpacks");
    assert_eq!(names, ["a", "b", "b/x", "c", "d"]);
    assert_eq!(fs::read(scene.target().join("a")).expect("read"), b"mine");
    let meta = fs::symlink_metadata(scene.target().join("d")).expect("lstat");
    assert!(meta.is_symlink(), "the link itself is linked, not what it names");
}

#[test]
fn metadata_is_not_set_through_symlinks() {
    let scene = Scene::new();
    // A directory that a symlink replaces before its deferred attributes are set.
    let archive = Archive::new().dir("a").file("a/x", "").symlink("a", &out(&scene, "dir"));
    assert_eq!(scene.unpack(archive).expect("unpacks"), ["a"]);
}

#[test]
fn hard_links_reach_only_files_of_the_archive() {
    let scene = Scene::new();
    let secret = out(&scene, "secret");
    let reason = scene.unpack(Archive::new().hard_link("x", &secret)).expect_err("refused");
    assert!(reason.contains("no file of this layer"), "{reason}");
    let outside = out(&scene, "");
    let archive = Archive::new().symlink("s", &outside).hard_link("y", "s/secret");
    scene.unpack(archive).expect_err("refused");
    assert_eq!(fs::metadata(scene.outside().join("secret")).expect("stat").nlink(), 1);

    for target in ["", "/", "d", ".wh.gone", "missing"] {
        let archive = Archive::new().dir("d").file(".wh.gone", "").hard_link("x", target);
        let reason = refusal(archive);
        assert!(reason.contains("no file of this layer"), "{target}: {reason}");
    }
    // The whiteout's name on disk is `gone`.
    let reason = refusal(Archive::new().file(".wh.gone", "").hard_link("x", "gone"));
    assert!(reason.contains("no file of this layer"), "{reason}");
}

#[test]
fn a_file_linked_to_itself_stays() {
    let scene = Scene::new();
    let archive = Archive::new().file("a", "content").hard_link("a", "./a");
    assert_eq!(scene.unpack(archive).expect("unpacks"), ["a"]);
    assert_eq!(fs::read(scene.target().join("a")).expect("read"), b"content");
}

#[test]
fn of_duplicates_the_last_one_wins() {
    let scene = Scene::new();
    let archive = Archive::new()
        .file("file", "first")
        .file("./file", "second")
        .dir("to-file/sub")
        .file("to-file/sub/x", "x")
        .file("to-file", "file now")
        .file("to-dir", "file")
        .dir("to-dir")
        .file("to-dir/x", "x")
        .symlink("link", "file")
        .file("link", "file now")
        .device(b'6', "fifo", 0, 0)
        .symlink("fifo", "x");
    let names = scene.unpack(archive).expect("unpacks");
    assert_eq!(names, ["fifo", "file", "link", "to-dir", "to-dir/x", "to-file"]);
    assert_eq!(fs::read(scene.target().join("file")).expect("read"), b"second");
    assert_eq!(fs::read(scene.target().join("link")).expect("read"), b"file now");
}

#[test]
fn a_removed_parent_is_not_written_to() {
    let scene = Scene::new();
    let archive = Archive::new().file("d/x", "1").file("d", "2").dir("d").file("d/x", "3");
    assert_eq!(scene.unpack(archive).expect("unpacks"), ["d", "d/x"]);
    assert_eq!(fs::read(scene.target().join("d/x")).expect("read"), b"3");
}

#[test]
fn a_whiteout_device_cannot_be_planted() {
    let reason = refusal(Archive::new().device(b'3', "etc", 0, 0));
    assert!(reason.contains("whiteout"), "{reason}");
    let reason = refusal(Archive::new().device(b'3', "etc", 1 << 12, 0));
    assert!(reason.contains("device number"), "{reason}");
}

#[test]
fn overlay_xattrs_cannot_be_planted() {
    let scene = Scene::new();
    let records: Vec<(&str, &[u8])> = vec![
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/secret"),
        ("SCHILY.xattr.user.overlay.redirect", b"/secret"),
        ("SCHILY.xattr.user.fuseoverlayfs.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlayfoo", b"kept"),
        ("SCHILY.xattr.user.mine", b"kept"),
    ];
    scene.unpack(Archive::new().pax(&records).dir("d").pax(&records).dir("./")).expect("unpacks");
    for path in ["", "d"] {
        assert_eq!(scene.xattr_names(path), ["trusted.overlayfoo", "user.mine"], "{path}");
    }
}

#[test]
fn whiteout_names_of_every_bad_kind() {
    for bad in [
        ".wh.",
        "d/.wh.",
        ".wh..",
        ".wh...",
        ".wh..wh.x",
        ".wh..wh.",
        ".wh.x/y",
        "d/.wh..wh..opq/y",
    ] {
        let reason = refusal(Archive::new().dir("d").file(bad, ""));
        assert!(reason.contains("whiteout"), "{bad}: {reason}");
    }
    for skipped in [".wh..wh.aufs", ".wh..wh.plnk/1.2", ".wh..wh.orph/x/y"] {
        let names = Scene::new().unpack(Archive::new().file(skipped, "")).expect("unpacks");
        assert!(names.is_empty(), "{skipped}: {names:?}");
    }
}

#[test]
fn a_whiteout_removes_nothing_of_its_own_layer() {
    let scene = Scene::new();
    let archive = Archive::new()
        .file("file", "kept")
        .file(".wh.file", "")
        .dir("dir")
        .file("dir/x", "kept")
        .file(".wh.dir", "")
        .file(".wh.later", "")
        .file("later/x", "kept")
        .file(".wh.then", "")
        .file("then", "kept");
    let names = scene.unpack(archive).expect("unpacks");
    assert_eq!(names, ["dir", "dir/x", "file", "later", "later/x", "then"]);
    for dir in ["dir", "later"] {
        assert_eq!(scene.xattr_names(dir), ["trusted.overlay.opaque"], "{dir} hides");
    }
}

#[test]
fn extension_headers_are_bounded() {
    for kind in [b'x', b'L', b'K'] {
        let reason = refusal(Archive::new().header_only(kind, "long", 1 << 33));
        assert!(reason.contains("at most 1048576"), "{reason}");
    }
    let reason = refusal(Archive::new().entry(b'x', "pax", "", b"99 path=x\n").file("a", ""));
    assert!(reason.contains("broken record"), "{reason}");
    let reason = refusal(Archive::new().pax(&[("path", b"a")]));
    assert!(reason.contains("without the entry"), "{reason}");
    let reason = refusal(Archive::new().pax(&[("path", b"a\0b")]).file("x", ""));
    assert!(reason.contains("NUL"), "{reason}");
    let long = "x/".repeat(3000);
    let reason = refusal(Archive::new().pax(&[("path", long.as_bytes())]).file("x", ""));
    assert!(reason.contains("too long"), "{reason}");
}

#[test]
fn a_global_header_changes_nothing() {
    let mut global = Archive::new().pax(&[("path", b"/evil"), ("comment", b"x")]);
    global.bytes[156] = b'g';
    let header = tar::Header::from_byte_slice(&global.bytes[..512]).clone();
    let mut header = header;
    header.set_cksum();
    global.bytes[..512].copy_from_slice(header.as_bytes());
    assert_eq!(Scene::new().unpack(global.file("a", "")).expect("unpacks"), ["a"]);
}

#[test]
fn claimed_sizes_are_not_believed() {
    for size in [1 << 20, 1 << 40, u64::from(u32::MAX) << 30] {
        let reason = refusal(Archive::new().header_only(b'0', "big", size));
        assert!(reason.contains("ends within"), "{reason}");
    }
}

#[test]
fn a_sparse_bomb_takes_no_space() {
    let scene = Scene::new();
    let size = (1u64 << 40).to_string();
    let records: Vec<(&str, &[u8])> = vec![
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"big"),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    let archive = Archive::new().pax(&records).file("x", &format!("{:\0<512}", "0\n"));
    assert_eq!(scene.unpack(archive).expect("unpacks"), ["big"]);
    let meta = fs::metadata(scene.target().join("big")).expect("stat");
    assert_eq!((meta.len(), meta.blocks()), (1 << 40, 0));

    let huge = i64::MAX.to_string();
    let records: Vec<(&str, &[u8])> =
        vec![("GNU.sparse.size", huge.as_bytes()), ("GNU.sparse.map", b"")];
    let reason = refusal(Archive::new().pax(&records).file("x", ""));
    assert!(reason.contains("file too large"), "{reason}");
}

#[test]
fn broken_sparse_maps_are_refused() {
    let max = u64::MAX.to_string();
    let overflow = format!("{max},{max}");
    for (size, map, data) in [
        ("10", "0,5,3,5", "0123456789"),
        ("4", "0,10", "0123456789"),
        ("10", "0,4", "0123456789"),
        ("10", "0", "0"),
        ("10", "x,1", "0"),
        ("10", overflow.as_str(), "0"),
    ] {
        let records: Vec<(&str, &[u8])> =
            vec![("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        let reason = refusal(Archive::new().pax(&records).file("x", data));
        assert!(reason.contains("sparse"), "{map}: {reason}");
    }
    let endless: Vec<(&str, &[u8])> =
        vec![("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")];
    for map in ["18446744073709551615\n", "9223372036854775807\n1\n", "1\n0\n", "\n", "-1\n"] {
        let reason = refusal(Archive::new().pax(&endless).file("x", &format!("{map:\0<512}")));
        assert!(reason.contains("sparse"), "{map:?}: {reason}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let scene = Scene::new();
    assert!(scene.unpack_bytes(&[b'x'; 1024]).expect_err("garbage").contains("not a tar header"));
    assert!(scene.unpack_bytes(b"short").expect_err("short").contains("within a header"));
    let whole = Archive::new().file("a", &"x".repeat(2000)).finish();
    for cut in [1, 511, 513, 1024, 2000, 2512] {
        scene.unpack_bytes(&whole[..cut]).expect_err("cut off");
    }
    let mut lone = Archive::new().file("a", "").bytes;
    lone.extend([0; 512]);
    lone.extend(Archive::new().file("b", "").finish());
    assert!(scene.unpack_bytes(&lone).expect_err("lone").contains("lone zero block"));
    assert!(refusal(Archive::new().entry(b'V', "volume", "", b"")).contains("unknown type"));
    assert!(refusal(Archive::new().file("./", "x")).contains("root must be a directory"));
    assert!(refusal(Archive::new().file("a", "").file("a/b", "")).contains("not a directory"));
}

#[test]
fn deep_trees_are_removed_without_recursion() {
    // Directories nested deeper than a path can be long, by way of a symlink, then replaced.
    let scene = Scene::new();
    let deep = vec!["d"; 900].join("/");
    let mut archive = Archive::new().pax(&[("path", deep.as_bytes())]).dir("x");
    archive = archive.pax(&[("linkpath", deep.as_bytes())]).symlink("s", "x");
    let further = format!("s/{deep}");
    archive = archive.pax(&[("path", further.as_bytes())]).dir("x");
    raise_file_limit();
    let names = scene.unpack(archive.file("d", "gone")).expect("unpacks");
    assert_eq!(names, ["d", "s"]);
}

fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("setrlimit");
}

#[test]
fn devices_need_the_right_to_make_them() {
    if !require("root") {
        return;
    }
    let scene = Scene::new();
    let archive = Archive::new().device(b'3', "null", 1, 3).device(b'4', "disk", 7, 0).finish();
    let into = scene.target();
    let error = without_capabilities(|| {
        unpack_layer(&mut archive.as_slice(), &into, "layer").expect_err("refused").to_string()
    });
    assert!(error.contains("create character device"), "{error}");
    assert!(error.contains("null") && error.contains("not permitted"), "{error}");
}

/// Runs `act` in this thread without the right to make devices.
fn without_capabilities<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).expect("dropping capabilities works");
            act()
        });
        thread.join().expect("the thread ends")
    })
}

#[test]
fn names_are_bytes() {
    let scene = Scene::new();
    let odd: &[u8] = b"new\nline\\ \xff\xfe:*";
    let archive = Archive::new().pax(&[("path", odd)]).file("x", "odd").finish();
    unpack_layer(&mut archive.as_slice(), &scene.target(), "layer").expect("unpacks");
    let path = scene.target().join(OsStr::from_bytes(odd));
    assert_eq!(fs::read(path).expect("read"), b"odd");
}
