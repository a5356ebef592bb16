//! What others see while something is being changed. Statements 4, 22, 31, 41 and 48.

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
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use support::{Driver, Options, Scene, as_host_root, require};

/// Statement 31: of two names that change places no observer finds neither, and none finds
/// the source again once it is gone.
#[test]
fn nobody_sees_a_rename_half_done() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a one\nfile b two\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let (a, b) = (mount.path("a"), mount.path("b"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                // Over the other name, which stays there all the time.
                fs::rename(&a, &b).unwrap();
                fs::write(&a, "new").unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            assert!(fs::symlink_metadata(&b).is_ok(), "the target was missing");
        }
    });
}

/// Statement 31: who misses the old name finds the new one, and who has found the new one misses
/// the old one.
#[test]
fn a_renamed_name_is_in_one_place_at_a_time() {
    if !(require("root") && require("fuse")) {
        return;
    }
    const COUNT: usize = 200;
    let scene = Scene::empty(1);
    for n in 0..COUNT {
        let (dir, file) = (format!("old-dir-{n}"), format!("old-file-{n}"));
        fs::create_dir_all(scene.lowers[0].join(dir).join("inside")).unwrap();
        fs::write(scene.lowers[0].join(file), "f").unwrap();
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let there = |name: String| fs::symlink_metadata(mount.path(name)).is_ok();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..COUNT {
                for kind in ["dir", "file"] {
                    let (old, new) = (format!("old-{kind}-{n}"), format!("new-{kind}-{n}"));
                    fs::rename(mount.path(old), mount.path(new)).unwrap();
                }
            }
        });
        for n in 0..COUNT {
            for kind in ["dir", "file"] {
                while there(format!("old-{kind}-{n}")) {
                    if there(format!("new-{kind}-{n}")) {
                        assert!(!there(format!("old-{kind}-{n}")), "{kind} {n} has both names");
                    }
                }
                assert!(there(format!("new-{kind}-{n}")), "{kind} {n} has neither name");
            }
        }
    });
}

/// Statement 4: what is made over a whiteout is there complete or not at all, never a whiteout.
#[test]
fn what_is_made_over_a_whiteout_appears_at_once() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new(
        "[lower]\nfile f below\nfile d/inner below\nfile s below\nfile p below\nfile l below\n\
         [upper]\nfile other \"\"\n",
    );
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let over = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fs::remove_dir_all(mount.path("d")).unwrap();
            ["s", "p", "l", "f"].iter().for_each(|name| fs::remove_file(mount.path(name)).unwrap());
            for _ in 0..300 {
                fs::create_dir(mount.path("d")).unwrap();
                fs::write(mount.path("f"), "").unwrap();
                std::os::unix::fs::symlink("nowhere", mount.path("s")).unwrap();
                let fifo = rustix::fs::FileType::Fifo;
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, mount.path("p"), fifo, mode, 0).unwrap();
                fs::hard_link(mount.path("other"), mount.path("l")).unwrap();
                fs::remove_dir(mount.path("d")).unwrap();
                ["s", "p", "l", "f"]
                    .iter()
                    .for_each(|name| fs::remove_file(mount.path(name)).unwrap());
            }
            over.store(true, Ordering::Relaxed);
        });
        while fs::symlink_metadata(mount.path("f")).is_ok_and(|meta| meta.len() > 0) {}
        while !over.load(Ordering::Relaxed) {
            if let Ok(meta) = fs::symlink_metadata(mount.path("f")) {
                assert!(meta.is_file() && meta.len() == 0);
                seen.fetch_add(1, Ordering::Relaxed);
            }
            let is_there = |name: &str| fs::symlink_metadata(mount.path(name)).ok();
            assert!(is_there("s").is_none_or(|meta| meta.is_symlink()));
            assert!(is_there("p").is_none_or(|meta| meta.file_type().is_fifo()));
            assert!(is_there("l").is_none_or(|meta| meta.is_file() && meta.len() == 0));
            if let Ok(entries) = fs::read_dir(mount.path("d")) {
                assert_eq!(entries.count(), 0);
            }
        }
    });
}

/// Statement 22: while a large file is copied up, others are served.
#[test]
fn a_large_copy_up_stalls_nobody_else() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile small x\nfile dir/small x\n");
    fs::write(scene.lowers[0].join("large"), vec![3_u8; 256 << 20]).unwrap();
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let copied = AtomicBool::new(false);
    let (mut served, mut longest) = (0, Duration::ZERO);
    let took = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let start = Instant::now();
            let mut file = fs::OpenOptions::new().append(true).open(mount.path("large")).unwrap();
            file.write_all(b"x").unwrap();
            copied.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        while !copied.load(Ordering::Relaxed) {
            let start = Instant::now();
            fs::write(mount.path(format!("dir/new-{served}")), "x").unwrap();
            assert_eq!(fs::read_to_string(mount.path("small")).unwrap(), "x");
            longest = longest.max(start.elapsed());
            served += 1;
        }
        writer.join().unwrap()
    });
    assert!(served >= 3, "{served} others were served in {took:?}, the longest took {longest:?}");
}

/// Statement 48.
#[test]
fn a_watch_set_before_copy_up_fires_after_it() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile dir/file content\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    let file = mount.path("dir/file");
    let on_file = inotify::add_watch(&watch, &file, WatchFlags::MODIFY | WatchFlags::ATTRIB);
    let on_dir = inotify::add_watch(&watch, mount.path("dir"), WatchFlags::CREATE);
    let (on_file, on_dir) = (on_file.unwrap(), on_dir.unwrap());
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"more").unwrap();
    std::os::unix::fs::chown(&file, Some(3), Some(4)).unwrap();
    fs::write(mount.path("dir/new"), "").unwrap();
    let mut fired = Vec::new();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    while let Ok(event) = events.next() {
        fired.push((event.wd(), event.events()));
    }
    for expected in
        [(on_file, ReadFlags::MODIFY), (on_file, ReadFlags::ATTRIB), (on_dir, ReadFlags::CREATE)]
    {
        assert!(fired.contains(&expected), "{expected:?} is not among {fired:?}");
    }
    assert_eq!(fs::metadata(&file).unwrap().uid(), 3);
}

/// Statement 41: what the kernel forgot, the daemon keeps nothing of: walking the same tree again
/// and again does not make it grow.
#[test]
fn the_daemon_does_not_grow_with_walks() {
    if !(require("root")
        && require("fuse")
        && as_host_root("only root of the machine makes the kernel forget names"))
    {
        return;
    }
    let scene = Scene::empty(1);
    for dir in 0..40 {
        let dir = scene.lowers[0].join(dir.to_string());
        fs::create_dir(&dir).unwrap();
        for file in 0..100 {
            fs::write(dir.join(file.to_string()), "").unwrap();
        }
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let walk = || {
        let mut seen = 0;
        for dir in fs::read_dir(mount.root()).unwrap().map(|dir| dir.unwrap().path()) {
            let files = fs::read_dir(dir).unwrap();
            seen += files.filter(|file| file.as_ref().unwrap().metadata().is_ok()).count();
        }
        assert_eq!(seen, 4000);
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    };
    let resident = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", mount.daemon_id().unwrap()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // The allocator takes its time to have what a walk needs; 4,000 nodes are more than 1 MiB.
    (0..40).for_each(|_| walk());
    let before = resident();
    (0..20).for_each(|_| walk());
    let after = resident();
    assert!(after < before + 4096, "from {before} to {after} KiB");
}
