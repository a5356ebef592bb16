//! Guessing which names will be asked for next.
//!
//! Two things are recognised. *Who walks a tree* reads a directory, and then one that it was given
//! there: it will read the others, too, those below first. *Who goes through a directory by name*
//! (git, which has a sorted list of files) looks up several in it: those that follow in the order of
//! names are next. What comes of guesses is counted; where most are wrong, more evidence is asked for.
//!
//! Guesses are carried out by a thread of its own ([`Overlay::look_ahead`]), which is started with the
//! first one and ends when there was none for a while.
//!
//! [`Overlay::look_ahead`]: super::Overlay::look_ahead

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::counters::CacheFigures;
use super::directory::Directory;
use super::{Name, NodeId, With};

/// Guesses that wait; the oldest go.
const WAITING: usize = 96;
/// Directories remembered with what was given in them, and how many of each.
const GROUPS: usize = 16;
const OF_EACH: usize = 128;
/// Directories guessed at once.
const AT_ONCE: usize = 32;
/// Names guessed at first in a directory, and at most.
const WINDOW: u16 = 32;
const WIDEST: u16 = 512;
/// Instead of a window: guesses in this directory were wrong.
const NO_MORE: u16 = u16::MAX;
/// How long the thread waits for a guess before it ends.
const IDLE: Duration = Duration::from_secs(1);

/// What is to be looked at.
#[derive(Debug)]
pub(super) enum Guess {
    /// What reading the directory gives after the cookie.
    Listed { dir: NodeId, with: With, after: u64 },
    /// So many names in order, from this one on.
    Names { dir: NodeId, from: Name, count: usize },
}

/// Starts the thread; `false` where none can be started.
type Start = Box<dyn Fn() -> bool + Send + Sync>;

/// The guesses of one mount.
#[derive(Default)]
pub(super) struct Foresight {
    /// Whether anything is guessed at all.
    on: AtomicBool,
    state: Mutex<State>,
    change: Condvar,
    /// Names that were found before they were asked for, and how many of them were asked for.
    found: AtomicU64,
    used: AtomicU64,
}

#[derive(Default)]
struct State {
    start: Option<Start>,
    running: bool,
    over: bool,
    waiting: VecDeque<Guess>,
    groups: VecDeque<Group>,
}

/// A directory that was read.
struct Group {
    dir: NodeId,
    /// The directories in it, and whether each was guessed already.
    given: Vec<(NodeId, bool)>,
}

impl std::fmt::Debug for Foresight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foresight").finish_non_exhaustive()
    }
}

impl Foresight {
    /// From now on it is guessed; `start` starts a thread that runs [`Overlay::look_ahead`].
    ///
    /// [`Overlay::look_ahead`]: super::Overlay::look_ahead
    pub fn begin(&self, start: Start) {
        self.state.lock().start = Some(start);
        self.on.store(true, Ordering::Release);
    }

    /// Ends it, and waits for the thread.
    pub fn end(&self) {
        self.on.store(false, Ordering::Release);
        let mut state = self.state.lock();
        state.over = true;
        state.waiting.clear();
        self.change.notify_all();
        while state.running {
            self.change.wait(&mut state);
        }
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether the thread is to leave off what it does.
    pub fn is_over(&self) -> bool {
        !self.on.load(Ordering::Acquire)
    }

    /// The directory `dir` was read: `given` are the directories in it, and reading goes on after
    /// `rest` if there is more.
    pub fn read(&self, dir: NodeId, with: With, given: &[NodeId], rest: Option<u64>) {
        let mut state = self.state.lock();
        let mut next: Vec<NodeId> = Vec::new();
        let walks = state.walks_into(dir, &mut next);
        let place = state.groups.iter().position(|group| group.dir == dir);
        let mut group = match place.and_then(|place| state.groups.remove(place)) {
            Some(group) => group,
            None => Group { dir, given: Vec::new() },
        };
        let room = OF_EACH.saturating_sub(group.given.len());
        group.given.extend(given.iter().take(room).map(|id| (*id, false)));
        let mut below = Vec::new();
        if walks && self.trusts_walks() {
            group.guess_from(0, &mut below);
        } else {
            next.clear();
        }
        state.groups.push_front(group);
        state.groups.truncate(GROUPS);
        below.extend(next);
        below.truncate(AT_ONCE);
        for dir in below.into_iter().rev() {
            state.waiting.push_front(Guess::Listed { dir, with, after: 0 });
        }
        if let Some(after) = rest {
            state.waiting.push_front(Guess::Listed { dir, with, after });
        }
        self.call(state);
    }

    /// A name was asked for that nobody had guessed, in the directory `id`, where `left` guesses
    /// wait to be used.
    pub fn missed(&self, id: NodeId, dir: &Directory, name: &Name, left: impl FnOnce() -> usize) {
        let window = dir.window.load(Ordering::Relaxed);
        if window == NO_MORE || dir.lowers.is_empty() {
            return;
        }
        let missed = dir.missed.fetch_add(1, Ordering::Relaxed) + 1;
        if missed < self.evidence() {
            return;
        }
        dir.missed.store(0, Ordering::Relaxed);
        let wrong = window > 0 && left() > usize::from(window / 2);
        let wider = match window {
            0 => WINDOW,
            _ if wrong => NO_MORE,
            _ => window.saturating_mul(2).min(WIDEST),
        };
        dir.window.store(wider, Ordering::Relaxed);
        if wider != NO_MORE {
            let mut state = self.state.lock();
            let (from, count) = (name.clone(), usize::from(wider));
            state.waiting.push_front(Guess::Names { dir: id, from, count });
            self.call(state);
        }
    }

    /// The directory `dir` was looked up as had been guessed: what is in it will be next.
    pub fn entered(&self, dir: NodeId) {
        let mut state = self.state.lock();
        let (from, count) = (Name::default(), usize::from(WINDOW));
        state.waiting.push_front(Guess::Names { dir, from, count });
        self.call(state);
    }

    /// So many names were found.
    pub fn note_found(&self, names: usize) {
        self.found.fetch_add(names as u64, Ordering::Relaxed);
    }

    /// A name that had been found was asked for.
    pub fn note_used(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Names that were found ahead: asked for then, or not (yet).
    pub fn figures(&self) -> CacheFigures {
        let (found, used) = (self.found.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed));
        CacheFigures { hits: used, misses: found.saturating_sub(used) }
    }

    /// How many names of a directory must have been asked for before it is guessed which follow.
    fn evidence(&self) -> u16 {
        let CacheFigures { hits, misses } = self.figures();
        match hits + misses {
            ..64 => 3,
            _ if hits >= misses => 1,
            _ if 3 * hits < misses => 16,
            _ => 3,
        }
    }

    fn trusts_walks(&self) -> bool {
        let CacheFigures { hits, misses } = self.figures();
        hits + misses < 4096 || 4 * hits >= misses
    }

    /// Has the thread look at the guesses.
    fn call(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        state.waiting.truncate(WAITING);
        if state.waiting.is_empty() || state.over || self.is_over() {
            return;
        }
        if state.running {
            self.change.notify_one();
            return;
        }
        state.running = true;
        let started = state.start.as_ref().is_some_and(|start| start());
        if !started {
            state.running = false;
            self.on.store(false, Ordering::Release);
        }
    }

    /// What the thread holds while it runs: a panic in it ends the guessing, not the mount.
    pub fn turn(&self) -> Turn<'_> {
        Turn(self)
    }

    /// The next guess for the thread, or `None` if there was none for a while.
    pub fn next(&self) -> Option<Guess> {
        let mut state = self.state.lock();
        loop {
            if let Some(guess) = state.waiting.pop_front() {
                return Some(guess);
            }
            if state.over || self.change.wait_for(&mut state, IDLE).timed_out() {
                return state.waiting.pop_front();
            }
        }
    }

    /// Whether the thread may end; else there are new guesses.
    pub fn ends(&self) -> bool {
        let mut state = self.state.lock();
        if !state.over && !state.waiting.is_empty() {
            return false;
        }
        state.running = false;
        self.change.notify_all();
        true
    }
}

impl State {
    /// Whether `dir` was given to who read another directory; then those given with it are `next`,
    /// the following ones first.
    fn walks_into(&mut self, dir: NodeId, next: &mut Vec<NodeId>) -> bool {
        for group in &mut self.groups {
            let Some(at) = group.given.iter().position(|(id, _)| *id == dir) else { continue };
            group.guess_from(at + 1, next);
            group.guess_from(0, next);
            return true;
        }
        false
    }
}

impl Group {
    fn guess_from(&mut self, at: usize, next: &mut Vec<NodeId>) {
        let room = AT_ONCE.saturating_sub(next.len());
        let new = self.given.iter_mut().skip(at).filter(|(_, guessed)| !guessed);
        for (id, guessed) in new.take(room) {
            *guessed = true;
            next.push(*id);
        }
    }
}

/// See [`Foresight::turn`].
pub(super) struct Turn<'a>(&'a Foresight);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("names are not found ahead any more, after a panic");
            self.0.on.store(false, Ordering::Release);
            self.0.state.lock().running = false;
            self.0.change.notify_all();
        }
    }
}
