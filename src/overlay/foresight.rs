//! Guessing which directories will be read next.
//!
//! Who reads a directory, and then one that it was given there, walks a tree: it will read the others,
//! too, those below first. What comes of guesses is counted; where most are wrong, one walk in sixteen
//! is followed.
//!
//! Guessing which names somebody looks up next was tried, and did not pay: one round trip for each
//! name is more than finding it, and on two processors the thread that finds disturbs it.
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
use super::{NodeId, With};

/// Guesses that wait; the oldest go.
const WAITING: usize = 96;
/// Directories remembered with what was given in them, and how many of each.
const GROUPS: usize = 16;
const OF_EACH: usize = 128;
/// Directories guessed at once.
const AT_ONCE: usize = 32;
/// How long the thread waits for a guess before it ends.
const IDLE: Duration = Duration::from_secs(1);

/// What is to be looked at: what reading the directory gives after the cookie.
#[derive(Debug)]
pub(super) struct Guess {
    pub dir: NodeId,
    pub with: With,
    pub after: u64,
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
    waiting: VecDeque<Guess>,
    groups: VecDeque<Group>,
    /// Walks that were not followed, because most guesses were wrong.
    ignored: u32,
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
        state.waiting.clear();
        self.change.notify_all();
        while state.running {
            self.change.wait(&mut state);
        }
    }

    /// Whether anything is guessed; else the thread leaves off what it does.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// The directory `dir` was read after the cookie `from`: `given` are the directories found there,
    /// and reading goes on after `rest` if there is more.
    pub fn read(&self, dir: NodeId, with: With, from: u64, given: &[NodeId], rest: Option<u64>) {
        let mut state = self.state.lock();
        // Its reader does it now.
        state.waiting.retain(|guess| guess.dir != dir);
        let (mut below, mut beside) = (Vec::new(), Vec::new());
        let follows = state.was_given(dir) && self.follows(&mut state);
        if follows {
            state.guess_beside(dir, &mut beside);
        }
        let place = state.groups.iter().position(|group| group.dir == dir);
        let mut group = match place.and_then(|place| state.groups.remove(place)) {
            Some(group) if from > 0 => group,
            _ => Group { dir, given: Vec::new() },
        };
        let room = OF_EACH.saturating_sub(group.given.len());
        group.given.extend(given.iter().take(room).map(|id| (*id, false)));
        if follows {
            group.guess_from(0, &mut below);
            // Most go into the first one at once: by then it would be found half.
            if !below.is_empty() {
                below.rotate_left(1);
            }
        }
        state.groups.push_front(group);
        state.groups.truncate(GROUPS);
        below.extend(beside);
        below.truncate(AT_ONCE);
        for dir in below.into_iter().rev() {
            state.waiting.push_front(Guess { dir, with, after: 0 });
        }
        if let Some(after) = rest {
            state.waiting.push_front(Guess { dir, with, after });
        }
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

    /// Whether a walk is to be followed.
    fn follows(&self, state: &mut State) -> bool {
        let CacheFigures { hits, misses } = self.figures();
        let mostly_wrong = hits + misses >= 4096 && 4 * hits < misses;
        if mostly_wrong {
            state.ignored = state.ignored.wrapping_add(1);
        }
        !mostly_wrong || state.ignored.is_multiple_of(16)
    }

    /// Has the thread look at the guesses.
    fn call(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        state.waiting.truncate(WAITING);
        if state.waiting.is_empty() || !self.is_on() {
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
            if !self.is_on() || self.change.wait_for(&mut state, IDLE).timed_out() {
                return state.waiting.pop_front();
            }
        }
    }

    /// Whether the thread may end; else there are new guesses.
    pub fn ends(&self) -> bool {
        let mut state = self.state.lock();
        if self.is_on() && !state.waiting.is_empty() {
            return false;
        }
        state.running = false;
        self.change.notify_all();
        true
    }
}

impl State {
    /// Whether `dir` was given to who read another directory; it is no guess any more.
    fn was_given(&mut self, dir: NodeId) -> bool {
        let mut given = self.groups.iter_mut().flat_map(|group| &mut group.given);
        let found = given.find(|(id, _)| *id == dir);
        found.map(|(_, guessed)| *guessed = true).is_some()
    }

    /// Guesses the directories that were given with `dir`, the following ones first.
    fn guess_beside(&mut self, dir: NodeId, next: &mut Vec<NodeId>) {
        for group in &mut self.groups {
            if let Some(at) = group.given.iter().position(|(id, _)| *id == dir) {
                group.guess_from(at + 1, next);
                group.guess_from(0, next);
                return;
            }
        }
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
