//! Where a node lies on disk, and reaching it there.

use std::ffi::OsStr;
use std::sync::Arc;

use super::node::{Alias, Node};
use super::{Name, Overlay};
use crate::error::{Errno, FsResult};
use crate::sys::stat::{Stat, stat_at, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, file};

/// A file in a layer: an open descriptor of it, or the directory that holds it and its name.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// The file itself, `O_PATH` or better.
    Fd(Arc<OwnedFd>),
    /// A directory by its own descriptor.
    Dir(Arc<OwnedFd>),
    /// A name in a directory.
    Entry(Arc<OwnedFd>, Name),
}

/// How often a file is opened again that a lease holds back: the lease is there for microseconds.
const LEASE_TRIES: usize = 1000;

impl At {
    /// Its attributes in its layer.
    pub(super) fn stat(&self) -> FsResult<Stat> {
        match self {
            At::Fd(fd) | At::Dir(fd) => stat_fd(fd),
            At::Entry(dir, name) => stat_at(dir, name),
        }
    }

    /// Opens it.
    pub(super) fn open(&self, flags: OFlags) -> FsResult<OwnedFd> {
        let open = || match self {
            At::Fd(fd) => file::reopen(fd, flags),
            At::Dir(fd) => file::open_at(fd, OsStr::new("."), flags),
            At::Entry(dir, name) => file::open_at(dir, name, flags),
        };
        // Another thread may be asking just now who writes to it: see `sys::lease`.
        for _ in 0..LEASE_TRIES {
            match open() {
                Err(Errno::AGAIN) => std::thread::yield_now(),
                other => return other,
            }
        }
        open()
    }

    /// A descriptor that names it.
    pub(super) fn path_fd(&self) -> FsResult<Arc<OwnedFd>> {
        match self {
            At::Fd(fd) | At::Dir(fd) => Ok(fd.clone()),
            At::Entry(dir, name) => Ok(Arc::new(file::open_path_at(dir, name)?)),
        }
    }

    /// The directory and name for calls that take both; a descriptor goes with an empty name.
    pub(super) fn dir_and_name(&self) -> (&Arc<OwnedFd>, &OsStr) {
        match self {
            At::Fd(fd) => (fd, OsStr::new("")),
            At::Dir(fd) => (fd, OsStr::new(".")),
            At::Entry(dir, name) => (dir, name.as_os_str()),
        }
    }

    /// It as the target of xattr calls.
    pub(super) fn xattrs(&self) -> Target<'_> {
        match self {
            At::Fd(fd) => Target::fd(fd),
            At::Dir(fd) => Target::dir(fd),
            At::Entry(dir, name) => Target::at(dir, name),
        }
    }
}

impl Overlay {
    /// Calls `use_it` with the place of `node`, which stays its place meanwhile: its name can
    /// be neither removed nor renamed. The caller must hold no lock on a directory.
    pub(super) fn at<T>(
        &self,
        node: &Arc<Node>,
        mut use_it: impl FnMut(&At) -> FsResult<T>,
    ) -> FsResult<T> {
        loop {
            let alias = match self.fixed_place(node)? {
                Ok(at) => return use_it(&at),
                Err(alias) => alias,
            };
            let dir = alias.parent.directory()?;
            // A lookup may hold the lock for reading already.
            let _names_stay = dir.state.read_recursive();
            if !node.has_name(&alias.parent, &alias.name) {
                continue;
            }
            let fd = self.dir_fds.get(dir.upper()?)?;
            return use_it(&At::Entry(fd, alias.name.clone()));
        }
    }

    /// The place of `node` where no name of the upper is involved; else one of its names.
    fn fixed_place(&self, node: &Arc<Node>) -> FsResult<Result<At, Alias>> {
        let state = node.state.lock();
        if let Some(fd) = state.pinned() {
            return Ok(Ok(At::Fd(fd.clone())));
        }
        if let Some(dir) = &node.dir {
            drop(state);
            return Ok(Ok(At::Dir(self.dir_fds.get(dir.top()?)?)));
        }
        let lower = state.lower_attributes().filter(|_| !node.is_upper());
        if let Some((dir, name)) = lower {
            drop(state);
            return Ok(Ok(At::Entry(self.dir_fds.get(&dir)?, name)));
        }
        if let Some(entry) = state.index().cloned() {
            drop(state);
            return Ok(Ok(At::Entry(self.index_dir()?, entry)));
        }
        state.first_name().cloned().map(Err).ok_or(Errno::NOENT)
    }
}
