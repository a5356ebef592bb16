//! Power cuts: the upper lies on a disk that remembers each write, and is looked at as it was at
//! random moments of a load. What fsync and rename promised is there, a copied-up file has its old
//! content or its new one, and the filesystem's own checker finds nothing.
//!
//! `PLYFS_CUT_SECONDS` goes on for longer; `scripts/power-cut` does that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod model;
mod power;
mod support;
mod workload;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::Subject;
use model::core::Core;
use plyfs::layer::upper::{Present, Upper, Wanted};
use plyfs::overlay::Overlay;
use plyfs::overlay::options::UpperOption;
use power::disk::{Disk, Event, Image};
use power::{Filesystem, Mounted};
use rustix::fs::RenameFlags;
use support::{Driver, Options, Scene, require};
use workload::stories::Story;
use workload::{Chance, Findings, Load, Promise, States};

/// Stories of one load, and moments of it that are looked at.
const STORIES: usize = 60;
const CUTS: usize = 36;
const THREADS: usize = 3;

/// What a load consists of.
#[derive(Debug, Clone, Copy)]
struct Kind {
    stories: fn(&Story) -> bool,
    /// How long the disk is left alone between two commits of everything.
    pause: Duration,
    /// Whether it is looked at where something was just promised, and not anywhere.
    at_promises: bool,
}

/// All stories, now and then a commit; but those whose xattrs a small ext4 has no room for.
const ANYTHING: Kind = Kind {
    stories: |story| !story.name.starts_with("a file comes up"),
    pause: Duration::from_millis(50),
    at_promises: false,
};

/// What comes up in directories that do so, too, with so many commits that many a directory is in
/// staging when one comes.
const COMING_UP: Kind = Kind {
    stories: |story| story.name.starts_with("a file comes up"),
    pause: Duration::from_millis(20),
    at_promises: true,
};

/// What was tried.
#[derive(Debug, Default)]
struct Tally {
    loads: usize,
    cuts: usize,
    events: usize,
    steps: usize,
    promises: usize,
    half_renamed: usize,
    checks: usize,
}

fn available(filesystem: Filesystem) -> bool {
    let needs = ["root", "fuse", "tool:losetup"].into_iter().chain(filesystem.needs());
    needs.into_iter().all(require)
}

fn cut(filesystem: Filesystem, kind: Kind) {
    if !available(filesystem) {
        return;
    }
    let seconds = std::env::var("PLYFS_CUT_SECONDS").map_or(0, |text| text.parse().unwrap());
    let start = Instant::now();
    let mut chance = Chance::new(filesystem.name());
    let mut tally = Tally::default();
    let mut states = None;
    loop {
        one_load(filesystem, kind, &mut chance, &mut tally, &mut states);
        if start.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{}: {tally:?}", filesystem.name());
}

/// Mounts what is on `disk` and puts the upper and workdir of `scene` there, durably.
fn upper_on(disk: &Disk, filesystem: Filesystem, scene: &mut Scene, options: &str) -> Mounted {
    let place = scene.place("backing");
    let backing = Mounted::new(filesystem, disk.device(), &place, options);
    (scene.upper, scene.work) = (place.join("upper"), place.join("work"));
    std::fs::create_dir(&scene.upper).unwrap();
    std::fs::create_dir(&scene.work).unwrap();
    power::run(std::process::Command::new("sync").arg("--file-system").arg(&scene.upper));
    backing
}

/// One load, and what the disk held at many moments of it.
fn one_load(
    filesystem: Filesystem,
    kind: Kind,
    chance: &mut Chance,
    tally: &mut Tally,
    states: &mut Option<States>,
) {
    let mut scene = Scene::empty(1);
    let load = Load::of(&scene.lowers[0], STORIES, kind.stories);
    let mut disk = Disk::new(&scene.place("disk"), filesystem.size(), Image::default());
    filesystem.make(disk.device());
    let place = scene.place("backing");
    let backing = upper_on(&disk, filesystem, &mut scene, "noatime");
    let before = disk.rewind();

    let mount = scene.mount();
    run(&load, mount.root(), &disk, &place, kind.pause);
    let log = disk.log();
    drop(mount);
    drop(backing);
    // The same for every load.
    let states = states.get_or_insert_with(|| load.states(&scene.lowers[0], &scene.place("plain")));

    tally.loads += 1;
    tally.events += log.len();
    let promises = load.promises();
    for _ in 0..CUTS {
        let cut = match kind.at_promises {
            true => promises[chance.below(promises.len() as u64) as usize] + chance.below(2),
            false => chance.below(log.len() as u64 + 1),
        };
        let cut = log.len().min(cut as usize);
        // On every other disk a part of what was not flushed is lost.
        let mut coin = || chance.below(2) == 0;
        let loses = coin();
        let image =
            before.replayed(&log, cut, loses.then_some(&mut coin as &mut dyn FnMut() -> bool));
        disk.replace(image);
        let what = format!("{} at {cut} of {} ({loses})", filesystem.name(), log.len());
        let findings = look(filesystem, &disk, &scene, &load, states, cut as u64);
        assert!(findings.lost.is_empty(), "{what}: lost\n  {}", findings.lost.join("\n  "));
        // What btrfs brings back after a crash may have a rename's new name without the whiteout
        // that the same call left at the old one; overlayfs shows the same there.
        tally.half_renamed += findings.half_renamed.len();
        let shown = findings.half_renamed.join("\n  ");
        assert!(filesystem == Filesystem::Btrfs || shown.is_empty(), "{what}: {shown}");
        let (steps, promises) = load.counts(cut as u64);
        tally.cuts += 1;
        tally.steps += steps;
        tally.promises += promises;
        if chance.below(4) == 0 {
            tally.checks += 1;
            filesystem.check(disk.device()).unwrap_or_else(|found| panic!("{what}: {found}"));
        }
    }
}

/// Carries a load out below `root`, with commits of everything on `backing` in between.
fn run(load: &Load, root: &Path, disk: &Disk, backing: &Path, pause: Duration) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                rustix::fs::syncfs(std::fs::File::open(backing).unwrap()).unwrap();
                std::thread::sleep(pause);
            }
        });
        load.run(root, THREADS, &|| disk.moment(), &AtomicBool::new(false));
        over.store(true, Ordering::SeqCst);
    });
}

/// Mounts what a disk holds and compares it with what must be there.
fn look(
    filesystem: Filesystem,
    disk: &Disk,
    scene: &Scene,
    load: &Load,
    states: &States,
    cut: u64,
) -> Findings {
    let _backing = Mounted::new(filesystem, disk.device(), &scene.place("backing"), "noatime");
    let mut core = Core::new(scene);
    let seen = core.snapshot();
    let read = |path: &Path| core.read(path);
    let findings = load.check(states, &seen, &read, cut, Promise::Synced);
    core.close();
    findings
}

#[test]
fn nothing_promised_is_lost_on_ext4() {
    cut(Filesystem::Ext4, ANYTHING);
}

#[test]
fn nothing_promised_is_lost_on_xfs() {
    cut(Filesystem::Xfs, ANYTHING);
}

#[test]
fn nothing_promised_is_lost_on_btrfs() {
    cut(Filesystem::Btrfs, ANYTHING);
}

/// A directory comes up by a rename from staging. After an fsync of a file in it btrfs does not
/// have the rename, where a commit found the directory in staging: both would be there again.
#[test]
fn a_directory_that_came_up_is_as_durable_as_what_is_synced_in_it() {
    cut(Filesystem::Btrfs, COMING_UP);
}

/// What came from staging is made durable with the first promise about it; a whiteout is not waited
/// for: an unmount after removals alone commits nothing.
#[test]
fn on_btrfs_a_whiteout_is_nothing_to_settle() {
    let filesystem = Filesystem::Btrfs;
    if !available(filesystem) {
        return;
    }
    let scene = Scene::empty(0);
    let disk = Disk::new(&scene.place("disk"), filesystem.size(), Image::default());
    filesystem.make(disk.device());
    let place = scene.place("backing");
    let _backing = Mounted::new(filesystem, disk.device(), &place, "noatime");
    let (path, work) = (place.join("upper"), place.join("work"));
    for dir in [&path, &work, &path.join("dir")] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(path.join("file"), "x").unwrap();
    let upper = Upper::open(&path, &work, Wanted::default()).unwrap();
    for (name, present) in
        [("nothing", Present::Nothing), ("file", Present::File), ("dir", Present::Dir)]
    {
        upper.whiteout(&upper.root, OsStr::new(name), present).unwrap();
        assert!(!upper.must_settle(), "{name}");
    }
    let staged = upper.work.fresh_name();
    plyfs::sys::node::make_dir(upper.work.staging(), &staged, 0o755).unwrap();
    upper.publish(&staged, &upper.root, OsStr::new("made"), RenameFlags::empty()).unwrap();
    assert!(upper.must_settle());
    upper.close().unwrap();
}

/// A volatile mount promises nothing; after a cut in which anything of it reached the disk, it is
/// refused.
#[test]
fn a_volatile_mount_is_refused_after_a_cut() {
    if !available(Filesystem::Ext4) {
        return;
    }
    let mut scene = Scene::empty(1);
    let load = Load::of(&scene.lowers[0], STORIES, ANYTHING.stories);
    let filesystem = Filesystem::Ext4;
    let mut disk = Disk::new(&scene.place("disk"), filesystem.size(), Image::default());
    filesystem.make(disk.device());
    let place = scene.place("backing");
    let backing = upper_on(&disk, filesystem, &mut scene, "noatime,commit=1");
    let before = disk.rewind();
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["volatile"]));
    load.run(mount.root(), THREADS, &|| disk.moment(), &AtomicBool::new(false));
    // No fsync reached the disk: what is on it got there by the kernel's own timer.
    std::thread::sleep(Duration::from_secs(3));
    let log = disk.log();
    drop(mount);
    drop(backing);
    let mut chance = Chance::new("volatile");
    let (mut refused, mut untouched) = (0, 0);
    for n in 0..12 {
        let cut = if n == 0 { log.len() } else { chance.below(log.len() as u64) as usize };
        disk.replace(before.replayed(&log, cut, None));
        let _backing = Mounted::new(filesystem, disk.device(), &place, "noatime");
        let upper = UpperOption { upperdir: scene.upper.clone(), workdir: scene.work.clone() };
        let lowerdirs = scene.lowers.clone();
        let options =
            plyfs::overlay::Options { lowerdirs, upper: Some(upper), ..Default::default() };
        match Overlay::new(&options) {
            Err(error) => {
                assert!(error.to_string().contains("volatile"), "{error}");
                refused += 1;
            }
            Ok(fs) => {
                assert_eq!(support::names(&scene.upper), [""; 0], "cut at {cut}");
                fs.shutdown();
                untouched += 1;
            }
        }
    }
    println!("volatile: {refused} refused, {untouched} untouched");
    assert!(refused > 0);
}

/// How often the disk is flushed while so many files are copied up, on a filesystem that is made with
/// these arguments more.
fn flushes_of_copy_ups(filesystem: Filesystem, copies: usize, arguments: &[&str]) -> usize {
    let mut scene = Scene::empty(1);
    let file = |n: usize| format!("file-{n}");
    for n in 0..copies {
        std::fs::write(scene.lowers[0].join(file(n)), [b'x'; 5000]).unwrap();
    }
    let disk = Disk::new(&scene.place("disk"), filesystem.size(), Image::default());
    filesystem.make_with(disk.device(), arguments);
    let _backing = upper_on(&disk, filesystem, &mut scene, "noatime");
    let mount = scene.mount();
    disk.rewind();
    for n in 0..copies {
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(mount.root().join(file(n)), mode).unwrap();
    }
    let log = disk.log();
    let written = log.iter().filter(|event| matches!(event, Event::Write(..))).count();
    assert!(written >= copies, "{written} writes");
    drop(mount);
    log.iter().filter(|event| matches!(event, Event::Flush)).count()
}

/// Where the journal has a file's blocks and size before its name, content is written out before it
/// is published, and no commit is waited for; without a journal each copy is synced. (What else
/// happens on the machine may flush now and then.)
#[test]
fn a_copy_up_waits_for_a_commit_only_where_it_must() {
    const COPIES: usize = 40;
    if available(Filesystem::Ext4) {
        let flushes = flushes_of_copy_ups(Filesystem::Ext4, COPIES, &[]);
        assert!(flushes < COPIES / 2, "ext4: {flushes}");
        let flushes = flushes_of_copy_ups(Filesystem::Ext4, COPIES, &["-O", "^has_journal"]);
        assert!(flushes >= COPIES, "ext4 without a journal: {flushes}");
    }
    if available(Filesystem::Xfs) {
        let flushes = flushes_of_copy_ups(Filesystem::Xfs, COPIES, &[]);
        assert!(flushes < COPIES / 2, "xfs: {flushes}");
    }
    if available(Filesystem::Btrfs) {
        let flushes = flushes_of_copy_ups(Filesystem::Btrfs, COPIES, &[]);
        assert!(flushes >= COPIES, "btrfs: {flushes}");
    }
}
