//! Removing files and directories.
//!
//! What has a lower entry below leaves a whiteout, in the same atomic step; anything else leaves
//! nothing. No data is copied up for it.

use std::ffi::OsStr;
use std::sync::Arc;

use super::copy_up::Data;
use super::directory::{DirState, Directory};
use super::frozen::{Change, permits};
use super::layer_dir::name_of;
use super::listing::{Listed, Occupant};
use super::node::Node;
use super::node_state::NodeState;
use super::sync::RwLockWriteGuard;
use super::{Name, NodeId, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::upper::{Present, Upper};
use crate::sys::stat::stat_fd;
use crate::sys::{OwnedFd, file};

/// A file one of whose names is about to go.
pub(super) struct Victim {
    node: Arc<Node>,
    /// It is the last that the upper inode has.
    last: bool,
}

impl Overlay {
    /// Removes a name of a file.
    pub fn unlink(&self, parent: NodeId, name: &OsStr) -> FsResult<()> {
        check_name(name)?;
        let directory = self.nodes.get(parent)?;
        self.upper()?;
        let entry = self.lookup(parent, name)?;
        let found = permits(&entry.stat, Change::Alters).and_then(|()| self.nodes.get(entry.node));
        let removed = found.and_then(|node| {
            self.unlink_found(&directory, &name_of(name), &node, entry.stat.nlink)
        });
        self.forget(entry.node, 1);
        removed
    }

    fn unlink_found(
        &self,
        parent: &Arc<Node>,
        name: &Name,
        node: &Arc<Node>,
        nlink: u32,
    ) -> FsResult<()> {
        if node.dir.is_some() {
            return Err(Errno::ISDIR);
        }
        let dir = parent.directory()?;
        self.copy_up_to(Change::Alters, parent, Data::Attributes)?;
        self.prepare_removal(node, parent, name)?;

        let _names = self.write_names(dir)?;
        if !node.has_name(parent, name) {
            return Err(Errno::NOENT);
        }
        let occupant = self.occupant(dir, name)?;
        let upper = self.upper()?;
        let fd = self.dir_fds.get(dir.upper()?)?;
        let victim = self.before_removal(&fd, name, node, occupant, nlink)?;
        take_away(upper, &fd, name, occupant)?;
        self.after_removal(parent, name, victim)?;
        self.relist_removed(parent, name, occupant);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTEMPTY` with nothing changed.
    pub fn rmdir(&self, parent: NodeId, name: &OsStr) -> FsResult<()> {
        check_name(name)?;
        let directory = self.nodes.get(parent)?;
        self.upper()?;
        let entry = self.lookup(parent, name)?;
        let removed = permits(&entry.stat, Change::Alters)
            .and_then(|()| self.rmdir_found(&directory, &name_of(name), entry.node));
        self.forget(entry.node, 1);
        removed
    }

    fn rmdir_found(&self, parent: &Arc<Node>, name: &Name, child: NodeId) -> FsResult<()> {
        let dir = parent.directory()?;
        let child = self.nodes.get(child)?;
        let child_dir = child.directory()?;
        self.copy_up_to(Change::Alters, parent, Data::Attributes)?;

        let _names = self.write_names(dir)?;
        let mut child_state = child_dir.state.write();
        if child_state.dead || !child.has_name(parent, name) {
            return Err(Errno::NOENT);
        }
        let fd = self.dir_fds.get(dir.upper()?)?;
        if !self.is_empty(child_dir)? {
            // Whether it may be removed at all is asked first, as everywhere.
            permits(&stat_fd(&fd)?, Change::Alters)?;
            return Err(Errno::NOTEMPTY);
        }
        let occupant = self.occupant(dir, name)?;
        let upper = self.upper()?;
        let held = self.dir_fds.get(child_dir.top()?)?;
        take_away(upper, &fd, name, occupant)?;
        child_state.dead = true;
        drop(child_state);
        self.bury_directory(&child, held);
        self.relist_removed(parent, name, occupant);
        Ok(())
    }

    /// A removed directory goes on as the empty one that those inside it may still see.
    pub(super) fn bury_directory(&self, child: &Arc<Node>, held: Arc<OwnedFd>) {
        let names = {
            let mut state = child.state.lock();
            state.pin(Some(held));
            child.set_dead(true);
            state.take_names()
        };
        self.nodes.drop_keys(child);
        drop(names);
    }

    /// The lock on the names of a directory that is alive.
    pub(super) fn write_names<'a>(
        &self,
        dir: &'a Directory,
    ) -> FsResult<RwLockWriteGuard<'a, DirState>> {
        let state = dir.state.write();
        if state.dead { Err(Errno::NOENT) } else { Ok(state) }
    }

    /// Whether a merged directory has no visible entry. The caller holds the lock on its names.
    pub(super) fn is_empty(&self, dir: &Directory) -> FsResult<bool> {
        if let Some(listing) = dir.listing.read().as_ref() {
            return Ok(listing.is_empty());
        }
        let listing = self.build_listing(dir, usize::MAX)?;
        Ok(listing.is_none_or(|listing| listing.is_empty()))
    }

    /// Prepares the removal of a name of a file: an upper inode whose last known name this is
    /// must be held, or descriptors that are open on it could not be served. `nlink` is the link
    /// count that the caller's lookup found; the kernel adds no link to an inode meanwhile.
    pub(super) fn before_removal(
        &self,
        dir: &OwnedFd,
        name: &Name,
        node: &Arc<Node>,
        occupant: Occupant,
        nlink: u32,
    ) -> FsResult<Victim> {
        let in_upper = occupant.present == Present::File;
        let must_hold = |state: &NodeState| {
            state.names().count() <= 1 && state.pinned().is_none() && state.index().is_none()
        };
        let wanted = in_upper && must_hold(&node.state.lock());
        if wanted {
            let held = Arc::new(file::open_path_at(dir, name)?);
            node.state.lock().pin(Some(held));
        }
        let indexed = node.state.lock().index().is_some();
        Ok(Victim { node: node.clone(), last: in_upper && !indexed && nlink <= 1 })
    }

    /// Takes note that the name of a node is gone.
    pub(super) fn after_removal(
        &self,
        parent: &Arc<Node>,
        name: &Name,
        victim: Victim,
    ) -> FsResult<()> {
        let Victim { node, last } = victim;
        node.remove_name(parent, name);
        let mut state = node.state.lock();
        if state.index().is_some() {
            drop(state);
            return self.after_index_removal(&node);
        }
        if state.first_name().is_none() {
            node.set_dead(last || !node.is_upper());
        } else if !node.is_dead() {
            // Another name leads to it: a held descriptor is of no further use.
            state.pin(None);
        }
        drop(state);
        if last {
            // The filesystem may use the inode's number again once we let go of it.
            self.nodes.drop_keys(&node);
        }
        Ok(())
    }

    /// The listing after a name was removed.
    pub(super) fn relist_removed(&self, parent: &Arc<Node>, name: &Name, occupant: Occupant) {
        self.relist(parent, |listing| {
            if !occupant.below {
                return listing.remove(name);
            }
            listing.put(Listed::hidden(name));
        });
    }
}

/// Removes what the upper holds and hides what lies below, in one step.
fn take_away(upper: &Upper, dir: &OwnedFd, name: &Name, occupant: Occupant) -> FsResult<()> {
    if occupant.below {
        upper.whiteout(dir, name, occupant.present)
    } else {
        upper.remove(dir, name, occupant.present)
    }
}
