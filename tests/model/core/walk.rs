//! From paths to nodes, as the kernel does before it asks a filesystem.

use std::ffi::OsStr;
use std::path::Path;

use plyfs::overlay::{Entry, NodeId};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Answer, Core, DONE};

impl Core<'_> {
    /// What a path leads to; one lookup of it stays counted until the next operation.
    pub(crate) fn walk(&self, path: &Path) -> Result<Entry, Errno> {
        let stat = self.fs().getattr(NodeId::ROOT, None)?;
        let mut here = Entry { node: NodeId::ROOT, stat };
        for name in path {
            here = self.child(&here, name)?;
        }
        Ok(here)
    }

    pub(super) fn child(&self, dir: &Entry, name: &OsStr) -> Result<Entry, Errno> {
        check_dir(dir)?;
        let found = self.fs().lookup(dir.node, name)?;
        self.counted.borrow_mut().push(found.node);
        Ok(found)
    }

    pub(super) fn parent<'p>(&self, path: &'p Path) -> Result<(NodeId, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::EXIST)?;
        let parent = self.walk(path.parent().unwrap())?;
        check_dir(&parent)?;
        Ok((parent.node, name))
    }

    /// The directory and the name of something that is to be new.
    pub(super) fn vacant<'p>(&self, path: &'p Path) -> Result<(NodeId, &'p OsStr), Errno> {
        let (dir, name) = self.parent(path)?;
        match self.walk(path) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok((dir, name)),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn made(&self, entry: Result<Entry, Errno>) -> Answer {
        self.counted.borrow_mut().push(entry?.node);
        DONE
    }

    /// Symlinks dangle.
    pub(super) fn follow(&self, path: &Path) -> Result<Entry, Errno> {
        let found = self.walk(path)?;
        if found.stat.is_symlink() { Err(Errno::NOENT) } else { Ok(found) }
    }

    /// What open(2) refuses before it asks a filesystem; `None` is a fifo.
    pub(super) fn openable(&self, path: &Path, write: bool) -> Result<Option<NodeId>, Errno> {
        let found = self.walk(path)?;
        match found.stat.file_type() {
            FileType::Symlink => Err(Errno::LOOP),
            FileType::Directory => Err(Errno::ISDIR),
            FileType::Fifo if write => Err(Errno::NXIO),
            FileType::Fifo => Ok(None),
            _ => Ok(Some(found.node)),
        }
    }
}

pub(super) fn check_dir(entry: &Entry) -> Result<(), Errno> {
    match entry.stat.file_type() {
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(Errno::NOENT),
        _ => Err(Errno::NOTDIR),
    }
}
