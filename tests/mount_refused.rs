//! What is refused at mount, with one clear line and nothing mounted: layers in use, layers and
//! mountpoints inside each other, what a volatile mount left; and what a mount that did not end
//! cleanly leaves to the next. Statements 16, 17, 57, 58 and 60.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Driver, Options, Scene, require};

const PATIENCE: Duration = Duration::from_secs(10);

/// Tries to mount in the background; a try that hangs fails the test.
fn try_mount(options: &str, mountpoint: &Path) -> Output {
    let start = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuse-plyfs"));
    let output = command.args(["-o", options]).arg(mountpoint).stdin(Stdio::null()).output();
    assert!(start.elapsed() < PATIENCE, "{options} took {:?}", start.elapsed());
    output.unwrap()
}

fn options_of(scene: &Scene, upper: &Path, work: &Path, extra: &str) -> String {
    let [lower, upper, work] = [&scene.lowers[0], upper, work].map(|path| path.display());
    format!("lowerdir={lower},upperdir={upper},workdir={work}{extra}")
}

/// One line with `words`, a failing exit code.
fn expect_refusal(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "mounted: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

fn is_mounted(place: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    table.contains(&format!(" {} ", place.display()))
}

fn unmount(place: &Path) {
    support::unmount_patiently(place).unwrap();
}

/// Statement 57: also with a workdir of its own, and the other way round.
#[test]
fn an_upper_or_workdir_in_use_is_refused() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let other = scene.beside();
    let same_upper = options_of(&scene, &scene.upper, &other.work, "");
    expect_refusal(&try_mount(&same_upper, &other.mountpoint), &["upperdir", "in use"]);
    let same_work = options_of(&scene, &other.upper, &scene.work, "");
    expect_refusal(&try_mount(&same_work, &other.mountpoint), &["workdir", "in use"]);
    assert!(!is_mounted(&other.mountpoint));
    fs::write(mount.path("still"), "there").unwrap();
}

/// Statement 57: the daemon would wait for itself.
#[test]
fn a_mountpoint_inside_the_upper_is_refused() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[upper]\ndir inside/here\n[lower]\nfile a\n");
    let inside = scene.upper.join("inside/here");
    let refused = try_mount(&options_of(&scene, &scene.upper, &scene.work, ""), &inside);
    expect_refusal(&refused, &["upperdir", "inside"]);
    assert!(!is_mounted(&inside));
    assert_eq!(fs::read_dir(&scene.work).unwrap().count(), 0);
}

/// Statement 57: a mountpoint in a lower is no loop: what is mounted in a layer does not show.
#[test]
fn a_mountpoint_inside_a_lower_works() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\ndir here\nfile here/below\nfile a content\n");
    let inside = scene.lowers[0].join("here");
    let output = try_mount(&options_of(&scene, &scene.upper, &scene.work, ""), &inside);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(inside.join("a")).unwrap(), "content");
    assert!(inside.join("here/below").exists());
    unmount(&inside);
}

/// Statement 60: while a volatile mount lives, its mark is where the kernel looks for it; it goes
/// with a clean end and stays otherwise, and what it marks is refused by either.
#[test]
fn what_a_volatile_mount_left_is_refused() {
    if !(require("root") && require("fuse") && require("overlayfs")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a\n");
    let volatile = Options::with(&["volatile"]);
    let mark = scene.work.join("work/incompat/volatile");
    let mut mount = scene.mount_by(Driver::Plyfs, &volatile);
    assert!(mark.is_dir());
    fs::write(mount.path("new"), "data").unwrap();
    fs::File::open(mount.path("new")).unwrap().sync_all().unwrap();
    mount.remount();
    assert!(mark.is_dir());
    mount.unmount();
    assert!(!mark.exists());

    let mut killed = scene.mount_by(Driver::Plyfs, &volatile);
    killed.kill();
    assert!(mark.is_dir());
    for extra in ["", ",volatile"] {
        let options = options_of(&scene, &scene.upper, &scene.work, extra);
        expect_refusal(&try_mount(&options, &scene.mountpoint), &["volatile", "work/incompat"]);
    }
    let kernel = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o"])
        .arg(options_of(&scene, &scene.upper, &scene.work, ""))
        .arg(&scene.mountpoint)
        .output()
        .unwrap();
    assert!(!kernel.status.success(), "the kernel took it");
    fs::remove_dir_all(scene.work.join("work/incompat")).unwrap();
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    assert_eq!(fs::read_to_string(mount.path("new")).unwrap(), "data");
}

/// Statement 58: after SIGKILL the next mount is clean; statement 16: a copy-up that it broke off
/// left the old file or the new one.
#[test]
fn a_killed_daemon_leaves_what_the_next_mount_cleans() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile other\n");
    let old = vec![7_u8; 64 << 20];
    fs::write(scene.lowers[0].join("large"), &old).unwrap();
    for round in 0..3_u64 {
        let mut mount = scene.mount_by(Driver::Plyfs, &Options::default());
        let path = mount.path("large");
        let writer = std::thread::spawn(move || {
            // Ends with an error when the daemon does.
            let opened = fs::OpenOptions::new().append(true).open(path);
            opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x")).is_ok()
        });
        std::thread::sleep(Duration::from_millis(5 + 15 * round));
        mount.kill();
        let wrote = writer.join().unwrap();
        mount.remount();
        let seen = fs::read(mount.path("large")).unwrap();
        assert!(seen.len() >= old.len(), "{} bytes, written: {wrote}", seen.len());
        assert!(seen[..old.len()] == old[..], "another content");
        assert_eq!(fs::read_dir(scene.work.join("work")).unwrap().count(), 0);
    }
}

/// Statement 17: a full upper gives ENOSPC, the lower still shows, and nothing is left behind.
#[test]
fn a_full_upper_refuses_the_copy_and_leaves_nothing() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let mut scene = Scene::new("[lower]\nfile other\n");
    fs::write(scene.lowers[0].join("large"), vec![1_u8; 4 << 20]).unwrap();
    let small = scene.place("small");
    fs::create_dir(&small).unwrap();
    let options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
    let mounted = Command::new("mount").args(options).arg(&small).status().unwrap();
    assert!(mounted.success());
    (scene.upper, scene.work) = (small.join("upper"), small.join("work"));
    fs::create_dir(&scene.upper).unwrap();
    fs::create_dir(&scene.work).unwrap();
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    // By the opening, or by the write where the kernel opens files without asking.
    let opened = fs::OpenOptions::new().append(true).open(mount.path("large"));
    let error = opened.and_then(|mut file| file.write_all(b"more")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(fs::metadata(mount.path("large")).unwrap().len(), 4 << 20);
    assert!(!scene.upper.join("large").exists());
    assert_eq!(fs::read_dir(scene.work.join("work")).unwrap().count(), 0);
    fs::write(mount.path("fits"), vec![0; 4096]).unwrap();
    drop(mount);
    unmount(&small);
}

/// Statement 57: a workdir elsewhere, inside the upper or the upper itself, an upper that is a lower,
/// a lower that is none.
#[test]
fn layers_that_do_not_go_together_are_refused() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[upper]\ndir inside\n[lower]\nfile a\n");
    let elsewhere = scene.place("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &elsewhere, "tmpfs", flags, None).unwrap();
    let try_both = |upper: &Path, work: &Path| {
        try_mount(&options_of(&scene, upper, work, ""), &scene.mountpoint)
    };
    let (upper, work, lower) = (&scene.upper, &scene.work, &scene.lowers[0]);
    expect_refusal(&try_both(upper, &elsewhere), &["workdir", "filesystem of upperdir"]);
    expect_refusal(&try_both(upper, &upper.join("inside")), &["workdir", "beside"]);
    expect_refusal(&try_both(upper, upper), &["workdir", "beside"]);
    expect_refusal(&try_both(lower, work), &["upperdir", "the lower"]);
    let file = format!("lowerdir={}", lower.join("a").display());
    expect_refusal(&try_mount(&file, &scene.mountpoint), &["lower", "a: not a directory"]);
    assert!(!is_mounted(&scene.mountpoint));
    unmount(&elsewhere);
}

/// Statement 57: layers below their own mountpoint, or at it, are reached as they were before.
#[test]
fn layers_inside_the_mountpoint_work() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a content\n");
    let above = scene.lowers[0].parent().unwrap();
    for mountpoint in [above, &scene.lowers[0], &scene.upper] {
        let options = options_of(&scene, &scene.upper, &scene.work, "");
        let output = try_mount(&options, mountpoint);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_to_string(mountpoint.join("a")).unwrap(), "content");
        fs::write(mountpoint.join("new"), "new").unwrap();
        unmount(mountpoint);
        assert_eq!(fs::read_to_string(scene.upper.join("new")).unwrap(), "new");
        fs::remove_file(scene.upper.join("new")).unwrap();
        let start = Instant::now();
        while fs::read_dir(&scene.work).unwrap().count() > 0 {
            assert!(start.elapsed() < PATIENCE, "the daemon goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
