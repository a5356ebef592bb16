//! Private clones of the mounts that directories lie on; mounts made read-only.

#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx,
};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::file_handle::last_errno;
use super::stat::{Stat, stat_fd};
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
const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
const MOUNT_ATTR_ATIME_MASK: u64 = 0x70;
const MOUNT_ATTR_NODIRATIME: u64 = 0x80;

/// Which access times a mount keeps, as far as it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessTimes {
    /// Of what; `None` where it was not said.
    pub kept: Option<Kept>,
    /// None of directories.
    pub not_of_directories: bool,
}

/// When a mount takes note of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// `noatime`.
    Never,
    /// `relatime`.
    Relative,
    /// `strictatime`.
    Always,
}

impl AccessTimes {
    /// Has the mount of `root`, a clone of our own, keep them so.
    ///
    /// # Errors
    /// `EPERM` where the mount came from another user namespace.
    fn apply(self, root: impl AsFd) -> FsResult<()> {
        let (when, clear) = match self.kept {
            None => (0, 0),
            Some(Kept::Never) => (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME_MASK),
            Some(Kept::Relative) => (0, MOUNT_ATTR_ATIME_MASK),
            Some(Kept::Always) => (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME_MASK),
        };
        let set = if self.not_of_directories { when | MOUNT_ATTR_NODIRATIME } else { when };
        if set | clear == 0 { Ok(()) } else { set_attributes(root, set, clear) }
    }
}

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
    /// Device and inode.
    inode: (u64, u64),
    path: PathBuf,
}

const ASKED: StatxFlags = StatxFlags::INO.union(StatxFlags::MNT_ID).union(StatxFlags::TYPE);

impl Place {
    /// Where `dir` says that it is; a symlink is refused.
    fn named(dir: &Path) -> FsResult<Place> {
        let stat = statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW, ASKED)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok(Place::of(&stat, dir.to_path_buf()))
    }

    /// Where `dir`, which may be a symlink, really is.
    fn found(dir: &Path) -> FsResult<Place> {
        let dir = file::open_root(dir)?;
        Ok(Place::of(&statx(&dir, "", AtFlags::EMPTY_PATH, ASKED)?, file::real_path(&dir)?))
    }

    fn of(stat: &Statx, path: PathBuf) -> Place {
        let dev = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        Place { mount: stat.stx_mnt_id, inode: (dev, stat.stx_ino), path }
    }
}

impl SharedClone {
    /// Clones the mount below which all `dirs` lie, each of which may be a symlink.
    ///
    /// # Errors
    /// As [`clone_read_only`]; `EXDEV` where they lie on different mounts.
    pub fn of(dirs: &[PathBuf]) -> FsResult<SharedClone> {
        let places = |place: fn(&Path) -> FsResult<Place>| {
            dirs.iter().map(|dir| place(dir)).collect::<FsResult<Vec<_>>>()
        };
        // Names are mostly as they seem: then one call for each directory tells enough.
        let as_named = places(Place::named).and_then(SharedClone::below_all);
        as_named.or_else(|_| SharedClone::below_all(places(Place::found)?))
    }

    fn below_all(places: Vec<Place>) -> FsResult<SharedClone> {
        let first = places.first().ok_or(Errno::INVAL)?;
        let above = places.iter().fold(first.path.clone(), |above, at| in_both(&above, &at.path));
        if places.iter().any(|place| below(&above, &place.path).is_none()) {
            return Err(Errno::XDEV);
        }
        let root = file::open_root(below(Path::new(""), &above).unwrap_or(&above))?;
        let mount = mount_id(&root)?;
        if places.iter().any(|place| place.mount != mount) {
            return Err(Errno::XDEV);
        }
        Ok(SharedClone { root: clone_read_only(root)?, above, places })
    }

    /// The directory of this number through the clone, with its attributes.
    ///
    /// # Errors
    /// `ESTALE` where it is another one by now, or something is mounted on it; what opening it
    /// gives.
    pub fn dir(&self, number: usize) -> FsResult<(OwnedFd, Stat)> {
        let place = self.places.get(number).ok_or(Errno::INVAL)?;
        let dir = beneath(&self.root, &self.above, &place.path)?;
        let stat = stat_fd(&dir)?;
        if (stat.dev, stat.ino) == place.inode { Ok((dir, stat)) } else { Err(Errno::STALE) }
    }
}

/// The path that both begin with.
fn in_both(one: &Path, other: &Path) -> PathBuf {
    let both = one.iter().zip(other.iter());
    both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

/// How `path` goes on from `above`: `.` where it ends there, nothing where it does not begin so.
fn below<'a>(above: &Path, path: &'a Path) -> Option<&'a Path> {
    let rest = path.strip_prefix(above).ok().filter(|rest| rest.is_relative())?;
    Some(if rest.as_os_str().is_empty() { Path::new(".") } else { rest })
}

/// The directory `path`, which lies below `above`, in a clone whose root is that.
fn beneath(clone: &OwnedFd, above: &Path, path: &Path) -> FsResult<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(clone, below(above, path).ok_or(Errno::XDEV)?, flags, Mode::empty(), resolve)
}

/// Descriptors (`O_PATH`) of two directories, each given as one and its real path, through one
/// detached clone of the mount that both lie on. Names can be moved between them, and they keep no
/// mount busy that a user may want to take off, while the filesystem itself stays. The third is the
/// clone's own, to be kept as that of a [`SharedClone`]. It keeps `access_times` as far as it may.
///
/// # Errors
/// As [`clone_read_only`]; `EXDEV` where they lie on different mounts.
pub fn clone_for_both(
    one: (&OwnedFd, &Path),
    other: (&OwnedFd, &Path),
    access_times: AccessTimes,
) -> FsResult<(OwnedFd, OwnedFd, OwnedFd)> {
    let above = in_both(one.1, other.1);
    let root = file::open_root(&above)?;
    let mount = mount_id(&root)?;
    if mount_id(one.0)? != mount || mount_id(other.0)? != mount {
        return Err(Errno::XDEV);
    }
    let clone = clone_of(&root)?;
    // Locked in user namespaces that did not make the mount.
    match access_times.apply(&clone) {
        Err(Errno::PERM) => {}
        other => other?,
    }
    let inside = |path: &Path| beneath(&clone, &above, path);
    Ok((inside(one.1)?, inside(other.1)?, clone))
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
