//! Names in directories: making, linking, renaming and removing them, and their attributes.

#![expect(unsafe_code, reason = "fchmodat2 has no safe wrapper")]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, FileType, Gid, Mode, RenameFlags, Timestamps, Uid};

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd, fault, file, stat};
use crate::error::{Errno, FsResult};

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
    // Naming the descriptor itself needs CAP_DAC_READ_SEARCH; the procfs name does not.
    match rustix::fs::linkat(&fd, "", &to_dir, to, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
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

/// fchmodat2(2), the same on every architecture (Linux 6.6).
const SYS_FCHMODAT2: libc::c_long = 452;

/// Changes the permission bits of `dir`/`name`, which is not followed where it is a symlink; with
/// an empty name those of `dir`.
///
/// # Errors
/// `EOPNOTSUPP` for a symlink, which has none.
pub fn set_mode_at(dir: impl AsFd, name: &OsStr, mode: u32) -> FsResult<()> {
    let path = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    fault::step()?;
    // SAFETY: the path is NUL-terminated and outlives the call.
    let status = unsafe {
        libc::syscall(
            SYS_FCHMODAT2,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            mode & 0o7777,
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
        )
    };
    if status == 0 {
        return Ok(());
    }
    match last_errno() {
        Errno::NOSYS if name.is_empty() => set_mode(dir, mode),
        Errno::NOSYS => set_mode(file::open_path_at(dir, name)?, mode),
        errno => Err(errno),
    }
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
