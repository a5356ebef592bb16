//! Renaming: first a pure plan of what stands where, then its execution.
//!
//! The source lies in the upper by then (copied up first), and its whiteout, where one is
//! needed, comes to be in the same system call: `RENAME_WHITEOUT`, or an exchange with the
//! whiteout that stands at the target. No observer sees both names or neither, and no crash
//! brings the source back.

use std::ffi::OsStr;
use std::sync::Arc;

use super::copy_up::Data;
use super::directory::DirState;
use super::frozen::{Change, permits};
use super::layer_dir::name_of;
use super::listing::{Listed, Listing};
use super::moving::{Leave, move_over};
use super::node::Node;
use super::sync::RwLockWriteGuard;
use super::{Entry, Name, NodeId, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::upper::Present;
use crate::layer::whiteout;
use crate::sys::{RenameFlags, node as sys_node};

/// One end of a rename.
pub(super) struct End {
    pub parent: Arc<Node>,
    pub name: Name,
    /// What is there; `None` at a target where nothing is.
    pub node: Option<Arc<Node>>,
    /// Its link count.
    nlink: u32,
}

impl Overlay {
    /// Renames, replaces or exchanges.
    ///
    /// # Errors
    /// `EXDEV` for a directory with a lower part where redirects are off; `EINVAL` for a
    /// directory into itself and for a user's `RENAME_WHITEOUT`.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &OsStr,
        new_parent: NodeId,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let no_replace = flags.contains(RenameFlags::NOREPLACE);
        let known = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
        if !(flags - known).is_empty() || (exchange && no_replace) {
            return Err(Errno::INVAL);
        }
        check_name(name)?;
        check_name(new_name)?;
        if whiteout::is_reserved_name(new_name) {
            return Err(Errno::INVAL);
        }
        self.upper()?;
        let source = self.lookup(parent, name)?;
        let target = match self.lookup(new_parent, new_name) {
            Err(Errno::NOENT) if !exchange => None,
            Err(errno) => {
                self.forget(source.node, 1);
                return Err(errno);
            }
            Ok(target) => Some(target),
        };
        let end = |parent, name, found: Option<Entry>| -> FsResult<End> {
            let node = found.map(|entry| self.nodes.get(entry.node)).transpose()?;
            if let Some(found) = &found {
                permits(&found.stat, Change::Alters)?;
            }
            let nlink = found.map_or(0, |entry| entry.stat.nlink);
            Ok(End { parent: self.nodes.get(parent)?, name: name_of(name), node, nlink })
        };
        let done = (|| {
            let from = end(parent, name, Some(source))?;
            let to = end(new_parent, new_name, target)?;
            self.rename_found(&from, &to, exchange, no_replace)
        })();
        for looked in [Some(source), target].into_iter().flatten() {
            self.forget(looked.node, 1);
        }
        done
    }

    fn rename_found(&self, from: &End, to: &End, exchange: bool, no_replace: bool) -> FsResult<()> {
        let source = from.node.as_ref().ok_or(Errno::NOENT)?;
        if no_replace && to.node.is_some() {
            return Err(Errno::EXIST);
        }
        if to.node.as_ref().is_some_and(|target| Arc::ptr_eq(target, source)) {
            // Two names of one file, or one name twice: nothing to do.
            return Ok(());
        }
        check_types(source, to.node.as_deref(), exchange)?;
        let upper = self.upper()?;
        self.check_movable(source)?;
        if let (true, Some(target)) = (exchange, &to.node) {
            self.check_movable(target)?;
        }
        let change = if to.node.is_some() { Change::Alters } else { Change::Adds };
        self.copy_up_to(Change::Alters, &from.parent, Data::Attributes)?;
        self.copy_up_to(change, &to.parent, Data::Attributes)?;
        self.copy_up(source, Data::Attributes)?;
        self.ready_to_move(source, from)?;
        match &to.node {
            Some(target) if exchange => {
                self.copy_up(target, Data::Attributes)?;
                self.ready_to_move(target, to)?;
            }
            Some(target) => self.prepare_removal(target, &to.parent, &to.name)?,
            None => {}
        }

        let across = !Arc::ptr_eq(&from.parent, &to.parent);
        if across {
            self.settle_from(upper, &to.parent)?;
            if exchange {
                self.settle_from(upper, &from.parent)?;
            }
        }
        let _moves =
            (across || source.dir.is_some() || to.node.is_some()).then(|| self.moves.lock());
        check_loops(source, from, to, exchange)?;
        let _names = self.lock_both(&from.parent, &to.parent)?;
        let target_moved = to.node.as_ref().is_some_and(|t| !t.has_name(&to.parent, &to.name));
        if !source.has_name(&from.parent, &from.name) || target_moved {
            return Err(Errno::NOENT);
        }
        let done = if exchange { self.exchange(from, to) } else { self.replace(from, to) };
        if upper.reorders() {
            source.set_place_unsynced();
            if let (true, Some(target)) = (exchange, &to.node) {
                target.set_place_unsynced();
            }
        }
        done
    }

    /// Makes sure that a copied-up file stands in the upper under this of its names, and that
    /// its data is found from wherever it goes.
    fn ready_to_move(&self, node: &Arc<Node>, end: &End) -> FsResult<()> {
        if node.dir.is_some() {
            return Ok(());
        }
        self.ensure_upper_name(node, &end.parent, &end.name)?;
        if node.has_upper_data() {
            return Ok(());
        }
        let held = self.at(node, |at| at.path_fd())?;
        self.redirect_data(self.upper()?, node, &held)
    }

    /// Whether a directory can be renamed at all.
    fn check_movable(&self, node: &Node) -> FsResult<()> {
        match &node.dir {
            Some(dir) if !dir.lowers.is_empty() && !self.policy.make_redirects => Err(Errno::XDEV),
            _ => Ok(()),
        }
    }

    /// Locks the names of both directories, an ancestor before what lies in it.
    fn lock_both<'a>(
        &self,
        a: &'a Arc<Node>,
        b: &'a Arc<Node>,
    ) -> FsResult<(RwLockWriteGuard<'a, DirState>, Option<RwLockWriteGuard<'a, DirState>>)> {
        let (first, second) = (a.directory()?, b.directory()?);
        if Arc::ptr_eq(a, b) {
            return Ok((self.write_names(first)?, None));
        }
        // Renames between two directories do not overlap (`moves`), so that unrelated ones may
        // be locked in any order.
        if is_below(a, b) {
            let outer = self.write_names(second)?;
            return Ok((self.write_names(first)?, Some(outer)));
        }
        let outer = self.write_names(first)?;
        Ok((outer, Some(self.write_names(second)?)))
    }

    fn replace(&self, from: &End, to: &End) -> FsResult<()> {
        let upper = self.upper()?;
        let source = from.node.as_ref().ok_or(Errno::NOENT)?;
        let (from_dir, to_dir) = (from.parent.directory()?, to.parent.directory()?);
        let left = self.occupant(from_dir, &from.name)?;
        let met = self.occupant(to_dir, &to.name)?;
        if met.is_visible() != to.node.is_some() {
            return Err(Errno::BUSY);
        }
        let from_fd = self.dir_fds.get(from_dir.upper()?)?;
        let to_fd = self.dir_fds.get(to_dir.upper()?)?;
        self.mark_for_move(upper, source, to_dir, &to_fd, met.below)?;

        let target_dir = to.node.as_ref().and_then(|target| target.dir.as_deref());
        let mut target_state = target_dir.map(|dir| dir.state.write());
        let mut buried = None;
        if let Some(dir) = target_dir {
            if !self.is_empty(dir)? {
                return Err(Errno::NOTEMPTY);
            }
            buried = Some(self.dir_fds.get(dir.top()?)?);
            if met.present == Present::Dir {
                self.clear_target(upper, &to_fd, &to.name, met)?;
            }
        }
        let victim = match &to.node {
            Some(target) if target.dir.is_none() => {
                Some(self.before_removal(&to_fd, &to.name, target, met, to.nlink)?)
            }
            _ => None,
        };
        let leave = if left.below { Leave::Whiteout } else { Leave::Nothing };
        let is_dir = source.dir.is_some();
        let step = || move_over(upper, (&from_fd, from), (&to_fd, to), is_dir, met.present, leave);
        self.moving(source, to, step)?;

        if let (Some(target), Some(held)) = (&to.node, buried) {
            if let Some(state) = &mut target_state {
                state.dead = true;
            }
            drop(target_state);
            self.bury_directory(target, held);
        }
        if let Some(victim) = victim {
            self.after_removal(&to.parent, &to.name, victim)?;
        }
        source.remove_name(&from.parent, &from.name);
        source.add_name(&to.parent, &to.name);
        self.relist_removed(&from.parent, &from.name, left);
        self.relist(&to.parent, |listing| put(listing, source, &to.name, met.below));
        Ok(())
    }

    fn exchange(&self, from: &End, to: &End) -> FsResult<()> {
        let upper = self.upper()?;
        let source = from.node.as_ref().ok_or(Errno::NOENT)?;
        let target = to.node.as_ref().ok_or(Errno::NOENT)?;
        let (from_dir, to_dir) = (from.parent.directory()?, to.parent.directory()?);
        let left = self.occupant(from_dir, &from.name)?;
        let met = self.occupant(to_dir, &to.name)?;
        let from_fd = self.dir_fds.get(from_dir.upper()?)?;
        let to_fd = self.dir_fds.get(to_dir.upper()?)?;
        self.mark_for_move(upper, source, to_dir, &to_fd, met.below)?;
        self.mark_for_move(upper, target, from_dir, &from_fd, left.below)?;

        let swap = || {
            let flags = RenameFlags::EXCHANGE;
            sys_node::rename(&from_fd, &from.name, &to_fd, &to.name, flags)
        };
        self.moving(source, to, swap)?;
        self.moving(target, from, || Ok(()))?;
        source.remove_name(&from.parent, &from.name);
        target.remove_name(&to.parent, &to.name);
        source.add_name(&to.parent, &to.name);
        target.add_name(&from.parent, &from.name);
        self.relist(&from.parent, |listing| put(listing, target, &from.name, left.below));
        self.relist(&to.parent, |listing| put(listing, source, &to.name, met.below));
        Ok(())
    }
}

/// What the kernel checks before it asks, for callers that come without one.
fn check_types(source: &Node, target: Option<&Node>, exchange: bool) -> FsResult<()> {
    match target {
        Some(target) if !exchange && source.dir.is_some() && target.dir.is_none() => {
            Err(Errno::NOTDIR)
        }
        Some(target) if !exchange && source.dir.is_none() && target.dir.is_some() => {
            Err(Errno::ISDIR)
        }
        _ => Ok(()),
    }
}

/// Refuses to move a directory into itself, and to replace one by what lies in it.
fn check_loops(source: &Arc<Node>, from: &End, to: &End, exchange: bool) -> FsResult<()> {
    let inside = |outer: &Arc<Node>, dir: &Arc<Node>| {
        outer.dir.is_some() && (Arc::ptr_eq(outer, dir) || is_below(dir, outer))
    };
    if inside(source, &to.parent) {
        return Err(Errno::INVAL);
    }
    match &to.node {
        Some(target) if inside(target, &from.parent) => {
            Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY })
        }
        _ => Ok(()),
    }
}

/// Whether `node` lies somewhere below `ancestor`.
fn is_below(node: &Arc<Node>, ancestor: &Arc<Node>) -> bool {
    let mut at = node.clone();
    while let Ok(alias) = at.alias() {
        if Arc::ptr_eq(&alias.parent, ancestor) {
            return true;
        }
        at = alias.parent;
    }
    false
}

fn put(listing: &mut Listing, node: &Node, name: &Name, below: bool) {
    let ino = node.state.lock().ino;
    listing.put(Listed::in_upper(name, node.kind(), ino, below));
}
