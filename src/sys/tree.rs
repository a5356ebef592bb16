//! Removing whole trees.

use std::ffi::{OsStr, OsString};

use rustix::fs::FileType;

use super::{AsFd, IFlags, OFlags, OwnedFd, creds, dir, file, node, stat};
use crate::error::{Errno, FsResult};

/// Removes `parent`/`name` and everything below it; what is not there is fine. Trees of any
/// depth are removed with two descriptors and without recursion: a container may have made one
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
    let mut names: Vec<OsString> = Vec::new();
    loop {
        match remove_files(&at)? {
            Found::Directory(child) => {
                at = open_for_removal(&at, &child)?;
                names.push(child);
            }
            // Removing while reading may hide entries, so only an empty listing is the end.
            Found::Files => {}
            Found::Nothing => {
                let Some(emptied) = names.pop() else { break };
                let above = parent_of(&at)?;
                let below = std::mem::replace(&mut at, above);
                remove_emptied(&at, &emptied, &below)?;
            }
        }
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

/// What a directory held.
enum Found {
    /// A directory, whose removal comes first.
    Directory(OsString),
    /// Files, which are removed now.
    Files,
    Nothing,
}

/// Removes the files in `at` up to its first directory.
fn remove_files(at: &OwnedFd) -> FsResult<Found> {
    let mut found = Found::Nothing;
    dir::read_dir(at, |entry| {
        let is_dir = match entry.kind {
            FileType::Directory => true,
            FileType::Unknown => stat::stat_at(at, entry.name)?.is_dir(),
            _ => false,
        };
        if is_dir {
            found = Found::Directory(entry.name.to_owned());
            return Ok(false);
        }
        unlink(at, entry.name)?;
        found = Found::Files;
        Ok(true)
    })?;
    Ok(found)
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
