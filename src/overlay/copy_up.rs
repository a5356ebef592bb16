//! Copy-up: bringing a lower file into the upper before its first change.
//!
//! A copy is made complete (data, owner, mode, xattrs, times, origin) in the workdir, made
//! durable, and then published by one link or rename; only then does the node lie in the upper.
//! A crash before that leaves the old file and something in staging that was never visible; a
//! crash after it leaves the complete new one. Data is fsynced before it is published, also
//! where it was cloned: a clone published without that is an empty file after a power cut.
//!
//! One copy-up of a node runs at a time, under its own lock; users of other files wait for
//! nothing, but for the moment of publishing in the same directory.

use std::sync::Arc;

use rustix::fs::FileType;

use super::frozen::{Change, permits};
use super::layer_dir::{LayerDir, Marks};
use super::listing::Listed;
use super::node::{Alias, Node, RealKey};
use super::place::At;
use super::stage::{Source, Staged, copied_length, named, stage, stage_file, times_of};
use super::{Name, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::index::hold_count;
use crate::layer::origin::Origin;
use crate::layer::upper::Upper;
use crate::layer::xattrs::Mark;
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, RenameFlags, file, node};

/// How much of a file's data a change needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// All of it.
    All,
    /// At most the first so many bytes; what follows is about to be cut off.
    Upto(u64),
    /// None: only attributes, names or xattrs are about to change.
    Attributes,
}

impl Overlay {
    /// Makes sure that `node`, and the directories above it, lie in the upper. The caller holds
    /// no lock on a directory.
    ///
    /// # Errors
    /// `EROFS` without an upper; what copying may give (`ENOSPC`, `EDQUOT`, `EIO`), with the
    /// lower file still in place and nothing left behind.
    pub(super) fn copy_up(&self, node: &Arc<Node>, data: Data) -> FsResult<()> {
        self.copy_up_to(None, node, data)
    }

    /// As [`Overlay::copy_up`], for a `change` of `node` that the flags which it has in a lower
    /// must permit.
    ///
    /// # Errors
    /// `EPERM` where they do not.
    pub(super) fn copy_up_to(
        &self,
        change: impl Into<Option<Change>>,
        node: &Arc<Node>,
        data: Data,
    ) -> FsResult<()> {
        let change = change.into();
        let upper = self.upper()?;
        while !node.is_upper() {
            match node.alias() {
                Ok(alias) => {
                    let next = self.first_to_copy(node, alias)?;
                    match Arc::ptr_eq(&next, node) {
                        true => self.copy_up_one(upper, node, data, change)?,
                        false => self.copy_up_one(upper, &next, Data::All, None)?,
                    }
                }
                Err(Errno::NOENT) if node.dir.is_none() => {
                    self.copy_up_orphan(upper, node, data)?;
                }
                Err(errno) => return Err(errno),
            }
        }
        if data != Data::Attributes && !node.has_upper_data() {
            return self.copy_up_data(upper, node, data);
        }
        Ok(())
    }

    /// The topmost of `node` and the directories above it that is not in the upper.
    fn first_to_copy(&self, node: &Arc<Node>, alias: Alias) -> FsResult<Arc<Node>> {
        let mut next = node.clone();
        let mut parent = alias.parent;
        while !parent.is_upper() {
            let above = parent.alias()?.parent;
            next = std::mem::replace(&mut parent, above);
        }
        Ok(next)
    }

    fn copy_up_one(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        data: Data,
        change: Option<Change>,
    ) -> FsResult<()> {
        let _one_at_a_time = node.copy_up.lock();
        if node.is_upper() {
            return Ok(());
        }
        let source = self.source_of(node)?;
        let stat = self.as_kept(self.stat_of(node, &source.at)?);
        change.map_or(Ok(()), |change| permits(&stat, change))?;
        let grows = stat.append_only && stat.is_file() && change == Some(Change::Adds);
        let data = if grows { Data::All } else { data };
        let origin = self.origin_of(upper, &source.at, node);
        let entry = self.index_name(&stat, origin.as_ref());
        let linked = entry.is_some() && self.policy.metacopy_from.is_some();
        let attributes_only = data == Data::Attributes
            && (self.copies_attributes_only(node.kind(), &stat)
                || (linked && node.kind() == FileType::RegularFile));
        let data = if attributes_only { data } else { whole(data) };
        let (staged, key) = stage(upper, node.kind(), &source, &stat, data, origin.as_ref())?;
        let copied = Stat { dev: key.dev, ino: key.ino, ..stat };
        let published = self.publish_copy(upper, node, &staged, &copied, entry, attributes_only);
        if let (Err(_) | Ok(false), Staged::Named(name)) = (&published, &staged) {
            upper.work.discard(name);
        }
        if published? {
            self.note_copied(node);
            self.counters.copied_up(node.kind(), attributes_only);
            self.counters.copied_data(copied_length(node.kind(), &stat, data));
            if grows {
                self.only_appended_to(node)?;
            }
        }
        Ok(())
    }

    /// Where a node that is not copied up is copied from; lowers do not change.
    fn source_of(&self, node: &Node) -> FsResult<Source> {
        if let Some(dir) = &node.dir {
            let at = At::Dir(self.dir_fds.get(dir.top()?)?);
            return Ok(Source { data: at.clone(), at });
        }
        let (attributes, data) = {
            let state = node.state.lock();
            (state.lower_attributes(), state.lower())
        };
        let place = |lower: Option<(Arc<LayerDir>, Name)>| -> FsResult<At> {
            let (dir, name) = lower.ok_or(Errno::STALE)?;
            Ok(At::Entry(self.dir_fds.get(&dir)?, name))
        };
        Ok(Source { at: place(attributes)?, data: place(data)? })
    }

    /// What a lower's `stat` gives, with the owner to keep in the upper.
    fn as_kept(&self, stat: Stat) -> Stat {
        let (uid, gid) = (self.uids.kept(stat.uid), self.gids.kept(stat.gid));
        Stat { uid, gid, ..stat }
    }

    /// The origin to record on a copy; none where the filesystem has no handles.
    fn origin_of(&self, upper: &Upper, source: &At, node: &Node) -> Option<Origin> {
        let layer = match &node.dir {
            Some(dir) => dir.top().ok()?.layer,
            None => node.state.lock().lower_attributes()?.0.layer,
        };
        let (dir, name) = source.dir_and_name();
        let origin = || Origin::of(dir, name, self.layer_uuid(layer));
        upper.has_xattrs.then(origin).flatten()
    }

    /// Publishes a copy, whose attributes are `stat`. Returns `false` where the name was taken away
    /// meanwhile: then the caller looks again.
    fn publish_copy(
        &self,
        upper: &Upper,
        node: &Arc<Node>,
        staged: &Staged,
        stat: &Stat,
        entry: Option<Name>,
        attributes_only: bool,
    ) -> FsResult<bool> {
        let Ok(alias) = node.alias() else { return Ok(false) };
        let dir = alias.parent.directory()?;
        let state = dir.state.write();
        let still_there =
            node.state.lock().first_name().is_some_and(|now| now.is(&alias.parent, &alias.name));
        if state.dead || !still_there {
            return Ok(false);
        }
        let upper_dir = dir.upper()?;
        let fd = self.dir_fds.get(upper_dir)?;
        self.mark_impure(upper, dir, &fd)?;
        let before = stat_fd(&fd)?;
        let indexed = match &entry {
            Some(entry) => Some(self.publish_in_index(upper, staged, entry, stat)?),
            None => None,
        };
        match (staged, &indexed) {
            (_, Some(file)) => {
                let linked = node::link_fd(file, &fd, &alias.name);
                if linked.is_err() {
                    self.withdraw_from_index(entry.as_ref());
                }
                linked?;
            }
            (Staged::Unnamed(file), None) => node::link_fd(file, &fd, &alias.name)?,
            (Staged::Named(name), None) => {
                let staging = upper.work.staging();
                node::rename(staging, name, &fd, &alias.name, RenameFlags::NOREPLACE)?;
            }
        }
        if let Staged::Named(_) = staged {
            upper.moved_in(&fd, &alias.name);
        }
        if let Some(file) = &indexed
            && let Err(errno) = self.settle_link_count(upper, file)
        {
            tracing::warn!(%errno, "cannot update a link count; it is held until the next change");
        }
        // The copy is no change that users made: their directory keeps its times.
        if let Err(errno) = node::set_times(&fd, "".as_ref(), &times_of(&before)) {
            tracing::warn!(%errno, "cannot restore a directory's times after copy-up");
        }
        node.state.lock().set_index(entry);
        self.settle(node, upper_dir, &alias, stat, attributes_only)?;
        self.relist(&alias.parent, |listing| {
            let ino = node.state.lock().ino;
            listing.put_copied_up(Listed::in_upper(&alias.name, stat.file_type(), ino, true));
        });
        Ok(true)
    }

    /// Publishes the copy of a hard link in the index, where all its names will lead.
    fn publish_in_index(
        &self,
        upper: &Upper,
        staged: &Staged,
        entry: &Name,
        stat: &Stat,
    ) -> FsResult<OwnedFd> {
        let index = self.index_dir()?;
        let file = match staged {
            Staged::Unnamed(file) => file::reopen(file, OFlags::PATH)?,
            Staged::Named(name) => named(upper, name)?,
        };
        // It has as many names as the lower one, whichever of them are in the upper already.
        let names = stat.nlink;
        hold_count(upper.namespace, Target::fd(&file), names.into(), Some(names))?;
        match staged {
            Staged::Unnamed(file) => node::link_fd(file, &index, entry)?,
            Staged::Named(name) => {
                let staging = upper.work.staging();
                node::rename(staging, name, &index, entry, RenameFlags::NOREPLACE)?;
            }
        }
        if let Some(index) = &upper.index {
            index.set_used();
        }
        Ok(file)
    }

    /// Takes back an entry that no name in the upper leads to.
    fn withdraw_from_index(&self, entry: Option<&Name>) {
        let Some(entry) = entry else { return };
        if let Err(errno) = self.index_dir().and_then(|index| node::unlink(&index, entry)) {
            tracing::warn!(%errno, "cannot take back an entry of the index");
        }
    }

    /// From here on the node lies in the upper.
    fn settle(
        &self,
        node: &Arc<Node>,
        upper_dir: &Arc<LayerDir>,
        alias: &Alias,
        copied: &Stat,
        attributes_only: bool,
    ) -> FsResult<()> {
        match &node.dir {
            Some(dir) => {
                let part = LayerDir::child(upper_dir, &alias.name, Marks::default());
                dir.upper.set(part).map_err(|_| Errno::STALE)?;
            }
            None => {
                self.nodes.add_key(node, RealKey { dev: copied.dev, ino: copied.ino })?;
            }
        }
        self.nodes.count_copy_up();
        node.now_upper(!attributes_only);
        let mut state = node.state.lock();
        if !attributes_only {
            state.drop_lower();
        }
        state.set_attributes(None);
        Ok(())
    }

    /// Copies up a file that has no name any more but is still open: into a file without a
    /// name.
    fn copy_up_orphan(&self, upper: &Upper, node: &Arc<Node>, data: Data) -> FsResult<()> {
        let _one_at_a_time = node.copy_up.lock();
        if node.is_upper() {
            return Ok(());
        }
        let source = self.source_of(node)?;
        let stat = self.as_kept(self.stat_of(node, &source.at)?);
        let (staged, _) = stage_file(upper, &source, &stat, whole(data), None)?;
        let fd = match staged {
            Staged::Unnamed(fd) => fd,
            Staged::Named(name) => {
                let fd = file::open_path_at(upper.work.staging(), &name)?;
                upper.work.discard(&name);
                fd
            }
        };
        {
            let mut state = node.state.lock();
            state.pin(Some(Arc::new(fd)));
            state.drop_lower();
            state.set_attributes(None);
        }
        node.now_upper(true);
        self.counters.copied_up(node.kind(), false);
        self.counters.copied_data(copied_length(node.kind(), &stat, whole(data)));
        Ok(())
    }

    /// Whether a node in the upper came from a lower, so that its number is not the upper's own.
    pub(super) fn has_origin(&self, node: &Node) -> bool {
        if node.dir.as_ref().is_some_and(|dir| !dir.lowers.is_empty()) {
            return true;
        }
        let state = node.state.lock();
        let key = state.more_keys().last().copied().unwrap_or(node.key);
        self.inode_numbers.visible(key.dev, key.ino) != state.ino
    }

    /// Marks an upper directory as holding entries with an origin, once.
    pub(super) fn mark_impure(
        &self,
        upper: &Upper,
        dir: &super::directory::Directory,
        fd: &OwnedFd,
    ) -> FsResult<()> {
        let part = dir.upper()?;
        if part.is_impure() || !upper.has_xattrs {
            return Ok(());
        }
        if upper.namespace.get(Target::fd(fd), Mark::Impure)?.is_none() {
            upper.set_mark(Target::fd(fd), Mark::Impure, b"y")?;
        }
        // Not before it is on disk: what is copied up without it is not found by the next mount.
        part.set_impure();
        Ok(())
    }
}

/// What is copied where attributes alone are not enough.
fn whole(data: Data) -> Data {
    if data == Data::Attributes { Data::All } else { data }
}
