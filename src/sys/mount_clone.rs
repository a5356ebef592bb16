//! Private clones of the mounts that directories lie on; mounts made read-only.

#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::file_handle::last_errno;
use super::{AsFd, AsRawFd, OwnedFd, file};
use crate::error::{Errno, FsResult};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOATIME: u64 = 0x10;
const MOUNT_ATTR_ATIME_MASK: u64 = 0x70;

/// A descriptor of the directory `dir` through a detached clone of its mount that is read-only
/// and, where that may be changed, keeps no access times. It lives as long as the descriptor.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over the mount namespace, `ENOSYS` before Linux 5.12.
pub fn clone_read_only(dir: impl AsFd) -> FsResult<OwnedFd> {
    let clone = clone_of(dir)?;
    let silent =
        set_attributes(&clone, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME_MASK);
    // What access times a mount keeps is locked in user namespaces that did not make it.
    match silent {
        Err(Errno::PERM) => set_attributes(&clone, MOUNT_ATTR_RDONLY, 0)?,
        other => other?,
    }
    Ok(clone)
}

/// A detached clone of the mount that several directories lie on, as [`clone_read_only`] makes it:
/// a hundred layers need not be a hundred mounts, each of which the kernel makes and takes away on
/// its own.
///
/// It is best kept: when its descriptor is closed, the kernel waits for all processors.
#[derive(Debug)]
pub struct SharedClone {
    root: OwnedFd,
    /// The path of its root.
    above: PathBuf,
    places: Vec<Place>,
}

/// Where a directory was found.
#[derive(Debug)]
struct Place {
    mount: u64,
    inode: (u32, u32, u64),
    path: PathBuf,
}

impl Place {
    fn of(dir: &OwnedFd) -> FsResult<Place> {
        let stat = statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
        let path = rustix::fs::readlink(file::proc_path(dir).as_str(), Vec::new())?.into_bytes();
        let inode = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        Ok(Place { mount: stat.stx_mnt_id, inode, path: OsString::from_vec(path).into() })
    }
}

impl SharedClone {
    /// Clones the mount below which all `dirs` lie, each of which may be a symlink.
    ///
    /// # Errors
    /// As [`clone_read_only`]; `EXDEV` where they lie on different mounts.
    pub fn of(dirs: &[PathBuf]) -> FsResult<SharedClone> {
        let place = |dir: &PathBuf| Place::of(&file::open_root(dir)?);
        let places = dirs.iter().map(place).collect::<FsResult<Vec<_>>>()?;
        let first = places.first().ok_or(Errno::INVAL)?;
        let above = places.iter().fold(first.path.clone(), |above, place| {
            let both = above.iter().zip(place.path.iter());
            both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
        });
        let root = file::open_root(&above)?;
        let mount = mount_id(&root)?;
        if places.iter().any(|place| place.mount != mount) {
            return Err(Errno::XDEV);
        }
        Ok(SharedClone { root: clone_read_only(root)?, above, places })
    }

    /// The directory of this number through the clone.
    ///
    /// # Errors
    /// `ESTALE` where it is another one by now; what opening it gives.
    pub fn dir(&self, number: usize) -> FsResult<OwnedFd> {
        let place = self.places.get(number).ok_or(Errno::INVAL)?;
        let dir = beneath(&self.root, &self.above, &place.path)?;
        let now = statx(&dir, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
        let inode = (now.stx_dev_major, now.stx_dev_minor, now.stx_ino);
        if inode == place.inode { Ok(dir) } else { Err(Errno::STALE) }
    }
}

/// The directory `path`, which lies below `above`, in a clone whose root is that.
fn beneath(clone: &OwnedFd, above: &Path, path: &Path) -> FsResult<OwnedFd> {
    let rest = path.strip_prefix(above).map_err(|_| Errno::XDEV)?;
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(clone, rest, flags, Mode::empty(), resolve)
}

/// Descriptors (`O_PATH`) of two directories through one detached clone of the mount that both lie
/// on. Names can be moved between them, and they keep no mount busy that a user may want to take
/// off, while the filesystem itself stays. The third is the clone's own, to be kept as that of a
/// [`SharedClone`].
///
/// # Errors
/// As [`clone_read_only`]; `EXDEV` where they lie on different mounts.
pub fn clone_for_both(one: &Path, other: &Path) -> FsResult<(OwnedFd, OwnedFd, OwnedFd)> {
    let real = |path: &Path| {
        std::fs::canonicalize(path)
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    };
    let (one, other) = (real(one)?, real(other)?);
    let above: PathBuf =
        one.iter().zip(other.iter()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let root = file::open_root(&above)?;
    let mount = mount_id(&root)?;
    for path in [&one, &other] {
        if mount_id(file::open_root(path)?)? != mount {
            return Err(Errno::XDEV);
        }
    }
    let clone = clone_of(&root)?;
    let inside = |path: &Path| beneath(&clone, &above, path);
    Ok((inside(&one)?, inside(&other)?, clone))
}

fn clone_of(dir: impl AsFd) -> FsResult<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(dir, "", flags)
}

fn mount_id(fd: impl AsFd) -> FsResult<u64> {
    Ok(statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Refuses writes through the mount whose root `root` is; others of the same filesystem stay.
///
/// # Errors
/// `EBUSY` where files are open for writing through it.
pub fn refuse_writes(root: impl AsFd) -> FsResult<()> {
    set_attributes(root, MOUNT_ATTR_RDONLY, 0)
}

fn set_attributes(mount: impl AsFd, set: u64, clear: u64) -> FsResult<()> {
    let attr = MountAttr { set, clear, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a NUL-terminated literal; `attr` has the size that is passed and
    // outlives the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if status == 0 { Ok(()) } else { Err(last_errno()) }
}
