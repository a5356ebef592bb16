//! `diff` of two trees, `layer-tar` and `apply`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shell::Shell;
use support::{Policy, Snapshot, assert_same};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn upper(shell: &Shell, name: &str) -> PathBuf {
    let details = shell.json(&["inspect", name]);
    PathBuf::from(details[0]["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap())
}

#[test]
fn images_and_containers_are_compared_with_one_another() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let upper = upper(&shell, "box");
    fs::create_dir_all(upper.join("new/sub")).unwrap();
    fs::write(upper.join("new/sub/file"), "x").unwrap();
    shell.ok(&["commit", "box", "next:1"]);
    let forward = ["A /new", "A /new/sub", "A /new/sub/file"].join("\n") + "\n";
    assert_eq!(shell.ok(&["diff", "busybox:1.35", "next:1"]), forward);
    assert_eq!(shell.ok(&["diff", "busybox:1.35", "box"]), forward);
    assert_eq!(shell.ok(&["diff", "--format", "docker", "busybox:1.35", "next:1"]), forward);
    assert_eq!(shell.ok(&["diff", "next:1", "busybox:1.35"]), "D /new\n");
    for same in [["box", "next:1"], ["next:1", "box"], ["box", "box"]] {
        assert_eq!(shell.ok(&["diff", same[0], same[1]]), "", "{same:?}");
    }
    // A squashed image has no layer in common with the others, and the same tree.
    shell.ok(&["commit", "--squash", "box", "flat:1"]);
    assert_eq!(shell.ok(&["diff", "next:1", "flat:1"]), "");
    assert_eq!(shell.ok(&["diff", "busybox:1.35", "flat:1"]), forward);
    let changes = shell.json(&["diff", "--format", "json", "flat:1", "busybox:1.35"]);
    assert_eq!(changes[0]["old"]["type"], "directory");
    assert_eq!(shell.fails(&["diff", "box", "nope"]), "no such container or image: nope");
}

#[test]
fn a_layer_archive_applied_to_the_old_tree_gives_the_new_one() {
    if !(support::require("root") && support::require("fuse")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "old", "busybox:1.35"]);
    shell.ok(&["create", "--name", "new", "busybox:1.35"]);
    let place = PathBuf::from(shell.ok(&["mount", "new"]).trim_end());
    let script = "rm etc/hosts; mv root renamed; rm -r srv; mkdir srv; echo x >srv/file
                  setfattr -n user.note -v a srv/file; chmod 4711 srv/file; echo y >>etc/motd2";
    let status = Command::new("sh").args(["-euc", script]).current_dir(&place).status().unwrap();
    let expected = Snapshot::of(&place);
    shell.ok(&["umount", "new"]);
    assert!(status.success());

    let dir = shell.dir.path();
    let (tree, layer, rootfs) = (dir.join("tree.tar"), dir.join("layer.tar"), dir.join("rootfs"));
    shell.ok(&["export", "-o", text(&tree), "old"]);
    shell.ok(&["layer-tar", "-o", text(&layer), "new"]);
    fs::create_dir(&rootfs).unwrap();
    shell.ok(&["apply", "-i", text(&tree), text(&rootfs)]);
    shell.ok(&["apply", "-i", text(&layer), text(&rootfs)]);
    assert_same("the container", &expected, "applied", &Snapshot::of(&rootfs), Policy::SAME_TREE);

    // The same from directories, and as a layer again.
    let details = shell.json(&["inspect", "new"]);
    let data = &details[0]["GraphDriver"]["Data"];
    let path = |key: &str| data[key].as_str().unwrap().to_owned();
    let (lowers, upper, work) = (path("LowerDir"), path("UpperDir"), path("WorkDir"));
    let by_path = ["--lowerdir", &lowers, "--upperdir", &upper, "--workdir", &work];
    let bytes = shell.run(&[&["layer-tar"], &by_path[..]].concat()).stdout;
    assert!(bytes == fs::read(&layer).unwrap());
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    shell.ok(&["apply", "--layer", "-i", text(&layer), text(&unpacked)]);
    let by_path = ["--lowerdir", &lowers, "--upperdir", text(&unpacked)];
    let again = shell.run(&[&["layer-tar"], &by_path[..]].concat()).stdout;
    assert!(again == bytes);
    let said = shell.fails(&["apply", "--layer", "-i", text(&layer), text(&unpacked)]);
    assert!(said.contains("not empty"), "{said}");
}
