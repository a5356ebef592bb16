//! Directories: statements 38 to 43.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use rustix::fs::{Dir, Mode, OFlags};
use support::{Driver, Scene, Snapshot, names, ready, set_mtime};

#[test]
fn inode_numbers_are_the_same_for_ever() {
    if !ready() {
        return;
    }
    let scene = Scene::from_fixture("rich");
    let mut mount = scene.mount();
    let numbers =
        |snapshot: &Snapshot, path: &str| snapshot.entries[std::path::Path::new(path)].ino;
    let before = mount.snapshot();
    set_mtime(&mount.path("etc/plain"), support::Time { sec: 5, nsec: 5 });
    fs::write(mount.path("merged/sub/one"), "copied up").unwrap();
    fs::rename(mount.path("merged/sub/two"), mount.path("moved")).unwrap();
    fs::rename(mount.path("merged/sub"), mount.path("merged/sub-moved")).unwrap();
    for round in 0..3 {
        if round == 1 && !support::rootless() {
            fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        }
        let after = mount.snapshot();
        for (path, entry) in &before.entries {
            if let Some(now) = after.entries.get(path) {
                assert_eq!(now.ino, entry.ino, "{path:?}");
                let kind = std::mem::discriminant::<support::Kind>;
                assert_eq!(kind(&now.kind), kind(&entry.kind), "{path:?}");
            }
        }
        for path in ["merged/sub", "merged/sub/one"] {
            let now = path.replace("sub", "sub-moved");
            assert_eq!(numbers(&before, path), numbers(&after, &now), "{path}");
        }
        assert_eq!(numbers(&before, "merged/sub/two"), numbers(&after, "moved"));
        // One device for all, in each mount a free one.
        let device = fs::metadata(mount.root()).unwrap().dev();
        assert_eq!(fs::metadata(mount.path("etc/plain")).unwrap().dev(), device);
        if round > 0 {
            mount.remount();
        }
    }
}

#[test]
fn listed_and_shown_inode_numbers_and_types_agree() {
    if !ready() {
        return;
    }
    let scene = Scene::from_fixture("rich");
    let mount = scene.mount();
    fs::write(mount.path("etc/plain"), "copied up").unwrap();
    for dir in ["", "etc", "merged", "merged/sub", "links", "hidden"] {
        for entry in fs::read_dir(mount.path(dir)).unwrap().map(Result::unwrap) {
            let stat = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(entry.ino(), stat.ino(), "{}", entry.path().display());
            assert_eq!(entry.file_type().unwrap(), stat.file_type(), "{}", entry.path().display());
        }
        let fd = rustix::fs::open(mount.path(dir), OFlags::RDONLY, Mode::empty()).unwrap();
        let dots: Vec<_> = Dir::new(fd).unwrap().map(Result::unwrap).collect();
        let of = |name: &str| {
            dots.iter().find(|e| e.file_name().to_bytes() == name.as_bytes()).unwrap().ino()
        };
        assert_eq!(of("."), fs::metadata(mount.path(dir)).unwrap().ino(), "{dir}/.");
        if !dir.is_empty()
            && !Driver::kernel_differs("`..` is listed with the number that stat shows")
        {
            let parent = mount.path(dir).parent().unwrap().to_owned();
            assert_eq!(of(".."), fs::metadata(parent).unwrap().ino(), "{dir}/..");
        }
    }
}

#[test]
fn a_large_directory_is_listed_once_and_whole() {
    if !ready() {
        return;
    }
    const COUNT: usize = 3000;
    let scene = Scene::new("[lower]\ndir d\n[lower]\ndir d\n");
    for n in 0..COUNT {
        fs::write(scene.lowers[n % 2].join(format!("d/file-with-a-longer-name-{n}")), "").unwrap();
    }
    let mount = scene.mount();
    for n in (0..COUNT).step_by(3) {
        fs::remove_file(mount.path(format!("d/file-with-a-longer-name-{n}"))).unwrap();
    }
    let listed = names(mount.path("d"));
    assert_eq!(listed.len(), COUNT - COUNT.div_ceil(3));
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len());
}

#[test]
fn what_stays_is_listed_once_while_others_come_and_go() {
    if !ready() {
        return;
    }
    const STAYING: usize = 500;
    let scene = Scene::new("[lower]\ndir d\n");
    for n in 0..STAYING {
        fs::write(scene.lowers[0].join(format!("d/staying{n}")), "").unwrap();
    }
    let mount = scene.mount();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for n in 0..50 {
                    fs::write(mount.path(format!("d/passing{n}")), "").unwrap();
                    fs::remove_file(mount.path(format!("d/passing{n}"))).unwrap();
                }
            }
        });
        for _ in 0..20 {
            let listed = names(mount.path("d"));
            let staying = listed.iter().filter(|name| name.starts_with("staying")).count();
            let distinct: BTreeSet<_> = listed.iter().collect();
            if staying != STAYING || distinct.len() != listed.len() {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{staying} of {STAYING}, {} of {} distinct", distinct.len(), listed.len());
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_rewound_directory_shows_the_new_state() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\nfile d/a\nfile d/b\n");
    let mount = scene.mount();
    let fd = rustix::fs::open(mount.path("d"), OFlags::RDONLY, Mode::empty()).unwrap();
    let mut dir = Dir::new(fd).unwrap();
    assert_eq!(dir.by_ref().count(), 4);
    fs::write(mount.path("d/c"), "").unwrap();
    fs::remove_file(mount.path("d/a")).unwrap();
    dir.rewind();
    let listed: BTreeSet<Vec<u8>> =
        dir.map(|e| e.unwrap().file_name().to_bytes().to_vec()).collect();
    let expected: [&[u8]; 4] = [b".", b"..", b"b", b"c"];
    assert_eq!(listed, expected.iter().map(|name| name.to_vec()).collect());
}

#[test]
fn a_directory_counts_one_link_or_its_subdirectories() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[lower]\ndir m/a\ndir pure/x\ndir pure/y\n[lower]\ndir m/b\n");
    let mount = scene.mount();
    fs::create_dir(mount.path("m/c")).unwrap();
    for dir in ["", "m", "pure"] {
        let subdirectories = names(mount.path(dir)).len() as u64;
        let nlink = fs::metadata(mount.path(dir)).unwrap().nlink();
        assert!(nlink == 1 || nlink == 2 + subdirectories, "{dir}: {nlink}");
    }
}

/// Statement 39: each position that was told leads to the very entry that followed it.
#[test]
fn a_listing_goes_on_at_each_position_it_told() {
    if !ready() {
        return;
    }
    let scene = Scene::new("[upper]\ndir d\n[lower]\ndir d\n[lower]\ndir d\n");
    for n in 0..400 {
        let layer = if n % 3 == 0 { &scene.upper } else { &scene.lowers[n % 2] };
        fs::write(layer.join(format!("d/file-{n}")), "").unwrap();
    }
    let mount = scene.mount();
    let fd = rustix::fs::open(mount.path("d"), OFlags::RDONLY, Mode::empty()).unwrap();
    // The position after an entry, and the entry that came next.
    let mut dir = Dir::new(fd).unwrap();
    let all: Vec<_> = dir.by_ref().map(Result::unwrap).collect();
    assert_eq!(all.len(), 402);
    for n in (0..all.len() - 1).rev().step_by(7) {
        dir.seek(all[n].offset()).unwrap();
        let rest: Vec<_> = dir.by_ref().map(|e| e.unwrap().file_name().to_owned()).collect();
        let expected: Vec<_> = all[n + 1..].iter().map(|e| e.file_name().to_owned()).collect();
        assert_eq!(rest, expected, "after entry {n}");
    }
    // What was removed meanwhile is left out, and nothing comes twice.
    dir.seek(all[100].offset()).unwrap();
    let gone = all[200].file_name().to_str().unwrap();
    fs::remove_file(mount.path("d").join(gone)).unwrap();
    fs::remove_file(mount.path("d").join(all[50].file_name().to_str().unwrap())).unwrap();
    let rest: BTreeSet<_> = dir.by_ref().map(|e| e.unwrap().file_name().to_owned()).collect();
    assert!(
        all[101..]
            .iter()
            .all(|e| rest.contains(e.file_name()) || e.file_name().to_str() == Ok(gone))
    );
    assert!(all[..=100].iter().all(|e| !rest.contains(e.file_name())));
}

/// Statement 39: the requests grow as the names do.
#[test]
fn a_hundred_thousand_names_are_listed_in_as_many_steps_as_they_fill() {
    if !ready() || Driver::under_test() != Driver::Plyfs {
        return;
    }
    const COUNT: usize = 100_000;
    let scene = Scene::in_memory("[upper]\nfile d/own x\n[lower]\nfile one x\n");
    let large = scene.lowers[0].join("d");
    fs::create_dir(&large).unwrap();
    // Names of one file: the cheapest there are.
    for n in 0..COUNT {
        fs::hard_link(scene.lowers[0].join("one"), large.join(format!("{n:08}"))).unwrap();
    }
    let mount = scene.mount();
    let requests = || {
        let figures =
            plyfs::fuse::control::Control::open(mount.root()).unwrap().snapshot().unwrap();
        figures.count("readdir") + figures.count("readdirplus")
    };
    let before = requests();
    let listed: BTreeSet<_> =
        fs::read_dir(mount.path("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed.len(), COUNT + 1);
    // A name of eight bytes takes 32 of a plain reply, which are a page at least; with attributes
    // some 160.
    let asked = requests() - before;
    assert!(asked <= COUNT as u64 / 20, "{asked} requests");
}
