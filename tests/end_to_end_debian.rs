//! A Debian root filesystem over three layers, used as a user would, mounted by PlyFS; then the
//! same lowers and upper, mounted by the kernel's overlayfs, hold the same bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod debian;
mod support;

use std::time::Duration;

use debian::workout::{Material, workout};
use support::{Driver, Options, Policy, Snapshot, assert_same, require};

const NEEDS: &[&str] = &[
    "root",
    "fuse",
    "overlayfs",
    "tool:debootstrap",
    "tool:apt-get",
    "tool:git",
    "tool:sqlite3",
    "tool:cargo",
    "tool:tar",
];

/// Which of an upper's names are hard links of one inode only its writer's index knows.
const BY_THE_KERNEL: Policy = Policy { nlink: false, hard_links: false, ..Policy::SAME_TREE };

#[test]
fn a_debian_root_filesystem_is_used_as_a_user_would() {
    if !NEEDS.iter().all(|need| require(need)) {
        return;
    }
    let scene = debian::rootfs::scene();
    let material = Material::new(&make(scene.place("material")));
    let lowers: Vec<Snapshot> = scene.lowers.iter().map(|lower| Snapshot::of(lower)).collect();

    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let ours = workout(mount.root(), &material);
    let shown = mount.snapshot();
    drop(mount);
    let mount = scene.mount_by(Driver::Kernel, &Options::default());
    assert_same("PlyFS", &shown, "overlayfs afterwards", &mount.snapshot(), BY_THE_KERNEL);
    drop(mount);
    for (lower, before) in scene.lowers.iter().zip(&lowers) {
        let after = Snapshot::of(lower);
        assert_same("a lower before", before, "it afterwards", &after, Policy::EXACT);
    }

    let beside = scene.beside();
    let mount = beside.mount_by(Driver::Kernel, &Options::default());
    let theirs = workout(mount.root(), &material);
    print_times(&ours, &theirs);
}

fn make(place: std::path::PathBuf) -> std::path::PathBuf {
    std::fs::create_dir(&place).unwrap();
    place
}

fn print_times(ours: &[(&'static str, Duration)], theirs: &[(&'static str, Duration)]) {
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    println!("{:<40} {:>12} {:>12}", format!("step ({build})"), "PlyFS", "overlayfs");
    for ((step, ours), (_, theirs)) in ours.iter().zip(theirs) {
        let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
        println!("{step:<40} {ours:>10.2} s {theirs:>10.2} s");
    }
    let sum = |times: &[(_, Duration)]| times.iter().map(|(_, t)| t.as_secs_f64()).sum::<f64>();
    println!("{:<40} {:>10.2} s {:>10.2} s", "together", sum(ours), sum(theirs));
}
