//! What became of data that was written and never synced.

#![expect(unsafe_code, reason = "sync_file_range has no safe wrapper")]

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd};
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
