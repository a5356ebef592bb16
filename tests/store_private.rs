//! Nobody but its owner gets at a store or at what is written out of it, whatever the umask, and
//! also where somebody made the store's directory beforehand; what is mounted has its own modes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod registries;
mod shell;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use registries::Registry;
use shell::Shell;
use support::require;

const ANYBODY: &str = "65534";

/// Everything below `dir` that others than its owner have rights to. What lies below a directory
/// that is the owner's alone counts all the same, but for the trees of layers, whose modes are an
/// image's.
fn open_to_others(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let is_tree = path.ends_with("diff") || path.ends_with("merged");
        if meta.is_symlink() || is_tree {
            continue;
        }
        if meta.mode() & 0o077 != 0 {
            found.push(format!("{:o} {}", meta.mode(), path.display()));
        }
        if meta.is_dir() {
            open_to_others(&path, found);
        }
    }
}

fn assert_private(dir: &Path, when: &str) {
    let mut found = Vec::new();
    open_to_others(dir, &mut found);
    assert!(found.is_empty(), "{when}: {found:#?}");
}

/// Whether another user can list or read `path`.
fn others_read(path: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", ANYBODY, "--regid", ANYBODY, "--clear-groups", "cat"]).arg(path);
    command.output().unwrap().status.success()
}

#[test]
fn a_store_and_what_is_written_out_of_it_are_their_owners() {
    if !(require("root")
        && require("fuse")
        && require("tool:docker-registry")
        && require("tool:setpriv"))
    {
        return;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let shell = Shell::new();
    let root = shell.dir.path().join("root");
    // As a package or a careful person may have made them.
    for dir in [shell.dir.path(), &root] {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    shell.ok(&["load", "-q", "-i", images::fixture("busybox-oci.tar").to_str().unwrap()]);
    assert_private(&root, "load");
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = shell.ok(&["mount", "box"]);
    let place = Path::new(place.trim_end());
    fs::write(place.join("secret"), "secret").unwrap();
    let secret = root.join("containers").read_dir().unwrap().next().unwrap().unwrap().path();
    assert!(!others_read(&secret.join("diff/secret")) && !others_read(&place.join("secret")));
    let mode = |name: &str| fs::metadata(place.join(name)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("."), mode("tmp"), mode("root"), mode("bin/busybox")),
        (0o755, 0o1777, 0o700, 0o755)
    );
    let elsewhere = shell.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    shell.ok(&["umount", "box"]);
    shell.ok(&["mount", "box", elsewhere.to_str().unwrap()]);
    assert!(others_read(&elsewhere.join("etc/hosts")), "a mount is for whom its modes let in");
    shell.ok(&["umount", "box"]);
    assert_private(&root, "mount");

    shell.ok(&["commit", "-q", "box", "made:1"]);
    shell.ok(&["commit", "-q", "--squash", "box", "made:2"]);
    let registry = Registry::start();
    let name = registry.name("made:1");
    shell.ok(&["push", "-q", "made:1", &name]);
    shell.ok(&["rmi", "-f", "made:1"]);
    shell.ok(&["pull", "-q", &name]);
    assert_private(&root, "commit, push and pull");

    let out = shell.dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();
    let to = |name: &str| out.join(name).display().to_string();
    shell.ok(&["save", "-q", "-o", &to("saved.tar"), "made:2"]);
    shell.ok(&["save", "-q", "--format", "oci-dir", "-o", &to("layout"), "made:2"]);
    shell.ok(&["export", "-o", &to("exported.tar"), "box"]);
    let upper = secret.join("diff").display().to_string();
    shell.ok(&["layer-tar", "--lowerdir", &to(""), "--upperdir", &upper, "-o", &to("layer.tar")]);
    for name in ["saved.tar", "layout", "exported.tar", "layer.tar"] {
        let mode = fs::metadata(out.join(name)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        assert!(!others_read(&out.join(name).join("index.json")));
    }
}

/// What a directory above the store hands on would open its layers' files to others, and be saved with
/// every image.
#[test]
fn an_acl_above_the_store_is_not_the_images() {
    if !(require("root") && require("fuse") && require("tool:setfacl") && require("tool:getfacl")) {
        return;
    }
    let shell = Shell::new();
    let mut hand_on = Command::new("setfacl");
    let handed = hand_on.args(["-d", "-m", "u:65534:rwx"]).arg(shell.dir.path()).status();
    assert!(handed.unwrap().success());
    shell.ok(&["load", "-q", "-i", images::fixture("busybox-oci.tar").to_str().unwrap()]);
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = shell.ok(&["mount", "box"]);
    let place = Path::new(place.trim_end());
    fs::write(place.join("etc/hosts"), "changed").unwrap();
    for name in ["", "etc", "etc/hosts", "bin/busybox"] {
        let acl = Command::new("getfacl").arg("-cn").arg(place.join(name)).output().unwrap();
        let acl = String::from_utf8(acl.stdout).unwrap();
        assert!(acl.starts_with("user::") && !acl.contains("65534"), "{name}: {acl}");
    }
    shell.ok(&["umount", "box"]);
}
