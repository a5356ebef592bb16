//! Giving up what a mounted daemon does not need.

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::FsResult;

/// What serving takes: files of any owner are made, read, changed and given away (`CHOWN`,
/// `DAC_*`, `FOWNER`, `FSETID`, `MKNOD`, `SETFCAP`, `LINUX_IMMUTABLE`), on behalf of the caller
/// (`SETUID`, `SETGID`, for one thread's filesystem ids), within what root may use of a disk
/// (`SYS_RESOURCE`); `trusted.*` xattrs, passthrough and the unmount need `SYS_ADMIN`.
pub const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_ADMIN);

/// Leaves this thread, and those that it will start, with [`KEPT`] of the capabilities that it has;
/// none can be inherited.
pub fn drop_capabilities() -> FsResult<()> {
    let held = rustix::thread::capabilities(None)?;
    let sets = CapabilitySets {
        effective: held.effective & KEPT,
        permitted: held.permitted & KEPT,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
}

/// No program that this thread, or one that it will start, ever runs has more rights than it. Such
/// a process cannot use `fusermount3` any more.
pub fn forbid_new_privileges() -> FsResult<()> {
    rustix::thread::set_no_new_privs(true)
}
