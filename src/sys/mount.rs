//! Mount calls.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::error::{Errno, FsResult};

/// mount(2): puts a filesystem of type `kind` on `target`; `data` is that filesystem's own
/// option string.
pub fn mount(
    source: &OsStr,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    data: &OsStr,
) -> FsResult<()> {
    let data = CString::new(data.as_bytes()).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, target, kind, flags, data.as_c_str())
}

/// Binds the mount on `from` to `target` as well, without the mounts below it.
///
/// # Errors
/// `ENOTCONN` where it is a FUSE mount that has ended.
pub fn bind(from: &Path, target: &Path) -> FsResult<()> {
    rustix::mount::mount_bind(from, target)
}

/// Takes the topmost mount off `target` at once; the filesystem ends when its last user does.
///
/// # Errors
/// `EINVAL` where nothing is mounted there.
pub fn detach(target: &Path) -> FsResult<()> {
    rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}
