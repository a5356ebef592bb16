//! Opening paths that were written by others, inside one directory whatever they say.

use std::ffi::OsStr;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::{AsFd, OwnedFd};
use crate::error::{Errno, FsResult};

/// Opens `path` as a process would whose root is `root`: symlinks are followed, absolute ones
/// and `..` end at `root`, mount points and magic links are refused. The empty path is `root`.
/// The kernel does all of it in one call (`openat2`, Linux 5.6), so no rename can race with it.
///
/// # Errors
/// Those of open(2), `EXDEV` at a mount point, `ENOSYS` on an older kernel.
pub fn open_in_root(root: impl AsFd, path: &OsStr, flags: OFlags) -> FsResult<OwnedFd> {
    open_resolved(root, path, flags, ResolveFlags::NO_XDEV)
}

/// As [`open_in_root`], but into what is mounted inside the root, too.
///
/// # Errors
/// Those of open(2), `ENOSYS` on an older kernel.
pub fn open_in_root_across(root: impl AsFd, path: &OsStr, flags: OFlags) -> FsResult<OwnedFd> {
    open_resolved(root, path, flags, ResolveFlags::empty())
}

fn open_resolved(
    root: impl AsFd,
    path: &OsStr,
    flags: OFlags,
    more: ResolveFlags,
) -> FsResult<OwnedFd> {
    let root = root.as_fd();
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed somewhere while `..` was resolved.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}
