//! Removing whole trees.

use std::ffi::{OsStr, OsString};

use rustix::fs::FileType;

use super::{AsFd, IFlags, OFlags, OwnedFd, creds, dir, file, node, stat};
use crate::error::{Errno, FsResult};

/// Removes `parent`/`name` and everything below it; what is not there is fine. Trees of any
/// depth are removed with few descriptors and without recursion: a container may have made one
/// that is deeper than any stack. No symlink is followed.
///
/// Nobody else may change the tree meanwhile: the way back up goes through `..`.
pub fn remove(parent: impl AsFd, name: &OsStr) -> FsResult<()> {
    let top = match open_for_removal(&parent, name) {
        Ok(top) => top,
        Err(Errno::NOTDIR | Errno::LOOP) => return node::unlink(parent, name),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut at = top;
    let mut above: Vec<Level> = Vec::new();
    let mut level = Level { name: name.to_owned(), below: Vec::new() };
    loop {
        if let Some(child) = level.below.pop() {
            at = open_for_removal(&at, &child)?;
            let child = Level { name: child, below: Vec::new() };
            above.push(std::mem::replace(&mut level, child));
            continue;
        }
        // Removing while reading may hide entries, so only an empty listing is the end.
        if remove_files(&at, &mut level.below)? {
            continue;
        }
        let Some(parent) = above.pop() else { break };
        let emptied = std::mem::replace(&mut level, parent).name;
        let above = parent_of(&at)?;
        let below = std::mem::replace(&mut at, above);
        remove_emptied(&at, &emptied, &below)?;
    }
    remove_emptied(&parent, name, &at)
}

fn parent_of(at: &OwnedFd) -> FsResult<OwnedFd> {
    dir::open_dir(at, OsStr::new(".."))
}

/// Removes the empty directory `parent`/`name`, open as `fd`.
fn remove_emptied(parent: impl AsFd, name: &OsStr, fd: &OwnedFd) -> FsResult<()> {
    match node::remove_dir(&parent, name) {
        Err(Errno::PERM) => {
            unfreeze(fd)?;
            node::remove_dir(parent, name)
        }
        other => other,
    }
}

/// A directory that is being emptied.
struct Level {
    name: OsString,
    /// Directories in it that go next.
    below: Vec<OsString>,
}

/// So many directories are noted at one reading: a directory of very many is not read anew for
/// each, nor are all their names kept.
const AT_ONCE: usize = 1024;

/// Removes the files in `at` and notes the directories. Tells whether there was anything.
fn remove_files(at: &OwnedFd, below: &mut Vec<OsString>) -> FsResult<bool> {
    let mut any = false;
    dir::read_dir(at, |entry| {
        any = true;
        let is_dir = match entry.kind {
            FileType::Directory => true,
            FileType::Unknown => stat::stat_at(at, entry.name)?.is_dir(),
            _ => false,
        };
        if !is_dir {
            return unlink(at, entry.name).map(|()| true);
        }
        below.push(entry.name.to_owned());
        Ok(below.len() < AT_ONCE)
    })?;
    Ok(any)
}

/// Removes a file, also one that `chattr` made immutable.
fn unlink(at: &OwnedFd, name: &OsStr) -> FsResult<()> {
    match node::unlink(at, name) {
        Err(Errno::PERM) => {
            unfreeze(at)?;
            if stat::stat_at(at, name)?.is_file() {
                unfreeze(&file::open_at(at, name, OFlags::RDONLY | OFlags::NONBLOCK)?)?;
            }
            node::unlink(at, name)
        }
        other => other,
    }
}

/// Lets a file or directory be changed that `chattr` forbids to change.
fn unfreeze(fd: &OwnedFd) -> FsResult<()> {
    let frozen = IFlags::IMMUTABLE | IFlags::APPEND;
    let flags = file::inode_flags(fd)?;
    if flags.intersects(frozen) {
        file::set_inode_flags(fd, flags - frozen)?;
    }
    Ok(())
}

/// Opens a directory that is to be emptied, whose own mode may forbid that to its owner.
fn open_for_removal(at: impl AsFd, name: &OsStr) -> FsResult<OwnedFd> {
    let stat = stat::stat_at(&at, name)?;
    if stat.is_dir() && stat.mode & 0o700 != 0o700 && creds::own_ids().0 != 0 {
        node::set_mode(file::open_path_at(&at, name)?, 0o700)?;
    }
    dir::open_dir(at, name)
}
