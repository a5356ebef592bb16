//! Data on its way to the disk, without the syncs that make it durable.

#![expect(unsafe_code, reason = "sync_file_range has no safe wrapper")]

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd, fault};
use crate::error::{Errno, FsResult};

/// Tells of a failed write of this file's data that happened since `fd` was opened and was not told
/// yet; writes nothing, and waits for at most one page that is on its way to the disk.
///
/// # Errors
/// That write's errno.
pub fn failure(fd: impl AsFd) -> FsResult<()> {
    // SAFETY: takes a descriptor, which `fd` keeps open, and numbers.
    let told = unsafe {
        let fd = fd.as_fd().as_raw_fd();
        libc::sync_file_range(fd, 0, 1, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
    };
    if told == 0 {
        return Ok(());
    }
    match last_errno() {
        errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT) => Err(errno),
        // Not to be asked: what is no file or directory, or a filesystem without pages.
        _ => Ok(()),
    }
}

/// Has this part of a file's content start on its way to the disk, and waits for nothing. Where it
/// does not, whoever waits for the content later waits longer.
pub fn begin(fd: impl AsFd, offset: u64, length: usize) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: takes a descriptor, which `fd` keeps open, and numbers.
    unsafe {
        let fd = fd.as_fd().as_raw_fd();
        libc::sync_file_range(fd, offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Writes this file's content out to its disk and waits until the disk has taken it: maybe into a
/// cache, and without what leads to it. So this makes nothing durable; it is for filesystems that
/// [`super::journal`] knows.
///
/// # Errors
/// That of a write, also of an earlier one since `fd` was opened.
pub fn write_out(fd: impl AsFd) -> FsResult<()> {
    fault::step()?;
    const ALL: libc::c_uint = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes a descriptor, which `fd` keeps open, and numbers.
    let written = unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), 0, 0, ALL) };
    if written == 0 { Ok(()) } else { Err(last_errno()) }
}
