//! A Debian root filesystem over three layers, used as a user would, mounted by PlyFS; then the
//! same lowers and upper, mounted by the kernel's overlayfs, hold the same bytes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod debian;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use debian::workout::{Material, workout};
use support::{Driver, Options, Policy, Scene, Snapshot, assert_same, require};

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
    drop(mount);
    let mut columns = vec![("PlyFS".to_owned(), ours), ("overlayfs".to_owned(), theirs)];
    for program in std::env::var(OTHERS).unwrap_or_default().split_whitespace() {
        columns.push((short_name(program), with_program(&scene.beside(), program, &material)));
    }
    print_times(&columns);
}

/// Names further mount programs (called as `PROGRAM -o OPTIONS MOUNTPOINT`) to time on the same
/// layers, separated by spaces.
const OTHERS: &str = "PLYFS_TEST_BESIDE";

type Times = Vec<(&'static str, Duration)>;

/// The same run on what another program mounts.
fn with_program(scene: &Scene, program: &str, material: &Material) -> Times {
    let layers = [&scene.upper, &scene.work].map(|path| path.to_str().unwrap());
    let lowers = scene.lowerdir();
    let lowers = lowers.to_str().unwrap();
    let options = format!("lowerdir={lowers},upperdir={},workdir={}", layers[0], layers[1]);
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).arg(&scene.mountpoint).status();
        assert!(status.unwrap().success(), "{program} failed");
    };
    run(program, &["-o", &options]);
    let times = workout(&scene.mountpoint, material);
    run("umount", &[]);
    times
}

fn short_name(program: &str) -> String {
    let name = Path::new(program).file_name().unwrap_or_default();
    name.to_string_lossy().chars().take(14).collect()
}

fn make(place: std::path::PathBuf) -> std::path::PathBuf {
    std::fs::create_dir(&place).unwrap();
    place
}

fn print_times(columns: &[(String, Times)]) {
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    let steps: Vec<&str> = columns[0].1.iter().map(|(step, _)| *step).collect();
    let row = |name: &str, cells: Vec<String>| {
        println!("{name:<40} {}", cells.iter().map(|c| format!("{c:>14}")).collect::<String>());
    };
    row(&format!("step ({build})"), columns.iter().map(|(name, _)| name.clone()).collect());
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    for (i, step) in steps.iter().enumerate() {
        row(step, columns.iter().map(|(_, times)| seconds(times[i].1)).collect());
    }
    let sum = |times: &Times| seconds(times.iter().map(|(_, time)| *time).sum());
    row("together", columns.iter().map(|(_, times)| sum(times)).collect());
}
