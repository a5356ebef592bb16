//! A load of many small stories, each in a directory of its own of the lower, that remembers what
//! was begun and what was promised when. Whatever cuts it off, the tree must then show for each
//! story one of the states that are possible; a plain directory tells what these are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub(crate) mod stories;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Kind, Policy, Snapshot, differences};
use stories::{STORIES, Story};

/// A moment: in the log of a disk, or whatever else grows.
pub(crate) type Moment = u64;

/// What happened in one story.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// When each step was begun.
    begun: Vec<Moment>,
    /// When each step had returned.
    returned: Vec<Moment>,
}

/// The stories of one load.
#[derive(Debug)]
pub(crate) struct Load {
    stories: Vec<(String, &'static Story)>,
    progress: Vec<Mutex<Progress>>,
}

/// What holds once a step has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// What was fsynced: the power may go.
    Synced,
    /// All: only the daemon may go.
    Returned,
}

impl Load {
    /// Makes what `count` stories begin with below the lower `root`.
    pub(crate) fn new(root: &Path, count: usize) -> Load {
        Load::of(root, count, |_| true)
    }

    /// The same of some stories only.
    pub(crate) fn of(root: &Path, count: usize, which: fn(&Story) -> bool) -> Load {
        let of = STORIES.iter().filter(|story| which(story)).cycle().take(count);
        let stories: Vec<_> =
            of.enumerate().map(|(n, story)| (format!("s{n:04}"), story)).collect();
        for (name, story) in &stories {
            let dir = root.join(name);
            fs::create_dir(&dir).unwrap();
            (story.begin)(&dir);
        }
        let progress = (0..count).map(|_| Mutex::default()).collect();
        Load { stories, progress }
    }

    /// Carries the stories out below `root` in `threads`, each step between two looks at `now`.
    /// Ends early at `stop`; a step that fails then ends its story.
    pub(crate) fn run(
        &self,
        root: &Path,
        threads: usize,
        now: &(dyn Fn() -> Moment + Sync),
        stop: &AtomicBool,
    ) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    for n in (thread..self.stories.len()).step_by(threads) {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        self.tell(n, root, now, stop);
                    }
                });
            }
        });
    }

    fn tell(&self, n: usize, root: &Path, now: &dyn Fn() -> Moment, stop: &AtomicBool) {
        let (name, story) = &self.stories[n];
        for step in story.steps {
            self.progress[n].lock().unwrap().begun.push(now());
            match (step.act)(&root.join(name)) {
                Ok(()) => self.progress[n].lock().unwrap().returned.push(now()),
                Err(_) if stop.load(Ordering::SeqCst) => return,
                Err(error) => panic!("{name}, {}: {error}", story.name),
            }
        }
    }

    /// The moments from which on something was promised.
    pub(crate) fn promises(&self) -> Vec<Moment> {
        let of = |(n, progress): (usize, &Mutex<Progress>)| -> Vec<Moment> {
            let returned = progress.lock().unwrap().returned.clone();
            let steps = returned.into_iter().zip(self.stories[n].1.steps);
            steps.filter(|(_, step)| step.syncs).map(|(moment, _)| moment).collect()
        };
        self.progress.iter().enumerate().flat_map(of).collect()
    }

    /// Steps that returned before `cut`, and promises that these were.
    pub(crate) fn counts(&self, cut: Moment) -> (usize, usize) {
        let (mut begun, mut held) = (0, 0);
        for (n, progress) in self.progress.iter().enumerate() {
            let progress = progress.lock().unwrap();
            begun += progress.begun.iter().filter(|moment| **moment <= cut).count();
            held += usize::from(self.held(n, &progress, cut, Promise::Synced) > 0);
        }
        (begun, held)
    }

    /// How many steps must have happened.
    fn held(&self, n: usize, progress: &Progress, cut: Moment, promise: Promise) -> usize {
        let steps = self.stories[n].1.steps;
        let returned = progress.returned.iter().take_while(|moment| **moment <= cut).count();
        match promise {
            Promise::Returned => returned,
            Promise::Synced => {
                steps[..returned].iter().rposition(|step| step.syncs).map_or(0, |last| last + 1)
            }
        }
    }

    /// The states of all stories; made in `place` from the lower `root`.
    pub(crate) fn states(&self, root: &Path, place: &Path) -> States {
        let one = |(name, story): &(String, &'static Story)| {
            let base = place.join(name);
            fs::create_dir_all(&base).unwrap();
            let copied = Command::new("cp").arg("-a").arg(root.join(name)).arg(&base).status();
            assert!(copied.unwrap().success());
            let dir = base.join(name);
            let look =
                || State { seen: Snapshot::of(&base).below(name), torn: story.read_torn(&dir) };
            let mut states = vec![look()];
            for step in story.steps {
                (step.act)(&dir).unwrap();
                states.push(look());
            }
            fs::remove_dir_all(&base).unwrap();
            states
        };
        States(self.stories.iter().map(one).collect())
    }

    /// Compares a tree that shows what was there at `cut`; `read` reads a file of it.
    pub(crate) fn check(
        &self,
        states: &States,
        seen: &Snapshot,
        read: &dyn Fn(&Path) -> Vec<u8>,
        cut: Moment,
        promise: Promise,
    ) -> Findings {
        let mut findings = Findings::default();
        for (n, (name, story)) in self.stories.iter().enumerate() {
            let progress = self.progress[n].lock().unwrap();
            let begun = progress.begun.iter().take_while(|moment| **moment <= cut).count();
            let held = self.held(n, &progress, cut, promise);
            let own = seen.below(name);
            let states = &states.0[n];
            let read = |file: &str| read(&Path::new(name).join(file));
            if let Some(why) = story.refuse(states, held..=begun, &own, &read) {
                let what = format!("{name} ({}), steps {held} to {begun}: {why}", story.name);
                match story.is_half_renamed(states, held..=begun, &own) {
                    true => findings.half_renamed.push(what),
                    false => findings.lost.push(what),
                }
            }
        }
        findings
    }
}

/// What is not one of the states that are possible.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Something promised is gone, or something is there that never was.
    pub(crate) lost: Vec<String>,
    /// Each name is as it was before or after, but not all of them together; nothing of it was
    /// promised.
    pub(crate) half_renamed: Vec<String>,
}

/// What the stories may look like: for each, after each of its steps.
#[derive(Debug)]
pub(crate) struct States(Vec<Vec<State>>);

/// One state of one story.
#[derive(Debug)]
pub(crate) struct State {
    seen: Snapshot,
    /// The content of the files that are written to in place.
    torn: Vec<Option<Vec<u8>>>,
}

/// What is compared: times are those of the run.
const LOOKS: Policy = Policy::SAME_CONTENT;

impl Story {
    fn read_torn(&self, dir: &Path) -> Vec<Option<Vec<u8>>> {
        self.torn.iter().map(|file| fs::read(dir.join(file)).ok()).collect()
    }

    /// Why `seen` is none of the states in `range`, nor between two of them that are not one step.
    fn refuse(
        &self,
        states: &[State],
        range: std::ops::RangeInclusive<usize>,
        seen: &Snapshot,
        read: &dyn Fn(&str) -> Vec<u8>,
    ) -> Option<String> {
        let seen = without(seen, self.ignored);
        let differ = |state: &State| {
            differences("possible", &without(&state.seen, self.ignored), "seen", &seen, LOOKS)
        };
        let found: Vec<_> = states[range.clone()].iter().map(differ).collect();
        if found.iter().any(Vec::is_empty) {
            return None;
        }
        for last in *range.start() + 1..=*range.end() {
            if self.steps[last - 1].tears
                && self.is_between(&states[last - 1], &states[last], &seen, read)
            {
                return None;
            }
        }
        let lines = found.iter().map(|lines| lines.join("; "));
        Some(lines.collect::<Vec<_>>().join("\n    or "))
    }

    /// Whether each name is as in one of the states in `range`; one that not all of these have may
    /// also be as it was before.
    fn is_half_renamed(
        &self,
        states: &[State],
        range: std::ops::RangeInclusive<usize>,
        seen: &Snapshot,
    ) -> bool {
        const ONE_NAME: Policy = Policy { nlink: false, hard_links: false, ..LOOKS };
        let one = |snapshot: &Snapshot, path: &Path| {
            let entry = snapshot.entries.get(path).cloned();
            Snapshot {
                entries: entry.map(|entry| (path.to_path_buf(), entry)).into_iter().collect(),
            }
        };
        let possible = &states[range.clone()];
        let names = possible.iter().flat_map(|state| state.seen.entries.keys());
        names.chain(seen.entries.keys()).all(|path| {
            let stays = possible.iter().all(|state| state.seen.entries.contains_key(path));
            let allowed = if stays { possible } else { &states[..=*range.end()] };
            let here = one(seen, path);
            allowed.iter().any(|state| {
                differences("possible", &one(&state.seen, path), "seen", &here, ONE_NAME).is_empty()
            })
        })
    }

    /// Whether a step that writes in place may have come so far: each byte is the old or the new
    /// one, and nothing is short.
    fn is_between(
        &self,
        old: &State,
        new: &State,
        seen: &Snapshot,
        read: &dyn Fn(&str) -> Vec<u8>,
    ) -> bool {
        let shape = |snapshot: &Snapshot| {
            let mut shape = without(snapshot, self.ignored);
            for (path, entry) in &mut shape.entries {
                if self.torn.iter().any(|file| path.ends_with(file)) {
                    entry.kind = Kind::File { size: 0, digest: String::new() };
                }
            }
            shape
        };
        let seen_shape = shape(seen);
        let same = |state: &State| {
            differences("possible", &shape(&state.seen), "seen", &seen_shape, LOOKS).is_empty()
        };
        if !same(old) && !same(new) {
            return false;
        }
        self.torn.iter().zip(old.torn.iter().zip(&new.torn)).all(|(file, (old, new))| {
            let there = seen.entries.keys().any(|path| path.ends_with(file));
            !there || is_mixed(old.as_deref().unwrap_or_default(), new.as_deref(), &read(file))
        })
    }
}

/// Whether `seen` consists of bytes of `old` and `new`; what lies past the old end, or past the end
/// that the file is about to have, may be zero.
fn is_mixed(old: &[u8], new: Option<&[u8]>, seen: &[u8]) -> bool {
    let new = new.unwrap_or(old);
    seen.len() >= old.len().min(new.len())
        && seen.len() <= old.len().max(new.len())
        && seen.iter().enumerate().all(|(i, byte)| {
            let beyond = i >= old.len().min(new.len());
            old.get(i) == Some(byte) || new.get(i) == Some(byte) || (beyond && *byte == 0)
        })
}

fn without(snapshot: &Snapshot, ignored: &[&str]) -> Snapshot {
    let kept =
        snapshot.entries.iter().filter(|(path, _)| !ignored.iter().any(|i| path.ends_with(i)));
    Snapshot { entries: kept.map(|(path, entry)| (path.clone(), entry.clone())).collect() }
}

/// A generator of the moments at which something is cut off; seeded, so that a run can be repeated.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// From the environment's `PLYFS_CUT_SEED`, or the clock; says which.
    pub(crate) fn new(what: &str) -> Chance {
        let clock = || u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
        let seed = std::env::var("PLYFS_CUT_SEED").map_or_else(|_| clock(), |s| s.parse().unwrap());
        println!("{what}: PLYFS_CUT_SEED={seed}");
        Chance(seed | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end.max(1)
    }
}
