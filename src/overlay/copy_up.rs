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

use std::ffi::OsString;
use std::sync::Arc;

use rustix::fs::{FileType, XattrFlags};

use super::layer_dir::{LayerDir, Marks};
use super::listing::{Listed, Part};
use super::node::{Alias, Node, RealKey};
use super::place::At;
use super::{Name, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::index::hold_count;
use crate::layer::origin::Origin;
use crate::layer::upper::Upper;
use crate::layer::xattrs::{Mark, is_private};
use crate::sys::stat::{Stat, Time, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, RenameFlags, Timespec, Timestamps, copy, file, node, xattr};

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

/// What is copied: a lower file, whose data may lie in another file than its attributes.
struct Source {
    at: At,
    data: At,
}

/// A complete copy that has no place in the upper yet.
enum Staged {
    /// A file without a name: a crash leaves nothing at all.
    Unnamed(OwnedFd),
    /// A name in staging.
    Named(OsString),
}

impl Overlay {
    /// Makes sure that `node`, and the directories above it, lie in the upper. The caller holds
    /// no lock on a directory.
    ///
    /// # Errors
    /// `EROFS` without an upper; what copying may give (`ENOSPC`, `EDQUOT`, `EIO`), with the
    /// lower file still in place and nothing left behind.
    pub(super) fn copy_up(&self, node: &Arc<Node>, data: Data) -> FsResult<()> {
        let upper = self.upper()?;
        while !node.is_upper() {
            match node.alias() {
                Ok(alias) => {
                    let next = self.first_to_copy(node, alias)?;
                    let data = if Arc::ptr_eq(&next, node) { data } else { Data::All };
                    self.copy_up_one(upper, &next, data)?;
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

    fn copy_up_one(&self, upper: &Upper, node: &Arc<Node>, data: Data) -> FsResult<()> {
        let _one_at_a_time = node.copy_up.lock();
        if node.is_upper() {
            return Ok(());
        }
        let source = self.source_of(node)?;
        let stat = self.as_kept(source.at.stat()?);
        let origin = self.origin_of(upper, &source.at, node);
        let entry = self.index_name(&stat, origin.as_ref());
        let linked = entry.is_some() && self.policy.metacopy_from.is_some();
        let attributes_only = data == Data::Attributes
            && (self.copies_attributes_only(node.kind(), &stat)
                || (linked && node.kind() == FileType::RegularFile));
        let data = if attributes_only { data } else { whole(data) };
        let staged = stage(upper, node.kind(), &source, &stat, data, origin.as_ref())?;
        let published = self.publish_copy(upper, node, &staged, &stat, entry, attributes_only);
        if let (Err(_) | Ok(false), Staged::Named(name)) = (&published, &staged) {
            upper.work.discard(name);
        }
        if published? {
            self.counters.copied_up(node.kind(), attributes_only);
            self.counters.copied_data(copied_length(node.kind(), &stat, data));
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

    /// Publishes a copy. Returns `false` where the name was taken away meanwhile: then the
    /// caller looks again.
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
        if let Some(file) = &indexed
            && let Err(errno) = self.settle_link_count(upper, file)
        {
            tracing::warn!(%errno, "cannot update a link count; it is held until the next change");
        }
        // The copy is no change that users made: their directory keeps its times.
        if let Err(errno) = node::set_times(&fd, "".as_ref(), &times_of(&before)) {
            tracing::warn!(%errno, "cannot restore a directory's times after copy-up");
        }
        let copied = At::Entry(fd, alias.name.clone()).stat()?;
        node.state.lock().set_index(entry);
        self.settle(node, upper_dir, &alias, &copied, attributes_only)?;
        self.relist(&alias.parent, |listing| {
            listing.put_copied_up(Listed {
                name: alias.name.clone(),
                part: Part::Upper,
                kind: Some(stat.file_type()),
                below: true,
                lowers: Vec::new(),
                ino: node.state.lock().ino,
            });
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
        let stat = self.as_kept(source.at.stat()?);
        let fd = match stage_file(upper, &source, &stat, whole(data), None)? {
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

/// How many bytes of data a copy has.
fn copied_length(kind: FileType, stat: &Stat, data: Data) -> u64 {
    match data {
        _ if kind != FileType::RegularFile => 0,
        Data::All => stat.size,
        Data::Upto(size) => size.min(stat.size),
        Data::Attributes => 0,
    }
}

fn stage(
    upper: &Upper,
    kind: FileType,
    source: &Source,
    stat: &Stat,
    data: Data,
    origin: Option<&Origin>,
) -> FsResult<Staged> {
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
        _ => node::make_node(staging, &name, stat.mode, stat.rdev)?,
    }
    match dress(upper, &named(upper, &name)?, kind, &source.at, stat, origin) {
        Ok(()) => Ok(Staged::Named(name)),
        Err(errno) => {
            upper.work.discard(&name);
            Err(errno)
        }
    }
}

/// A descriptor of what stands in staging under `name`.
fn named(upper: &Upper, name: &std::ffi::OsStr) -> FsResult<OwnedFd> {
    file::open_path_at(upper.work.staging(), name)
}

fn stage_file(
    upper: &Upper,
    source: &Source,
    stat: &Stat,
    data: Data,
    origin: Option<&Origin>,
) -> FsResult<Staged> {
    let (fd, staged) = new_file(upper)?;
    let filled = fill(upper, &fd, source, stat, data, origin);
    match (filled, staged) {
        (Ok(()), Some(name)) => Ok(Staged::Named(name)),
        (Ok(()), None) => Ok(Staged::Unnamed(fd)),
        (Err(errno), Some(name)) => {
            upper.work.discard(&name);
            Err(errno)
        }
        (Err(errno), None) => Err(errno),
    }
}

/// An empty file in staging, without a name where the filesystem can do that.
fn new_file(upper: &Upper) -> FsResult<(OwnedFd, Option<OsString>)> {
    match file::create_tmpfile(upper.work.staging(), OFlags::RDWR, 0o600) {
        Ok(fd) => return Ok((fd, None)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno),
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
) -> FsResult<()> {
    let size = copied_length(FileType::RegularFile, stat, data);
    if data == Data::Attributes {
        file::truncate(fd, stat.size)?;
        upper.set_mark(Target::fd(fd), Mark::Metacopy, b"")?;
    }
    if size > 0 {
        let from = open_lower(&source.data)?;
        let whole = size == stat.size;
        // Fewer blocks than the size needs: there are holes to keep.
        if stat.blocks * 512 >= stat.size {
            copy::dense_content(&from, fd, size, whole)?;
        } else {
            copy::content(&from, fd, size, whole)?;
        }
    }
    dress(upper, fd, FileType::RegularFile, &source.at, stat, origin)?;
    if size > 0 { upper.sync(fd, false) } else { Ok(()) }
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
/// takes suid bits and capabilities away; the times come last.
fn dress(
    upper: &Upper,
    fd: &OwnedFd,
    kind: FileType,
    source: &At,
    stat: &Stat,
    origin: Option<&Origin>,
) -> FsResult<()> {
    let own = stat_fd(fd)?;
    if (own.uid, own.gid) != (stat.uid, stat.gid) {
        node::set_owner(fd, "".as_ref(), Some(stat.uid), Some(stat.gid))?;
    }
    if kind == FileType::RegularFile {
        node::set_open_mode(fd, stat.mode)?;
    } else if kind != FileType::Symlink {
        node::set_mode(fd, stat.mode)?;
    }
    copy_xattrs(source, fd)?;
    if let Some(origin) = origin {
        match upper.set_mark(Target::fd(fd), Mark::Origin, &origin.to_bytes()) {
            // User xattrs exist on files and directories only.
            Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    node::set_times(fd, "".as_ref(), &times_of(stat))
}

/// Copies all xattrs but overlay's own.
fn copy_xattrs(source: &At, to: &OwnedFd) -> FsResult<()> {
    for name in xattr::list(source.xattrs())? {
        if is_private(&name) && crate::layer::xattrs::unescape(&name).is_none() {
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

fn is_access_control(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"system.posix_acl_") || name.starts_with(b"security.")
}

/// Access and modification time, to be set elsewhere.
pub(super) fn times_of(stat: &Stat) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() };
    Timestamps { last_access: spec(stat.atime), last_modification: spec(stat.mtime) }
}
