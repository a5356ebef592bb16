//! Whiteouts where no character device 0:0 may be made: the xattr form. Alone in its process,
//! because the seam that refuses the device is the whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod archives;
mod support;

use std::path::Path;

use archives::Archive;
use plyfs::archive::tar_read::unpack_layer;
use plyfs::changeset::{Change, diff};
use plyfs::error::Errno;
use plyfs::sys::fault;
use support::{Kind, Scene, Snapshot, require};

#[test]
fn whiteouts_without_devices_hide_as_well() {
    if !require("root") {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile d/a \"x\"\nfile d/b \"x\"\nfile e/a \"x\"\nfile e/b \"x\"\n\
         file f/a \"x\"\nfile g/h/a \"x\"",
    );
    let tar = Archive::new()
        .file("d/.wh.a", "")
        .file("e/.wh.a", "")
        .file("e/.wh..wh..opq", "")
        .file("e/.wh.b", "")
        .file("e/new", "x")
        .file(".wh.f", "")
        .file("g/.wh.h", "")
        .dir("g/h")
        .finish();
    // The third mutating call tries the device; before it, two try the xattr.
    fault::arm(2, fault::Action::Fail(Errno::PERM));
    let unpacked = unpack_layer(&mut tar.as_slice(), &scene.upper, "layer");
    fault::disarm();
    unpacked.expect("unpacks");

    let layer = Snapshot::of(&scene.upper);
    let hidden = &layer.entries[Path::new("d/a")];
    assert!(matches!(hidden.kind, Kind::File { size: 0, .. }), "{:?}", hidden.kind);
    assert_eq!(hidden.xattrs.keys().collect::<Vec<_>>(), ["trusted.overlay.whiteout"]);
    let mark = |path: &str| {
        let value = layer.entries[Path::new(path)].xattrs.values().next().cloned();
        value.map(|value| String::from_utf8(value).unwrap()).unwrap_or_default()
    };
    assert_eq!([mark(""), mark("d"), mark("e"), mark("g/h")], ["x", "x", "y", "y"]);

    let changes = diff(&scene.lowers, &scene.upper).expect("diff");
    assert_eq!(
        changes.iter().map(Change::to_string).collect::<Vec<_>>(),
        [
            "C /d", "D /d/a", "C /e", "D /e/a", "D /e/b", "A /e/new", "D /f", "C /g", "C /g/h",
            "D /g/h/a"
        ]
    );
}
