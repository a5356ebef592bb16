//! Mounts of the kernel's own overlayfs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::{AsRawFd, OwnedFd, file};
use crate::error::FsResult;

/// The longest value of an option.
const VALUE_MAX: usize = 255;

/// Mounts layers on `target`; `source` is what the mount table shows. Each option is a key and a
/// value, or an empty value for a switch. Layers are given one by one, as `lowerdir+`, so that their
/// number and names have no limit but the kernel's, 500, which is that of images too.
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
        if value.is_empty() {
            fsconfig_set_flag(&overlay, key)?;
        } else {
            let (value, _open) = short(value)?;
            fsconfig_set_string(&overlay, key, value)?;
        }
    }
    fsconfig_create(&overlay)?;
    let mount = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A path that the kernel takes for an option: `path` itself, or that of a descriptor of it, to be
/// held meanwhile.
fn short(path: &OsStr) -> FsResult<(OsString, Option<OwnedFd>)> {
    if path.as_bytes().len() <= VALUE_MAX {
        return Ok((path.to_owned(), None));
    }
    let fd = file::open_root(Path::new(path))?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok((OsString::from(name), Some(fd)))
}
