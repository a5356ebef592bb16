//! Open files, and the table of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::program::is_program;
use super::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use super::sync::{Mutex, RwLock};
use super::{HandleId, Opened};
use crate::error::{Errno, FsResult};
use crate::sys::{OFlags, OwnedFd};

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    /// What it is open on.
    pub node: Arc<Node>,
    /// Whether it was opened for writing.
    pub writable: bool,
    /// Whether each write is durable when it returns.
    pub synchronous: bool,
    /// Whether `file` is in the upper.
    upper: AtomicBool,
    file: RwLock<Arc<OwnedFd>>,
}

impl Handle {
    /// The file of `node`, opened as `file` with `flags`.
    pub fn new(node: Arc<Node>, file: Arc<OwnedFd>, flags: OFlags, upper: bool) -> Handle {
        let writable = (flags & OFlags::RWMODE) != OFlags::RDONLY;
        let synchronous = flags.intersects(OFlags::DSYNC | OFlags::SYNC);
        let (upper, file) = (AtomicBool::new(upper), RwLock::new(file));
        Handle { node, writable, synchronous, upper, file }
    }

    /// Whether the file was copied up since it was opened, so that it must be opened again.
    pub fn is_outdated(&self) -> bool {
        !self.upper.load(Ordering::Acquire) && self.node.has_upper_data()
    }

    /// Whether the file lies in the upper.
    pub fn is_upper(&self) -> bool {
        self.upper.load(Ordering::Acquire)
    }

    /// The file as it was last opened.
    pub fn file(&self) -> Arc<OwnedFd> {
        self.file.read().clone()
    }

    /// From now on `file`, in the upper, is read.
    pub fn reroute(&self, file: Arc<OwnedFd>) {
        *self.file.write() = file;
        self.upper.store(true, Ordering::Release);
    }
}

const SHARDS: usize = 16;

type Shard = Mutex<HashMap<u64, Arc<Handle>, foldhash::fast::FixedState>>;

/// All open files.
#[derive(Debug)]
pub(super) struct HandleTable {
    shards: Vec<Shard>,
    next: AtomicU64,
}

impl HandleTable {
    pub fn new() -> HandleTable {
        let hasher = foldhash::fast::FixedState::default;
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher()))).collect();
        HandleTable { shards, next: AtomicU64::new(1) }
    }

    fn shard(&self, id: u64) -> FsResult<&Shard> {
        self.shards.get(id as usize % SHARDS).ok_or(Errno::BADF)
    }

    /// Adds an open file.
    pub fn insert(
        &self,
        node: Arc<Node>,
        file: Arc<OwnedFd>,
        flags: OFlags,
        upper: bool,
        mode: u32,
    ) -> FsResult<Opened> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Handle::new(node, file.clone(), flags, upper);
        let writable = handle.writable;
        let mappable = (flags & OFlags::RWMODE) == OFlags::RDWR;
        let untouched = !writable && !upper && !handle.node.is_upper();
        let program = untouched && is_program(&handle.node, &file, mode);
        self.shard(id)?.lock().insert(id, Arc::new(handle));
        Ok(Opened {
            handle: HandleId(id),
            file,
            upper,
            program,
            writable,
            mappable,
            mode,
            mode_changed: false,
        })
    }

    /// The open file of a number.
    ///
    /// # Errors
    /// `EBADF` where there is none.
    pub fn get(&self, id: HandleId) -> FsResult<Arc<Handle>> {
        self.shard(id.0)?.lock().get(&id.0).cloned().ok_or(Errno::BADF)
    }

    /// How many files are open.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().len() as u64).sum()
    }

    /// Removes an open file; a number that is not known is left alone, as a RELEASE may be
    /// repeated.
    pub fn remove(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.shard(id.0).ok()?.lock().remove(&id.0)
    }
}
