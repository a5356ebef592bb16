//! Renaming: first a pure plan of what stands where, then its execution.
//!
//! The source lies in the upper by then (copied up first), and its whiteout, where one is
//! needed, comes to be in the same system call: `RENAME_WHITEOUT`, or an exchange with the
//! whiteout that stands at the target. No observer sees both names or neither, and no crash
//! brings the source back.

use std::ffi::OsStr;
use std::sync::Arc;

use super::copy_up::Data;
use super::directory::{DirState, Directory};
use super::layer_dir::name_of;
use super::listing::{Listed, Listing, Occupant};
use super::node::Node;
use super::{Entry, Name, NodeId, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::LayerIndex;
use crate::layer::upper::{Present, Upper};
use crate::layer::whiteout::{self, Style};
use crate::layer::xattrs::Mark;
use crate::sys::xattr::Target;
use crate::sys::{OwnedFd, RenameFlags, dir as sys_dir, node as sys_node};

/// One end of a rename.
struct End {
    parent: Arc<Node>,
    name: Name,
    /// What is there; `None` at a target where nothing is.
    node: Option<Arc<Node>>,
    /// Its link count.
    nlink: u32,
}

/// How the source's name is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// With nothing: no lower has the name.
    Nothing,
    /// With a whiteout.
    Whiteout,
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
        self.check_movable(source)?;
        if let (true, Some(target)) = (exchange, &to.node) {
            self.check_movable(target)?;
        }
        self.copy_up(&from.parent, Data::Attributes)?;
        self.copy_up(&to.parent, Data::Attributes)?;
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
        let _moves =
            (across || source.dir.is_some() || to.node.is_some()).then(|| self.moves.lock());
        check_loops(source, from, to, exchange)?;
        let _names = self.lock_both(&from.parent, &to.parent)?;
        let target_moved = to.node.as_ref().is_some_and(|t| !t.has_name(&to.parent, &to.name));
        if !source.has_name(&from.parent, &from.name) || target_moved {
            return Err(Errno::NOENT);
        }
        if exchange { self.exchange(from, to) } else { self.replace(from, to) }
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
    ) -> FsResult<(
        parking_lot::RwLockWriteGuard<'a, DirState>,
        Option<parking_lot::RwLockWriteGuard<'a, DirState>>,
    )> {
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

    /// Runs a rename; that of a directory so that no walk through it goes astray.
    fn moving(&self, node: &Node, to: &End, rename: impl FnOnce() -> FsResult<()>) -> FsResult<()> {
        match &node.dir {
            None => rename(),
            Some(dir) => {
                let parent = to.parent.directory()?.upper()?;
                self.dir_fds.moving(dir.upper()?, parent, &to.name, rename)
            }
        }
    }

    /// Marks an upper file or directory so that it means the same under its new name. A crash
    /// after this and before the rename leaves the view as it was.
    fn mark_for_move(
        &self,
        upper: &Upper,
        node: &Node,
        to_dir: &Directory,
        to_fd: &OwnedFd,
        lower_at_target: bool,
    ) -> FsResult<()> {
        if self.has_origin(node) {
            self.mark_impure(upper, to_dir, to_fd)?;
        }
        let Some(dir) = &node.dir else { return Ok(()) };
        let own = self.dir_fds.get(dir.upper()?)?;
        if let Some(path) = &dir.lower_path {
            let value = path.redirect().to_bytes();
            return match upper.set_mark(Target::fd(&own), Mark::Redirect, &value) {
                // The path does not fit into an xattr here: let the caller copy the tree.
                Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::OPNOTSUPP) => {
                    Err(Errno::XDEV)
                }
                other => other,
            };
        }
        if lower_at_target && upper.namespace.get(Target::fd(&own), Mark::Opaque)?.is_none() {
            return upper.set_mark(Target::fd(&own), Mark::Opaque, b"y");
        }
        Ok(())
    }

    /// Replaces an upper directory that holds only whiteouts by one that holds nothing, which a
    /// rename can replace. Users see an empty directory before and after.
    fn clear_target(
        &self,
        upper: &Upper,
        dir: &OwnedFd,
        name: &Name,
        met: Occupant,
    ) -> FsResult<()> {
        let fd = crate::sys::file::open_path_at(dir, name)?;
        let readable = sys_dir::open_dir(&fd, OsStr::new("."))?;
        if sys_dir::read_dir(&readable, |_| Ok(false))? {
            return Ok(());
        }
        let mut stat = crate::sys::stat::stat_fd(&fd)?;
        self.add_stored(LayerIndex::UPPER, Target::fd(&fd), &mut stat)?;
        let staged = upper.work.fresh_name();
        let staging = upper.work.staging();
        let mode = if self.stores_stat() { 0o700 } else { stat.mode & 0o7777 };
        sys_node::make_dir(staging, &staged, mode)?;
        let prepared = (|| {
            let made = crate::sys::file::open_path_at(staging, &staged)?;
            if !upper.store_stat(&made, &stat)? {
                sys_node::set_owner(staging, &staged, Some(stat.uid), Some(stat.gid))?;
            }
            if met.below {
                upper.set_mark(Target::fd(&made), Mark::Opaque, b"y")?;
            }
            Ok(())
        })();
        if let Err(errno) = prepared {
            upper.work.discard(&staged);
            return Err(errno);
        }
        upper.publish(&staged, dir, name, RenameFlags::EXCHANGE)?;
        upper.work.discard(&staged);
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

/// Moves the source over what is `present` at the target and leaves its name as it must be left.
fn move_over(
    upper: &Upper,
    (from_fd, from): (&OwnedFd, &End),
    (to_fd, to): (&OwnedFd, &End),
    is_dir: bool,
    present: Present,
    leave: Leave,
) -> FsResult<()> {
    let rename = |flags| sys_node::rename(from_fd, &from.name, to_fd, &to.name, flags);
    let hidden_by_file = present == Present::Whiteout && upper.is_file_whiteout(to_fd, &to.name)?;
    if leave == Leave::Whiteout && (upper.style != Style::Device || hidden_by_file) {
        return move_and_hide(upper, from_fd, from, to_fd, to, present);
    }
    match (present, leave) {
        (Present::Whiteout, _) if hidden_by_file => {
            rename(RenameFlags::empty())?;
            upper.remove_whiteout(to_fd, &to.name)
        }
        // A directory cannot replace the whiteout, but it can change places with it; at the
        // source it then hides a lower name, or nothing and is removed.
        (Present::Whiteout, Leave::Whiteout) if is_dir => rename(RenameFlags::EXCHANGE),
        (Present::Whiteout, Leave::Nothing) if is_dir => {
            rename(RenameFlags::EXCHANGE)?;
            upper.remove_whiteout(from_fd, &from.name)
        }
        (_, Leave::Whiteout) => rename(RenameFlags::WHITEOUT),
        (_, Leave::Nothing) => rename(RenameFlags::empty()),
    }
}

/// As [`move_over`] where whiteouts are no devices. The whiteout of the source is made first, in
/// the form of a file beside it, which hides nothing while the source is there.
fn move_and_hide(
    upper: &Upper,
    from_fd: &OwnedFd,
    from: &End,
    to_fd: &OwnedFd,
    to: &End,
    present: Present,
) -> FsResult<()> {
    whiteout::make(from_fd, &from.name, Style::File, upper.namespace)?;
    if present == Present::Whiteout && !upper.is_file_whiteout(to_fd, &to.name)? {
        upper.remove_whiteout(to_fd, &to.name)?;
    }
    sys_node::rename(from_fd, &from.name, to_fd, &to.name, RenameFlags::empty())?;
    if let Some(file) = whiteout::file_name(&to.name).filter(|_| present == Present::Whiteout) {
        match sys_node::unlink(to_fd, &file) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn put(listing: &mut Listing, node: &Node, name: &Name, below: bool) {
    let ino = node.state.lock().ino;
    listing.put(Listed::in_upper(name, node.kind(), ino, below));
}
