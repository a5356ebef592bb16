//! Nodes: the inodes of the merged tree that the kernel knows, and the table of them.
//!
//! # Locks
//! In this order, outermost first; none may be taken while one that stands later is held:
//! 1. `Overlay::moves`: one directory move, or rename between two directories, at a time.
//! 2. `Node::copy_up`: one copy-up of a node at a time; held while data is copied.
//! 3. `Directory::state`: the entries of a directory, a parent before its child; written by what
//!    adds or removes a name.
//! 4. `Directory::listing`, then `Node::state`, then the shards of tables: leaves, held for
//!    moments. Only the building of a listing does I/O under its lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use rustix::fs::FileType;

use super::layer_dir::LayerDir;
use super::listing::Listing;
use super::lower_path::LowerPath;
use super::{Name, NodeId};
use crate::error::{Errno, FsResult};
use crate::sys::OwnedFd;

/// What tells a file apart on disk. A lower inode lives as long as the mount; an upper one is
/// forgotten here before its number can be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RealKey {
    /// Device.
    pub dev: u64,
    /// Inode number on it.
    pub ino: u64,
}

/// One name of a node in the merged tree.
#[derive(Debug, Clone)]
pub struct Alias {
    /// The directory.
    pub parent: Arc<Node>,
    /// The name in it.
    pub name: Name,
}

/// An inode of the merged tree.
#[derive(Debug)]
pub struct Node {
    /// Its number towards the kernel.
    pub id: NodeId,
    /// Its type, which never changes.
    pub kind: FileType,
    /// Taken for the length of a copy-up.
    pub copy_up: Mutex<()>,
    /// What may change.
    pub state: Mutex<NodeState>,
    /// Set once the node lies in the upper; never unset.
    pub in_upper: AtomicBool,
    /// Set once its data lies in the upper, too; never unset.
    pub data_in_upper: AtomicBool,
    /// Mode and type as last seen; every change of them passes here.
    pub mode: AtomicU32,
    /// It is known to have no xattr that users see.
    pub no_xattrs: AtomicBool,
    /// What only directories have.
    pub dir: Option<Box<Directory>>,
    /// The node that took over its names, held so that it stays while this one does.
    successor: OnceLock<Arc<Node>>,
    lookups: AtomicU64,
}

/// The changing part of a node.
#[derive(Debug)]
pub struct NodeState {
    /// The inode number that users see.
    pub ino: u64,
    /// What the table knows it by, the present place last.
    pub keys: Vec<RealKey>,
    /// Its names, as far as they were looked up; a directory has one at most.
    pub names: Vec<Alias>,
    /// For anything but a directory: where its data lies as long as that is not in the upper.
    pub lower: Option<(Arc<LayerDir>, Name)>,
    /// Where its attributes lie while that is a lower file that has them alone.
    pub attributes: Option<Box<(Arc<LayerDir>, Name)>>,
    /// Holds an upper inode that no name leads to any more.
    pub pinned: Option<Arc<OwnedFd>>,
    /// Its name in the index, which leads to it whatever its other names are.
    pub index: Option<Name>,
    /// Its last name is gone.
    pub dead: bool,
}

impl NodeState {
    /// The lower file that has its attributes, as long as it is not in the upper.
    pub fn lower_attributes(&self) -> Option<&(Arc<LayerDir>, Name)> {
        self.attributes.as_deref().or(self.lower.as_ref())
    }
}

/// What only directories have.
#[derive(Debug)]
pub struct Directory {
    /// Its part in the upper, from copy-up on.
    pub upper: OnceLock<Arc<LayerDir>>,
    /// Its parts in the lowers, topmost first.
    pub lowers: Box<[Arc<LayerDir>]>,
    /// Where the lowers have it, if they do.
    pub lower_path: Option<Arc<LowerPath>>,
    /// Read by lookups, written by what adds or removes names.
    pub state: RwLock<DirState>,
    /// The merged entries, while they are kept.
    pub listing: RwLock<Option<Listing>>,
    /// Lookups that were made without a listing.
    pub direct_lookups: AtomicU32,
}

/// The entries of a directory as far as they are not on disk.
#[derive(Debug, Default)]
pub struct DirState {
    /// It was removed: nothing can be made or found in it.
    pub dead: bool,
    /// Whether new entries inherit an ACL, once that was asked.
    pub default_acl: Option<bool>,
}

impl Directory {
    /// A directory of these parts.
    pub fn new(upper: Option<Arc<LayerDir>>, lowers: Vec<Arc<LayerDir>>) -> Self {
        Directory {
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            lowers: lowers.into_boxed_slice(),
            lower_path: None,
            state: RwLock::default(),
            listing: RwLock::new(None),
            direct_lookups: AtomicU32::new(0),
        }
    }

    /// One that was just made in the upper: what is in it is known.
    pub fn new_empty(upper: Arc<LayerDir>) -> Self {
        let dir = Directory::new(Some(upper), Vec::new());
        *dir.listing.write() = Some(Listing::default());
        dir
    }

    /// Its parts, topmost first.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<LayerDir>> {
        self.upper.get().into_iter().chain(self.lowers.iter())
    }

    /// Whether upper entries may have an origin, so that their inode numbers must be asked for.
    pub fn is_impure(&self) -> bool {
        let marked = self.upper.get().is_some_and(|upper| upper.is_impure());
        marked || !self.lowers.is_empty()
    }

    /// Its topmost part.
    pub fn top(&self) -> FsResult<&Arc<LayerDir>> {
        self.parts().next().ok_or(Errno::STALE)
    }

    /// Its part in the upper.
    pub fn upper(&self) -> FsResult<&Arc<LayerDir>> {
        self.upper.get().ok_or(Errno::ROFS)
    }
}

impl Node {
    /// A node whose kind and place were just found; it gets its id from the table.
    pub fn new(
        id: NodeId,
        kind: FileType,
        in_upper: bool,
        state: NodeState,
        dir: Option<Directory>,
    ) -> Node {
        let data_in_upper = match &dir {
            Some(dir) => dir.upper.get().is_some(),
            None => state.lower.is_none(),
        };
        Node {
            id,
            kind,
            copy_up: Mutex::new(()),
            state: Mutex::new(state),
            in_upper: AtomicBool::new(in_upper),
            data_in_upper: AtomicBool::new(data_in_upper),
            mode: AtomicU32::new(0),
            no_xattrs: AtomicBool::new(false),
            dir: dir.map(Box::new),
            successor: OnceLock::new(),
            lookups: AtomicU64::new(0),
        }
    }

    /// Its directory part.
    ///
    /// # Errors
    /// `ENOTDIR` where it is none.
    pub fn directory(&self) -> FsResult<&Directory> {
        self.dir.as_deref().ok_or(Errno::NOTDIR)
    }

    /// Whether it lies in the upper.
    pub fn is_upper(&self) -> bool {
        self.in_upper.load(Ordering::Acquire)
    }

    /// Whether its data lies in the upper.
    pub fn has_upper_data(&self) -> bool {
        self.data_in_upper.load(Ordering::Acquire)
    }

    /// One of its names.
    ///
    /// # Errors
    /// `ENOENT` where the last one is gone.
    pub fn alias(&self) -> FsResult<Alias> {
        self.state.lock().names.first().cloned().ok_or(Errno::NOENT)
    }

    /// Takes note of a name that was found to lead here.
    pub fn add_name(&self, parent: &Arc<Node>, name: &Name) {
        let mut state = self.state.lock();
        let known = state.names.iter().any(|a| a.name == *name && Arc::ptr_eq(&a.parent, parent));
        if !known {
            if self.dir.is_some() {
                state.names.clear();
            }
            state.names.push(Alias { parent: parent.clone(), name: name.clone() });
        }
    }

    /// Forgets a name.
    pub fn remove_name(&self, parent: &Arc<Node>, name: &Name) {
        let mut state = self.state.lock();
        state.names.retain(|a| a.name != *name || !Arc::ptr_eq(&a.parent, parent));
    }
}

const SHARDS: usize = 16;

type Map<K> = Mutex<HashMap<K, Arc<Node>, foldhash::fast::FixedState>>;

/// All nodes that the kernel holds a lookup of.
#[derive(Debug)]
pub struct NodeTable {
    by_id: Vec<Map<u64>>,
    by_key: Vec<Map<RealKey>>,
    next: AtomicU64,
    live: AtomicU64,
    /// The most there were since memory was last given back.
    peak: AtomicU64,
}

fn maps<K>() -> Vec<Map<K>> {
    let hasher = foldhash::fast::FixedState::default;
    (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher()))).collect()
}

impl NodeTable {
    /// A table that holds the root alone.
    pub fn new(root: NodeState, dir: Directory) -> FsResult<NodeTable> {
        let next = AtomicU64::new(NodeId::ROOT.0);
        let table = NodeTable {
            by_id: maps(),
            by_key: maps(),
            next,
            live: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        };
        let key = root.keys.first().copied().ok_or(Errno::INVAL)?;
        let upper = dir.upper.get().is_some();
        table.intern(key, |id| Node::new(id, FileType::Directory, upper, root, Some(dir)))?;
        Ok(table)
    }

    fn id_shard(&self, id: NodeId) -> FsResult<&Map<u64>> {
        self.by_id.get(id.0 as usize % SHARDS).ok_or(Errno::STALE)
    }

    fn key_shard(&self, key: RealKey) -> FsResult<&Map<RealKey>> {
        self.by_key.get((key.ino ^ key.dev) as usize % SHARDS).ok_or(Errno::STALE)
    }

    /// The node of a number that the kernel named.
    ///
    /// # Errors
    /// `ESTALE` where there is none.
    pub fn get(&self, id: NodeId) -> FsResult<Arc<Node>> {
        self.id_shard(id)?.lock().get(&id.0).cloned().ok_or(Errno::STALE)
    }

    /// The node that `key` leads to.
    pub fn of_key(&self, key: RealKey) -> Option<Arc<Node>> {
        self.key_shard(key).ok()?.lock().get(&key).cloned()
    }

    /// The node of `key`, made where there is none yet; counts one lookup.
    pub fn intern(&self, key: RealKey, make: impl FnOnce(NodeId) -> Node) -> FsResult<Arc<Node>> {
        let mut shard = self.key_shard(key)?.lock();
        match shard.entry(key) {
            Slot::Occupied(found) => {
                found.get().lookups.fetch_add(1, Ordering::Relaxed);
                Ok(found.get().clone())
            }
            Slot::Vacant(free) => {
                let node = self.number(make)?;
                free.insert(node.clone());
                Ok(node)
            }
        }
    }

    /// Adds a node that no key leads to (a file without a name); counts one lookup.
    pub fn add_unnamed(&self, make: impl FnOnce(NodeId) -> Node) -> FsResult<Arc<Node>> {
        self.number(make)
    }

    fn number(&self, make: impl FnOnce(NodeId) -> Node) -> FsResult<Arc<Node>> {
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        let node = Arc::new(make(id));
        node.lookups.store(1, Ordering::Relaxed);
        self.id_shard(id)?.lock().insert(id.0, node.clone());
        let live = self.live.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(live, Ordering::Relaxed);
        Ok(node)
    }

    /// Lets `key` lead to `node` too, as after its copy-up.
    pub fn add_key(&self, node: &Arc<Node>, key: RealKey) -> FsResult<()> {
        node.state.lock().keys.push(key);
        self.key_shard(key)?.lock().insert(key, node.clone());
        Ok(())
    }

    /// Counts one more lookup of a node that the caller holds.
    pub fn count_lookup(&self, node: &Node) {
        node.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a key of `node` lead to it, if it does not yet.
    pub fn ensure_key(&self, node: &Arc<Node>, key: RealKey) -> FsResult<()> {
        self.key_shard(key)?.lock().insert(key, node.clone());
        Ok(())
    }

    /// Moves the keys and names of `old` to a fresh node, which no lookup counts yet; `old`
    /// keeps the file itself, as `held`. Returns the names. Once is enough: a node without names
    /// is left alone.
    pub fn supersede(&self, old: &Arc<Node>, held: Arc<OwnedFd>) -> FsResult<Vec<Alias>> {
        let fresh = {
            let mut state = old.state.lock();
            if state.pinned.is_some() || state.names.is_empty() {
                return Ok(Vec::new());
            }
            state.pinned = Some(held);
            NodeState {
                ino: state.ino,
                keys: std::mem::take(&mut state.keys),
                names: std::mem::take(&mut state.names),
                lower: state.lower.clone(),
                attributes: None,
                pinned: None,
                index: state.index.take(),
                dead: false,
            }
        };
        let (keys, names) = (fresh.keys.clone(), fresh.names.clone());
        let fresh = self.number(|id| Node::new(id, old.kind, true, fresh, None))?;
        fresh.lookups.store(0, Ordering::Relaxed);
        for key in keys {
            self.ensure_key(&fresh, key)?;
        }
        // Set once only: a superseded node has no names left to supersede it by.
        old.successor.get_or_init(|| fresh);
        Ok(names)
    }

    /// Lets no key lead to `node` any more: its inodes are gone or not to be found again.
    pub fn drop_keys(&self, node: &Arc<Node>) {
        let keys = std::mem::take(&mut node.state.lock().keys);
        for key in keys {
            self.drop_key(node, key);
        }
    }

    fn drop_key(&self, node: &Arc<Node>, key: RealKey) {
        let Ok(shard) = self.key_shard(key) else { return };
        if let Slot::Occupied(found) = shard.lock().entry(key)
            && Arc::ptr_eq(found.get(), node)
        {
            found.remove();
        }
    }

    /// Takes back `count` lookups; a node without any, whose name no child needs, goes. A
    /// number that is not known is left alone: a FORGET may be repeated.
    pub fn forget(&self, id: NodeId, count: u64) {
        let Ok(node) = self.get(id) else { return };
        let before = node.lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, |lookups| {
            Some(lookups.saturating_sub(count))
        });
        if before.is_ok_and(|lookups| lookups <= count) {
            self.collect(node);
        }
    }

    /// Removes `node` if nothing refers to it, and then its parents likewise.
    fn collect(&self, node: Arc<Node>) {
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            if node.id == NodeId::ROOT || !self.remove_unused(&node) {
                continue;
            }
            let names = std::mem::take(&mut node.state.lock().names);
            let successor = node.successor.get().cloned();
            drop(node);
            pending.extend(names.into_iter().map(|alias| alias.parent).chain(successor));
        }
    }

    /// Takes `node` out of the table if the kernel holds no lookup of it and no child names it
    /// as its parent. The keys' locks are held while that is decided: `intern` counts under them.
    fn remove_unused(&self, node: &Arc<Node>) -> bool {
        let keys = node.state.lock().keys.clone();
        let Ok(shard) = self.id_shard(node.id) else { return false };
        let mut guards = Vec::new();
        let mut shards: Vec<usize> =
            keys.iter().map(|key| (key.ino ^ key.dev) as usize % SHARDS).collect();
        shards.sort_unstable();
        shards.dedup();
        for index in shards {
            guards.extend(self.by_key.get(index).map(|map| (index, map.lock())));
        }
        let in_maps = keys
            .iter()
            .filter(|key| {
                let index = (key.ino ^ key.dev) as usize % SHARDS;
                guards.iter().any(|(i, map)| {
                    *i == index && map.get(key).is_some_and(|found| Arc::ptr_eq(found, node))
                })
            })
            .count();
        // Beyond the tables' own references (and ours) only children and running requests count.
        let unused =
            node.lookups.load(Ordering::Acquire) == 0 && Arc::strong_count(node) <= in_maps + 2;
        if !unused {
            return false;
        }
        for key in &keys {
            let index = (key.ino ^ key.dev) as usize % SHARDS;
            for (i, map) in &mut guards {
                if *i == index && map.get(key).is_some_and(|found| Arc::ptr_eq(found, node)) {
                    map.remove(key);
                }
            }
        }
        let removed = shard.lock().remove(&node.id.0).is_some();
        if removed {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// Whether so many nodes went that their memory is worth giving back; then says so once.
    pub fn has_shrunk(&self) -> bool {
        const MANY: u64 = 32_768;
        let live = self.live();
        let peak = self.peak.fetch_max(live, Ordering::Relaxed).max(live);
        peak >= MANY
            && live < peak / 2
            && self.peak.compare_exchange(peak, live, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// How many nodes there are.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }
}
