//! The layers on which every mutating verb is stopped and failed at each of its steps, and the
//! verbs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

pub(crate) mod verbs;

use std::fs;

use plyfs::overlay::Options;
use plyfs::overlay::options::UpperOption;

use crate::support::Scene;

const LAYERS: &str = r#"
[upper]
dir d
file d/upper "only in the upper" mode=0600 uid=7 xattr:user.own=1
file d/over "the upper's"
file d/twin "two names"
hardlink d/twin2 d/twin
whiteout d/gone
whiteout d/gone-dir
dir updir
file updir/x x
dir hollow
whiteout hollow/a
opaque sealed
file sealed/own own

[lower]
dir d mode=2775 gid=9
file d/small "a small file" mode=4755 uid=3 gid=4 mtime=1500000000.5 xattr:user.k=v
file d/empty
sparse d/sparse 90000 0:start 80000:end
file d/over "the lower's"
file d/gone "it was here"
dir d/gone-dir
file d/gone-dir/inside old
symlink d/link small
fifo d/fifo mode=0622
char d/dev 1:3 mode=0660
file d/h1 "three names" uid=5
hardlink d/h2 d/h1
hardlink e/h3 d/h1
dir d/sub
file d/sub/a a
file d/sub/deep/er/b b
dir d/void
dir hollow mode=0710 uid=2
file hollow/a a
dir sealed
file sealed/hidden hidden
dir e
file e/other other

[lower]
dir d
dir d/sub
file d/sub/c "from the bottom"
file d/bottom bottom
"#;

/// The layers, with `d/big`, which is copied in more than one call and has its attributes copied
/// up alone.
pub(crate) fn scene() -> Scene {
    let scene = Scene::in_memory(LAYERS);
    let big: Vec<u8> = (0..70_000_u32).map(|n| (n / 7 + n) as u8).collect();
    let path = scene.lowers[0].join("d/big");
    fs::write(&path, big).unwrap();
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().append(true).open(&path).unwrap().set_times(times).unwrap();
    for dir in [scene.lowers[0].join("d"), scene.upper.join("d")] {
        crate::support::set_mtime(&dir, crate::support::DEFAULT_MTIME);
    }
    scene
}

/// The options of a mount of these layers. Attributes alone are copied up of files of any size, so
/// that small ones do.
pub(crate) fn options(lowers: Vec<std::path::PathBuf>, upper: UpperOption) -> Options {
    let upper = Some(upper);
    Options { lowerdirs: lowers, upper, metacopy: METACOPY, ..Options::default() }
}

/// See [`options`].
pub(crate) const METACOPY: Option<bool> = Some(true);
