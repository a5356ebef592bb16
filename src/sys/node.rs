//! Names in directories: making, linking, renaming and removing them, and their attributes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, RenameFlags, Timestamps, Uid};

use super::{AsFd, fault, file, stat};
use crate::error::FsResult;

/// Makes the directory `dir`/`name`.
pub fn make_dir(dir: impl AsFd, name: &OsStr, mode: u32) -> FsResult<()> {
    fault::step()?;
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode & 0o7777))
}

/// Makes the file, fifo, socket or device node `dir`/`name`; `mode` carries the type, `rdev`
/// is in the form of [`stat::encode_dev`].
pub fn make_node(dir: impl AsFd, name: &OsStr, mode: u32, rdev: u32) -> FsResult<()> {
    fault::step()?;
    let (major, minor) = stat::decode_dev(rdev);
    let dev = rustix::fs::makedev(major, minor);
    let kind = FileType::from_raw_mode(mode);
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode & 0o7777), dev)
}

/// Makes the symlink `dir`/`name` to `target`.
pub fn make_symlink(dir: impl AsFd, name: &OsStr, target: &OsStr) -> FsResult<()> {
    fault::step()?;
    rustix::fs::symlinkat(target, dir, name)
}

/// The target of the symlink `dir`/`name`; with an empty name, of the `O_PATH` descriptor `dir`.
pub fn read_link(dir: impl AsFd, name: &OsStr) -> FsResult<OsString> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// Gives the file `from_dir`/`from` a second name; a symlink is linked itself.
pub fn link(from_dir: impl AsFd, from: &OsStr, to_dir: impl AsFd, to: &OsStr) -> FsResult<()> {
    fault::step()?;
    rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())
}

/// Gives an open file (one without a name, too) the name `to_dir`/`to`.
pub fn link_fd(fd: impl AsFd, to_dir: impl AsFd, to: &OsStr) -> FsResult<()> {
    fault::step()?;
    let path = file::proc_path(&fd);
    rustix::fs::linkat(rustix::fs::CWD, path.as_str(), to_dir, to, AtFlags::SYMLINK_FOLLOW)
}

/// Removes the name of a file.
pub fn unlink(dir: impl AsFd, name: &OsStr) -> FsResult<()> {
    fault::step()?;
    rustix::fs::unlinkat(dir, name, AtFlags::empty())
}

/// Removes an empty directory.
pub fn remove_dir(dir: impl AsFd, name: &OsStr) -> FsResult<()> {
    fault::step()?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// renameat2(2).
pub fn rename(
    from_dir: impl AsFd,
    from: &OsStr,
    to_dir: impl AsFd,
    to: &OsStr,
    flags: RenameFlags,
) -> FsResult<()> {
    fault::step()?;
    rustix::fs::renameat_with(from_dir, from, to_dir, to, flags)
}

/// Changes owner and group, `None` leaving one as it is; a symlink's own. With an empty name
/// those of `dir`, which may be an `O_PATH` descriptor.
pub fn set_owner(dir: impl AsFd, name: &OsStr, uid: Option<u32>, gid: Option<u32>) -> FsResult<()> {
    fault::step()?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::chownat(dir, name, uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)
}

/// Changes the permission bits of what `fd` names (`O_PATH` allowed).
///
/// # Errors
/// `EOPNOTSUPP` for a symlink, which has none.
pub fn set_mode(fd: impl AsFd, mode: u32) -> FsResult<()> {
    fault::step()?;
    // fchmod refuses O_PATH descriptors; the procfs name reaches the same inode.
    rustix::fs::chmod(file::proc_path(&fd).as_str(), Mode::from_raw_mode(mode & 0o7777))
}

/// Changes the permission bits of an open file; unlike [`set_mode`] without a path lookup.
pub fn set_open_mode(fd: impl AsFd, mode: u32) -> FsResult<()> {
    fault::step()?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))
}

/// Changes access and modification time; a symlink's own. With an empty name those of `dir`.
pub fn set_times(dir: impl AsFd, name: &OsStr, times: &Timestamps) -> FsResult<()> {
    fault::step()?;
    if name.is_empty() {
        // utimensat takes an empty path only since Linux 5.8 with AT_EMPTY_PATH.
        return rustix::fs::utimensat(dir, name, times, AtFlags::EMPTY_PATH);
    }
    rustix::fs::utimensat(dir, name, times, AtFlags::SYMLINK_NOFOLLOW)
}
