//! Finding names before they are asked for.
//!
//! A client that walks a tree waits for one layer's answer after the other while another processor
//! has nothing to do. Where there is one, a thread finds what will be asked for next
//! ([`super::foresight`] guesses it).
//!
//! What it finds stays true: lowers do not change, so that a name whose topmost entry lies in a lower
//! means the same for as long as the listing of its directory says so. What is found is kept in that
//! listing, given to the first lookup of the name, and goes with the entry, with the listing, or when
//! too much else was found since. Of the upper nothing is found ahead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use super::directory::Directory;
use super::foresight::Guess;
use super::listing::Part;
use super::lookup::part_numbers;
use super::merge::Merged;
use super::node::Node;
use super::sync::Mutex;
use super::{Name, Overlay};
use crate::error::FsResult;

/// Entries of layers, so many together, that are found and not asked for yet; the oldest go.
const MOST: usize = 4096;
/// Names of one guess.
const OF_EACH: usize = 512;
/// Directories of more names are not read for a guess.
const SMALL: usize = 4096;

/// What was found of the names of one directory, by their cookies.
#[derive(Debug, Default)]
pub(super) struct Found(Mutex<BTreeMap<u64, Merged>>);

impl Found {
    pub fn keep(&self, cookie: u64, merged: Merged) {
        self.0.lock().insert(cookie, merged);
    }

    /// What was found under a name whose cookie is asked for only if there is anything.
    pub fn take(&self, cookie: impl FnOnce() -> u64) -> Option<Merged> {
        let mut found = self.0.lock();
        if found.is_empty() { None } else { found.remove(&cookie()) }
    }

    pub fn has(&self, cookie: u64) -> bool {
        self.0.lock().contains_key(&cookie)
    }

    pub fn clear(&self) {
        // Dropped after the lock: descriptors are closed by that.
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}

/// Where something was found, and how much.
#[derive(Debug, Default)]
struct Kept {
    dirs: VecDeque<(Weak<Node>, usize)>,
    total: usize,
}

impl Overlay {
    /// From now on names are found ahead; `start` is called when there is something to do, and is
    /// to start a thread that runs [`Overlay::look_ahead`].
    pub fn begin_to_look_ahead(&self, start: impl Fn() -> bool + Send + Sync + 'static) {
        self.foresight.begin(Box::new(start));
    }

    /// Ends that, and waits for the thread.
    pub fn stop_looking_ahead(&self) {
        self.foresight.end();
    }

    /// Looks ahead until there was nothing to do for a while.
    pub fn look_ahead(&self) {
        let _turn = self.foresight.turn();
        let mut kept = Kept::default();
        loop {
            while let Some(guess) = self.foresight.next() {
                self.follow(guess, &mut kept);
            }
            kept.bound(self, 0);
            if self.foresight.ends() {
                return;
            }
        }
    }

    /// Finds what reading the directory `node` would give.
    #[cfg(all(test, feature = "models"))]
    pub(super) fn look_into(&self, node: super::NodeId) {
        let guess = Guess { dir: node, with: super::With::Everything, after: 0 };
        self.follow(guess, &mut Kept::default());
    }

    fn follow(&self, guess: Guess, kept: &mut Kept) {
        let Ok(node) = self.nodes.get(guess.dir) else { return };
        // What cannot be found now is an error to who asks for it.
        let cost = self.find_listed(&node, &guess);
        if let Ok(cost @ 1..) = cost {
            kept.dirs.push_back((Arc::downgrade(&node), cost));
            kept.total += cost;
            kept.bound(self, MOST);
        }
        self.let_go(node);
    }

    /// Finds what reading the directory goes on to give.
    fn find_listed(&self, node: &Arc<Node>, guess: &Guess) -> FsResult<usize> {
        let dir = node.directory()?;
        self.make_listing(node, dir, SMALL)?;
        let (mut cookie, mut cost) = (guess.after, 0);
        for _ in 0..OF_EACH {
            let next = {
                let listing = dir.listing.read();
                let Some(listing) = listing.as_ref() else { break };
                let after = cookie.max(listing.read_to());
                let next = listing.after(after).find(|(_, entry)| {
                    matches!(entry.part, Part::Lower(_))
                        && entry.kind.is_some_and(|kind| guess.with.includes(kind))
                });
                next.map(|(cookie, entry)| (cookie, entry.name.clone()))
            };
            let Some((at, name)) = next else { break };
            if !self.foresight.is_on() {
                break;
            }
            cookie = at;
            match self.find_ahead(dir, &name) {
                Ok(entries) => cost += entries,
                Err(_) => break,
            }
        }
        Ok(cost)
    }

    /// Finds one name and keeps what it is; returns how many entries of layers were asked.
    fn find_ahead(&self, dir: &Directory, name: &Name) -> FsResult<usize> {
        let state = dir.state.read();
        if state.dead {
            return Ok(0);
        }
        let known = match dir.listing.read().as_ref() {
            Some(listing) => match listing.to_be_found(name) {
                Some(listed) => part_numbers(dir, listed),
                None => return Ok(0),
            },
            None => return Ok(0),
        };
        let parts: Vec<_> = dir.parts().collect();
        let Some(merged) = self.merge(&parts, name, Some(&known))? else { return Ok(0) };
        let cost = merged.parts.len() + 1;
        // The listing may be gone; it cannot have changed, for the names stay while we read them.
        if let Some(listing) = dir.listing.read().as_ref() {
            listing.keep_found(name, merged);
            self.foresight.note_found(1);
        }
        Ok(cost)
    }

    /// What was found ahead of a name, for who asks for it now.
    pub(super) fn found_ahead(&self, dir: &Directory, name: &Name) -> Option<Merged> {
        let found = dir.listing.read().as_ref()?.take_found(name)?;
        self.foresight.note_used();
        Some(found)
    }

    fn let_go(&self, node: Arc<Node>) {
        self.listings.forget(&self.nodes.let_go(node));
    }
}

impl Kept {
    /// Lets the oldest go until no more than `most` are left.
    fn bound(&mut self, overlay: &Overlay, most: usize) {
        while self.total > most {
            let Some((node, cost)) = self.dirs.pop_front() else { break };
            self.total = self.total.saturating_sub(cost);
            let Some(node) = node.upgrade() else { continue };
            if let Some(dir) = &node.dir
                && let Some(listing) = dir.listing.read().as_ref()
            {
                listing.clear_found();
            }
            overlay.let_go(node);
        }
    }
}
