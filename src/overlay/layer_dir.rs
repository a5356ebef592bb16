//! Directories within one layer, and the bounded set of descriptors kept open for them.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock, Weak};

use lru::LruCache;

use super::Name;
use super::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use super::sync::{Mutex, RwLock};
use crate::error::{Errno, FsResult};
use crate::layer::LayerIndex;
use crate::layer::xattrs::{DirMarks, dir_marks};
use crate::sys::dir::{RawEntry, list_dir, read_dir};
use crate::sys::small_dir::SmallDir;
use crate::sys::xattr::Target;
use crate::sys::{AsFd, OFlags, OwnedFd, file};

/// A directory of one layer: how to reach it again, whatever is open.
///
/// In a lower the place never changes. In the upper a rename moves it, see [`DirFds::moving`].
#[derive(Debug)]
pub struct LayerDir {
    id: u64,
    /// The layer it is in.
    pub layer: LayerIndex,
    /// Whether whiteouts in xattr form may be inside, once that was looked at.
    xattr_whiteouts: OnceLock<bool>,
    /// Entries with an origin may be inside.
    impure: AtomicBool,
    /// A descriptor of it may be kept.
    kept: AtomicBool,
    /// Somebody reads it through the descriptor that is kept.
    being_read: AtomicBool,
    place: RwLock<Place>,
}

/// What the marks on a directory say about its entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// Whether whiteouts in xattr form may be inside; `None` where nobody has looked yet.
    pub xattr_whiteouts: Option<bool>,
    /// Entries with an origin may be inside.
    pub impure: bool,
}

impl From<&DirMarks> for Marks {
    fn from(marks: &DirMarks) -> Marks {
        Marks { xattr_whiteouts: Some(marks.xattr_whiteouts), impure: marks.impure }
    }
}

#[derive(Debug, Clone)]
enum Place {
    /// It is always open. What is kept open below it is in the set.
    Root(Arc<OwnedFd>, Weak<DirFds>),
    Child {
        parent: Arc<LayerDir>,
        name: Name,
    },
}

static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

impl LayerDir {
    fn new(layer: LayerIndex, marks: Marks, place: Place) -> Arc<LayerDir> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let impure = AtomicBool::new(marks.impure);
        let xattr_whiteouts = marks.xattr_whiteouts.map(OnceLock::from).unwrap_or_default();
        let (kept, place) = (AtomicBool::new(false), RwLock::new(place));
        let being_read = AtomicBool::new(false);
        Arc::new(LayerDir { id, layer, xattr_whiteouts, impure, kept, being_read, place })
    }

    /// Whether whiteouts in xattr form may be inside. `fd` is this directory: its mark is read
    /// when it is asked for, and only once.
    pub fn has_xattr_whiteouts(&self, fd: &OwnedFd) -> FsResult<bool> {
        if let Some(known) = self.xattr_whiteouts.get() {
            return Ok(*known);
        }
        let marked = dir_marks(Target::dir(fd), None)?.xattr_whiteouts;
        Ok(*self.xattr_whiteouts.get_or_init(|| marked))
    }

    /// Whether entries with an origin may be inside.
    pub fn is_impure(&self) -> bool {
        self.impure.load(Ordering::Relaxed)
    }

    /// Takes note that an entry with an origin may be inside.
    pub fn set_impure(&self) {
        self.impure.store(true, Ordering::Relaxed);
    }

    /// Opens the directory `name` in `dir` of the layer. In a lower so that it can be read as well,
    /// where that is permitted, which spares opening it again. In the upper only its place: what
    /// btrfs lists of an open directory are the names that it had when it was opened.
    pub fn open(layer: LayerIndex, dir: impl AsFd, name: &OsStr) -> FsResult<OwnedFd> {
        if !layer.is_upper() {
            match file::open_at(&dir, name, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::ACCESS | Errno::PERM) => {}
                opened => return opened,
            }
        }
        file::open_at(dir, name, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// As [`DirFds::list`], from the directory itself.
    fn list(
        &self,
        fd: &OwnedFd,
        mut each: impl FnMut(RawEntry<'_>) -> FsResult<bool>,
    ) -> FsResult<bool> {
        // Who reads a descriptor moves its offset: one at a time.
        if self.layer.is_upper() || self.being_read.swap(true, Ordering::AcqRel) {
            return list_dir(fd, each);
        }
        let done = match read_dir(fd, &mut each) {
            // It only names the directory.
            Err(Errno::BADF) => list_dir(fd, each),
            done => done,
        };
        self.being_read.store(false, Ordering::Release);
        done
    }

    /// The root of a layer; `fds` is where descriptors below it are kept.
    pub fn root(
        layer: LayerIndex,
        fd: Arc<OwnedFd>,
        marks: Marks,
        fds: &Arc<DirFds>,
    ) -> Arc<LayerDir> {
        LayerDir::new(layer, marks, Place::Root(fd, Arc::downgrade(fds)))
    }

    /// The directory `name` in `parent`.
    pub fn child(parent: &Arc<LayerDir>, name: &Name, marks: Marks) -> Arc<LayerDir> {
        let place = Place::Child { parent: parent.clone(), name: name.clone() };
        LayerDir::new(parent.layer, marks, place)
    }
}

/// What is kept open of a directory that nobody knows any more goes: looked up again it is another
/// one, and a removed directory would keep its place on the disk.
impl Drop for LayerDir {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            return;
        }
        let mut place = self.place.read().clone();
        let fds = loop {
            match place {
                Place::Root(_, fds) => break fds,
                Place::Child { parent, .. } => place = parent.place.read().clone(),
            }
        };
        if let Some(fds) = fds.upgrade() {
            fds.close(self.id);
        }
    }
}

/// A bounded set of open descriptors of directories (see [`LayerDir::open`]), least recently used first
/// out, each with the directory's entries where they were read and not listed yet.
///
/// The descriptors are only a cache: a directory is opened again from its parent, one
/// component at a time, so that no path is ever joined to one string (it could exceed
/// `PATH_MAX`) and no symlink is ever followed.
#[derive(Debug)]
pub struct DirFds {
    shards: Vec<Mutex<Shard>>,
    /// Odd while a directory of the upper is being moved; changes with each move.
    moves: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    fd: Arc<OwnedFd>,
    entries: Option<SmallDir>,
}

const SHARDS: usize = 8;

#[derive(Debug)]
struct Shard {
    fds: LruCache<u64, Kept>,
    hits: u64,
    misses: u64,
}

impl DirFds {
    /// A set that keeps at most about `capacity` descriptors.
    pub fn new(capacity: usize) -> DirFds {
        let each = NonZeroUsize::new(capacity / SHARDS).unwrap_or(NonZeroUsize::MIN);
        let shard = || Mutex::new(Shard { fds: LruCache::new(each), hits: 0, misses: 0 });
        let shards = (0..SHARDS).map(|_| shard()).collect();
        DirFds { shards, moves: AtomicU64::new(0) }
    }

    fn shard(&self, id: u64) -> Option<&Mutex<Shard>> {
        self.shards.get(id as usize % SHARDS)
    }

    fn cached(&self, dir: &LayerDir) -> Option<Arc<OwnedFd>> {
        self.shard(dir.id)?.lock().fds.get(&dir.id).map(|kept| kept.fd.clone())
    }

    /// As [`DirFds::cached`], for the statistics.
    fn counted(&self, dir: &LayerDir) -> Option<Arc<OwnedFd>> {
        let mut shard = self.shard(dir.id)?.lock();
        let fd = shard.fds.get(&dir.id).map(|kept| kept.fd.clone());
        shard.hits += u64::from(fd.is_some());
        fd
    }

    /// How many descriptors are kept, and how often one was found and was not.
    pub fn figures(&self) -> (u64, u64, u64) {
        self.shards.iter().fold((0, 0, 0), |(kept, hits, misses), shard| {
            let shard = shard.lock();
            (kept + shard.fds.len() as u64, hits + shard.hits, misses + shard.misses)
        })
    }

    /// Keeps `fd` as the descriptor of `dir`, and its `entries` for who lists it next.
    pub fn keep(&self, dir: &LayerDir, fd: Arc<OwnedFd>, entries: Option<SmallDir>) {
        if let Some(shard) = self.shard(dir.id) {
            dir.kept.store(true, Ordering::Relaxed);
            // The one that falls out is closed after the lock is released.
            let fallen = shard.lock().fds.push(dir.id, Kept { fd, entries });
            drop(fallen);
        }
    }

    /// Calls `each` for every entry of `dir`, open as `fd`, until it returns `false`. Returns whether
    /// the end was reached.
    pub fn list(
        &self,
        dir: &LayerDir,
        fd: &OwnedFd,
        mut each: impl FnMut(RawEntry<'_>) -> FsResult<bool>,
    ) -> FsResult<bool> {
        let taken = || self.shard(dir.id)?.lock().fds.peek_mut(&dir.id)?.entries.take();
        let Some(entries) = taken() else { return dir.list(fd, each) };
        for entry in entries.iter() {
            if !each(entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn close(&self, id: u64) {
        // Closed after the lock is released.
        let kept = self.shard(id).map(|shard| shard.lock().fds.pop(&id));
        drop(kept);
    }

    /// A descriptor of `dir`.
    pub fn get(&self, dir: &Arc<LayerDir>) -> FsResult<Arc<OwnedFd>> {
        if let Some(fd) = self.counted(dir) {
            return Ok(fd);
        }
        loop {
            let before = self.moves.load(Ordering::Acquire);
            let opened = self.walk(dir);
            if before.is_multiple_of(2) && self.moves.load(Ordering::Acquire) == before {
                return opened;
            }
            // A directory was moved while we walked: what we found may be another one.
            self.close(dir.id);
            super::sync::yield_now();
        }
    }

    /// Opens something; where no descriptor is left, once more without those that are kept here.
    pub fn with_room<T>(&self, open: impl Fn() -> FsResult<T>) -> FsResult<T> {
        match open() {
            Err(Errno::MFILE) => {
                for shard in &self.shards {
                    shard.lock().fds.clear();
                }
                open()
            }
            other => other,
        }
    }

    fn walk(&self, dir: &Arc<LayerDir>) -> FsResult<Arc<OwnedFd>> {
        let mut missing = Vec::new();
        let mut at = dir.clone();
        let mut fd = loop {
            if let Some(fd) = self.cached(&at) {
                break fd;
            }
            let place = at.place.read().clone();
            match place {
                Place::Root(fd, _) => break fd,
                Place::Child { parent, name } => {
                    missing.push((at, name));
                    at = parent;
                }
            }
        };
        // The root of a layer, which is always open, counts as kept.
        if let Some(shard) = self.shard(dir.id) {
            let mut shard = shard.lock();
            let count = if missing.is_empty() { &mut shard.hits } else { &mut shard.misses };
            *count += 1;
        }
        while let Some((child, name)) = missing.pop() {
            let open = || LayerDir::open(child.layer, &fd, &name);
            fd = Arc::new(self.with_room(open)?);
            self.keep(&child, fd.clone(), None);
        }
        Ok(fd)
    }

    /// Runs `rename`, which moves the upper directory `dir` to `name` in `parent`. Walks that
    /// overlap with it are repeated. Calls must not overlap: the caller holds the lock on
    /// directory moves.
    pub fn moving<T>(
        &self,
        dir: &LayerDir,
        parent: &Arc<LayerDir>,
        name: &Name,
        rename: impl FnOnce() -> FsResult<T>,
    ) -> FsResult<T> {
        self.moves.fetch_add(1, Ordering::AcqRel);
        let done = rename();
        if done.is_ok() {
            *dir.place.write() = Place::Child { parent: parent.clone(), name: name.clone() };
        }
        self.moves.fetch_add(1, Ordering::AcqRel);
        done
    }
}

/// A name as the tables keep it.
pub fn name_of(name: &OsStr) -> Name {
    Name::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both see every entry, though they have one descriptor between them.
    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn two_who_list_a_directory_do_not_disturb_each_other() {
        let place = tempfile::tempdir().unwrap();
        for number in 0..50 {
            std::fs::write(place.path().join(number.to_string()), "").unwrap();
        }
        let above = file::open_root(place.path().parent().unwrap()).unwrap();
        let name = place.path().file_name().unwrap();
        for layer in [LayerIndex::UPPER, LayerIndex(1)] {
            let fd = Arc::new(LayerDir::open(layer, &above, name).unwrap());
            let fds = Arc::new(DirFds::new(16));
            let dir = LayerDir::root(layer, fd.clone(), Marks::default(), &fds);
            for _ in 0..2 {
                let mut outer = 0;
                let complete = dir.list(&fd, |_| {
                    outer += 1;
                    let mut inner = 0;
                    dir.list(&fd, |_| {
                        inner += 1;
                        Ok(true)
                    })?;
                    assert_eq!(inner, 50);
                    Ok(true)
                });
                assert_eq!((outer, complete), (50, Ok(true)));
            }
        }
    }
}
