//! The hard links of lowers that were copied up: which lower names lead to which upper inode.
//!
//! Copying one name of a lower hard link up leaves the others where they are; the index in the
//! workdir leads them to the upper inode ([`crate::layer::index`]). Nothing in the upper tells
//! where such names are, so whoever wants them all must look through the lowers. Their
//! directories alone are read for that: the inode numbers there show which files may be meant.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;

use super::file::File;
use crate::error::{Errno, FsResult};
use crate::layer::index::Index;
use crate::layer::origin::Origin;
use crate::sys::OwnedFd;
use crate::sys::dir::RawEntry;
use crate::sys::stat::{Stat, stat_at};

/// The index of an upper, to be read.
#[derive(Debug)]
pub(super) struct Links {
    index: Index,
    /// The inode numbers of the lower files that it has entries for, whatever their layer;
    /// `None` where the filesystem's file handles do not tell.
    lowers: Option<HashSet<u64>>,
}

impl Links {
    /// The index in the workdir at `workdir`; `None` where it has no entries.
    pub(super) fn open(workdir: &Path) -> FsResult<Option<Links>> {
        let index = Index::open_to_read(workdir)?;
        if !index.is_used() {
            return Ok(None);
        }
        let lowers = index.origins()?.iter().map(Origin::inode_number).collect();
        Ok(Some(Links { index, lowers }))
    }

    /// The upper inode that `file` of a lower on the filesystem `uuid` leads to. An entry of
    /// another type is none: the kernel keeps whiteouts and directories there, too.
    pub(super) fn find(
        &self,
        file: &File,
        uuid: [u8; 16],
    ) -> FsResult<Option<(Arc<OwnedFd>, OsString, Stat)>> {
        if file.stat.nlink < 2 {
            return Ok(None);
        }
        let Some(origin) = Origin::of(&file.dir, &file.name, uuid) else { return Ok(None) };
        let Some((dir, name)) = self.index.find(&origin)? else { return Ok(None) };
        let stat = match stat_at(&dir, &name) {
            Ok(stat) => stat,
            // The last name went meanwhile, through a live mount.
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let same_type = stat.file_type() == file.stat.file_type() && !stat.is_whiteout_device();
        Ok(same_type.then_some((dir, name, stat)))
    }

    /// Whether this entry of a lower may lead to an upper inode, or be a directory in which
    /// others do.
    pub(super) fn may_lead(&self, entry: &RawEntry<'_>) -> bool {
        match entry.kind {
            FileType::Directory | FileType::Unknown => true,
            _ => self.lowers.as_ref().is_none_or(|inodes| inodes.contains(&entry.ino)),
        }
    }
}
