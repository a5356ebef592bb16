//! Inode flags in their longer form, `struct fsxattr`: with extent sizes and a project.

#![expect(unsafe_code, reason = "the ioctls have no safe wrapper")]

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd, fault};
use crate::error::FsResult;

/// `struct fsxattr`, for its filesystem to understand.
pub type Extended = [u8; SIZE];

/// How long it is.
pub const SIZE: usize = 28;

/// Reads them.
pub const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
/// Sets them.
pub const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

/// The longer flags of an open file.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where its filesystem has none.
pub fn get(fd: impl AsFd) -> FsResult<Extended> {
    let mut flags = [0; SIZE];
    // SAFETY: the kernel writes `SIZE` bytes, which the ioctl's number says.
    let status = unsafe {
        libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR as libc::Ioctl, flags.as_mut_ptr())
    };
    if status == 0 { Ok(flags) } else { Err(last_errno()) }
}

/// Sets the longer flags of an open file.
///
/// # Errors
/// As [`get`]; what the filesystem refuses.
pub fn set(fd: impl AsFd, flags: &Extended) -> FsResult<()> {
    fault::step()?;
    // SAFETY: the kernel reads `SIZE` bytes, which the ioctl's number says.
    let status = unsafe {
        libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_FSSETXATTR as libc::Ioctl, flags.as_ptr())
    };
    if status == 0 { Ok(()) } else { Err(last_errno()) }
}
