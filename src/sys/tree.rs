//! Removing whole trees.

use std::ffi::{OsStr, OsString};

use rustix::fs::FileType;

use super::{AsFd, OwnedFd, creds, dir, file, node, stat};
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
                at = dir::open_dir(&at, OsStr::new(".."))?;
                node::remove_dir(&at, &emptied)?;
            }
        }
    }
    node::remove_dir(parent, name)
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
        node::unlink(at, entry.name)?;
        found = Found::Files;
        Ok(true)
    })?;
    Ok(found)
}

/// Opens a directory that is to be emptied, whose own mode may forbid that to its owner.
fn open_for_removal(at: impl AsFd, name: &OsStr) -> FsResult<OwnedFd> {
    let stat = stat::stat_at(&at, name)?;
    if stat.is_dir() && stat.mode & 0o700 != 0o700 && creds::own_ids().0 != 0 {
        node::set_mode(file::open_path_at(&at, name)?, 0o700)?;
    }
    dir::open_dir(at, name)
}
