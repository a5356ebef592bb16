//! Lowers are reached through read-only clones of their mounts, shared where they lie on one.

#![expect(clippy::unwrap_used, reason = "a test stops at what is not as expected")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs::error::Errno;
use plyfs::layer::Layer;
use rustix::fs::{Mode, OFlags};

/// Holds that each of `paths` opens as itself, and that nothing can be made through it although
/// the directory is writable.
fn assert_sealed(paths: &[PathBuf]) {
    let layers = Layer::open_all(paths).unwrap();
    assert_eq!(layers.len(), paths.len());
    for (layer, path) in layers.iter().zip(paths) {
        assert!(layer.sealed, "{}", path.display());
        let name = fs::read_to_string(path.join("name")).unwrap();
        let file = rustix::fs::openat(&layer.root, "name", OFlags::RDONLY, Mode::empty()).unwrap();
        let mut seen = vec![0; 100];
        let length = rustix::io::read(&file, &mut seen).unwrap();
        assert_eq!(seen.get(..length).unwrap(), name.as_bytes());
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let refused = rustix::fs::openat(&layer.root, "new", flags, Mode::from_raw_mode(0o600));
        assert_eq!(refused.unwrap_err(), Errno::ROFS, "{}", path.display());
        fs::write(path.join("new"), "").unwrap();
        fs::remove_file(path.join("new")).unwrap();
    }
}

fn layer(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("name"), name).unwrap();
    path
}

#[test]
fn lowers_are_read_only_on_one_mount_and_on_several() {
    if !support::require("root") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let one = layer(dir, "a/b/one");
    assert_sealed(std::slice::from_ref(&one));
    // One inside another's directory, one by a symlink.
    let link = dir.join("link");
    symlink(layer(dir, "far/two"), &link).unwrap();
    let mut paths = vec![one.clone(), link, layer(dir, "a/b/one/three")];
    assert_sealed(&paths);

    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).arg(&other).status().unwrap().success());
    };
    mount("mount", &["-t", "tmpfs", "tmpfs"]);
    paths.push(layer(&other, "four"));
    let checked = std::panic::catch_unwind(|| assert_sealed(&paths));
    mount("umount", &[]);
    checked.unwrap();
}
