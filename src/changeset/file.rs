//! A file of a [`Tree`](super::Tree): what it is and what is in it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::error::FsResult;
use crate::layer::xattrs::unescape;
use crate::sys::stat::{Stat, stat_at};
use crate::sys::xattr::{self, Target};
use crate::sys::{OFlags, OwnedFd, file, node};

/// A file that is no directory.
#[derive(Debug, Clone)]
pub struct File {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: OsString,
    pub(super) layer: usize,
    /// Its attributes.
    pub stat: Stat,
    /// Where its content is, if not here: it is the copy of a lower's metadata alone.
    pub(super) data: Option<(Arc<OwnedFd>, OsString)>,
    /// Its name stands in a lower, and was led here by the index. The link count then counts the
    /// names in the upper and the entry of the index, and not this name.
    pub(super) led: bool,
}

impl File {
    /// Whether this is the very same file of the same layer as `other`.
    pub(super) fn is_same(&self, other: &File) -> bool {
        let key = |file: &File| (file.layer, file.stat.dev, file.stat.ino);
        key(self) == key(other)
    }

    /// Whether other names may lead to the same inode.
    pub fn may_have_other_names(&self) -> bool {
        self.led || self.stat.nlink > 1
    }

    /// A key that the names of one inode share: hard links of one layer.
    pub fn inode(&self) -> (usize, u64, u64) {
        (self.layer, self.stat.dev, self.stat.ino)
    }

    /// The xattrs that users see, with their values, sorted by name.
    pub fn xattrs(&self) -> FsResult<Vec<(OsString, Vec<u8>)>> {
        visible_xattrs(Target::at(&self.dir, &self.name))
    }

    /// One xattr.
    pub fn xattr(&self, name: &OsStr) -> FsResult<Option<Vec<u8>>> {
        xattr::get(Target::at(&self.dir, &self.name), name)
    }

    /// A symlink's target.
    pub fn link_target(&self) -> FsResult<OsString> {
        node::read_link(&self.dir, &self.name)
    }

    /// Opens the content of a regular file for reading.
    pub fn open(&self) -> FsResult<OwnedFd> {
        match &self.data {
            Some((dir, name)) => file::open_at(dir, name, OFlags::RDONLY),
            None => file::open_at(&self.dir, &self.name, OFlags::RDONLY),
        }
    }

    /// Where the content is, on disk: equal for files whose content cannot differ.
    pub(super) fn data_inode(&self) -> FsResult<(u64, u64)> {
        let stat = match &self.data {
            Some((dir, name)) => stat_at(dir, name)?,
            None => self.stat,
        };
        Ok((stat.dev, stat.ino))
    }
}

/// The xattrs of `of` that users see, with their values, sorted by name.
pub(super) fn visible_xattrs(of: Target<'_>) -> FsResult<Vec<(OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list(of)? {
        let Some(shown) = unescape(&name) else { continue };
        // One that went since it was listed is none.
        if let Some(value) = xattr::get(of, &name)? {
            found.push((shown.into_owned(), value));
        }
    }
    found.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(found)
}
