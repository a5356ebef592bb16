//! Mounts of the kernel's own overlayfs.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::FsResult;

/// Mounts layers on `target`; `source` is what the mount table shows. Each option is a key and a
/// value. Layers are given one by one, as `lowerdir+`, so that their number and names have no
/// limit but the kernel's: 500.
///
/// # Errors
/// `ENODEV` where the kernel has no overlayfs, `EINVAL` before Linux 6.8 or for layers that it
/// does not take, `EPERM` without `CAP_SYS_ADMIN`, `EBUSY` where the upper is mounted already.
pub fn mount<'a>(
    source: &OsStr,
    target: &Path,
    options: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
) -> FsResult<()> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&overlay, "source", source)?;
    for (key, value) in options {
        fsconfig_set_string(&overlay, key, value)?;
    }
    fsconfig_create(&overlay)?;
    let mount = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
