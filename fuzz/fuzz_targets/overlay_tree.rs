//! Trees whose layers bear marks that nobody meant: redirects, origins, opaque, metacopy, link
//! counts, and an index with any names. Looking at them neither panics nor leads out of them.
#![no_main]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use plyfs::archive::tar_write;
use plyfs::changeset::{self, UpperDir};
use rustix::fs::{XattrFlags, lsetxattr};

const NODES: [&str; 8] = ["", "d", "d/e", "d/f", "g", "h", "d/e/i", "j"];
const MARKS: [&str; 9] = [
    "trusted.overlay.redirect",
    "trusted.overlay.opaque",
    "trusted.overlay.origin",
    "trusted.overlay.metacopy",
    "trusted.overlay.nlink",
    "trusted.overlay.whiteout",
    "trusted.overlay.impure",
    "user.overlay.redirect",
    "user.overlay.opaque",
];

fn tree(root: &Path, secret: &str) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    for name in ["d/f", "g", "h", "d/e/i", "j"] {
        fs::write(root.join(name), format!("{name} {secret}")).unwrap();
    }
}

fuzz_target!(|input: &[u8]| {
    let place = scratch::Scratch::new();
    fs::write(place.path().join("outside"), "SECRET").unwrap();
    let layers = [place.dir("upper"), place.dir("middle"), place.dir("lower")];
    let work = place.dir("work");
    fs::create_dir(work.join("index")).unwrap();
    for layer in &layers {
        tree(layer, "inside");
    }
    for part in scratch::parts(input) {
        let [place, mark, value @ ..] = part else { continue };
        let layer = &layers[usize::from(*place) % 3];
        let node = layer.join(NODES[usize::from(place / 3) % 8]);
        match MARKS.get(usize::from(mark % 11)) {
            // What the filesystem refuses is not there to be read.
            Some(name) => drop(lsetxattr(&node, *name, value, XattrFlags::empty())),
            None if mark % 11 == 9 => {
                let name = OsStr::from_bytes(value);
                if !value.is_empty() && !value.contains(&b'/') && !value.contains(&0) {
                    drop(fs::hard_link(&node, work.join("index").join(name)));
                }
            }
            None => drop(fs::write(&node, b"")),
        }
    }
    let [upper, lowers @ ..] = &layers;
    let upper = UpperDir::with_workdir(upper, &work);
    drop(changeset::diff(lowers, upper.clone()));
    drop(changeset::diff_docker(lowers, upper.clone()));
    let mut export = Vec::new();
    drop(tar_write::export(lowers, Some(upper.clone()), &mut export));
    let mut layer = Vec::new();
    drop(tar_write::layer_tar(upper, lowers, &mut layer));
    let shows = |tar: &[u8]| tar.windows(6).any(|window| window == b"SECRET");
    assert!(!shows(&export) && !shows(&layer), "something from outside the layers");
});
