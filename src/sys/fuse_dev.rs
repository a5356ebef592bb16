//! The FUSE device and its ioctls.

#![expect(unsafe_code, reason = "the ioctls of /dev/fuse have no safe wrapper")]

use rustix::fs::{Mode, OFlags};

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd, OwnedFd};
use crate::error::FsResult;

/// Where the device is.
pub const PATH: &str = "/dev/fuse";

const IOC_CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
const IOC_BACKING_OPEN: libc::Ioctl = 0x4010_e501_u32 as libc::Ioctl;
const IOC_BACKING_CLOSE: libc::Ioctl = 0x4004_e502_u32 as libc::Ioctl;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// Opens the device: a connection that is not mounted yet.
pub fn open_device() -> FsResult<OwnedFd> {
    rustix::fs::open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Another descriptor for the connection of `device`, with its own queue of requests in work.
pub fn clone_device(device: impl AsFd) -> FsResult<OwnedFd> {
    let clone = open_device()?;
    let mut source = device.as_fd().as_raw_fd();
    // SAFETY: the argument is a pointer to the descriptor's number, which outlives the call.
    let result = unsafe { libc::ioctl(clone.as_raw_fd(), IOC_CLONE, &raw mut source) };
    if result < 0 { Err(last_errno()) } else { Ok(clone) }
}

/// Registers `file` as a backing file of the connection; the kernel keeps its own reference, and
/// opens it anew in the mode of each file that is passed through to it. Returns its id.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the initial user namespace or where passthrough was not
/// negotiated, `ELOOP` where the file's filesystem is stacked too high.
pub fn open_backing(device: impl AsFd, file: impl AsFd) -> FsResult<i32> {
    let map = BackingMap { fd: file.as_fd().as_raw_fd(), flags: 0, padding: 0 };
    let device = device.as_fd().as_raw_fd();
    // SAFETY: the argument is a pointer to a `struct fuse_backing_map`, which outlives the call.
    let id = unsafe { libc::ioctl(device, IOC_BACKING_OPEN, &raw const map) };
    if id < 0 { Err(last_errno()) } else { Ok(id) }
}

/// Gives a backing id back; files that are passed through to it go on.
pub fn close_backing(device: impl AsFd, id: i32) -> FsResult<()> {
    let device = device.as_fd().as_raw_fd();
    // SAFETY: the argument is a pointer to the id, which outlives the call.
    let result = unsafe { libc::ioctl(device, IOC_BACKING_CLOSE, &raw const id) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sends `buffer` with an ioctl of our own to the daemon that serves the directory `fd`, and
/// takes its answer into it.
///
/// # Errors
/// `EINVAL` where `command` says another size than the buffer's or is none of ours; `ENOTTY`
/// from other filesystems; what the daemon says.
pub fn control(fd: impl AsFd, command: u32, buffer: &mut [u8]) -> FsResult<()> {
    let (size, kind) = ((command >> 16) & 0x3fff, (command >> 8) & 0xff);
    if size as usize != buffer.len() || kind != u32::from(b'y') {
        return Err(crate::error::Errno::INVAL);
    }
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: FUSE copies to and from the argument as many bytes as the command's number says,
    // which is the buffer's size; other filesystems know no command of this kind.
    let result = unsafe { libc::ioctl(fd, command as libc::Ioctl, buffer.as_mut_ptr()) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
