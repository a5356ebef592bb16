//! Layers unpacked, compared and exported by an ordinary user. Each test runs its other half as
//! that user in a process of its own.

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

use archives::Archive;
use plyfs::archive::tar_read::unpack_layer;
use plyfs::archive::tar_write::export;
use plyfs::changeset::{Change, UpperDir, diff};
use support::{Kind, Snapshot, require};

const USER: u32 = 65534;
const PLACE: &str = "PLYFS_TEST_PLACE";

/// Runs the ignored test `name` as another user, with a directory of its own.
fn as_user(name: &str) -> Option<tempfile::TempDir> {
    if !require("root") || !require("tool:setpriv") {
        return None;
    }
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(place.path(), Some(USER), Some(USER)).unwrap();
    // The directory of the build may be closed to that user.
    let program = place.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", name, "--ignored"])
        .env(PLACE, place.path())
        .current_dir(place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    Some(place)
}

fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).expect("run by the other half"))
}

fn new_dir(name: &str) -> PathBuf {
    let dir = place().join(name);
    std::fs::create_dir(&dir).unwrap();
    dir
}

#[test]
fn a_user_unpacks_what_a_user_may_have() {
    let Some(place) = as_user("unpacks_as_a_user") else { return };
    let layer = Snapshot::of(&place.path().join("layer"));
    let entry = |path: &str| &layer.entries[Path::new(path)];
    let names = ["", "closed", "closed/f", "caps", "gone", "opaque", "suid"];
    for name in names {
        assert_eq!((entry(name).uid, entry(name).gid), (USER, USER), "{name}");
    }
    assert_eq!(entry("closed").mode, 0o555);
    assert_eq!(entry("suid").mode, 0o4755);
    assert!(entry("caps").xattrs.is_empty(), "{:?}", entry("caps").xattrs);
    assert_eq!(entry("gone").kind, Kind::Char(0, 0));
    let marks: Vec<_> = entry("opaque").xattrs.keys().collect();
    assert_eq!(marks, ["user.overlay.opaque"]);
}

#[test]
#[ignore = "the other half of a_user_unpacks_what_a_user_may_have, which runs it"]
fn unpacks_as_a_user() {
    let into = new_dir("layer");
    let mut tar = Archive::new();
    for (path, kind, mode) in
        [("closed", b'5', 0o555), ("closed/f", b'0', 0o400), ("suid", b'0', 0o4755)]
    {
        let mut header = archives::header(kind, path, "", 0, mode, (0, 0));
        header.set_uid(1234);
        header.set_cksum();
        tar.bytes.extend(header.as_bytes());
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = tar
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .file("caps", "x")
        .file(".wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .finish();
    unpack_layer(&mut tar.as_slice(), &into, "layer").unwrap();
}

#[test]
fn a_user_compares_and_exports() {
    let Some(place) = as_user("compares_and_exports_as_a_user") else { return };
    let copy = Snapshot::of(&place.path().join("copy"));
    assert_eq!(copy.paths(), ["", "moved", "moved/f", "opaque", "opaque/new"]);
    assert_eq!(std::fs::metadata(place.path().join("copy/moved/f")).unwrap().uid(), USER);
}

#[test]
#[ignore = "the other half of a_user_compares_and_exports, which runs it"]
fn compares_and_exports_as_a_user() {
    let (lower, upper) = (new_dir("lower"), new_dir("upper"));
    let tar = Archive::new().file("opaque/old", "x").file("gone", "x").file("dir/f", "x").finish();
    unpack_layer(&mut tar.as_slice(), &lower, "lower").unwrap();
    let tar = Archive::new()
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "x")
        .file(".wh.gone", "")
        .file(".wh.dir", "")
        .dir("moved")
        .finish();
    unpack_layer(&mut tar.as_slice(), &upper, "upper").unwrap();
    // As a mount by this user records a rename.
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(upper.join("moved"), "user.overlay.redirect", b"/dir", flags).unwrap();
    let changes = diff(std::slice::from_ref(&lower), &upper).unwrap();
    let lines: Vec<String> = changes.iter().map(Change::to_string).collect();
    assert_eq!(
        lines,
        [
            "D /dir",
            "D /gone",
            "A /moved",
            "A /moved/f",
            "C /opaque",
            "A /opaque/new",
            "D /opaque/old"
        ]
    );
    let mut tar = Vec::new();
    export(&[lower], Some(UpperDir::from(&upper)), &mut tar).unwrap();
    unpack_layer(&mut tar.as_slice(), &new_dir("copy"), "copy").unwrap();
}
