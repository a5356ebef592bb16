//! Taking mounts away.

use std::path::Path;

use rustix::mount::UnmountFlags;

use crate::error::FsResult;

/// Takes the topmost mount off `target`, which is not followed where it is a symlink.
///
/// # Errors
/// `EBUSY` where something in it is in use, `EINVAL` where nothing is mounted there, `EPERM`
/// without `CAP_SYS_ADMIN`.
pub fn unmount(target: &Path) -> FsResult<()> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)
}
