//! Faults below a live mount: a disk that fails, fills up or goes read-only, a quota, too few
//! descriptors, too little memory. The caller gets the errno, the lower view stays, nothing leaks,
//! and the daemon lives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod power;
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use power::disk::{Disk, Image};
use power::{Filesystem, Mounted, run};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use support::{Driver, MountedOverlay, Options, Scene, names, refused, require};

/// A stack whose upper is on a small disk of its own.
struct Faulty {
    backing: Mounted,
    disk: Disk,
    scene: Scene,
}

const FILES: usize = 24;
const LENGTH: usize = 300_000;

impl Faulty {
    fn new(options: &str) -> Option<Faulty> {
        Faulty::on(Filesystem::Ext4, options)
    }

    fn on(filesystem: Filesystem, options: &str) -> Option<Faulty> {
        let needs = ["root", "fuse", "tool:losetup"].into_iter().chain(filesystem.needs());
        if !needs.into_iter().all(require) {
            return None;
        }
        let mut scene = Scene::empty(1);
        for n in 0..FILES {
            fs::write(scene.lowers[0].join(format!("f{n}")), vec![n as u8 + 1; LENGTH]).unwrap();
        }
        let place = scene.place("disk");
        let disk = Disk::new(&place, filesystem.size(), Image::default());
        filesystem.make(disk.device());
        let at = scene.place("backing");
        let backing = Mounted::new(filesystem, disk.device(), &at, options);
        (scene.upper, scene.work) = (at.join("upper"), at.join("work"));
        for dir in [&scene.upper, &scene.work] {
            fs::create_dir(dir).unwrap();
        }
        Some(Faulty { backing, disk, scene })
    }

    fn mount(&self) -> MountedOverlay<'_> {
        self.scene.mount_by(Driver::Plyfs, &Options::default())
    }
}

/// Holds that all files show what the lower has, whatever happened above, and that nothing is left
/// in staging but the whiteout that others are linked to.
fn assert_lowers_show(mount: &MountedOverlay<'_>, changed: &[usize]) {
    for n in (0..FILES).filter(|n| !changed.contains(n)) {
        let content = fs::read(mount.path(format!("f{n}"))).unwrap();
        assert!(content == vec![n as u8 + 1; LENGTH], "f{n} is not what the lower has");
    }
    let staged = names(mount.scene().work.join("work"));
    assert!(staged.len() <= 1, "left in staging: {staged:?}");
}

fn descriptors(mount: &MountedOverlay<'_>) -> usize {
    fs::read_dir(format!("/proc/{}/fd", mount.daemon_id().unwrap())).unwrap().count()
}

fn append(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(b"more")?;
    file.sync_all()
}

/// EIO: the disk below the upper fails under a load. Each caller gets an errno or what it asked
/// for, the lower files stay readable, and the daemon ends cleanly.
#[test]
fn a_failing_disk_gives_its_errno_and_the_lower_view_stays() {
    let Some(faulty) = Faulty::new("errors=remount-ro") else { return };
    let mount = faulty.mount();
    append(&mount.path("f0")).unwrap();
    let before = descriptors(&mount);
    faulty.disk.set_broken(true);
    let mut failed = 0;
    for n in 1..FILES {
        match append(&mount.path(format!("f{n}"))) {
            Ok(()) => panic!("f{n} was synced to a disk that fails"),
            Err(error) => {
                let errno = error.raw_os_error().unwrap();
                assert!([libc::EIO, libc::EROFS].contains(&errno), "f{n}: {error}");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, FILES - 1);
    let copied: Vec<usize> =
        (0..FILES).filter(|n| faulty.scene.upper.join(format!("f{n}")).exists()).collect();
    assert_lowers_show(&mount, &copied);
    assert!(descriptors(&mount) <= before + 8, "{before}, then {}", descriptors(&mount));
    faulty.disk.set_broken(false);
}

/// The upper's filesystem is made read-only under a load, and writable again.
#[test]
fn an_upper_that_goes_read_only_gives_erofs_and_comes_back() {
    let Some(faulty) = Faulty::new("noatime") else { return };
    let mount = faulty.mount();
    append(&mount.path("f0")).unwrap();
    // The kernel tells the daemon of a closed file in its own time: until then it is in use.
    let remount = |flags: MountFlags| {
        let start = std::time::Instant::now();
        while let Err(errno) = rustix::mount::mount_remount(faulty.backing.path(), flags, "") {
            let patient = start.elapsed().as_secs() < 120;
            assert!(errno == Errno::BUSY && patient, "{flags:?}: {errno}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    remount(MountFlags::RDONLY);
    for n in 1..FILES {
        assert_eq!(refused(append(&mount.path(format!("f{n}")))), Errno::ROFS);
        assert_eq!(refused(fs::remove_file(mount.path(format!("f{n}")))), Errno::ROFS);
        assert_eq!(refused(fs::rename(mount.path(format!("f{n}")), mount.path("x"))), Errno::ROFS);
    }
    assert_lowers_show(&mount, &[0]);
    remount(MountFlags::empty());
    append(&mount.path("f1")).unwrap();
    fs::remove_file(mount.path("f2")).unwrap();
}

/// ENOSPC: callers get it until there is room again; nothing half-made stays.
#[test]
fn a_full_disk_gives_enospc_until_there_is_room() {
    let Some(faulty) = Faulty::new("noatime") else { return };
    let mount = faulty.mount();
    let filler = mount.path("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[7; 1 << 16]).is_ok() {}
    drop(file);
    let mut changed = Vec::new();
    for n in 0..FILES {
        match append(&mount.path(format!("f{n}"))) {
            Ok(()) => changed.push(n),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "f{n}: {error}"),
        }
    }
    assert!(changed.len() < FILES / 2, "the disk is not full");
    assert_lowers_show(&mount, &changed);
    fs::remove_file(filler).unwrap();
    for n in 0..FILES {
        // The space of a removed file comes back when the kernel has forgotten it.
        let start = std::time::Instant::now();
        while let Err(error) = append(&mount.path(format!("f{n}"))) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "f{n}: {error}");
            assert!(start.elapsed().as_secs() < 20, "no space comes back");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// EDQUOT: what a quota of the upper's filesystem refuses, the caller gets; the lower view stays.
#[test]
fn a_quota_of_the_upper_gives_edquot() {
    let Some(faulty) = Faulty::on(Filesystem::Btrfs, "noatime") else { return };
    let place = faulty.backing.path();
    run(Command::new("btrfs").args(["quota", "enable"]).arg(place));
    run(Command::new("btrfs").args(["qgroup", "limit", "2M"]).arg(place));
    let mount = faulty.mount();
    let mut changed = Vec::new();
    for n in 0..FILES {
        match append(&mount.path(format!("f{n}"))) {
            Ok(()) => changed.push(n),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EDQUOT), "f{n}: {error}");
                if !faulty.scene.upper.join(format!("f{n}")).exists() {
                    continue;
                }
                changed.push(n);
            }
        }
    }
    assert!(changed.len() < FILES, "no quota");
    assert_lowers_show(&mount, &changed);
    run(Command::new("btrfs").args(["qgroup", "limit", "none"]).arg(place));
    for n in 0..FILES {
        append(&mount.path(format!("f{n}"))).unwrap();
    }
}

/// EMFILE: with few descriptors the daemon answers with the errno, and goes on when files were
/// closed.
#[test]
fn too_few_descriptors_give_emfile_and_no_more() {
    if !(require("root") && require("fuse") && require("tool:prlimit")) {
        return;
    }
    let scene = Scene::empty(1);
    for n in 0..400 {
        fs::create_dir(scene.lowers[0].join(format!("d{n}"))).unwrap();
        fs::write(scene.lowers[0].join(format!("d{n}/f")), format!("{n}")).unwrap();
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let limit = descriptors(&mount) + 60;
    let daemon = mount.daemon_id().unwrap().to_string();
    run(Command::new("prlimit").args(["--pid", &daemon, &format!("--nofile={limit}:{limit}")]));
    let (mut held, mut refusals) = (Vec::new(), 0);
    for n in 0..400 {
        match File::open(mount.path(format!("d{n}/f"))) {
            Ok(file) => held.push((n, file)),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 0 && !held.is_empty(), "{refusals} refused, {} open", held.len());
    for (n, file) in &mut held {
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, n.to_string());
    }
    drop(held);
    for n in 0..400 {
        // A descriptor is given back when the kernel gets to it.
        let start = std::time::Instant::now();
        let content = loop {
            match fs::read_to_string(mount.path(format!("d{n}/f"))) {
                Ok(content) => break content,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                    assert!(start.elapsed().as_secs() < 10, "no descriptor comes back");
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
        };
        assert_eq!(content, n.to_string());
    }
}
