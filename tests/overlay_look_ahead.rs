//! Names that are found before they are asked for: who is followed, and that what is found stays true
//! whatever changes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use plyfs::overlay::options::UpperOption;
use plyfs::overlay::{Caller, Entry, NodeId, Options, Overlay, SetAttr, With};
use support::{Driver, Scene, ready};

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const DIRS: usize = 12;
const FILES: usize = 20;

fn n(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// Directories `d00` to `d11` in two lowers, each with files `f00` to `f19` of which every other one
/// lies in the topmost; the mode tells which file it is.
struct Stack {
    dir: tempfile::TempDir,
    fs: Arc<Overlay>,
    /// Times that the thread came to its end.
    ended: Arc<AtomicU32>,
}

fn mode(dir: usize, file: usize) -> u32 {
    0o400 + (dir * FILES + file) as u32 % 0o300
}

fn make(layers: [&Path; 2]) {
    for dir in 0..DIRS {
        for file in 0..FILES {
            let path = layers[file % 2].join(format!("d{dir:02}/f{file:02}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode(dir, file))).unwrap();
        }
    }
}

impl Stack {
    fn new() -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let path = |sub: &str| dir.path().join(sub);
        for sub in ["l1", "l2", "u", "w"] {
            fs::create_dir(path(sub)).unwrap();
        }
        make([&path("l1"), &path("l2")]);
        let options = Options {
            lowerdirs: vec![path("l1"), path("l2")],
            upper: Some(UpperOption { upperdir: path("u"), workdir: path("w") }),
            metacopy: support::rootless().then_some(true),
            ..Options::default()
        };
        let fs = Arc::new(Overlay::new(&options).unwrap());
        let (weak, ended) = (Arc::downgrade(&fs), Arc::new(AtomicU32::new(0)));
        let end = Arc::clone(&ended);
        fs.begin_to_look_ahead(move || {
            let (fs, end) = (weak.upgrade().unwrap(), Arc::clone(&end));
            std::thread::spawn(move || {
                fs.look_ahead();
                end.fetch_add(1, Ordering::SeqCst);
            });
            true
        });
        Stack { dir, fs, ended }
    }

    fn list(&self, dir: NodeId) -> Vec<(String, Option<Entry>)> {
        let mut entries = Vec::new();
        self.fs
            .readdir(dir, 0, With::Everything, &mut |entry| {
                entries.push((entry.name.to_str().unwrap().to_owned(), entry.entry));
                true
            })
            .unwrap();
        entries.retain(|(name, _)| name != "." && name != "..");
        entries
    }

    fn dirs(&self) -> Vec<(String, NodeId)> {
        let listed = self.list(NodeId::ROOT).into_iter();
        listed.map(|(name, entry)| (name, entry.unwrap().node)).collect()
    }

    fn used(&self) -> u64 {
        self.fs.figures().found_ahead.hits
    }

    /// Waits until so many names were found that nobody asked for yet.
    fn found(&self, names: u64) {
        self.wait(|| self.fs.figures().found_ahead.misses >= names);
    }

    fn wait(&self, enough: impl Fn() -> bool) {
        let start = Instant::now();
        while !enough() {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", self.fs.figures());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.fs.stop_looking_ahead();
        self.fs.shutdown();
    }
}

fn dir_number(name: &str) -> usize {
    name.trim_start_matches('d').parse().unwrap()
}

#[test]
fn who_walks_finds_what_comes_next_found() {
    let stack = Stack::new();
    let dirs = stack.dirs();
    assert_eq!(stack.fs.figures().found_ahead.misses, 0, "one directory is no walk");
    stack.list(dirs[0].1);
    stack.found(((DIRS - 1) * FILES) as u64);
    for (dir, node) in dirs.iter().skip(1) {
        for (file, entry) in stack.list(*node) {
            let file = file.trim_start_matches('f').parse().unwrap();
            assert_eq!(
                entry.unwrap().stat.mode & 0o777,
                mode(dir_number(dir), file),
                "{dir}/{file}"
            );
        }
    }
    assert_eq!(stack.used(), ((DIRS - 1) * FILES) as u64);
}

/// Listings are kept when the kernel forgets names; who walks then finds them found as well.
#[test]
fn who_walks_again_finds_what_comes_next_found() {
    let stack = Stack::new();
    for round in 1..=2 {
        let dirs = stack.dirs();
        stack.list(dirs[0].1);
        stack.found(((DIRS - 1) * FILES) as u64);
        let files = dirs.iter().skip(1).flat_map(|(_, node)| stack.list(*node));
        files.for_each(|(_, file)| stack.fs.forget(file.unwrap().node, 1));
        assert_eq!(stack.used(), round * ((DIRS - 1) * FILES) as u64);
        for (_, file) in stack.list(dirs[0].1) {
            stack.fs.forget(file.unwrap().node, 2);
        }
        dirs.iter().for_each(|(_, node)| stack.fs.forget(*node, 1));
    }
}

#[test]
fn what_was_found_goes_with_what_changes_it() {
    let stack = Stack::new();
    let fs = &stack.fs;
    let dirs = stack.dirs();
    let node = |name: &str| dirs.iter().find(|(dir, _)| dir == name).unwrap().1;
    let last = dirs.last().unwrap();
    stack.list(last.1);
    stack.found(((DIRS - 1) * FILES) as u64);
    let dir = dirs.iter().find(|dir| dir.0 != last.0).unwrap();
    let before = stack.used();

    // Copied up, removed, replaced, and moved to where another one was, all without a lookup of
    // the names that are looked at then.
    let changed = fs.lookup(dir.1, n("f00")).unwrap();
    let to = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    fs.setattr(&ROOT, changed.node, None, &to).unwrap();
    fs.unlink(dir.1, n("f01")).unwrap();
    fs.rename(dir.1, n("f02"), dir.1, n("f03"), rustix::fs::RenameFlags::empty()).unwrap();
    fs.unlink(dir.1, n("f04")).unwrap();
    fs.mkdir(&ROOT, dir.1, n("f04"), 0o700, 0).unwrap();

    let mode_of = |name: &str| fs.lookup(dir.1, n(name)).map(|entry| entry.stat.mode & 0o777);
    assert_eq!(mode_of("f00"), Ok(0o777));
    assert_eq!(mode_of("f01"), Err(plyfs::error::Errno::NOENT));
    assert_eq!(mode_of("f02"), Err(plyfs::error::Errno::NOENT));
    assert_eq!(mode_of("f03"), Ok(mode(dir_number(&dir.0), 2)));
    assert_eq!(mode_of("f04"), Ok(0o700));
    assert_eq!(mode_of("f05"), Ok(mode(dir_number(&dir.0), 5)));
    assert!(stack.used() > before);
    assert!(node(&dir.0) == dir.1 && stack.dir.path().join("u").join(&dir.0).is_dir());
}

#[test]
fn what_nobody_asks_for_is_not_kept() {
    let stack = Stack::new();
    let dirs = stack.dirs();
    stack.list(dirs[0].1);
    // After a while without a guess the thread lets go of what it found, and ends.
    stack.wait(|| stack.ended.load(Ordering::SeqCst) == 1);
    let before = stack.fs.figures().found_ahead;
    assert_eq!((before.hits, before.misses), (0, ((DIRS - 1) * FILES) as u64));
    stack.list(dirs[1].1);
    assert_eq!(stack.used(), 0, "what was let go was given");
}

/// Walks and changes at once, over a mount, beside a daemon that does not look ahead.
#[test]
fn a_walk_sees_every_change_that_was_made_before_it() {
    if !ready() {
        return;
    }
    for option in ["look_ahead=on", "look_ahead=off"] {
        let scene = Scene::empty(2);
        make([&scene.lowers[0], &scene.lowers[1]]);
        let mount = scene.mount_by(Driver::Plyfs, &support::Options::with(&[option]));
        let path = |dir: usize, file: usize| mount.path(format!("d{dir:02}/f{file:02}"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for dir in 0..DIRS {
                    for file in (0..FILES).step_by(3) {
                        fs::set_permissions(path(dir, file), fs::Permissions::from_mode(0o777))
                            .unwrap();
                        assert_eq!(fs::metadata(path(dir, file)).unwrap().mode() & 0o777, 0o777);
                    }
                }
            });
            scope.spawn(|| {
                for dir in (0..DIRS).rev() {
                    for entry in fs::read_dir(mount.path(format!("d{dir:02}"))).unwrap() {
                        entry.unwrap().metadata().unwrap();
                    }
                }
            });
        });
        for dir in 0..DIRS {
            for file in 0..FILES {
                let expected = if file % 3 == 0 { 0o777 } else { mode(dir, file) };
                let found = fs::metadata(path(dir, file)).unwrap().mode() & 0o777;
                assert_eq!(found, expected, "{option}: {dir}/{file}");
            }
        }
    }
}
