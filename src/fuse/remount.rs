//! `mount -o remount`: a mount that is there becomes read-only or writable, or gets other flags.
//! mount(8) asks the program of the type to do it; the kernel alone has to change something.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Errno, Error, Result};
use crate::sys::mount::{self, MountFlags};

/// Whether one of the values of `-o` asks for it.
pub fn is_asked_for(options: &[OsString]) -> bool {
    names(options).any(|name| name == b"remount")
}

/// Changes the flags of the mount on `mountpoint` to what `options` say. mount(8) repeats those
/// that stay; layers and the like cannot change, and are not looked at.
///
/// # Errors
/// `EINVAL` where nothing is mounted there, `EBUSY` where files are open for writing.
pub fn remount(options: &[OsString], mountpoint: &Path) -> Result<()> {
    let flags = names(options).fold(MountFlags::empty(), |flags, name| match flag(name) {
        Some((flag, true)) => flags | flag,
        Some((flag, false)) => flags - flag,
        None => flags,
    });
    mount::change_flags(mountpoint, flags).map_err(|errno| match errno {
        Errno::INVAL => Error::Refused(format!("nothing is mounted on {}", mountpoint.display())),
        errno => Error::io("change the mount on", mountpoint, errno),
    })
}

fn names(options: &[OsString]) -> impl Iterator<Item = &[u8]> {
    options.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
}

/// The flag that an option sets or takes away.
fn flag(name: &[u8]) -> Option<(MountFlags, bool)> {
    Some(match name {
        b"ro" => (MountFlags::RDONLY, true),
        b"rw" => (MountFlags::RDONLY, false),
        b"nosuid" => (MountFlags::NOSUID, true),
        b"suid" => (MountFlags::NOSUID, false),
        b"nodev" => (MountFlags::NODEV, true),
        b"dev" => (MountFlags::NODEV, false),
        b"noexec" => (MountFlags::NOEXEC, true),
        b"exec" => (MountFlags::NOEXEC, false),
        b"sync" => (MountFlags::SYNCHRONOUS, true),
        b"async" => (MountFlags::SYNCHRONOUS, false),
        b"dirsync" => (MountFlags::DIRSYNC, true),
        b"noatime" => (MountFlags::NOATIME, true),
        b"atime" => (MountFlags::NOATIME, false),
        b"nodiratime" => (MountFlags::NODIRATIME, true),
        b"diratime" => (MountFlags::NODIRATIME, false),
        b"relatime" => (MountFlags::RELATIME, true),
        b"norelatime" => (MountFlags::RELATIME, false),
        b"strictatime" => (MountFlags::STRICTATIME, true),
        b"nostrictatime" => (MountFlags::STRICTATIME, false),
        _ => return None,
    })
}
