//! `mount --driver`: the kernel's overlayfs is taken where it shows what the daemon shows, refused
//! where it would not, and every verb is the same on either.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops")]

mod images;
mod shell;
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::XattrFlags;
use shell::Shell;
use support::{Policy, Snapshot, assert_same, require};

const FUSE: &str = " - fuse.plyfs plyfs-";
const KERNEL: &str = " - overlay plyfs-";

/// A new mount namespace has a copy of every mount, which keeps it busy: who makes one is alone.
static NAMESPACES: RwLock<()> = RwLock::new(());

fn able() -> Option<RwLockReadGuard<'static, ()>> {
    let able = require("root") && require("fuse") && require("overlayfs");
    able.then(|| NAMESPACES.read())
}

fn able_alone() -> Option<RwLockWriteGuard<'static, ()>> {
    able().map(|together| {
        drop(together);
        NAMESPACES.write()
    })
}

/// A store with an image of two layers, and a container called box.
fn boxed() -> Shell {
    let base: images::Files<'_> =
        &[("gone", "1"), ("dir/a", "a"), ("dir/b", "b"), ("moved/x", "x")];
    let top: images::Files<'_> = &[(".wh.gone", ""), ("dir/.wh..wh..opq", ""), ("dir/c", "c")];
    loaded(&images::image("two", &[base, top]))
}

fn loaded(image: &images::Image) -> Shell {
    let shell = Shell::new();
    let archive = shell.dir.path().join("image.tar");
    fs::write(&archive, images::archive(&images::docker_files(std::slice::from_ref(image))))
        .unwrap();
    shell.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    shell.ok(&["create", "--name", "box", image.name.as_deref().unwrap()]);
    shell
}

fn only(dir: PathBuf) -> PathBuf {
    let mut entries = fs::read_dir(dir).unwrap();
    let only = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    only
}

fn container(shell: &Shell) -> PathBuf {
    only(shell.dir.path().join("root/containers"))
}

/// Mounts box, has `work` done in it, and unmounts it; returns what the mount table said.
fn mounted(shell: &Shell, driver: &str, work: impl FnOnce(&Path)) -> String {
    let place = PathBuf::from(shell.ok(&["mount", "--driver", driver, "box"]).trim_end());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let shown = format!(" {} ", place.display());
    let line = table.lines().find(|line| line.contains(&shown)).unwrap().to_owned();
    work(&place);
    shell.ok(&["umount", "box"]);
    line
}

/// That the kernel's driver is refused for `reason`, and `auto` takes the daemon.
fn assert_daemon(shell: &Shell, reason: &str) {
    let refusal = shell.fails(&["mount", "--driver", "kernel", "box"]);
    assert!(refusal.starts_with("cannot mount container box by the kernel's overlayfs: "));
    assert!(refusal.contains(reason) && refusal.ends_with("; use --driver fuse"), "{refusal}");
    assert!(!shell.ok(&["ps"]).contains("box"), "nothing is mounted");
    let line = mounted(shell, "auto", |_| {});
    assert!(line.contains(FUSE), "{line}");
}

/// That `auto` takes the kernel, and the kernel shows what the daemon shows.
fn assert_kernel(shell: &Shell) {
    let mut seen = Vec::new();
    for (driver, kind) in [("fuse", FUSE), ("auto", KERNEL), ("kernel", KERNEL)] {
        let line = mounted(shell, driver, |place| seen.push(Snapshot::of(place)));
        assert!(line.contains(kind), "{driver}: {line}");
    }
    for kernel in &seen[1..] {
        assert_same("the daemon", &seen[0], "the kernel", kernel, Policy::SAME_TREE);
    }
}

fn mark(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

#[test]
fn the_kernel_is_taken_where_it_lacks_nothing() {
    let Some(_together) = able() else { return };
    let shell = boxed();
    assert_kernel(&shell);
    // What the daemon leaves in the writable layer it knows, too: a redirect, attributes alone, an
    // index entry, whiteouts, an opaque directory.
    let large = vec![7; 3 << 20];
    let place = PathBuf::from(shell.ok(&["mount", "box"]).trim_end());
    fs::write(place.join("large"), &large).unwrap();
    fs::write(place.join("one"), "1").unwrap();
    fs::hard_link(place.join("one"), place.join("two")).unwrap();
    fs::create_dir(place.join("emptied")).unwrap();
    fs::write(place.join("emptied/old"), "").unwrap();
    shell.ok(&["umount", "box"]);
    shell.ok(&["commit", "-q", "box", "three"]);
    shell.ok(&["rm", "box"]);
    shell.ok(&["create", "--name", "box", "three"]);
    mounted(&shell, "fuse", |place| {
        fs::rename(place.join("moved"), place.join("elsewhere")).unwrap();
        fs::set_permissions(
            place.join("large"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        fs::write(place.join("one"), "through one").unwrap();
        fs::remove_dir_all(place.join("emptied")).unwrap();
        fs::create_dir(place.join("emptied")).unwrap();
        fs::remove_file(place.join("dir/c")).unwrap();
    });
    let upper = container(&shell).join("diff");
    let has = |name: &str, mark: &str| rustix::fs::lgetxattr(upper.join(name), mark, &mut [0; 256]);
    assert!(has("elsewhere", "trusted.overlay.redirect").is_ok());
    assert!(has("large", "trusted.overlay.metacopy").is_ok());
    assert_eq!(fs::read_dir(container(&shell).join("work/index")).unwrap().count(), 1);
    assert_kernel(&shell);
}

#[test]
fn an_opaque_root_of_a_layer_is_for_the_daemon() {
    let Some(_together) = able() else { return };
    let hidden: images::Files<'_> = &[("hidden", "1")];
    let opaque: images::Files<'_> = &[(".wh..wh..opq", ""), ("shown", "2")];
    let shell = loaded(&images::image("opaque", &[hidden, opaque]));
    assert_daemon(&shell, "by a mark on its root");
    mounted(&shell, "auto", |place| {
        assert!(!place.join("hidden").exists() && place.join("shown").exists());
    });
    // Below the lowest layer there is nothing that it could hide.
    assert_kernel(&loaded(&images::image("lowest", &[opaque, hidden])));
}

#[test]
fn layers_of_which_nothing_was_noted_are_looked_through() {
    let Some(_together) = able() else { return };
    let shell = boxed();
    for layer in fs::read_dir(shell.dir.path().join("root/layers")).unwrap() {
        let record = layer.unwrap().path().join("layer.json");
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        assert!(value.as_object_mut().unwrap().remove("marks").is_some());
        fs::write(record, value.to_string()).unwrap();
    }
    assert_kernel(&shell);
    let layers = fs::read_dir(shell.dir.path().join("root/layers")).unwrap();
    let trees: Vec<_> = layers.map(|layer| layer.unwrap().path().join("diff")).collect();
    let base = trees.iter().find(|tree| tree.join("moved").exists()).unwrap();
    let reason = "would not see all that layer";
    for name in [".wh.dir", "moved/.wh..wh..opq"] {
        fs::write(base.join(name), "").unwrap();
        assert_daemon(&shell, reason);
        fs::remove_file(base.join(name)).unwrap();
    }
    for name in ["user.overlay.opaque", "user.fuseoverlayfs.opaque"] {
        mark(&base.join("moved"), name, b"y");
        assert_daemon(&shell, reason);
        rustix::fs::lremovexattr(base.join("moved"), name).unwrap();
    }
    assert_kernel(&shell);
}

#[test]
fn what_overlayfs_would_misread_in_the_writable_layer_is_for_the_daemon() {
    let Some(_together) = able() else { return };
    let shell = boxed();
    let upper = container(&shell).join("diff");
    fs::create_dir_all(upper.join("new/deep")).unwrap();
    for name in [".wh.moved", "new/.wh..wh..opq", "new/deep/.wh.users-own"] {
        fs::write(upper.join(name), "").unwrap();
        assert_daemon(&shell, &format!("would misread /{name} in its writable layer"));
        fs::remove_file(upper.join(name)).unwrap();
    }
    fs::write(upper.join("new/deep/file"), "").unwrap();
    for (name, attribute, value) in [
        ("new", "user.overlay.opaque", "y"),
        ("new", "user.fuseoverlayfs.opaque", "y"),
        ("new/deep/file", "user.overlay.overlay.nested", "1"),
        ("new/deep/file", "trusted.overlay.whiteout", "y"),
    ] {
        mark(&upper.join(name), attribute, value.as_bytes());
        assert_daemon(&shell, &format!("would misread /{name} in its writable layer"));
        rustix::fs::lremovexattr(upper.join(name), attribute).unwrap();
    }
    assert_kernel(&shell);
}

#[test]
fn as_many_layers_as_an_image_may_have_are_mounted_by_the_kernel() {
    let Some(_together) = able() else { return };
    let names: Vec<String> = (0..500).map(|n| format!("f{n}")).collect();
    let layers: Vec<[(&str, &str); 1]> = names.iter().map(|name| [(name.as_str(), "")]).collect();
    let layers: Vec<images::Files<'_>> = layers.iter().map(|layer| &layer[..]).collect();
    let shell = loaded(&images::image("most", &layers));
    assert!(
        mounted(&shell, "auto", |place| {
            assert_eq!(fs::read_dir(place).unwrap().count(), 500);
        })
        .contains(KERNEL)
    );
}

/// The kernel takes no option of more than 255 bytes.
#[test]
fn a_store_with_a_long_path_is_mounted_by_either() {
    let Some(_together) = able() else { return };
    let shell = boxed();
    let (root, long) = (shell.dir.path().join("root"), shell.dir.path().join("l".repeat(240)));
    fs::rename(&root, &long).unwrap();
    symlink(&long, &root).unwrap();
    assert_kernel(&shell);
}

#[test]
fn a_mount_by_the_kernel_in_another_mount_namespace_is_known() {
    let Some(_alone) = able_alone() else { return };
    let shell = boxed();
    for driver in ["fuse", "kernel"] {
        let script =
            "\"$1\" mount --driver \"$2\" box && echo mounted && read -r _; \"$1\" umount box";
        let mut other = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-uc", script, "sh"])
            .args([env!("CARGO_BIN_EXE_plyfs"), driver])
            .env("PLYFS_ROOT", shell.dir.path().join("root"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(other.stdout.take().unwrap());
        for _ in 0..2 {
            let mut line = String::new();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "{driver}");
        }
        assert!(shell.ok(&["ps"]).contains("Mounted"), "{driver}");
        for verb in [&["rm", "box"][..], &["mount", "box"], &["rm", "-f", "box"]] {
            let refusal = shell.fails(verb);
            assert!(refusal.contains("mounted in another mount namespace"), "{driver}: {refusal}");
        }
        shell.ok(&["prune", "-f", "--containers"]);
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success(), "{driver}");
        assert!(!shell.ok(&["ps"]).contains("box"), "{driver}");
    }
    shell.ok(&["rm", "box"]);
}

/// What the verbs say of box while it is mounted by `driver`, changed, and unmounted again.
fn told(shell: &Shell, driver: &str) -> Vec<String> {
    let mut told = Vec::new();
    let place = PathBuf::from(shell.ok(&["mount", "--driver", driver, "box"]).trim_end());
    let file = shell.dir.path().join("file");
    fs::write(&file, "copied").unwrap();
    shell.ok(&["cp", file.to_str().unwrap(), "box:/dir/copied"]);
    fs::rename(place.join("moved"), place.join("elsewhere")).unwrap();
    fs::remove_file(place.join("dir/c")).unwrap();
    let listed = |verb: &[&str]| {
        let id = shell.json(&["inspect", "box"])[0]["Id"].as_str().unwrap().to_owned();
        shell.ok(verb).replace(&id, "ID").replace(&id[..12], "ID")
    };
    for verb in [
        &["ps", "-a", "--format", "{{.Names}} {{.Status}}"][..],
        &["diff", "box"],
        &["diff", "--format", "docker", "box"],
        &["mount", "box"],
        &["commit", "--timestamp", "5", "-m", "m", "box", "committed"],
        &["history", "--no-trunc", "--format", "{{.ID}} {{.Size}}", "committed"],
        &["check"],
        &["verify"],
    ] {
        told.push(listed(verb));
    }
    // Everything but the times of what was just made.
    let timeless = |line: &&str| !line.contains("sec\":");
    let diff = shell.ok(&["diff", "--json", "box"]);
    told.push(diff.lines().filter(timeless).collect());
    told.push(shell.fails(&["rm", "box"]).replace(place.to_str().unwrap(), "PLACE"));
    shell.ok(&["rename", "box", "renamed"]);
    shell.ok(&["rename", "renamed", "box"]);
    shell.ok(&["umount", "box"]);
    told.push(shell.fails(&["umount", "box"]));
    told.push(listed(&["diff", "box"]));
    shell.ok(&["mount", "--driver", driver, "box"]);
    shell.ok(&["rm", "-f", "box"]);
    shell.ok(&["rmi", "committed"]);
    assert!(fs::read_dir(shell.dir.path().join("root/containers")).unwrap().next().is_none());
    told
}

#[test]
fn every_verb_says_the_same_on_either() {
    let Some(_together) = able() else { return };
    let shell = boxed();
    let fuse = told(&shell, "fuse");
    for driver in ["kernel", "auto"] {
        shell.ok(&["create", "--name", "box", "two"]);
        assert_eq!(told(&shell, driver), fuse, "{driver}");
    }
}

/// In a user namespace the kernel's marks are `user.overlay.*`, and it knows no redirects.
#[test]
fn root_of_a_user_namespace_mounts_by_the_kernel_what_it_shows_right() {
    let Some(_alone) = able_alone() else { return };
    if !support::as_host_root("it makes a user namespace of its own") {
        return;
    }
    let base = support::scratch();
    fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let image = images::image(
        "two",
        &[&[("gone", "1"), ("dir/a", "a")], &[(".wh.gone", ""), ("dir/.wh..wh..opq", "")]],
    );
    let archive = base.path().join("image.tar");
    fs::write(&archive, images::archive(&images::docker_files(&[image]))).unwrap();
    for program in [env!("CARGO_BIN_EXE_plyfs"), env!("CARGO_BIN_EXE_fuse-plyfs")] {
        let name = Path::new(program).file_name().unwrap();
        fs::copy(program, base.path().join(name)).unwrap();
    }
    let script = r#"
        export PLYFS_ROOT=$PWD/root
        ./plyfs load -q -i image.tar
        ./plyfs create --name box two
        dir=$(./plyfs mount --driver kernel box)
        grep -q " $dir overlay .*userxattr" /proc/self/mounts
        test ! -e "$dir/gone"
        test ! -e "$dir/dir/a"
        rmdir "$dir/dir"
        mkdir "$dir/dir"
        echo new >"$dir/dir/new"
        ./plyfs diff box >by-kernel
        ./plyfs umount box
        dir=$(./plyfs mount --driver auto box)
        grep -q " $dir fuse.plyfs " /proc/self/mounts
        ./plyfs diff box | cmp - by-kernel
        test "$(cat "$dir/dir/new")" = new
        mv "$dir/dir" "$dir/moved"
        ./plyfs umount box
        dir=$(./plyfs mount --driver auto box)
        test "$(cat "$dir/moved/new")" = new
        ./plyfs umount box
        ./plyfs diff box
    "#;
    let rootless = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rootless");
    let output = Command::new(rootless)
        .args(["sh", "-euc", script])
        .current_dir(base.path())
        .env_remove("PLYFS_LOG")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}
