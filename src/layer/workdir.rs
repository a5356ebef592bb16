//! Staging beside the upper: made here, then published by one rename or link.
//!
//! The directory named by `workdir=` holds `work/` (staging, emptied at mount and at the end)
//! and, once hard links were copied up, `index/`: the layout of kernel overlayfs. Whatever a
//! crash leaves in `work/` was never visible, so the next mount removes it unseen.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::xattr::{self, Target};
use crate::sys::{self, OFlags, OwnedFd, dir, file, node, tree};

const STAGING: &str = "work";

/// In staging, the directory whose entries name what a mount must know to use the upper.
const INCOMPATIBLE: &str = "incompat";

/// The entry of a volatile mount.
const VOLATILE: &str = "volatile";

/// The staging directory of one live mount.
#[derive(Debug)]
pub struct Workdir {
    /// The directory that the user named; holds the lock of the mount.
    base: OwnedFd,
    /// `work/` in it.
    staging: OwnedFd,
    /// Staging was there already: whoever had it last did not end cleanly.
    was_in_use: bool,
    next: AtomicU64,
}

impl Workdir {
    /// Takes the workdir `root`, found at `path`, for this mount: locks it, and empties its staging.
    ///
    /// # Errors
    /// Names the path where it is missing or in use by another live mount.
    pub fn open(root: &OwnedFd, path: &Path) -> Result<Workdir> {
        let failed = |action| move |errno| Error::io(action, path, errno);
        let base = dir::open_dir(root, OsStr::new(".")).map_err(failed("open workdir"))?;
        take(&base, "workdir", path)?;
        let (staging, was_in_use) = private_dir(&base, OsStr::new(STAGING))
            .map_err(failed("create directory in workdir"))?;
        let workdir = Workdir { base, staging, was_in_use, next: AtomicU64::new(0) };
        workdir.refuse_unclean(path)?;
        workdir.empty().map_err(failed("clean workdir"))?;
        Ok(workdir)
    }

    /// Refuses what a volatile mount, ours or the kernel's, did not leave cleanly.
    fn refuse_unclean(&self, path: &Path) -> Result<()> {
        match sys::stat::stat_at(&self.staging, OsStr::new(INCOMPATIBLE)) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("clean workdir", path, errno)),
            Ok(_) => Err(Error::Refused(format!(
                "workdir {}: a volatile mount of it did not end cleanly, and files of its upper \
                 may be damaged; start with a new upper, or remove {STAGING}/{INCOMPATIBLE} in \
                 the workdir to use this one all the same",
                path.display()
            ))),
        }
    }

    /// Leaves the mark by which every later mount, the kernel's too, knows that what was written
    /// meanwhile may never have reached the disk. [`Workdir::close`] takes it away.
    pub fn mark_volatile(&self) -> FsResult<()> {
        let incompatible = OsStr::new(INCOMPATIBLE);
        node::make_dir(&self.staging, incompatible, 0o700)?;
        let dir = file::open_at(&self.staging, incompatible, OFlags::PATH | OFlags::DIRECTORY)?;
        node::make_dir(&dir, OsStr::new(VOLATILE), 0o700)
    }

    /// The staging directory, an `O_PATH` descriptor.
    pub fn staging(&self) -> &OwnedFd {
        &self.staging
    }

    /// Whether whoever had it last did not end cleanly.
    pub fn was_in_use(&self) -> bool {
        self.was_in_use
    }

    /// The directory that the user named.
    pub fn base(&self) -> &OwnedFd {
        &self.base
    }

    /// A name that nothing in staging has.
    pub fn fresh_name(&self) -> OsString {
        OsString::from(format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Removes whatever a published operation left in staging under `name`. A failure is logged
    /// and left to the next mount: the operation itself is done.
    pub fn discard(&self, name: &OsStr) {
        if let Err(errno) = remove_tree(&self.staging, name) {
            tracing::warn!(?name, %errno, "cannot remove from workdir; the next mount will");
        }
    }

    /// Empties staging.
    fn empty(&self) -> FsResult<()> {
        remove_children(&self.staging)
    }

    /// Empties and removes staging, so that the workdir is left as it was found.
    pub fn close(&self) -> FsResult<()> {
        self.empty()?;
        match node::remove_dir(&self.base, OsStr::new(STAGING)) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

/// The directory `base`/`name`, made where there is none, and whether it was there. What lies in it
/// may have any mode, also while nobody is to have it yet: only its owner gets in, whoever made it,
/// and it has no ACL.
pub fn private_dir(base: &OwnedFd, name: &OsStr) -> FsResult<(OwnedFd, bool)> {
    const PRIVATE: u32 = 0o700;
    let was_there = match node::make_dir(base, name, PRIVATE) {
        Ok(()) => false,
        Err(Errno::EXIST) => true,
        Err(errno) => return Err(errno),
    };
    let dir = file::open_at(base, name, OFlags::PATH | OFlags::DIRECTORY)?;
    if was_there && sys::stat::stat_fd(&dir)?.mode & 0o7777 != PRIVATE {
        node::set_mode(&dir, PRIVATE)?;
    }
    // What is made in it would get the ACL that directories hand on.
    xattr::remove_acls(Target::dir(&dir))?;
    Ok((dir, was_there))
}

/// Locks a directory for this mount, as long as `dir` is open.
///
/// # Errors
/// [`Error::InUse`] where another live mount has it.
pub fn take(dir: &OwnedFd, what: &'static str, path: &Path) -> Result<()> {
    match rustix::fs::flock(dir, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(Error::InUse {
            what: format!("{what} {}", path.display()),
            by: "another mount has it: unmount that one, or name another directory".into(),
        }),
        Err(errno) => Err(Error::io("lock", path, errno)),
    }
}

/// Removes `parent`/`name` with all below it; it is no error if it is not there. Most are one call:
/// a whiteout, a file, or a directory that is empty.
fn remove_tree(parent: &OwnedFd, name: &OsStr) -> FsResult<()> {
    match node::unlink(parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match node::remove_dir(parent, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::PERM) => {
            tree::remove(parent, name)
        }
        Err(errno) => Err(errno),
    }
}

/// Removes everything in the directory `parent`.
fn remove_children(parent: &OwnedFd) -> FsResult<()> {
    let readable = dir::open_dir(parent, OsStr::new("."))?;
    loop {
        // Removing while reading may hide entries from getdents, so read until nothing is left.
        let mut names = Vec::new();
        dir::read_dir(&readable, |entry| {
            names.push(entry.name.to_owned());
            Ok(names.len() < 4096)
        })?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            remove_tree(parent, &name)?;
        }
    }
}
