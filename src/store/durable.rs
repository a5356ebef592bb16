//! Making, moving and removing files and directories of the store, durably.
//!
//! Everything goes through `sys`, so that tests can stop a verb at each of its steps.

use std::ffi::OsStr;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::{OFlags, OwnedFd, RenameFlags, dir, file, node, tree};

/// The most bytes of a record; a store of ten thousand images stays far below.
const RECORD_MAX: u64 = 64 << 20;

/// The directory of `path`, opened, and its last component.
fn split(path: &Path) -> FsResult<(OwnedFd, &OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Ok((file::open_root(parent)?, name))
}

/// Makes the directory `path`, which must not exist, with exactly `mode`.
pub(super) fn create_dir(path: &Path, mode: u32) -> Result<()> {
    let make = || {
        let (parent, name) = split(path)?;
        node::make_dir(&parent, name, mode)?;
        node::set_mode(file::open_path_at(&parent, name)?, mode)
    };
    make().map_err(|errno| Error::io("create directory", path, errno))
}

/// Makes the directory `path` and those above it where they are missing; only their owner may
/// enter them, for layers hold set-user-id programs.
pub(super) fn create_dir_all(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir_all(parent)?;
    }
    match create_dir(path, 0o700) {
        Err(Error::Io { source: Errno::EXIST, .. }) if path.is_dir() => Ok(()),
        Err(Error::Io { action, path, source: Errno::EXIST }) => {
            Err(Error::io(action, path, Errno::NOTDIR))
        }
        other => other,
    }
}

/// Writes the new file `path` and makes its content durable.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let (parent, name) = split(path)?;
        let fd = file::create_at(&parent, name, OFlags::WRONLY, 0o600)?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match file::write_at(&fd, rest, done as u64)? {
                0 => return Err(Errno::IO),
                n => done += n,
            }
        }
        file::sync(&fd, false)
    };
    write().map_err(|errno| Error::io("write", path, errno))
}

/// Puts a file with `bytes` in the place of `path`, in one durable step. It is written as `via`
/// first, which must be where leftovers are swept.
pub(super) fn replace(path: &Path, via: &Path, bytes: &[u8]) -> Result<()> {
    write_new(via, bytes)?;
    rename(via, path, RenameFlags::empty())?;
    sync_parent(path)
}

/// Moves `from` to `to`, which must not exist.
pub(super) fn rename_new(from: &Path, to: &Path) -> Result<()> {
    rename(from, to, RenameFlags::NOREPLACE)
}

/// Makes the symlink `path`, which must not exist, to `target`.
pub(super) fn symlink(target: &Path, path: &Path) -> Result<()> {
    let make = || {
        let (parent, name) = split(path)?;
        node::make_symlink(&parent, name, target.as_os_str())
    };
    make().map_err(|errno| Error::io("create", path, errno))
}

/// Gives the file `from` the further name `to`, which must not exist.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    let link = || {
        let (from_dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        node::link(&from_dir, from_name, &to_dir, to_name)
    };
    link().map_err(|errno| Error::io("create", to, errno))
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
    let rename = || {
        let (from_dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        node::rename(&from_dir, from_name, &to_dir, to_name, flags)
    };
    rename().map_err(|errno| Error::io("create", to, errno))
}

/// Makes the entries of the directory at `path` durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    let sync = || file::sync(dir::open_dir(file::open_root(path)?, OsStr::new("."))?, false);
    sync().map_err(|errno| Error::io("sync", path, errno))
}

/// Makes the entry `path` of its directory durable.
pub(super) fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes everything on the filesystem of `path` durable.
pub(super) fn sync_filesystem(path: &Path) -> Result<()> {
    let sync = || {
        let fd = dir::open_dir(file::open_root(path)?, OsStr::new("."))?;
        file::sync_filesystem(fd)
    };
    sync().map_err(|errno| Error::io("sync the filesystem of", path, errno))
}

/// Removes `path` with all below it; what is not there is fine.
pub(super) fn remove_all(path: &Path) -> Result<()> {
    let remove = || {
        let (parent, name) = split(path)?;
        tree::remove(&parent, name)
    };
    remove().map_err(|errno| Error::io("remove", path, errno))
}

/// The content of `path`, or `None` where there is no such file.
pub(super) fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>> {
    let read = || {
        let (parent, name) = split(path)?;
        let fd = file::open_at(&parent, name, OFlags::RDONLY)?;
        let size = crate::sys::stat::stat_fd(&fd)?.size;
        if size > RECORD_MAX {
            return Err(Errno::FBIG);
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Errno::FBIG)?];
        let n = file::read_at(&fd, &mut bytes, 0)?;
        bytes.truncate(n);
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::io("read", path, errno)),
    }
}

/// The record in `path`, or `None` where there is no such file.
///
/// # Errors
/// Names the file where it is damaged.
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read_if_present(path)? else { return Ok(None) };
    let record = serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(path.display().to_string(), format!("damaged record: {e}")))?;
    Ok(Some(record))
}

/// A record as it is written: JSON that people can read, too.
pub(super) fn record_bytes<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(record)
        .map_err(|e| Error::Refused(format!("cannot write a record: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
