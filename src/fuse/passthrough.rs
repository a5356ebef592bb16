//! Which open files the kernel reads and writes by itself.
//!
//! The kernel allows an inode either cached files or files passed through to one backing file,
//! never both at once. So the open files of each node are counted here, in one of two states,
//! and each new open must fit. A count may be above the kernel's (it forgets a file before it
//! sends RELEASE) but never below, so that the state here is at least as strict.
//!
//! The one rule that must never break: a descriptor that may write is never passed through to a
//! file of a lower layer. A node whose lower file is passed through and that was copied up since
//! gets [`Admission::Stale`]: its names must lead to a fresh node.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::channel::Channel;
use super::stats::Passthrough as Figures;
use crate::error::Errno;
use crate::overlay::options::{Options, PassthroughPolicy};
use crate::overlay::{NodeId, Opened};
use crate::sys::fuse_dev;
use crate::sys::stat::stat_fd;

/// Files up to this size, in bytes, come along when they are opened, if they are cached: what the
/// kernel would ask for in one READ anyway.
pub(super) const MOST_PRELOADED: u64 = 64 << 10;

/// How an open is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Through the page cache of the node. `keep`: what is in it is still true.
    Cached { keep: bool },
    /// By the kernel from the backing file of this id.
    Passed { backing: i32 },
    /// Not at all on this node.
    Stale,
}

/// How the open files of a node are served; a node without one has no state.
#[derive(Debug)]
struct Open {
    files: u64,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Cached,
    Passed { backing: i32, upper: bool },
}

/// Which data files of the lowers are passed through, beside programs and libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LowerData {
    None,
    /// Where nothing is ever copied up, nobody can miss what is written then. Small ones, which come
    /// along with their first opening, are read sooner so: `grep -r` and tar take two thirds of the
    /// time.
    Large,
    All,
}

/// The state of some nodes.
#[derive(Debug, Default)]
struct Shard {
    open: HashMap<NodeId, Open>,
    /// Those that were open in a way that lets them be mapped for writing. What is written so
    /// comes to nobody's knowledge, and a mapping outlives the descriptor it was made with.
    mapped: HashSet<NodeId>,
}

/// The state of all nodes with open files.
///
/// Each shard's lock is held across the ioctl that registers a backing file, which waits for
/// nothing, and across the question who writes to a file: the overlay's locks come after it.
#[derive(Debug)]
pub(super) struct Passthrough {
    lower_data: LowerData,
    /// Without it every file is cached, and nothing is counted.
    negotiated: bool,
    /// The kernel refused this process its first backing file.
    off: AtomicBool,
    shards: [Mutex<Shard>; SHARDS],
    /// How many nodes [`Shard::mapped`] has, in all.
    mapped: AtomicU64,
    settlings: AtomicU64,
    passed: AtomicU64,
    cached: AtomicU64,
    stale: AtomicU64,
    refused: AtomicU64,
}

const SHARDS: usize = 16;

const SUID: u32 = 0o4000;
/// sgid with group execution; without it the bit means something else.
const SGID: u32 = 0o2010;
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

impl Passthrough {
    pub(super) fn new(options: &Options, negotiated: bool) -> Passthrough {
        let lower_data = match options.passthrough {
            PassthroughPolicy::All => LowerData::All,
            _ if options.upper.is_none() => LowerData::Large,
            _ => LowerData::None,
        };
        let (off, shards) = (AtomicBool::new(false), Default::default());
        let [mapped, settlings, passed, cached, stale, refused] = [const { AtomicU64::new(0) }; 6];
        Passthrough {
            lower_data,
            negotiated,
            off,
            shards,
            mapped,
            settlings,
            passed,
            cached,
            stale,
            refused,
        }
    }

    /// What was decided so far.
    pub(super) fn figures(&self) -> Figures {
        let in_use = |shard: &Mutex<Shard>| {
            let nodes = &shard.lock().open;
            nodes.values().filter(|open| matches!(open.how, How::Passed { .. })).count() as u64
        };
        Figures {
            passed: self.passed.load(Ordering::Relaxed),
            cached: self.cached.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            backing_files: self.shards.iter().map(in_use).sum(),
        }
    }

    /// Counts a file of `node` that was just opened and says how to answer. After
    /// [`Admission::Stale`] nothing was counted.
    pub(super) fn admit(&self, channel: &Channel, node: NodeId, opened: &Opened) -> Admission {
        let Some(shard) = self.shard(node) else {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Admission::Cached { keep: true };
        };
        let mut shard = shard.lock();
        let admission = self.decide(&mut shard.open, channel, node, opened);
        if matches!(admission, Admission::Passed { .. })
            && opened.mappable
            && shard.mapped.insert(node)
        {
            self.mapped.fetch_add(1, Ordering::Release);
        }
        drop(shard);
        let count = match admission {
            Admission::Cached { .. } => &self.cached,
            Admission::Passed { .. } => &self.passed,
            Admission::Stale => &self.stale,
        };
        count.fetch_add(1, Ordering::Relaxed);
        admission
    }

    fn decide(
        &self,
        nodes: &mut HashMap<NodeId, Open>,
        channel: &Channel,
        node: NodeId,
        opened: &Opened,
    ) -> Admission {
        match nodes.entry(node) {
            Slot::Occupied(mut slot) => {
                let open = slot.get_mut();
                let admission = match open.how {
                    How::Cached => Admission::Cached { keep: true },
                    How::Passed { backing, upper } if upper == opened.upper => {
                        Admission::Passed { backing }
                    }
                    How::Passed { .. } => return Admission::Stale,
                };
                open.files += 1;
                admission
            }
            Slot::Vacant(slot) => {
                let backing =
                    if self.wanted(opened) { self.register(channel, opened) } else { None };
                let how = match backing {
                    Some(backing) => How::Passed { backing, upper: opened.upper },
                    None => How::Cached,
                };
                slot.insert(Open { files: 1, how });
                match backing {
                    Some(backing) => Admission::Passed { backing },
                    // A write that was passed through earlier is not in the node's page cache.
                    None => Admission::Cached { keep: !opened.upper || self.is_off() },
                }
            }
        }
    }

    /// Counts a file of `node` that was closed.
    pub(super) fn release(&self, channel: &Channel, node: NodeId) {
        let Some(shard) = self.shard(node) else { return };
        let nodes = &mut shard.lock().open;
        let Slot::Occupied(mut slot) = nodes.entry(node) else { return };
        slot.get_mut().files -= 1;
        if slot.get().files > 0 {
            return;
        }
        if let How::Passed { backing, .. } = slot.remove().how
            && let Err(errno) = fuse_dev::close_backing(channel, backing)
        {
            tracing::warn!("backing file {backing} was not given back: {errno}");
        }
    }

    /// Whether `node` may be mapped for writing, so that its data and times may change at any time.
    pub(super) fn may_be_mapped(&self, node: NodeId) -> bool {
        let any = self.mapped.load(Ordering::Acquire) > 0;
        any && self.shard(node).is_some_and(|shard| shard.lock().mapped.contains(&node))
    }

    /// Takes note, if nobody has `node` open and `nobody_writes`, that it is no longer mapped.
    pub(super) fn settle(&self, node: NodeId, nobody_writes: impl FnOnce() -> bool) -> bool {
        let Some(shard) = self.shard(node) else { return true };
        // Held meanwhile, so that nobody opens it for himself after he was asked for.
        let mut shard = shard.lock();
        let settled = !shard.open.contains_key(&node) && nobody_writes();
        if settled && shard.mapped.remove(&node) {
            self.mapped.fetch_sub(1, Ordering::Release);
            self.settlings.fetch_add(1, Ordering::Release);
        }
        settled
    }

    /// How many times a node was settled.
    pub(super) fn settlings(&self) -> u64 {
        self.settlings.load(Ordering::Acquire)
    }

    /// The kernel has forgotten `node`: nobody has a mapping of it.
    pub(super) fn forget(&self, node: NodeId) {
        if let Some(shard) = self.shard(node)
            && shard.lock().mapped.remove(&node)
        {
            self.mapped.fetch_sub(1, Ordering::Release);
        }
    }

    /// The shard of `node`; none where nothing needs to be counted.
    fn shard(&self, node: NodeId) -> Option<&Mutex<Shard>> {
        if !self.negotiated {
            return None;
        }
        self.shards.get(node.0 as usize % SHARDS)
    }

    fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Whether the first open file of a node is to be passed through.
    fn wanted(&self, opened: &Opened) -> bool {
        if self.is_off() || opened.mode & TYPE_MASK != REGULAR {
            return false;
        }
        if opened.upper {
            // Writes that are passed through clear no suid and sgid: those must come to us.
            return !(opened.writable && gains_privilege(opened.mode));
        }
        // A descriptor on the lower keeps reading the lower after a copy-up. That is harmless
        // for programs and libraries, whose pages all mounts then share; a data file must show
        // what is written to it, and one whose attributes were changed counts as one.
        !opened.writable
            && match self.lower_data {
                LowerData::None => opened.program,
                LowerData::Large => opened.program || is_large(opened),
                LowerData::All => true,
            }
    }

    fn register(&self, channel: &Channel, opened: &Opened) -> Option<i32> {
        match fuse_dev::open_backing(channel, &*opened.file) {
            Ok(backing) => Some(backing),
            Err(errno) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // Without the privilege it will never work; else it is this file's filesystem.
                if errno == Errno::PERM {
                    self.off.store(true, Ordering::Relaxed);
                }
                tracing::debug!("no passthrough: {errno}");
                None
            }
        }
    }
}

/// Whether it is not given to the kernel whole as it is opened.
fn is_large(opened: &Opened) -> bool {
    stat_fd(&*opened.file).is_ok_and(|stat| stat.size > MOST_PRELOADED)
}

fn gains_privilege(mode: u32) -> bool {
    mode & SUID != 0 || mode & SGID == SGID
}
