//! The table of nodes, by number and by the inodes that they stand for.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use rustix::fs::FileType;

use super::NodeId;
use super::directory::Directory;
use super::node::{Alias, Node, RealKey};
use super::node_state::NodeState;
use super::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use super::sync::{Mutex, MutexGuard};
use crate::error::{Errno, FsResult};
use crate::sys::OwnedFd;

/// A node's number ends in that of the shard of its key, so that both tables that lead to it are
/// under one lock.
const SHARD_BITS: u32 = 4;
const SHARDS: usize = 1 << SHARD_BITS;

/// The nodes of one shard. The tables hold nothing but the node, which has number and key.
#[derive(Debug, Default)]
struct Shard {
    by_id: HashTable<Arc<Node>>,
    by_key: HashTable<Arc<Node>>,
    /// Nodes by keys that are not their own: what was copied up, and files made without a name.
    more: HashMap<RealKey, Arc<Node>, FixedState>,
}

/// All nodes that the kernel holds a lookup of.
#[derive(Debug)]
pub struct NodeTable {
    root: Arc<Node>,
    shards: Vec<Mutex<Shard>>,
    next: AtomicU64,
    live: AtomicU64,
    /// The most there were since memory was last given back.
    peak: AtomicU64,
    /// How many times more memory is given back although few nodes are left.
    give_back_again: AtomicU32,
    /// See [`NodeTable::copy_ups`].
    copy_ups: AtomicU64,
    /// Held by the one thread that takes nodes out, and while it refers to any.
    collecting: Mutex<()>,
}

/// Whether nothing but the table and the caller refers to a node, to which `leading` keys lead:
/// what there is beyond that are its children and running requests.
fn is_unused(node: &Arc<Node>, leading: usize) -> bool {
    node.is_forgotten() && Arc::strong_count(node) <= leading + 2
}

fn hash_of(what: impl std::hash::Hash) -> u64 {
    FixedState::default().hash_one(what)
}

fn shard_of(key: RealKey) -> usize {
    (hash_of(key) >> 32) as usize % SHARDS
}

impl Shard {
    fn of_id(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.by_id.find(hash_of(id), |node| node.id == id)
    }

    fn of_key(&self, key: RealKey) -> Option<&Arc<Node>> {
        let own = self.by_key.find(hash_of(key), |node| node.key == key);
        own.or_else(|| if self.more.is_empty() { None } else { self.more.get(&key) })
    }

    fn insert_id(&mut self, node: Arc<Node>) {
        self.by_id.insert_unique(hash_of(node.id), node, |node| hash_of(node.id));
    }

    fn remove_id(&mut self, id: NodeId) -> bool {
        self.by_id.find_entry(hash_of(id), |node| node.id == id).map(|e| e.remove()).is_ok()
    }

    /// Lets `key` lead to `node`, whatever it led to.
    fn insert_key(&mut self, key: RealKey, node: &Arc<Node>) {
        if let Some(other) = self.of_key(key).filter(|other| !Arc::ptr_eq(other, node)).cloned() {
            self.remove_key(key, &other);
        }
        if node.key != key {
            self.more.insert(key, node.clone());
        } else if !node.is_keyed() {
            self.by_key.insert_unique(hash_of(key), node.clone(), |node| hash_of(node.key));
            node.set_keyed(true);
        }
    }

    /// Lets `key` lead nowhere, if it led to `node`.
    fn remove_key(&mut self, key: RealKey, node: &Arc<Node>) {
        if node.key == key {
            let own = self.by_key.find_entry(hash_of(key), |other| Arc::ptr_eq(other, node));
            if let Ok(entry) = own {
                entry.remove();
                node.set_keyed(false);
            }
        } else if self.more.get(&key).is_some_and(|other| Arc::ptr_eq(other, node)) {
            self.more.remove(&key);
        }
    }

    fn leads_to(&self, key: RealKey, node: &Arc<Node>) -> bool {
        self.of_key(key).is_some_and(|found| Arc::ptr_eq(found, node))
    }
}

impl NodeTable {
    /// A table that holds the root alone.
    pub fn new(key: RealKey, state: NodeState, dir: Directory) -> FsResult<NodeTable> {
        let upper = dir.upper.get().is_some();
        let root = Node::new(NodeId::ROOT, key, FileType::Directory, upper, state, Some(dir));
        let table = NodeTable {
            root: Arc::new(root),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            // No number that is given out is the root's.
            next: AtomicU64::new(1),
            live: AtomicU64::new(1),
            peak: AtomicU64::new(1),
            give_back_again: AtomicU32::new(0),
            copy_ups: AtomicU64::new(0),
            collecting: Mutex::new(()),
        };
        table.shard(shard_of(key))?.insert_key(key, &table.root);
        Ok(table)
    }

    fn shard(&self, number: usize) -> FsResult<MutexGuard<'_, Shard>> {
        self.shards.get(number).map(Mutex::lock).ok_or(Errno::STALE)
    }

    /// The node of a number that the kernel named.
    ///
    /// # Errors
    /// `ESTALE` where there is none.
    pub fn get(&self, id: NodeId) -> FsResult<Arc<Node>> {
        if id == NodeId::ROOT {
            return Ok(self.root.clone());
        }
        self.shard(id.0 as usize % SHARDS)?.of_id(id).cloned().ok_or(Errno::STALE)
    }

    /// The node that `key` leads to.
    pub fn of_key(&self, key: RealKey) -> Option<Arc<Node>> {
        self.shard(shard_of(key)).ok()?.of_key(key).cloned()
    }

    /// The node of `key`, made where there is none yet; counts one lookup.
    pub fn intern(
        &self,
        key: RealKey,
        make: impl FnOnce(NodeId) -> FsResult<Node>,
    ) -> FsResult<Arc<Node>> {
        let mut shard = self.shard(shard_of(key))?;
        if let Some(found) = shard.of_key(key) {
            found.count_lookup();
            return Ok(found.clone());
        }
        let node = self.add(&mut shard, key, make)?;
        shard.insert_key(key, &node);
        Ok(node)
    }

    /// Changes with each copy-up. What a layer was seen to have before that may not be so any
    /// more: the node that knows has to be asked or, where there is none, the layer again.
    pub fn copy_ups(&self) -> u64 {
        self.copy_ups.load(Ordering::Acquire)
    }

    /// A file, or its data, lies in the upper now. Told by who holds the node.
    pub fn count_copy_up(&self) {
        self.copy_ups.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds a node that no key leads to (a file without a name), but may later; counts one
    /// lookup.
    pub fn add_unnamed(
        &self,
        key: RealKey,
        make: impl FnOnce(NodeId) -> FsResult<Node>,
    ) -> FsResult<Arc<Node>> {
        self.add(&mut *self.shard(shard_of(key))?, key, make)
    }

    fn add(
        &self,
        shard: &mut Shard,
        key: RealKey,
        make: impl FnOnce(NodeId) -> FsResult<Node>,
    ) -> FsResult<Arc<Node>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let node = Arc::new(make(NodeId(number << SHARD_BITS | shard_of(key) as u64))?);
        node.count_lookup();
        shard.insert_id(node.clone());
        let live = self.live.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(live, Ordering::Relaxed);
        Ok(node)
    }

    /// Lets `key` lead to `node` too, as after its copy-up.
    pub fn add_key(&self, node: &Arc<Node>, key: RealKey) -> FsResult<()> {
        let mut state = node.state.lock();
        if key != node.key && !state.more_keys().contains(&key) {
            state.add_key(key);
        }
        drop(state);
        self.shard(shard_of(key))?.insert_key(key, node);
        Ok(())
    }

    /// Moves the keys and names of `old` to a fresh node, which no lookup counts yet; `old`
    /// keeps the file itself, as `held`. Returns the names. Once is enough: a node without names
    /// is left alone.
    pub fn supersede(&self, old: &Arc<Node>, held: Arc<OwnedFd>) -> FsResult<Vec<Alias>> {
        let (state, names) = {
            let mut state = old.state.lock();
            if state.pinned().is_some() || state.first_name().is_none() {
                return Ok(Vec::new());
            }
            let fresh = state.hand_over(held);
            let names = fresh.names().cloned().collect();
            (fresh, names)
        };
        let keys: Vec<RealKey> =
            std::iter::once(old.key).chain(state.more_keys().iter().copied()).collect();
        let fresh = {
            let mut shard = self.shard(shard_of(old.key))?;
            let make = |id| Ok(Node::new(id, old.key, old.kind(), true, state, None));
            self.add(&mut shard, old.key, make)?
        };
        fresh.saw_mode(old.mode());
        fresh.forget_lookups(1);
        for key in keys {
            self.shard(shard_of(key))?.insert_key(key, &fresh);
        }
        old.state.lock().set_successor(fresh);
        Ok(names)
    }

    /// Lets no key lead to `node` any more: its inodes are gone or not to be found again.
    pub fn drop_keys(&self, node: &Arc<Node>) {
        let more = node.state.lock().take_keys();
        for key in more.into_iter().chain([node.key]) {
            if let Ok(mut shard) = self.shard(shard_of(key)) {
                shard.remove_key(key, node);
            }
        }
    }

    /// Takes back `count` lookups; a node without any, whose name no child needs, goes. A
    /// number that is not known is left alone: a FORGET may be repeated. Returns what went.
    pub fn forget(&self, id: NodeId, count: u64) -> Vec<Arc<Node>> {
        if id != NodeId::ROOT && self.get(id).is_ok_and(|node| node.forget_lookups(count)) {
            return self.collect(id);
        }
        Vec::new()
    }

    /// Ends a reference that no request of the kernel answers for: if the last lookup was taken
    /// back meanwhile, the node was left where it is for its sake. Returns what went.
    pub fn let_go(&self, node: Arc<Node>) -> Vec<Arc<Node>> {
        let id = node.id;
        drop(node);
        if id == NodeId::ROOT { Vec::new() } else { self.collect(id) }
    }

    /// Removes the node if nothing refers to it, and then its parents likewise. One thread at a
    /// time: of two that refer to a directory, as what they remove lies in it or is it, each would
    /// leave it to the other.
    fn collect(&self, id: NodeId) -> Vec<Arc<Node>> {
        // Dropped by the caller, after the lock: descriptors are closed by that.
        let mut gone = Vec::new();
        let _alone = self.collecting.lock();
        let mut pending: Vec<_> = self.get(id).into_iter().collect();
        while let Some(node) = pending.pop() {
            if node.id == NodeId::ROOT || !self.remove_unused(&node) {
                continue;
            }
            let (names, successor) = {
                let mut state = node.state.lock();
                (state.take_names(), state.take_successor())
            };
            gone.push(node);
            pending.extend(names.into_iter().map(|alias| alias.parent).chain(successor));
        }
        gone
    }

    /// Takes `node` out of the table if the kernel holds no lookup of it and no child names it
    /// as its parent. The locks of all its keys are held while that is decided: `intern` counts
    /// under them.
    fn remove_unused(&self, node: &Arc<Node>) -> bool {
        let more = node.state.lock().more_keys().to_vec();
        if more.is_empty() {
            let Ok(mut shard) = self.shard(shard_of(node.key)) else { return false };
            let leading = usize::from(node.is_keyed());
            if !is_unused(node, leading) {
                return false;
            }
            shard.remove_key(node.key, node);
            return self.count_removed(shard.remove_id(node.id));
        }
        let mut numbers: Vec<usize> =
            more.iter().copied().chain([node.key]).map(shard_of).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut shards: Vec<(usize, MutexGuard<'_, Shard>)> =
            numbers.iter().filter_map(|n| Some((*n, self.shards.get(*n)?.lock()))).collect();
        let keys = more.into_iter().chain([node.key]);
        let leading: Vec<RealKey> = keys
            .filter(|key| {
                let number = shard_of(*key);
                shards.iter().any(|(n, shard)| *n == number && shard.leads_to(*key, node))
            })
            .collect();
        if !is_unused(node, leading.len()) {
            return false;
        }
        let own = shard_of(node.key);
        let mut removed = false;
        for (number, shard) in &mut shards {
            for key in leading.iter().filter(|key| shard_of(**key) == *number) {
                shard.remove_key(*key, node);
            }
            removed |= *number == own && shard.remove_id(node.id);
        }
        self.count_removed(removed)
    }

    fn count_removed(&self, removed: bool) -> bool {
        if removed {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// Whether so many nodes went that their memory is worth giving back; then says so once. Those
    /// that are left lie anywhere in it: once many went, it is said again each time that half of the
    /// rest did, until next to nothing is held.
    pub fn has_shrunk(&self) -> bool {
        const MANY: u64 = 4_096;
        const AFTERWARDS: u32 = 6;
        let live = self.live();
        let peak = self.peak.fetch_max(live, Ordering::Relaxed).max(live);
        let again = self.give_back_again.load(Ordering::Relaxed);
        if (peak < MANY && again == 0) || live >= peak / 2 {
            return false;
        }
        let once = self.peak.compare_exchange(peak, live, Ordering::Relaxed, Ordering::Relaxed);
        if once.is_ok() {
            let left = if peak >= MANY { AFTERWARDS } else { again.saturating_sub(1) };
            self.give_back_again.store(left, Ordering::Relaxed);
        }
        once.is_ok()
    }

    /// Gives back the room of nodes that went. Each shard is locked while its nodes are put anew.
    pub fn shrink(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.by_id.shrink_to_fit(|node| hash_of(node.id));
            shard.by_key.shrink_to_fit(|node| hash_of(node.key));
            shard.more.shrink_to_fit();
        }
    }

    /// How many nodes there are.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}
