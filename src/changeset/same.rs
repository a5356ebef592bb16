//! When two files count as changed.

use std::ffi::OsStr;

use super::tree::{Directory, File};
use crate::error::FsResult;
use crate::sys::stat::{Stat, Time};
use crate::sys::{OwnedFd, file};

/// Decides what a difference lists.
pub(super) trait Rule {
    /// Whether a directory that was one before is listed for what it is itself.
    fn directory_changed(&self, old: &Directory, new: &Directory) -> FsResult<bool>;
    /// Whether a file that was none and is none is listed.
    fn file_changed(&self, old: &File, new: &File) -> FsResult<bool>;
}

/// Everything counts that an archive can carry: the default.
#[derive(Debug)]
pub(super) struct Exact;

impl Rule for Exact {
    fn directory_changed(&self, old: &Directory, new: &Directory) -> FsResult<bool> {
        if old.is_same(new) {
            return Ok(false);
        }
        let (before, after) = (old.stat()?, new.stat()?);
        Ok(attributes_differ(&before, &after)
            || before.mtime != after.mtime
            || old.xattrs()? != new.xattrs()?)
    }

    fn file_changed(&self, old: &File, new: &File) -> FsResult<bool> {
        if old.is_same(new) {
            return Ok(false);
        }
        let (before, after) = (&old.stat, &new.stat);
        if attributes_differ(before, after)
            || before.mtime != after.mtime
            || before.size != after.size
            || old.xattrs()? != new.xattrs()?
        {
            return Ok(true);
        }
        if after.is_symlink() {
            return Ok(old.link_target()? != new.link_target()?);
        }
        Ok(after.is_file() && content_differs(old, new)?)
    }
}

/// As [`Exact`], and names of one inode belong together: an upper file with several names counts
/// under each of them, so that an archive of the difference can link them.
#[derive(Debug)]
pub(super) struct Carried;

impl Rule for Carried {
    fn directory_changed(&self, old: &Directory, new: &Directory) -> FsResult<bool> {
        Exact.directory_changed(old, new)
    }

    fn file_changed(&self, old: &File, new: &File) -> FsResult<bool> {
        let linked = new.stat.nlink > 1 && !old.is_same(new);
        Ok(linked || Exact.file_changed(old, new)?)
    }
}

/// What `docker diff` shows on its overlay2 driver: content, xattrs but for capabilities, and
/// the times of directories do not count, and neither do times where one side has whole seconds.
#[derive(Debug)]
pub(super) struct Docker;

impl Rule for Docker {
    fn directory_changed(&self, old: &Directory, new: &Directory) -> FsResult<bool> {
        Ok(attributes_differ(&old.stat()?, &new.stat()?))
    }

    fn file_changed(&self, old: &File, new: &File) -> FsResult<bool> {
        let (before, after) = (&old.stat, &new.stat);
        let capability = OsStr::new("security.capability");
        Ok(attributes_differ(before, after)
            || before.size != after.size
            || !same_to_docker(before.mtime, after.mtime)
            || old.xattr(capability)? != new.xattr(capability)?)
    }
}

fn same_to_docker(one: Time, two: Time) -> bool {
    one.sec == two.sec && (one.nsec == two.nsec || one.nsec == 0 || two.nsec == 0)
}

/// Type, permissions, owner, device number.
fn attributes_differ(one: &Stat, two: &Stat) -> bool {
    let key = |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.rdev);
    key(one) != key(two)
}

/// Compares two regular files of one size.
fn content_differs(one: &File, two: &File) -> FsResult<bool> {
    if one.data_inode()? == two.data_inode()? {
        return Ok(false);
    }
    content_of_fds_differs(&one.open()?, &two.open()?)
}

/// As [`content_differs`], of open files.
pub(super) fn content_of_fds_differs(one: &OwnedFd, two: &OwnedFd) -> FsResult<bool> {
    let (mut left, mut right) = (vec![0u8; BUFFER], vec![0u8; BUFFER]);
    let mut position = 0;
    loop {
        let (ours, theirs) = (read(one, &mut left, position)?, read(two, &mut right, position)?);
        if ours != theirs {
            return Ok(true);
        }
        if ours.is_empty() {
            return Ok(false);
        }
        position += ours.len() as u64;
    }
}

const BUFFER: usize = 128 * 1024;

fn read<'a>(fd: &OwnedFd, buffer: &'a mut [u8], position: u64) -> FsResult<&'a [u8]> {
    let n = file::read_at(fd, buffer, position)?;
    Ok(buffer.get(..n).unwrap_or_default())
}
