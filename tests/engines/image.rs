//! The image that all engines begin with: busybox, and a tree that has one name for each way to
//! change something.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Room, fixture, run};
use crate::support::Scene;

/// The name that the engines give it.
pub(crate) const BASE: &str = "localhost/plyfs/base:1";

/// Makes the root filesystem and packs it; the archive stays as long as the room does.
pub(crate) fn base(room: &Room) -> PathBuf {
    let archive = room.path("base.tar");
    if archive.exists() {
        return archive;
    }
    let scene = Scene::from_fixture("engine");
    let root = &scene.lowers[0];
    let bin = root.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for name in run(Command::new("/bin/busybox").arg("--list")).lines() {
        if name != "busybox" {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
    }
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-O1", "-o"]).arg(bin.join("syscalls")).arg(fixture("syscalls.c"));
    run(&mut gcc);
    let mut tar = Command::new("tar");
    tar.args(["--create", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--file"]);
    run(tar.arg(&archive).arg("--directory").arg(root).arg("."));
    archive
}

/// A directory to build in: the file with the steps, and what they copy.
pub(crate) fn build_context(room: &Room) -> PathBuf {
    let context = room.dir("context");
    for name in ["Containerfile", "changes.sh"] {
        fs::copy(fixture(name), context.join(name)).unwrap();
    }
    executable(&context.join("changes.sh"));
    let dir = room.dir("context/context/dir/gone");
    fs::write(dir.join("file"), "goes\n").unwrap();
    fs::write(dir.parent().unwrap().join("kept"), "stays\n").unwrap();
    context
}

fn executable(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
