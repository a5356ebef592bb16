//! Mount calls.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
pub use rustix::mount::MountFlags;
use rustix::mount::{FsPickFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};

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

/// Gives the mount on `target`, and its filesystem, these flags and no others.
///
/// # Errors
/// `EINVAL` where nothing is mounted there; `EBUSY` where files are open for writing that is to be
/// refused.
pub fn change_flags(target: &Path, flags: MountFlags) -> FsResult<()> {
    rustix::mount::mount_remount(target, flags, c"")
}

/// Binds the mount on `from` to `target` as well, without the mounts below it.
///
/// # Errors
/// `ENOTCONN` where it is a FUSE mount that has ended.
pub fn bind(from: &Path, target: &Path) -> FsResult<()> {
    rustix::mount::mount_bind(from, target)
}

/// Refuses writes to the filesystem that is mounted on `target`, wherever it is mounted.
///
/// # Errors
/// `EBUSY` where files of it are open for writing.
pub fn make_filesystem_read_only(target: &Path) -> FsResult<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_NO_AUTOMOUNT;
    let filesystem = fspick(CWD, target, flags)?;
    fsconfig_set_flag(&filesystem, "ro")?;
    fsconfig_reconfigure(&filesystem)
}

/// Refuses writes through the mount on `target`, and through that one alone.
///
/// # Errors
/// `EBUSY` where files are open for writing through it.
pub fn make_place_read_only(target: &Path) -> FsResult<()> {
    super::mount_clone::refuse_writes(super::file::open_root(target)?)
}

/// Takes the topmost mount off `target` at once; the filesystem ends when its last user does.
///
/// # Errors
/// `EINVAL` where nothing is mounted there.
pub fn detach(target: &Path) -> FsResult<()> {
    rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}
