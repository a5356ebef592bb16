//! Archives whose numbers lie, that never end, or that are worth less than they take: refused, or
//! contained at a cost that does not depend on what they claim.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod archives;
mod images;
mod shell;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use archives::Archive;
use images::{Scratch, image};
use plyfs::archive::tar_read::{apply_layer, unpack_layer};
use plyfs::image::Digest;
use shell::Shell;

/// A header of a file with one byte of data, of which `edit` changes any byte.
fn raw(name: &str, kind: u8, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = Archive::new().header_only(kind, name, 1).bytes;
    edit(&mut bytes);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

fn field(place: std::ops::Range<usize>, value: &[u8]) -> impl FnOnce(&mut [u8]) {
    move |header: &mut [u8]| {
        header[place.clone()].fill(0);
        header[place.start..place.start + value.len()].copy_from_slice(value);
    }
}

/// A number in GNU's binary form, of so many bytes.
fn binary(value: i128, width: usize) -> Vec<u8> {
    let mut bytes = value.to_be_bytes()[16 - width..].to_vec();
    bytes[0] |= 0x80;
    bytes
}

/// What becomes of an archive, as a layer and applied to a tree: the same both times.
fn outcome(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut outcomes = [false, true].map(|tree| {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        let read = &mut { bytes };
        let unpacked = match tree {
            true => apply_layer(read, &into, "layer"),
            false => unpack_layer(read, &into, "layer"),
        };
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        unpacked.map(|_| names(&into)).map_err(|error| error.to_string())
    });
    let layer = outcomes[0].clone();
    if let (Ok(_), Err(reason)) | (Err(reason), Ok(_)) = (&layer, &outcomes[1]) {
        panic!("one takes it, the other does not: {reason}");
    }
    std::mem::replace(&mut outcomes[0], layer)
}

fn names(dir: &Path) -> Vec<String> {
    let listing = archives::shell(dir, "find . -mindepth 1 -printf '%y %P\\n' | LC_ALL=C sort");
    String::from_utf8_lossy(&listing).lines().map(str::to_owned).collect()
}

fn refusal(bytes: &[u8]) -> String {
    match outcome(bytes) {
        Err(reason) => reason,
        Ok(names) => panic!("taken: {names:?}"),
    }
}

#[test]
fn sizes_in_pax_headers_are_believed_as_little_as_others() {
    for size in ["18446744073709551615", "9223372036854775808", "9223372036854775807"] {
        let records: &[(&str, &[u8])] = &[("size", size.as_bytes())];
        let reason = refusal(&Archive::new().pax(records).file("a", "x").finish());
        assert!(reason.contains("an entry larger than any file"), "{reason}");
    }
    for size in ["-1", "", "1e3", "0x10", " 1", "18446744073709551616"] {
        let records: &[(&str, &[u8])] = &[("size", size.as_bytes())];
        let reason = refusal(&Archive::new().pax(records).file("a", "x").finish());
        assert!(reason.contains("a broken value of size"), "{size:?}: {reason}");
    }
    let records: &[(&str, &[u8])] = &[("size", b"100000")];
    let reason = refusal(&Archive::new().pax(records).file("a", "x").finish());
    assert!(reason.contains("ends within an entry"), "{reason}");
    // The record counts and not the header, whatever hides behind either, as with other readers.
    let inner = Archive::new().file("inner", "x").bytes;
    let archive = Archive::new().pax(&[("size", b"0")]).header_only(b'0', "outer", 1024);
    let archive = Archive { bytes: [archive.bytes, inner].concat() }.finish();
    assert_eq!(outcome(&archive).unwrap(), ["f inner", "f outer"]);
    // What has no data has none, whatever size is claimed for it.
    let archive = Archive::new().pax(&[("size", b"512")]).dir("dir").file("next", "x").finish();
    assert_eq!(outcome(&archive).unwrap(), ["d dir", "f next"]);
}

#[test]
fn negative_and_binary_numbers() {
    let (mode, uid, size, mtime) = (100..108, 108..116, 124..136, 136..148);
    let data = [b"x".to_vec(), vec![0; 511 + 1024]].concat();
    let whole = |header: Vec<u8>| [header, data.clone()].concat();
    for (place, value, expected) in [
        (size.clone(), binary(-1, 12), "a broken size"),
        (size.clone(), binary(1 << 64, 12), "a broken size"),
        (size.clone(), binary(i128::from(i64::MAX), 12), "an entry larger than any file"),
        (size.clone(), binary(1 << 62, 12), "ends within an entry"),
        (size, b"-1\0".to_vec(), "a broken size"),
        (uid.clone(), binary(-5, 8), "no 32-bit number"),
        (uid.clone(), binary(1 << 32, 8), "no 32-bit number"),
        (uid.clone(), binary(0xffff_ffff, 8), "no 32-bit number"),
        (uid.clone(), b"-0000001".to_vec(), "no 32-bit number"),
        (mode.clone(), binary(-1, 8), "a broken mode"),
        (mtime.clone(), b"-1\0".to_vec(), "a broken time"),
        (mtime.clone(), b"99999999999\0".to_vec(), "a broken time"),
    ] {
        let reason = refusal(&whole(raw("a", b'0', field(place.clone(), &value))));
        assert!(reason.contains(expected), "{place:?} {value:?}: {reason}");
    }
    for (place, value) in [(uid, binary(3_000_000_000, 8)), (mtime, binary(-5, 12))] {
        assert_eq!(outcome(&whole(raw("a", b'0', field(place, &value)))).unwrap(), ["f a"]);
    }
    // A device number that Linux does not have.
    let device = raw("n", b'3', field(329..337, &binary(1 << 40, 8)));
    let reason = refusal(&[device, vec![0; 1024]].concat());
    assert!(reason.contains("a broken device number"), "{reason}");
}

/// Each is small; there may be any number of them before one entry.
#[test]
fn extension_headers_without_end_are_refused() {
    let long = Archive::new().entry(b'L', "././@LongLink", "", &[b'n'; 150]).bytes;
    let pax = Archive::new().pax(&[("SCHILY.xattr.user.a", &[b'v'; 900])]).bytes;
    let empty = Archive::new().entry(b'x', "pax", "", b"").bytes;
    for header in [long, pax, empty] {
        let some = Archive { bytes: header.repeat(20) }.file("file", "x").finish();
        assert_eq!(outcome(&some).unwrap().len(), 1);
        let many = Archive { bytes: header.repeat(2500) }.file("file", "x").finish();
        let reason = refusal(&many);
        assert!(reason.contains("at most 1048576 are taken for an entry"), "{reason}");
    }
}

#[test]
fn xattrs_of_directories_do_not_gather_in_memory() {
    let value = vec![b'v'; 60_000];
    let mut archive = Archive::new();
    for n in 0..5000 {
        let records: &[(&str, &[u8])] = &[("SCHILY.xattr.user.a", &value)];
        archive = archive.pax(records).dir(&format!("d{n}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive.finish();
    let error = unpack_layer(&mut bytes.as_slice(), dir.path(), "layer").unwrap_err();
    assert!(error.to_string().contains("keep the xattrs of"), "{error}");
}

/// As macOS, SELinux and others leave them: they are no reason to refuse a layer.
#[test]
fn xattrs_that_files_here_cannot_have_are_left_out() {
    for (name, kind) in
        [("com.apple.provenance", b'0'), ("user.x", b'2'), ("user.x", b'6'), ("nonsense", b'5')]
    {
        let record = format!("SCHILY.xattr.{name}");
        let records: &[(&str, &[u8])] = &[(&record, b"v")];
        let archive = Archive::new().pax(records).entry(kind, "a", "target", b"").finish();
        assert_eq!(outcome(&archive).unwrap().len(), 1, "{name}");
    }
    let records: &[(&str, &[u8])] = &[("SCHILY.xattr.user.big", &[b'v'; 70_000])];
    let reason = refusal(&Archive::new().pax(records).file("a", "x").finish());
    assert!(reason.contains("argument list too long"), "{reason}");
}

#[test]
fn names_that_no_directory_can_have() {
    let path = |value: &[u8]| Archive::new().pax(&[("path", value)]).file("x", "x").finish();
    for (name, expected) in [
        (vec![b'n'; 256], "file name too long"),
        (vec![b'n'; 5000], "file name too long"),
        (b"a/".repeat(2500), "file name too long"),
        (b"a\0b".to_vec(), "a NUL byte"),
        (b"a/../b".to_vec(), "a path with `..`"),
        (Vec::new(), "the root must be a directory"),
        (b".".to_vec(), "the root must be a directory"),
    ] {
        let reason = refusal(&path(&name));
        assert!(reason.contains(expected), "{}: {reason}", name.len());
    }
    for name in [&[b'n'; 255][..], b"\xff\xfe\x80", b"a\nb\x1b[2J", b"/abs//olute/./"] {
        assert!(outcome(&path(name)).is_ok());
    }
    let symlink =
        |target: &[u8]| Archive::new().pax(&[("linkpath", target)]).symlink("s", "x").finish();
    for target in [&b""[..], b"a\0b", &[b't'; 5000]] {
        assert!(refusal(&symlink(target)).contains("create symlink"));
    }
    let looped = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").finish();
    assert!(refusal(&looped).contains("too many levels of symbolic links"));
}

#[test]
fn links_to_what_is_hidden_and_whiteouts_in_other_clothes() {
    for target in [".wh.a", "a", "./a/", "s/a"] {
        let archive = Archive::new().file(".wh.a", "").symlink("s", ".").hard_link("b", target);
        let reason = refusal(&archive.finish());
        assert!(reason.contains("no file of this layer"), "{target}: {reason}");
    }
    // Whatever is called so is a whiteout, as with docker.
    for (kind, link) in [(b'1', "kept"), (b'2', "/etc/passwd"), (b'5', ""), (b'6', "")] {
        let archive = Archive::new().file("kept", "k").entry(kind, ".wh.gone", link, b"").finish();
        let dir = tempfile::tempdir().unwrap();
        unpack_layer(&mut archive.as_slice(), dir.path(), "layer").unwrap();
        assert_eq!(names(dir.path()), ["c gone", "f kept"]);
    }
    // Of a parent: what this layer puts there stays, what is below does not show.
    for archive in [
        Archive::new().file("p/a", "a").file(".wh.p", ""),
        Archive::new().file(".wh.p", "").file("p/a", "a"),
    ] {
        let bytes = archive.finish();
        let dir = tempfile::tempdir().unwrap();
        unpack_layer(&mut bytes.as_slice(), dir.path(), "layer").unwrap();
        assert_eq!(names(dir.path()), ["d p", "f p/a"]);
        let mut value = [0; 8];
        let mark = support::overlay_xattr("opaque");
        assert_eq!(rustix::fs::lgetxattr(dir.path().join("p"), mark, &mut value), Ok(1));
    }
    let reason = refusal(&Archive::new().file("p", "").file("p/.wh..wh..opq", "").finish());
    assert!(reason.contains("not a directory"), "{reason}");
}

#[test]
fn an_opaque_lowest_layer_hides_nothing() {
    let scratch = Scratch::new();
    let lowest = [(".wh..wh..opq", ""), ("dir/.wh..wh..opq", ""), (".wh.none", ""), ("a", "1")];
    scratch.load_image(&image("lowest", &[&lowest, &[("dir/b", "2")]]));
    let container = scratch.store.create("lowest", Some("box")).unwrap();
    let mut tar = Vec::new();
    scratch.store.export(&container.name, &mut tar).unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut paths: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    paths.sort();
    assert_eq!(paths, ["a", "dir/", "dir/b"]);
    assert!(scratch.store.check().unwrap().is_empty());
}

/// A layer of `size` bytes in one file, of which nothing is kept here.
fn bomb(byte: u8, size: u64) -> (Digest, Vec<u8>) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut hasher = plyfs::image::digest::Hasher::new();
    let mut write = |bytes: &[u8]| {
        hasher.update(bytes);
        gzip.write_all(bytes).unwrap();
    };
    write(&Archive::new().header_only(b'0', "bomb", size).bytes);
    let piece = vec![byte; 1 << 20];
    (0..size >> 20).for_each(|_| write(&piece));
    write(&[0; 1024]);
    (hasher.finish(), gzip.finish().unwrap())
}

/// An archive of an image with such a layer.
fn bomb_image(byte: u8, size: u64) -> Vec<u8> {
    let (diff_id, layer) = bomb(byte, size);
    let mut image = image("bomb", &[&[]]);
    image.layers = vec![layer];
    let config = String::from_utf8(image.config).unwrap();
    let empty = Digest::of(&images::layer(&[])).to_string();
    image.config = config.replace(&empty, &diff_id.to_string()).into_bytes();
    images::archive(&images::docker_files(&[image]))
}

fn blocks(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let size = |path: PathBuf| match path.is_dir() && !path.is_symlink() {
        true => blocks(&path),
        false => fs::symlink_metadata(&path).unwrap().blocks(),
    };
    entries.map(size).sum()
}

#[test]
fn a_bomb_of_zeros_takes_no_space_however_it_is_compressed() {
    const SIZE: u64 = 64 << 20;
    let shell = Shell::new();
    let archive = shell.dir.path().join("image.tar");
    let image = bomb_image(0, SIZE);
    let mut xz = lzma(&image);
    for bytes in [&image, &mut xz] {
        fs::write(&archive, bytes).unwrap();
        shell.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
        let stored = blocks(&shell.dir.path().join("root")) * 512;
        assert!(stored < 2 << 20, "{stored} bytes");
        assert!(shell.ok(&["verify"]).contains("Verified 1 images"));
        shell.ok(&["rmi", "bomb"]);
    }
    // As the tar of a root filesystem, kept uncompressed.
    let (_, layer) = bomb(0, SIZE);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(layer.as_slice()).read_to_end(&mut plain).unwrap();
    for (name, bytes) in [("plain", &plain), ("gzip", &layer)] {
        fs::write(&archive, bytes).unwrap();
        shell.ok(&["import", "-q", archive.to_str().unwrap(), name]);
        let stored = blocks(&shell.dir.path().join("root")) * 512;
        assert!(stored < 2 << 20, "{name}: {stored} bytes");
    }
    let saved = shell.run(&["save", "plain"]).stdout;
    assert!(saved.windows(512).any(|part| part == &plain[..512]));
    assert!(saved.len() as u64 > SIZE);
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, bytes).unwrap();
    archives::shell(dir.path(), "xz -1 x");
    fs::read(dir.path().join("x.xz")).unwrap()
}

#[test]
fn a_bomb_that_fills_the_disk_is_refused_and_leaves_nothing() {
    if !support::require("root") {
        return;
    }
    let shell = Shell::new();
    let archive = shell.dir.path().join("image.tar");
    fs::write(&archive, bomb_image(b'A', 64 << 20)).unwrap();
    let small = shell.dir.path().join("root");
    fs::create_dir(&small).unwrap();
    archives::shell(&small, "mount -t tmpfs -o size=16m small .");
    let refusal = shell.fails(&["load", "-q", "-i", archive.to_str().unwrap()]);
    let (staging, images, check) =
        (images::list(&small.join("staging")), shell.ok(&["images", "-q"]), shell.ok(&["check"]));
    let left = blocks(&small) * 512;
    archives::shell(shell.dir.path(), "umount root");
    assert!(refusal.contains("no space left on device"), "{refusal}");
    assert_eq!((staging, images, check), (Vec::new(), String::new(), String::new()));
    assert!(left < 1 << 20, "{left} bytes are left");
}

#[test]
fn the_outer_archive_is_believed_as_little() {
    let refused = |bytes: &[u8]| {
        let scratch = Scratch::new();
        let path = scratch.write(bytes);
        let error = scratch.store.load(plyfs::store::Source::Path(&path)).unwrap_err();
        assert!(scratch.list("staging").is_empty() && scratch.list("layers").is_empty());
        error.to_string()
    };
    let good = images::docker_files(&[image("x", &[&[("a", "1")]])]);
    let good = images::archive(&good);
    for (records, expected) in [
        (&[("size", &b"18446744073709551615"[..])][..], "cut off"),
        (&[("size", b"+5")], "a malformed PAX size"),
        (&[("size", b"-5")], "a malformed PAX size"),
        (&[("path", &[b'n'; 5000])], "an oversized name"),
        (&[("GNU.sparse.size", b"5")], "a sparse entry"),
    ] {
        let bytes = [Archive::new().pax(records).bytes, good.clone()].concat();
        let reason = refused(&bytes);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
    for (kind, size) in [(b'x', 2 << 20), (b'L', 5000), (b'L', 1 << 40)] {
        let reason = refused(&Archive::new().header_only(kind, "x", size).finish());
        assert!(reason.contains("an oversized header"), "{reason}");
    }
    for value in [binary(-1, 12), binary(1 << 64, 12)] {
        let header = raw("a", b'0', field(124..136, &value));
        let reason = refused(&[header, good.clone()].concat());
        assert!(reason.contains("size") || reason.contains("cut off"), "{reason}");
    }
    // Links in circles and out of it.
    let config = br#"[{"Config":"a","RepoTags":[],"Layers":[]}]"#;
    let manifest = std::str::from_utf8(config).unwrap();
    for archive in [
        Archive::new().symlink("a", "b").symlink("b", "a"),
        Archive::new().symlink("a", "/etc/hostname"),
        Archive::new().symlink("a", "../../../../etc/hostname"),
        Archive::new().hard_link("a", "a"),
    ] {
        let reason = refused(&archive.file("manifest.json", manifest).finish());
        assert!(reason.contains("\"a\" is missing"), "{reason}");
    }
}
