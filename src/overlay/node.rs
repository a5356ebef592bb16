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

use std::sync::Arc;

use rustix::fs::FileType;

use super::directory::Directory;
use super::node_state::NodeState;
use super::sync::Mutex;
use super::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use super::{Name, NodeId};
use crate::error::{Errno, FsResult};

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
///
/// There is one for each file that the kernel knows, a million in a large tree: what few of them
/// have stands aside (see [`NodeState`]), and a test holds the size.
#[derive(Debug)]
pub struct Node {
    /// Its number towards the kernel.
    pub id: NodeId,
    /// The inode that it was found as.
    pub key: RealKey,
    /// What only directories have.
    pub dir: Option<Box<Directory>>,
    /// What may change.
    pub state: Mutex<NodeState>,
    /// Lookups that the kernel holds, see [`Node::count_lookup`].
    lookups: AtomicU32,
    /// Mode and type as last seen; every change of them passes here.
    mode: AtomicU16,
    flags: AtomicU8,
    /// Taken for the length of a copy-up.
    pub copy_up: Mutex<()>,
}

/// It lies in the upper; never unset.
const IN_UPPER: u8 = 1;
/// Its data lies in the upper, too; never unset.
const DATA_IN_UPPER: u8 = 1 << 1;
/// It is known to have no xattr that users see.
const NO_XATTRS: u8 = 1 << 2;
/// Its last name is gone.
const DEAD: u8 = 1 << 3;
/// Its content was offered to the kernel.
const OFFERED: u8 = 1 << 5;
/// Its own key leads to it; changes under the lock of the table's shard.
const KEYED: u8 = 1 << 4;
/// Its place in the upper may not be durable: a file that was not synced as a whole since it was
/// looked up or copied up.
const PLACE_UNSYNCED: u8 = 1 << 6;
/// Its place in the upper is being made durable.
const PLACE_SYNCING: u8 = 1 << 7;

impl Node {
    /// A node whose kind and place were just found; it gets its id from the table.
    pub fn new(
        id: NodeId,
        key: RealKey,
        kind: FileType,
        in_upper: bool,
        state: NodeState,
        dir: Option<Directory>,
    ) -> Node {
        let data_in_upper = match &dir {
            Some(dir) => dir.upper.get().is_some(),
            None => !state.has_lower_data(),
        };
        let mut flags = PLACE_UNSYNCED | if in_upper { IN_UPPER } else { 0 };
        if data_in_upper {
            flags |= DATA_IN_UPPER;
        }
        Node {
            id,
            key,
            dir: dir.map(Box::new),
            state: Mutex::new(state),
            lookups: AtomicU32::new(0),
            // A mode has sixteen bits, of which the upper four are the type.
            mode: AtomicU16::new(kind.as_raw_mode() as u16),
            flags: AtomicU8::new(flags),
            copy_up: Mutex::new(()),
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    fn set(&self, flag: u8, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!flag, Ordering::AcqRel);
        }
    }

    /// Its directory part.
    ///
    /// # Errors
    /// `ENOTDIR` where it is none.
    pub fn directory(&self) -> FsResult<&Directory> {
        self.dir.as_deref().ok_or(Errno::NOTDIR)
    }

    /// Its type, which never changes.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode())
    }

    /// Mode and type as last seen.
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed).into()
    }

    /// Takes note of its mode and type.
    pub fn saw_mode(&self, mode: u32) {
        self.mode.store(mode as u16, Ordering::Relaxed);
    }

    /// Whether it lies in the upper.
    pub fn is_upper(&self) -> bool {
        self.has(IN_UPPER)
    }

    /// Whether its data lies in the upper.
    pub fn has_upper_data(&self) -> bool {
        self.has(DATA_IN_UPPER)
    }

    /// From here on it lies in the upper, with its data or without.
    pub fn now_upper(&self, with_data: bool) {
        let data = if with_data { DATA_IN_UPPER } else { 0 };
        self.set(PLACE_UNSYNCED | IN_UPPER | data, true);
    }

    /// Whether its place in the upper may not be durable, or is just being made so.
    pub fn is_place_unsynced(&self) -> bool {
        self.has(PLACE_UNSYNCED | PLACE_SYNCING)
    }

    /// Its place in the upper may not be durable.
    pub fn set_place_unsynced(&self) {
        self.set(PLACE_UNSYNCED, true);
    }

    /// Its place is about to be made durable; the caller holds `copy_up`. Tells whether it was
    /// not durable so far. What changes it from now on sets the flag again.
    pub fn begin_sync_of_place(&self) -> bool {
        self.set(PLACE_SYNCING, true);
        self.flags.fetch_and(!PLACE_UNSYNCED, Ordering::AcqRel) & PLACE_UNSYNCED != 0
    }

    /// Its place was made durable, or was not.
    pub fn end_sync_of_place(&self, synced: bool) {
        if !synced {
            self.set_place_unsynced();
        }
        self.set(PLACE_SYNCING, false);
    }

    /// Whether it is known to have no xattr that users see.
    pub fn has_no_xattrs(&self) -> bool {
        self.has(NO_XATTRS)
    }

    /// Takes note whether it has no xattr that users see.
    pub fn set_no_xattrs(&self, none: bool) {
        self.set(NO_XATTRS, none);
    }

    /// Whether its last name is gone.
    pub fn is_dead(&self) -> bool {
        self.has(DEAD)
    }

    /// Takes note whether its last name is gone.
    pub fn set_dead(&self, dead: bool) {
        self.set(DEAD, dead);
    }

    /// Whether its content was offered to the kernel before; from now on it was.
    pub fn was_offered(&self) -> bool {
        self.flags.fetch_or(OFFERED, Ordering::AcqRel) & OFFERED != 0
    }

    /// Whether its own key leads to it. Exact only under the lock of that key's shard.
    pub(super) fn is_keyed(&self) -> bool {
        self.has(KEYED)
    }

    pub(super) fn set_keyed(&self, keyed: bool) {
        self.set(KEYED, keyed);
    }

    /// One of its names.
    ///
    /// # Errors
    /// `ENOENT` where the last one is gone.
    pub fn alias(&self) -> FsResult<Alias> {
        self.state.lock().first_name().cloned().ok_or(Errno::NOENT)
    }

    /// Whether it has this name.
    pub fn has_name(&self, parent: &Arc<Node>, name: &Name) -> bool {
        self.state.lock().has_name(parent, name)
    }

    /// Takes note of a name that was found to lead here. A directory has one at most.
    pub fn add_name(&self, parent: &Arc<Node>, name: &Name) {
        let mut state = self.state.lock();
        if !state.has_name(parent, name) {
            if self.dir.is_some() {
                state.take_names();
            }
            state.add_name(Alias { parent: parent.clone(), name: name.clone() });
        }
    }

    /// Forgets a name.
    pub fn remove_name(&self, parent: &Arc<Node>, name: &Name) {
        self.state.lock().remove_name(parent, name);
    }

    /// Counts lookups that the kernel was told of. A count that is full stays so: the node is
    /// then kept as long as the mount lives.
    pub fn count_lookup(&self) {
        let more = |lookups: u32| Some(lookups.saturating_add(1));
        // Never refused: the closure always gives a value.
        self.lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok();
    }

    /// Takes back lookups; tells whether none is left.
    pub(super) fn forget_lookups(&self, count: u64) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let fewer = |lookups: u32| (lookups != u32::MAX).then(|| lookups.saturating_sub(count));
        let before = self.lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        before.is_ok_and(|lookups| lookups <= count)
    }

    /// Whether the kernel holds no lookup of it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.lookups.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_of_them_fit_into_memory() {
        // With the two counts of its `Arc`, 120 bytes: what the allocator gives for 128.
        assert!(size_of::<Node>() <= 104, "{} bytes", size_of::<Node>());
    }
}
