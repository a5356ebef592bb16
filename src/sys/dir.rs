//! Reading a directory.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, accessat, openat, seek,
};

use super::{AsFd, BorrowedFd, OwnedFd};
use crate::error::FsResult;

/// One entry as `getdents` gives it; `.` and `..` are left out.
#[derive(Debug)]
pub struct RawEntry<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// Its type; `FileType::Unknown` where the filesystem does not say.
    pub kind: FileType,
    /// Its raw inode number.
    pub ino: u64,
}

/// Bytes asked of the kernel at once; about 1,000 entries of ordinary length.
const BUFFER: usize = 32 * 1024;

/// Opens the directory `dir`/`name` for reading; a symlink is refused. `.` is `dir` itself, so
/// that an `O_PATH` descriptor can be turned into a readable one.
pub fn open_dir(dir: impl AsFd, name: &OsStr) -> FsResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Whether the directory `dir`, an `O_PATH` descriptor, could be opened for reading: one call.
///
/// # Errors
/// What opening it gives.
pub fn check_readable(dir: impl AsFd) -> FsResult<()> {
    let access = accessat(&dir, ".", Access::READ_OK, AtFlags::EACCESS);
    access.or_else(|_| open_dir(&dir, OsStr::new(".")).map(drop))
}

/// Calls `each` for every entry of the directory `dir`, which may be an `O_PATH` descriptor, until it
/// returns `false`. Returns whether the end was reached.
pub fn list_dir(
    dir: impl AsFd,
    each: impl FnMut(RawEntry<'_>) -> FsResult<bool>,
) -> FsResult<bool> {
    read_on(open_dir(dir, OsStr::new("."))?.as_fd(), each)
}

/// As [`list_dir`] for a readable directory `fd`, whatever was read of it before.
pub fn read_dir(fd: impl AsFd, each: impl FnMut(RawEntry<'_>) -> FsResult<bool>) -> FsResult<bool> {
    let fd = fd.as_fd();
    seek(fd, SeekFrom::Start(0))?;
    read_on(fd, each)
}

fn read_on(
    fd: BorrowedFd<'_>,
    mut each: impl FnMut(RawEntry<'_>) -> FsResult<bool>,
) -> FsResult<bool> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let raw =
            RawEntry { name: OsStr::from_bytes(name), kind: entry.file_type(), ino: entry.ino() };
        if !each(raw)? {
            return Ok(false);
        }
    }
    Ok(true)
}
