//! Files that are open without an open file: on a mount whose kernel sends no OPEN (`FUSE_NO_OPEN`),
//! requests about content name the node alone.
//!
//! The descriptor that such a request needs is opened when it comes and kept for the next one, in
//! a bounded set, least recently used first out. A node goes out of it when the kernel forgets
//! the node: a descriptor would keep the space of a removed file.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::copy_up::Data;
use super::frozen::Change;
use super::handle::Handle;
use super::node::Node;
use super::sync::Mutex;
use super::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use super::{FileRef, NodeId, Opened, Overlay};
use crate::error::{Errno, FsResult};
use crate::sys::OFlags;

const SHARDS: usize = 8;

/// In the place of a caller that is not known.
pub(super) const NOBODY: u32 = 0;

/// A write of a node that did not reach the disk. The filesystem tells each descriptor once, and
/// ours is one for all; so it is remembered, and told once to each caller that syncs.
#[derive(Debug)]
struct Lost {
    errno: Errno,
    told: HashSet<u32>,
}

/// The set. No other lock is taken under one of its shards.
#[derive(Debug)]
pub(super) struct ImpliedHandles {
    shards: [Mutex<LruCache<NodeId, Arc<Handle>>>; SHARDS],
    /// How many there are in all: where there are none, nothing is looked for.
    kept: AtomicUsize,
    /// Until the kernel forgets them.
    lost: Mutex<HashMap<NodeId, Lost>>,
    /// There is one of those, or was.
    any_lost: AtomicBool,
}

impl ImpliedHandles {
    /// A set that keeps at most about `capacity` descriptors.
    pub fn new(capacity: usize) -> ImpliedHandles {
        let each = NonZeroUsize::new(capacity / SHARDS).unwrap_or(NonZeroUsize::MIN);
        // Bounded by hand: a capacity would be memory for so many from the start.
        let shards = std::array::from_fn(|_| Mutex::new(LruCache::unbounded()));
        let (kept, any_lost) = (AtomicUsize::new(0), AtomicBool::new(false));
        let set = ImpliedHandles { shards, kept, lost: Mutex::default(), any_lost };
        for shard in &set.shards {
            shard.lock().resize(each);
        }
        set
    }

    fn shard(&self, node: NodeId) -> FsResult<&Mutex<LruCache<NodeId, Arc<Handle>>>> {
        // The lowest bits are those of the node table's shard.
        self.shards.get((node.0 >> 4) as usize % SHARDS).ok_or(Errno::IO)
    }

    fn get(&self, node: NodeId) -> FsResult<Option<Arc<Handle>>> {
        Ok(self.shard(node)?.lock().get(&node).cloned())
    }

    fn keep(&self, handle: &Arc<Handle>) -> FsResult<()> {
        let node = handle.node.id;
        let fallen = self.shard(node)?.lock().push(node, handle.clone());
        if fallen.is_none() {
            self.kept.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets go of a node.
    pub fn forget(&self, node: NodeId) {
        if self.any_lost.load(Ordering::Relaxed) {
            self.lost.lock().remove(&node);
        }
        self.close(node);
    }

    /// Closes the file of a node that the kernel still knows: the next request opens it again.
    pub fn close(&self, node: NodeId) {
        if self.len() == 0 {
            return;
        }
        if let Ok(shard) = self.shard(node)
            && shard.lock().pop(&node).is_some()
        {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What `caller`, a thread, is told after the file of `node` was `synced`.
    pub fn tell(&self, node: NodeId, caller: u32, synced: FsResult<()>) -> FsResult<()> {
        let mut lost = self.lost.lock();
        match synced {
            Err(errno) => {
                self.any_lost.store(true, Ordering::Relaxed);
                lost.insert(node, Lost { errno, told: HashSet::from([caller]) });
                Err(errno)
            }
            Ok(()) => {
                let news = lost.get_mut(&node).filter(|lost| !lost.told.contains(&caller));
                news.map_or(Ok(()), |lost| {
                    lost.told.insert(caller);
                    Err(lost.errno)
                })
            }
        }
    }

    /// Lets go of all files.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.kept.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
    }

    /// How many files are kept open.
    pub fn len(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Overlay {
    /// The open file that a request is about, to read it.
    pub(super) fn to_read(&self, file: FileRef) -> FsResult<Arc<Handle>> {
        match file {
            FileRef::Opened(handle) => self.handles.get(handle),
            FileRef::Of(node) => match self.implied.get(node)? {
                Some(handle) => Ok(handle),
                None => self.imply(&self.nodes.get(node)?, OFlags::RDONLY),
            },
        }
    }

    /// The open file that a request is about, to change its content; the kernel has looked
    /// whether that is permitted.
    ///
    /// # Errors
    /// `EBADF` where it was opened for reading alone.
    pub(super) fn to_write(&self, file: FileRef) -> FsResult<Arc<Handle>> {
        match file {
            FileRef::Opened(handle) => {
                let handle = self.handles.get(handle)?;
                if handle.writable { Ok(handle) } else { Err(Errno::BADF) }
            }
            FileRef::Of(node) => match self.implied.get(node)?.filter(|handle| handle.writable) {
                Some(handle) => Ok(handle),
                None => self.imply_writable(&self.nodes.get(node)?),
            },
        }
    }

    /// As [`Overlay::to_write`], of a file that may only grow (`chattr +a`); it is not kept, since
    /// other writers are refused.
    pub(super) fn to_append(&self, file: FileRef) -> FsResult<Arc<Handle>> {
        let FileRef::Of(node) = file else { return Err(Errno::PERM) };
        let (node, flags) = (self.nodes.get(node)?, OFlags::WRONLY | OFlags::APPEND);
        self.copy_up_to(Change::Adds, &node, Data::All)?;
        let (file, upper) = self.dir_fds.with_room(|| self.open_real(&node, flags))?;
        Ok(Arc::new(Handle::new(node, Arc::new(file), flags, upper)))
    }

    fn imply_writable(&self, node: &Arc<Node>) -> FsResult<Arc<Handle>> {
        self.copy_up_to(Change::Alters, node, Data::All)?;
        self.imply(node, OFlags::RDWR)
    }

    fn imply(&self, node: &Arc<Node>, flags: OFlags) -> FsResult<Arc<Handle>> {
        if node.dir.is_some() {
            return Err(Errno::ISDIR);
        }
        let open = || self.open_real(node, flags);
        let (file, upper) = self.dir_fds.with_room(|| match open() {
            Err(Errno::MFILE) => {
                self.implied.clear();
                open()
            }
            other => other,
        })?;
        let handle = Arc::new(Handle::new(node.clone(), Arc::new(file), flags, upper));
        self.implied.keep(&handle)?;
        Ok(handle)
    }

    /// For a kernel that opens no files and will release none: keeps what was `opened`, for
    /// reading and writing, as the file of its node.
    pub fn leave_implied(&self, opened: &Opened) -> FsResult<()> {
        let handle = self.handles.remove(opened.handle).ok_or(Errno::BADF)?;
        self.implied.keep(&handle)
    }
}
