//! What came into place from staging, and whose new place may not be durable.
//!
//! A journal (ext4, xfs) brings renames to the disk in their order: what is synced after one takes
//! it along. Elsewhere an fsync of a file makes durable what is as new as the file, and no rename
//! of a directory above it that an earlier commit knows at its old place: in staging. After a power
//! cut such a directory is back there, with the synced file in it, and the next mount empties
//! staging. btrfs does so, and what its log tree keeps of a name without its inode is subtle. Hence
//! a promise about what came from staging, or lies in it, is kept by a commit of the whole
//! filesystem, which is one state for all; each of them needs it once, and one serves all so far.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::FsResult;
use crate::sys::{AsFd, stat};

/// So many are remembered at most; under Miri few, for each takes milliseconds there.
const MOST: usize = if cfg!(miri) { 64 } else { 1 << 14 };

/// They, by their inode numbers.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// Whether the filesystem needs this at all.
    watches: bool,
    known: Mutex<Known>,
    /// How many there are, to be asked without the lock.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// With the turn at which each came: a number may be used again.
    turns: HashMap<u64, Turn>,
    turn: u64,
}

/// When something came into place, as against all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

impl Unsettled {
    /// For the filesystem of `root`; for none where nothing is promised.
    pub(super) fn new(root: impl AsFd, volatile: bool) -> FsResult<Unsettled> {
        let watches = !volatile && !stat::keeps_order(root)?;
        Ok(Unsettled { watches, known: Mutex::default(), count: AtomicUsize::new(0) })
    }

    /// Whether the filesystem needs this at all.
    pub(super) fn watches(&self) -> bool {
        self.watches
    }

    /// Takes note of what came into place. Tells whether there are too many now.
    pub(super) fn add(&self, inode: u64) -> bool {
        let mut known = self.known.lock();
        known.turn += 1;
        let turn = Turn(known.turn);
        known.turns.insert(inode, turn);
        self.count.store(known.turns.len(), Ordering::Release);
        known.turns.len() > MOST
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether the place of this inode may not be durable.
    pub(super) fn has(&self, inode: u64) -> bool {
        self.known.lock().turns.contains_key(&inode)
    }

    /// The last turn so far.
    pub(super) fn now(&self) -> Turn {
        Turn(self.known.lock().turn)
    }

    /// All that came until `turn` was made durable since.
    pub(super) fn all_settled(&self, turn: Turn) {
        let mut known = self.known.lock();
        known.turns.retain(|_, of| *of > turn);
        self.count.store(known.turns.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> Unsettled {
        Unsettled { watches: true, known: Mutex::default(), count: AtomicUsize::new(0) }
    }

    #[test]
    fn what_comes_while_all_is_synced_stays() {
        let unsettled = watching();
        unsettled.add(1);
        let before = unsettled.now();
        unsettled.add(2);
        unsettled.all_settled(before);
        // A number used again is another one.
        assert!(!unsettled.has(1) && unsettled.has(2));
        let before = unsettled.now();
        unsettled.add(2);
        unsettled.all_settled(before);
        assert!(unsettled.has(2) && !unsettled.is_empty());
    }

    #[test]
    fn too_many_are_told() {
        let unsettled = watching();
        assert!((0..MOST as u64).all(|inode| !unsettled.add(inode)));
        assert!(unsettled.add(u64::MAX));
    }
}
