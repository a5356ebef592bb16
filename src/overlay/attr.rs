//! Attributes of nodes.

use std::ffi::OsStr;
use std::sync::Arc;

use super::copy_up::Data;
use super::frozen::Change;
use super::node::Node;
use super::stored_stat::{
    GROUP_EXEC, SGID, changes_owner_or_mode, take_capability, without_privileges,
};
use super::{Caller, FileRef, HandleId, NodeId, Overlay, SetAttr, SetTime};
use crate::error::{Errno, FsResult};
use crate::layer::LayerIndex;
use crate::layer::origin::Origin;
use crate::layer::xattrs::Mark;
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, file, node};

impl Overlay {
    /// The attributes of a node as users see them; through `handle` where one is given.
    pub fn getattr(&self, node: NodeId, handle: Option<HandleId>) -> FsResult<Stat> {
        let node = self.nodes.get(node)?;
        // What is open in a lower may have its attributes in the upper.
        match handle.map(|handle| self.upper_file(handle)).transpose()?.flatten() {
            Some(file) => {
                let mut stat = stat_fd(&file)?;
                self.add_stored(LayerIndex::UPPER, Target::fd(&*file), &mut stat)?;
                self.shown(&node, stat)
            }
            None => self.stat_node(&node),
        }
    }

    /// The attributes of a node as users see them.
    pub(super) fn stat_node(&self, node: &Arc<Node>) -> FsResult<Stat> {
        let stat = self.at(node, |at| self.stat_of(node, at))?;
        self.shown(node, stat)
    }

    /// The attributes that a layer gives, as users see them.
    pub(super) fn shown(&self, node: &Node, mut stat: Stat) -> FsResult<Stat> {
        let indexed = node.state.lock().index().cloned();
        if let Some(entry) = indexed {
            stat.nlink = self.merged_nlink(&*self.index_dir()?, &entry, &stat)?;
        }
        stat.ino = node.state.lock().ino;
        node.saw_mode(stat.mode);
        if let Some(dir) = &node.dir {
            // The true count of a merged directory would take a walk over all its parts; 1 says
            // "not counted" to those who look (find, and the kernel does the same).
            let merged = dir.parts().count() > 1;
            if node.is_dead() {
                stat.nlink = 0;
            } else if merged || self.policy.static_nlink {
                stat.nlink = 1;
            }
        } else if node.is_dead() && !node.is_upper() {
            // The lower inode still has its name; the merged one has not.
            stat.nlink = stat.nlink.saturating_sub(1);
        }
        stat.uid = self.uids.to_view(stat.uid);
        stat.gid = self.gids.to_view(stat.gid);
        Ok(stat)
    }

    /// The inode number to show for an upper file: its origin's, so that it is the same as
    /// before copy-up, else its own.
    pub(super) fn upper_ino(&self, dir: &OwnedFd, name: &OsStr, stat: &Stat) -> FsResult<u64> {
        let own = || self.inode_numbers.visible(stat.dev, stat.ino);
        let upper = self.upper()?;
        if !upper.has_xattrs {
            return Ok(own());
        }
        let value = upper.namespace.get(Target::at(dir, name), Mark::Origin)?;
        let Some(origin) = value.as_deref().and_then(Origin::parse) else { return Ok(own()) };
        let number = origin.inode_number().zip(self.origin_device(&origin));
        let number = number.map(|(ino, dev)| self.inode_numbers.visible(dev, ino));
        let claimed = number.filter(|ino| self.inode_numbers.claim(*ino, (stat.dev, stat.ino)));
        Ok(claimed.unwrap_or_else(own))
    }

    /// Changes attributes; a lower file is copied up first, with as little data as the change
    /// leaves of it.
    pub fn setattr(
        &self,
        _caller: &Caller,
        node: NodeId,
        handle: Option<HandleId>,
        set: &SetAttr,
    ) -> FsResult<Stat> {
        let node = self.nodes.get(node)?;
        let uid = set.uid.map(|id| self.uids.owner(id).ok_or(Errno::INVAL)).transpose()?;
        let gid = set.gid.map(|id| self.gids.owner(id).ok_or(Errno::INVAL)).transpose()?;
        let data = set.size.map_or(Data::Attributes, Data::Upto);
        let change = if touches_alone(set) { Change::Adds } else { Change::Alters };
        self.copy_up_to(change, &node, data)?;
        if uid.is_some() || gid.is_some() {
            self.ensure_known_names(&node)?;
        }
        if let Some(size) = set.size {
            self.set_size(&node, handle, size, set.kill_suidgid)?;
        }
        let stored = self.stores_stat();
        if stored && changes_owner_or_mode(set) {
            self.set_stored(&node, (uid, gid), set.mode)?;
        }
        let stat = self.at(&node, |at| {
            let (dir, name) = at.dir_and_name();
            if !stored && (uid.is_some() || gid.is_some()) {
                node::set_owner(dir, name, uid, gid)?;
            }
            if let Some(mode) = set.mode.filter(|_| !stored) {
                node::set_mode_at(dir, name, mode)?;
            }
            if set.atime.is_some() || set.mtime.is_some() {
                let times = Timestamps {
                    last_access: timespec(set.atime),
                    last_modification: timespec(set.mtime),
                };
                node::set_times(dir, name, &times)?;
            }
            self.stat_of(&node, at)
        })?;
        self.shown(&node, stat)
    }

    fn set_size(
        &self,
        node: &Arc<Node>,
        handle: Option<HandleId>,
        size: u64,
        kill: bool,
    ) -> FsResult<()> {
        if node.dir.is_some() {
            return Err(Errno::ISDIR);
        }
        let through_handle = match handle {
            Some(handle) => self.writable_file(handle)?,
            None => None,
        };
        let file = match through_handle {
            Some(file) => file,
            None => Arc::new(self.at(node, |at| at.open(OFlags::WRONLY | OFlags::NONBLOCK))?),
        };
        file::truncate(&file, size)?;
        if kill { self.kill_privileges(&file).map(drop) } else { Ok(()) }
    }

    /// Takes suid, sgid (of an executable) and file capabilities away, as a write by somebody
    /// who may not keep them does. Returns whether the mode is another now.
    pub(super) fn kill_privileges(&self, file: &OwnedFd) -> FsResult<bool> {
        self.killed_privileges(file, true)
    }

    /// As the kernel's own filesystems do it before `caller` changes the content of an open file by
    /// other means than write(2): the protocol has no flag for those. Returns whether the mode is
    /// another now.
    pub fn before_change_by(&self, caller: &Caller, file: FileRef) -> FsResult<bool> {
        // Root may keep them, but not that of a user namespace; whether somebody else has
        // CAP_FSETID is not told.
        if caller.uid == 0 && crate::sys::process::is_initial_root() {
            return Ok(false);
        }
        let changed = self.end_privileges(file)?;
        Ok(self.end_group_mark(caller, file)? || changed)
    }

    /// Takes a set-group-id bit without group execution away, which stays with root and members of
    /// the group alone.
    fn end_group_mark(&self, caller: &Caller, file: FileRef) -> FsResult<bool> {
        let handle = self.to_write(file)?;
        let file = self.current_file(&handle)?;
        let mut stat = stat_fd(&file)?;
        self.add_stored(LayerIndex::UPPER, Target::fd(&*file), &mut stat)?;
        if stat.mode & (SGID | GROUP_EXEC) != SGID {
            return Ok(false);
        }
        let group = self.shown(&handle.node, stat)?.gid;
        // Root of a user namespace has CAP_FSETID over what belongs to a group of it.
        if caller.uid == 0
            || caller.gid == group
            || crate::sys::process::is_member(caller.pid, group)
        {
            return Ok(false);
        }
        self.set_mode_of(&file, &stat, stat.mode & !SGID)?;
        Ok(true)
    }

    /// Takes privileges away that a change of the content of `file` ends. Returns whether the mode is
    /// another now: the kernel, which asks for this along with a write, does not think of that, and
    /// would go on to run the file as its owner.
    pub fn end_privileges(&self, file: FileRef) -> FsResult<bool> {
        let handle = self.to_write(file)?;
        // What is known to have no xattrs has no capabilities: one call less for each write. The
        // kernel asked for them before the first, so that it is known where there are none.
        let capable = !handle.node.has_no_xattrs();
        self.killed_privileges(&*self.current_file(&handle)?, capable)
    }

    /// As [`Overlay::end_privileges`]; `capable`: there may be file capabilities.
    fn killed_privileges(&self, file: &OwnedFd, capable: bool) -> FsResult<bool> {
        let mut stat = stat_fd(file)?;
        self.add_stored(LayerIndex::UPPER, Target::fd(file), &mut stat)?;
        let kept = without_privileges(stat.mode);
        if kept != stat.mode {
            self.set_mode_of(file, &stat, kept)?;
        }
        if capable {
            take_capability(Target::fd(file))?;
        }
        Ok(kept != stat.mode)
    }
}

/// Whether the times are set to the present, and nothing else.
fn touches_alone(set: &SetAttr) -> bool {
    let now = |time: Option<SetTime>| !matches!(time, Some(SetTime::At(_)));
    let others = set.uid.is_some() || set.gid.is_some() || set.mode.is_some() || set.size.is_some();
    !others && now(set.atime) && now(set.mtime)
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(SetTime::At(time)) => Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() },
    }
}
