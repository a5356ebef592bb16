//! `commit`: what a container changed comes out of the new image again, here and in podman.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use shell::Shell;
use support::{Policy, Snapshot, assert_same};

fn ready() -> bool {
    support::require("root") && support::require("fuse")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn sh(dir: &Path, script: &str) {
    let output = Command::new("sh").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Changes of every kind that an archive can carry.
fn change(root: &Path) {
    fs::write(root.join("etc/new"), "new").unwrap();
    fs::remove_file(root.join("etc/hosts")).unwrap();
    symlink("../nowhere", root.join("etc/link")).unwrap();
    sh(
        root,
        "chmod 4755 etc/new; chown 12:34 etc/new; setfattr -n user.note -v 'a b' etc/new
         setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 etc/new
         setfacl -m u:7:rwx etc/new; touch -d '2001-02-03 04:05:06.123456789 UTC' etc/new
         mkdir -m 1777 -p dir/sub; ln etc/new dir/sub/hard; mkfifo dir/fifo; mknod dir/dev c 1 3
         truncate -s 1M dir/sparse; printf end >>dir/sparse
         rm -r srv/www; mkdir srv/www; echo again >srv/www/page; mv root renamed
         touch -d '1960-01-01 00:00:00.5 UTC' dir/old; chmod 700 etc",
    );
}

fn mounted(shell: &Shell, container: &str) -> PathBuf {
    PathBuf::from(shell.ok(&["mount", container]).trim_end())
}

fn config(shell: &Shell, id: &str) -> Value {
    let hex = id.trim().strip_prefix("sha256:").unwrap();
    let path = shell.dir.path().join("root/images").join(hex).join("config.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_was_changed_is_in_the_image_here_and_in_podman() {
    if !(ready() && support::require("tool:podman") && support::require("tool:setfattr")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = mounted(&shell, "box");
    change(&place);
    shell.ok(&["umount", "box"]);
    for (name, flags) in [("more:1", &[][..]), ("one:1", &["--squash"])] {
        shell.ok(&[&["commit"], flags, &["box", name]].concat());
        shell.ok(&["create", "--name", &name[..3], name]);
    }
    let original = Snapshot::of(&mounted(&shell, "box"));
    assert!(original.entries.contains_key(Path::new("renamed")));
    for name in ["mor", "one"] {
        let seen = Snapshot::of(&mounted(&shell, name));
        assert_same("the container", &original, name, &seen, Policy::SAME_TREE);
    }
    for name in ["box", "mor", "one"] {
        shell.ok(&["umount", name]);
    }
    let archive = shell.dir.path().join("saved.tar");
    for (name, form) in [("more:1", "docker-archive"), ("one:1", "oci-archive")] {
        shell.ok(&["save", "--format", form, "-o", text(&archive), name]);
        let mut seen = tree_in_podman(&archive, name);
        let mut original = original.clone();
        // podman gives a root its own time, and knows none before 1970.
        for path in ["", "dir/old"] {
            for tree in [&mut seen, &mut original] {
                tree.entries.get_mut(Path::new(path)).unwrap().mtime = support::Time::parse("0");
            }
        }
        assert_same("the container", &original, "podman", &seen, Policy::SAME_TREE);
    }
}

/// The tree that podman makes of an archive.
fn tree_in_podman(archive: &Path, name: &str) -> Snapshot {
    let storage = tempfile::tempdir().unwrap();
    let (root, run_root) = (storage.path().join("root"), storage.path().join("run"));
    let podman = |arguments: &[&str]| {
        let output = Command::new("podman")
            .args(["--root", text(&root), "--runroot", text(&run_root)])
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "podman {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    podman(&["load", "-q", "-i", text(archive)]);
    let place = podman(&["image", "mount", &format!("docker.io/library/{name}")]);
    let seen = Snapshot::of(Path::new(place.trim()));
    podman(&["image", "umount", "--all"]);
    seen
}

#[test]
fn the_config_says_what_was_asked_for() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let upper = shell.json(&["ps", "-a", "--json"])[0]["upper"].as_str().unwrap().to_owned();
    fs::write(Path::new(&upper).join("new"), "x").unwrap();
    let base = shell.json(&["images", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let arguments = ["commit", "-a", "Ann <a@b.c>", "-m", "why", "--timestamp", "1000000000"];
    let changes = ["-c", "CMD [\"cat\"]", "--change", "ENV A=1", "box", "app:v1"];
    let id = shell.ok(&[&arguments[..], &changes].concat());
    let (before, after) = (config(&shell, &base), config(&shell, &id));
    assert_eq!(after["created"], "2001-09-09T01:46:40Z");
    assert_eq!(after["author"], "Ann <a@b.c>");
    assert_eq!(after["config"]["Cmd"], serde_json::json!(["cat"]));
    assert!(after["config"]["Env"].as_array().unwrap().contains(&"A=1".into()));
    assert_eq!(after["architecture"], before["architecture"]);
    let (old, new) = (&before["rootfs"]["diff_ids"], &after["rootfs"]["diff_ids"]);
    assert_eq!(new.as_array().unwrap()[..3], old.as_array().unwrap()[..]);
    assert_eq!(new.as_array().unwrap().len(), 4);
    let steps = after["history"].as_array().unwrap();
    let layers = steps.iter().filter(|step| step["empty_layer"] != true).count();
    assert_eq!(layers, 4);
    assert_eq!(steps.last().unwrap()["comment"], "why");

    // Equal input, equal image; and from the environment as by the option.
    let again = shell.ok(&[&arguments[..], &changes].concat());
    assert_eq!(again, id);
    let by_environment = shell
        .command(&[&arguments[..5], &changes].concat())
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(by_environment.stdout).unwrap(), id);
    let said = shell.fails(&["commit", "-c", "RUN x", "box"]);
    assert!(said.starts_with("option --change: \"RUN\" cannot change an image"), "{said}");
    let said = shell.fails(&["commit", "box", "Not A Name"]);
    assert!(said.contains("is not an image name"), "{said}");
}

#[test]
fn an_unchanged_container_adds_no_layer() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let id = shell.ok(&["commit", "box", "same:1"]);
    let config = config(&shell, &id);
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    assert_eq!(config["history"].as_array().unwrap().last().unwrap()["empty_layer"], true);
    // What is committed is an image like any other.
    shell.ok(&["create", "--name", "second", "same:1"]);
    shell.ok(&["rm", "second"]);
    shell.ok(&["rmi", "same:1"]);
    assert_eq!(shell.json(&["images", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_mounted_container_can_be_committed_and_its_devices_are_kept() {
    if !ready() {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = mounted(&shell, "box");
    sh(&place, "mknod dev-null c 1 3; echo live >live");
    shell.ok(&["commit", "-q", "box", "live:1"]);
    sh(&place, "echo later >later");
    shell.ok(&["umount", "box"]);
    shell.ok(&["create", "--name", "copy", "live:1"]);
    let place = mounted(&shell, "copy");
    let (live, later) = (fs::read_to_string(place.join("live")), place.join("later").exists());
    let kind = fs::symlink_metadata(place.join("dev-null")).unwrap().file_type();
    shell.ok(&["umount", "copy"]);
    assert_eq!((live.unwrap().as_str(), later, kind.is_char_device()), ("live\n", false, true));
}
