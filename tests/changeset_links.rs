//! Hard links of lowers that were copied up: a difference and an export know all their names,
//! also those that only a lower has and the index of the workdir leads to the upper.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod archives;
mod support;

use std::path::{Path, PathBuf};

use archives::shell;
use plyfs::archive::tar_read::{apply_layer, unpack_layer};
use plyfs::archive::tar_write::{export, layer_tar};
use plyfs::changeset::{Change, UpperDir, diff, diff_docker};
use support::{Driver, MountedOverlay, Options, Policy, Scene, Snapshot, assert_same, ready};

/// `a`, `d/b` and `other/deep/c` are one file, as are `other/x` and `other/y`; a layer above
/// hides `hidden`, a name of the former.
const LAYERS: &str = r#"
    [lower]
    file other/plain "plain"
    whiteout hidden
    [lower]
    file a "one" mode=0600 uid=3
    hardlink d/b a
    hardlink hidden a
    hardlink other/deep/c a
    file other/x "x"
    hardlink other/y other/x
    symlink s a
    hardlink d/s s
"#;

/// The hidden name still counts as a link in a mount, but not in an archive.
const SAME: Policy = Policy { nlink: false, ..Policy::SAME_TREE };

fn upper_of(scene: &Scene) -> UpperDir {
    UpperDir::with_workdir(&scene.upper, &scene.work)
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

/// Each way to make the uppers: PlyFS copies small files whole unless it is told not to.
fn ways() -> [(Driver, Options); 3] {
    let kernel = ["index=on", "metacopy=on", "redirect_dir=on"];
    [
        (Driver::Plyfs, Options::default()),
        (Driver::Plyfs, Options::with(&["metacopy=on"])),
        (Driver::Kernel, Options::with(&kernel)),
    ]
}

/// Changes the layers through a mount, and checks the difference and both kinds of archives.
fn check(script: &str, expected: &[&str]) {
    if !ready() || !support::require("overlayfs") {
        return;
    }
    for (driver, options) in ways() {
        println!("{} {:?}", driver.name(), options.extra);
        let scene = Scene::new(LAYERS);
        let mut mount = scene.mount_by(driver, &options);
        shell(mount.root(), script);
        check_difference(&scene, expected);
        mount.remount();
        let merged = below_root(mount.snapshot());
        check_difference(&scene, expected);
        check_archives(&mut mount, &merged);
    }
}

fn check_difference(scene: &Scene, expected: &[&str]) {
    let changes = diff(&scene.lowers, upper_of(scene)).expect("diff");
    assert_eq!(lines(&changes), expected);
}

fn check_archives(mount: &mut MountedOverlay<'_>, merged: &Snapshot) {
    mount.unmount();
    let scene = mount.scene();
    let mut tar = Vec::new();
    export(&scene.lowers, Some(upper_of(scene)), &mut tar).expect("exports");
    let copy = unpacked(scene, "copy", &tar);
    let copy = below_root(Snapshot::of(&copy));
    assert_same("the mount", merged, "the export", &copy, SAME);

    let mut tar = Vec::new();
    export(&scene.lowers, None, &mut tar).expect("exports");
    let tree = unpacked(scene, "tree", &tar);
    let mut tar = Vec::new();
    layer_tar(upper_of(scene), &scene.lowers, &mut tar).expect("archives");
    apply_layer(&mut tar.as_slice(), &tree, "layer").expect("applies");
    let tree = below_root(Snapshot::of(&tree));
    assert_same("the mount", merged, "the layer applied", &tree, SAME);
}

fn below_root(mut tree: Snapshot) -> Snapshot {
    tree.entries.remove(Path::new(""));
    assert!(!tree.entries.is_empty());
    tree
}

fn unpacked(scene: &Scene, name: &str, mut tar: &[u8]) -> PathBuf {
    let into = scene.place(name);
    std::fs::create_dir(&into).unwrap();
    unpack_layer(&mut tar, &into, name).expect("unpacks");
    into
}

const ALL_NAMES: [&str; 6] =
    ["C /a", "C /d", "C /d/b", "C /other", "C /other/deep", "C /other/deep/c"];

#[test]
fn a_write_through_one_name_shows_under_all() {
    check("echo more >> d/b", &ALL_NAMES);
}

#[test]
fn a_change_of_mode_shows_under_all() {
    check("chmod 640 a", &ALL_NAMES);
}

#[test]
fn a_name_removed_changes_no_other() {
    check("rm a", &["D /a"]);
}

#[test]
fn a_write_and_a_removal() {
    check(
        "echo more >> a; rm a",
        &["D /a", "C /d", "C /d/b", "C /other", "C /other/deep", "C /other/deep/c"],
    );
}

#[test]
fn all_names_removed() {
    check(
        "rm a d/b other/deep/c",
        &["D /a", "C /d", "D /d/b", "C /other", "C /other/deep", "D /other/deep/c"],
    );
}

#[test]
fn a_new_name_belongs_to_the_group() {
    check("ln other/y new", &["A /new"]);
}

#[test]
fn a_directory_that_moved_takes_its_names_along() {
    check(
        "echo more >> a; mv other/deep moved",
        &["C /a", "C /d", "C /d/b", "A /moved", "A /moved/c", "C /other", "D /other/deep"],
    );
}

#[test]
fn symlinks_have_names_too() {
    check("chown -h 7 s", &["C /d", "C /d/s", "C /s"]);
}

#[test]
fn several_groups_at_once() {
    check(
        "chown 9 other/y; rm d/b; ln a other/another; echo z > other/z",
        &[
            "C /d",
            "D /d/b",
            "C /other",
            "A /other/another",
            "C /other/x",
            "C /other/y",
            "A /other/z",
        ],
    );
}

#[test]
fn user_xattrs_count_only_where_they_were_asked_for() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let options = Options::with(&["userxattr", "metacopy=on", "redirect_dir=on"]);
    let mut mount = scene.mount_by(Driver::Plyfs, &options);
    shell(mount.root(), "chmod 640 a; mv other/deep moved");
    mount.unmount();
    let upper = UpperDir { userxattr: true, ..upper_of(&scene) };
    let changes = diff(&scene.lowers, upper).expect("diff");
    assert_eq!(
        lines(&changes),
        ["C /a", "C /d", "C /d/b", "A /moved", "A /moved/c", "C /other", "D /other/deep"]
    );
    // Whoever used another mount could have written them: nothing is taken from below.
    let changes = diff(&scene.lowers, upper_of(&scene)).expect("diff");
    assert!(!lines(&changes).contains(&"A /moved/c".to_owned()), "{changes:?}");
}

#[test]
fn lowers_cannot_lead_astray() {
    if !ready() {
        return;
    }
    let scene =
        Scene::new("[lower]\nfile moved/f \"x\"\nfile moved/g \"x\"\n[lower]\nfile secret/s \"x\"");
    // The author of an image can write this one, whatever the mount believes in its upper.
    shell(&scene.lowers[0], "setfattr -n user.overlay.redirect -v /secret moved");
    let upper = UpperDir { userxattr: true, ..upper_of(&scene) };
    let mut tar = Vec::new();
    export(&scene.lowers, Some(upper), &mut tar).expect("exports");
    let copy = unpacked(&scene, "copy", &tar);
    assert_eq!(support::names(copy.join("moved")), ["f", "g"]);
}

#[test]
fn docker_rule_lists_the_name_in_the_upper_only() {
    if !ready() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mut mount = scene.mount();
    shell(mount.root(), "echo more >> d/b");
    mount.unmount();
    // Docker walks the upper and nothing else, whatever its mount knows of hard links.
    let changes = diff_docker(&scene.lowers, upper_of(&scene)).expect("diff");
    assert_eq!(lines(&changes), ["C /d", "C /d/b"]);
    // Without the workdir nobody can know.
    let changes = diff(&scene.lowers, &scene.upper).expect("diff");
    assert_eq!(lines(&changes), ["C /d", "C /d/b"]);
}
