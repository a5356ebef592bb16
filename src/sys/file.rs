//! Open files: opening, reading, writing, space, durability.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, IFlags, Mode, OFlags, SeekFrom, openat};

use super::{AsFd, AsRawFd, OwnedFd, fault};
use crate::error::{Errno, FsResult};

/// Opens `dir`/`name` with `flags`, never through a symlink.
pub fn open_at(dir: impl AsFd, name: &OsStr, flags: OFlags) -> FsResult<OwnedFd> {
    openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A descriptor that only names `dir`/`name` (`O_PATH`), a symlink itself included.
pub fn open_path_at(dir: impl AsFd, name: &OsStr) -> FsResult<OwnedFd> {
    open_at(dir, name, OFlags::PATH)
}

/// A descriptor that only names the directory at `path`; a symlink to it is followed, because
/// a layer's root may be given as one.
pub fn open_root(path: &std::path::Path) -> FsResult<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// The absolute path of an open directory, without symlinks.
pub fn real_path(dir: &OwnedFd) -> FsResult<PathBuf> {
    let path = rustix::fs::readlink(proc_path(dir).as_str(), Vec::new())?.into_bytes();
    Ok(OsString::from_vec(path).into())
}

/// Opens again what `fd` names, with other flags; works for files without a name, too.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> FsResult<OwnedFd> {
    let path = proc_path(&fd);
    rustix::fs::open(path.as_str(), (flags - OFlags::NOFOLLOW) | OFlags::CLOEXEC, Mode::empty())
}

/// The name of an open descriptor in procfs, for calls that take only paths.
pub(crate) fn proc_path(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Creates `dir`/`name`, which must not exist.
pub fn create_at(dir: impl AsFd, name: &OsStr, flags: OFlags, mode: u32) -> FsResult<OwnedFd> {
    fault::step()?;
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(mode & 0o7777))
}

/// Creates the file at `path`, which must not exist, to be read and written by its owner alone:
/// what the store keeps holds users' data.
pub fn create_new(path: &std::path::Path) -> FsResult<File> {
    fault::step()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

/// Opens the file at `path` to be read and written; creates it, as [`create_new`] does, where
/// there is none.
pub fn open_or_create(path: &std::path::Path) -> FsResult<File> {
    fault::step()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

/// Creates a file without a name on the filesystem of `dir`.
pub fn create_tmpfile(dir: impl AsFd, flags: OFlags, mode: u32) -> FsResult<OwnedFd> {
    fault::step()?;
    let flags = (flags - OFlags::NOFOLLOW) | OFlags::TMPFILE | OFlags::CLOEXEC;
    openat(dir, OsStr::new("."), flags, Mode::from_raw_mode(mode & 0o7777))
}

/// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
pub fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> FsResult<usize> {
    let fd = fd.as_fd();
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let wanted = rest.len();
        match rustix::io::pread(fd, rest, offset + done as u64) {
            // A regular file gives less than was asked for at its end only.
            Ok(n) if n < wanted => {
                done += n;
                break;
            }
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            // What was read before an error is given first; the next read meets the error.
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes `data` at `offset` (at the end for an `O_APPEND` descriptor); returns the bytes
/// written, fewer than given only where an error followed.
pub fn write_at(fd: impl AsFd, data: &[u8], offset: u64) -> FsResult<usize> {
    fault::step()?;
    let fd = fd.as_fd();
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(fd, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes all of `data` at `offset`.
pub fn write_all_at(fd: impl AsFd, data: &[u8], offset: u64) -> FsResult<()> {
    let fd = fd.as_fd();
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        // After a short write the next one meets the error that cut it.
        match write_at(fd, rest, offset + done as u64)? {
            0 => return Err(Errno::IO),
            n => done += n,
        }
    }
    Ok(())
}

/// Sets the length of a file open for writing.
pub fn truncate(fd: impl AsFd, size: u64) -> FsResult<()> {
    fault::step()?;
    rustix::fs::ftruncate(fd, size)
}

/// fallocate(2), in every mode that the filesystem has.
pub fn allocate(fd: impl AsFd, mode: FallocateFlags, offset: u64, length: u64) -> FsResult<()> {
    fault::step()?;
    rustix::fs::fallocate(fd, mode, offset, length)
}

/// `whence` of lseek(2): the next data.
pub const SEEK_DATA: i32 = libc::SEEK_DATA;

/// `whence` of lseek(2): the next hole.
pub const SEEK_HOLE: i32 = libc::SEEK_HOLE;

/// The next data (`data`) or hole from `offset` on.
///
/// # Errors
/// `ENXIO` past the last data or the end.
pub fn seek_sparse(fd: impl AsFd, offset: u64, data: bool) -> FsResult<u64> {
    rustix::fs::seek(fd, if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) })
}

/// Copies a range between two files inside the kernel; returns the bytes copied, 0 at the end.
pub fn copy_range(
    from: impl AsFd,
    mut from_offset: u64,
    to: impl AsFd,
    mut to_offset: u64,
    length: usize,
) -> FsResult<usize> {
    fault::step()?;
    rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), length)
}

/// Makes an open file durable; with `data_only`, not its times.
pub fn sync(fd: impl AsFd, data_only: bool) -> FsResult<()> {
    fault::step()?;
    if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }
}

/// Makes the whole filesystem of `fd` durable.
pub fn sync_filesystem(fd: impl AsFd) -> FsResult<()> {
    fault::step()?;
    rustix::fs::syncfs(fd)
}

/// The inode flags (`chattr`) of an open file.
pub fn inode_flags(fd: impl AsFd) -> FsResult<IFlags> {
    rustix::fs::ioctl_getflags(fd)
}

/// Sets the inode flags of an open file.
pub fn set_inode_flags(fd: impl AsFd, flags: IFlags) -> FsResult<()> {
    fault::step()?;
    rustix::fs::ioctl_setflags(fd, flags)
}
