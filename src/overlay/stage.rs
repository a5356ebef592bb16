//! Making a complete copy of a lower file in the workdir, where nobody sees it.
//!
//! What fails leaves nothing there; what a crash leaves has no name, or one that the next mount
//! removes.

use std::ffi::{OsStr, OsString};

use rustix::fs::{FileType, XattrFlags};

use super::copy_up::Data;
use super::node::RealKey;
use super::place::At;
use crate::error::{Errno, FsResult};
use crate::layer::origin::Origin;
use crate::layer::upper::Upper;
use crate::layer::xattrs::{Mark, is_private};
use crate::sys::copy::How;
use crate::sys::stat::{Stat, Time, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, Timespec, Timestamps, copy, file, node, xattr};

/// What is copied: a lower file, whose data may lie in another file than its attributes.
pub(super) struct Source {
    pub at: At,
    pub data: At,
}

/// A complete copy that has no place in the upper yet.
pub(super) enum Staged {
    /// A file without a name: a crash leaves nothing at all.
    Unnamed(OwnedFd),
    /// A name in staging.
    Named(OsString),
}

/// How many bytes of data a copy has.
pub(super) fn copied_length(kind: FileType, stat: &Stat, data: Data) -> u64 {
    match data {
        _ if kind != FileType::RegularFile => 0,
        Data::All => stat.size,
        Data::Upto(size) => size.min(stat.size),
        Data::Attributes => 0,
    }
}

/// Makes the copy: for a file, as much of its data as `data` says. Gives its inode, too.
pub(super) fn stage(
    upper: &Upper,
    kind: FileType,
    source: &Source,
    stat: &Stat,
    data: Data,
    origin: Option<&Origin>,
) -> FsResult<(Staged, RealKey)> {
    if kind == FileType::RegularFile {
        return stage_file(upper, source, stat, data, origin);
    }
    let name = upper.work.fresh_name();
    let staging = upper.work.staging();
    match kind {
        FileType::Directory => node::make_dir(staging, &name, 0o700)?,
        FileType::Symlink => {
            let (dir, link) = source.at.dir_and_name();
            let target = node::read_link(dir, link)?;
            node::make_symlink(staging, &name, &target)?;
        }
        // One that belongs to whoever mounts can have no device: it stands for one.
        _ if upper.stat_xattr.is_some() => {
            drop(file::create_at(staging, &name, OFlags::WRONLY, 0o600)?);
        }
        _ => node::make_node(staging, &name, stat.mode, stat.rdev)?,
    }
    match dress(upper, &named(upper, &name)?, kind, &source.at, stat, origin) {
        Ok(key) => Ok((Staged::Named(name), key)),
        Err(errno) => {
            upper.work.discard(&name);
            Err(errno)
        }
    }
}

/// A descriptor of what stands in staging under `name`.
pub(super) fn named(upper: &Upper, name: &OsStr) -> FsResult<OwnedFd> {
    file::open_path_at(upper.work.staging(), name)
}

/// As [`stage`], of a regular file.
pub(super) fn stage_file(
    upper: &Upper,
    source: &Source,
    stat: &Stat,
    data: Data,
    origin: Option<&Origin>,
) -> FsResult<(Staged, RealKey)> {
    let (fd, staged) = new_file(upper)?;
    let filled = fill(upper, &fd, source, stat, data, origin);
    match (filled, staged) {
        (Ok(key), Some(name)) => Ok((Staged::Named(name), key)),
        (Ok(key), None) => Ok((Staged::Unnamed(fd), key)),
        (Err(errno), Some(name)) => {
            upper.work.discard(&name);
            Err(errno)
        }
        (Err(errno), None) => Err(errno),
    }
}

/// An empty file in staging, without a name where the filesystem can do that.
fn new_file(upper: &Upper) -> FsResult<(OwnedFd, Option<OsString>)> {
    // btrfs syncs nothing of a file without a name but its blocks: what is linked then may come up
    // empty after a power cut.
    if !upper.reorders() {
        match file::create_tmpfile(upper.work.staging(), OFlags::RDWR, 0o600) {
            Ok(fd) => return Ok((fd, None)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    let name = upper.work.fresh_name();
    let fd = file::create_at(upper.work.staging(), &name, OFlags::RDWR, 0o600)?;
    Ok((fd, Some(name)))
}

fn fill(
    upper: &Upper,
    fd: &OwnedFd,
    source: &Source,
    stat: &Stat,
    data: Data,
    origin: Option<&Origin>,
) -> FsResult<RealKey> {
    let size = copied_length(FileType::RegularFile, stat, data);
    if data == Data::Attributes {
        file::truncate(fd, stat.size)?;
        upper.set_mark(Target::fd(fd), Mark::Metacopy, b"")?;
    }
    if size > 0 {
        let from = open_lower(&source.data)?;
        let how = How { whole: size == stat.size, write_out: !upper.volatile };
        // Fewer blocks than the size needs: there are holes to keep.
        if stat.blocks * 512 >= stat.size {
            copy::dense_content(&from, fd, size, how)?;
        } else {
            copy::content(&from, fd, size, how)?;
        }
    }
    let key = dress(upper, fd, FileType::RegularFile, &source.at, stat, origin)?;
    // Data always; attributes alone where the name may reach the disk before them.
    if size > 0 || upper.reorders() {
        upper.before_published(fd)?;
    }
    Ok(key)
}

/// Opens a lower file for reading without touching its access time.
pub(super) fn open_lower(source: &At) -> FsResult<OwnedFd> {
    match source.open(OFlags::RDONLY | OFlags::NOATIME) {
        // Only the owner and the privileged may ask for that.
        Err(Errno::PERM) => source.open(OFlags::RDONLY),
        other => other,
    }
}

/// Gives a staged copy everything but its data. The owner comes first, because a change of owner
/// takes suid bits and capabilities away; the times come last. Gives its inode.
fn dress(
    upper: &Upper,
    fd: &OwnedFd,
    kind: FileType,
    source: &At,
    stat: &Stat,
    origin: Option<&Origin>,
) -> FsResult<RealKey> {
    let own = stat_fd(fd)?;
    if !upper.store_stat(fd, stat)? {
        if (own.uid, own.gid) != (stat.uid, stat.gid) {
            node::set_owner(fd, "".as_ref(), Some(stat.uid), Some(stat.gid))?;
        }
        if kind == FileType::RegularFile {
            node::set_open_mode(fd, stat.mode)?;
        } else if kind != FileType::Symlink {
            node::set_mode(fd, stat.mode)?;
        }
    }
    copy_xattrs(upper, source, fd)?;
    if let Some(origin) = origin {
        match upper.set_mark(Target::fd(fd), Mark::Origin, &origin.to_bytes()) {
            // User xattrs exist on files and directories only.
            Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    node::set_times(fd, "".as_ref(), &times_of(stat))?;
    Ok(RealKey { dev: own.dev, ino: own.ino })
}

/// Copies all xattrs but overlay's own; no ACLs to where they would be the real file's.
fn copy_xattrs(upper: &Upper, source: &At, to: &OwnedFd) -> FsResult<()> {
    for name in xattr::list(source.xattrs())? {
        if is_private(&name) && crate::layer::xattrs::unescape(&name).is_none() {
            continue;
        }
        if upper.stat_xattr.is_some() && is_acl(&name) {
            continue;
        }
        let Some(value) = xattr::get(source.xattrs(), &name)? else { continue };
        match xattr::set(Target::fd(to), &name, &value, XattrFlags::empty()) {
            // The upper's filesystem lacks this kind; access control must never be lost so.
            Err(Errno::OPNOTSUPP) if !is_access_control(&name) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_access_control(name: &OsStr) -> bool {
    is_acl(name) || name.as_encoded_bytes().starts_with(b"security.")
}

/// Whether this is the name of a POSIX ACL.
pub(super) fn is_acl(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"system.posix_acl_")
}

/// Access and modification time, to be set elsewhere.
pub(super) fn times_of(stat: &Stat) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() };
    Timestamps { last_access: spec(stat.atime), last_modification: spec(stat.mtime) }
}
