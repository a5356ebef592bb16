//! The UUID of a filesystem.

#![expect(unsafe_code, reason = "FS_IOC_GETFSUUID has no safe wrapper")]

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd};
use crate::error::FsResult;

/// `struct fsuuid2` of `linux/fs.h`.
#[repr(C)]
struct Uuid2 {
    length: u8,
    uuid: [u8; 16],
}

/// `_IOR(0x15, 0, struct fsuuid2)`.
const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;

/// The UUID of the filesystem that holds the open file or directory `fd`.
///
/// # Errors
/// `ENOTTY` where the filesystem has none or the kernel is older than Linux 6.9.
pub fn filesystem_uuid(fd: impl AsFd) -> FsResult<[u8; 16]> {
    let mut out = Uuid2 { length: 0, uuid: [0; 16] };
    // SAFETY: the kernel writes at most sizeof(struct fsuuid2), the size in the request number.
    let status =
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_GETFSUUID as _, &raw mut out) };
    if status == 0 { Ok(out.uuid) } else { Err(last_errno()) }
}
