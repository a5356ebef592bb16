//! Layers whose files' owner, mode and device stand in an xattr (see [`StatXattr`]): what is read
//! of them, and how an upper of that kind is written.
//!
//! In such an upper every file belongs to whoever mounts, is readable to nobody else, and is
//! regular even where it stands for a device.

use std::sync::Arc;

use rustix::fs::FileType;

use super::node::Node;
use super::place::At;
use super::{Overlay, SetAttr};
use crate::error::{Errno, FsResult};
use crate::layer::{LayerIndex, StatXattr};
use crate::sys::stat::Stat;
use crate::sys::xattr::{self, Target};
use crate::sys::{OwnedFd, node};

const SUID: u32 = 0o4000;
pub(super) const SGID: u32 = 0o2000;
pub(super) const GROUP_EXEC: u32 = 0o0010;
const TYPE_MASK: u32 = 0o170_000;

/// The name of file capabilities, which a change of owner takes away.
const CAPABILITY: &str = "security.capability";

impl Overlay {
    /// Whether users may see and set POSIX ACLs.
    pub fn has_acls(&self) -> bool {
        self.policy.acls
    }

    /// Whether owners and modes of what is written are kept in an xattr.
    pub(super) fn stores_stat(&self) -> bool {
        self.upper_stat_xattr().is_some()
    }

    pub(super) fn upper_stat_xattr(&self) -> Option<StatXattr> {
        self.upper.as_ref().and_then(|upper| upper.stat_xattr)
    }

    fn stat_xattr(&self, layer: LayerIndex) -> Option<StatXattr> {
        match (layer.0 as usize).checked_sub(1) {
            None => self.upper_stat_xattr(),
            Some(lower) => self.lowers.get(lower).and_then(|lower| lower.stat_xattr),
        }
    }

    /// Puts what `layer` keeps for `of` in place of what its filesystem says.
    pub(super) fn add_stored(
        &self,
        layer: LayerIndex,
        of: Target<'_>,
        stat: &mut Stat,
    ) -> FsResult<()> {
        match self.stat_xattr(layer) {
            Some(xattr) => xattr.read(of, stat),
            None => Ok(()),
        }
    }

    /// The type of an entry that its layer lists as a regular file. One whose xattr is damaged is
    /// an error to who uses it, not to who lists its directory.
    pub(super) fn listed_kind(
        &self,
        layer: LayerIndex,
        dir: &OwnedFd,
        name: &std::ffi::OsStr,
    ) -> FileType {
        let regular = FileType::RegularFile;
        if self.stat_xattr(layer).is_none() {
            return regular;
        }
        let stat = crate::sys::stat::stat_at(dir, name).and_then(|mut stat| {
            self.add_stored(layer, Target::at(dir, name), &mut stat)?;
            Ok(stat)
        });
        stat.map_or(regular, |stat| stat.file_type())
    }

    /// The attributes that its layer gives to a node that lies at `at`.
    pub(super) fn stat_of(&self, node: &Node, at: &At) -> FsResult<Stat> {
        let mut stat = at.stat()?;
        self.add_stored(attributes_layer(node)?, at.xattrs(), &mut stat)?;
        Ok(stat)
    }

    /// Changes owner and mode in an upper that keeps them in an xattr, as the kernel does it:
    /// a change of owner takes suid, sgid of an executable, and capabilities away.
    pub(super) fn set_stored(
        &self,
        file: &Arc<Node>,
        (uid, gid): (Option<u32>, Option<u32>),
        mode: Option<u32>,
    ) -> FsResult<()> {
        // One change at a time: each reads what the last one wrote.
        let _one_at_a_time = file.copy_up.lock();
        self.at(file, |at| {
            let mut stat = self.stat_of(file, at)?;
            if uid.is_some() || gid.is_some() {
                (stat.uid, stat.gid) = (uid.unwrap_or(stat.uid), gid.unwrap_or(stat.gid));
                if !stat.is_dir() && !stat.is_symlink() {
                    stat.mode = without_privileges(stat.mode);
                    take_capability(at.xattrs())?;
                }
            }
            if let Some(mode) = mode {
                stat.mode = (stat.mode & TYPE_MASK) | (mode & 0o7777);
            }
            self.upper()?.store_stat(&*at.path_fd()?, &stat).map(drop)
        })
    }

    /// Sets the mode of an open file of the upper, wherever it is kept.
    pub(super) fn set_mode_of(&self, file: &OwnedFd, stat: &Stat, mode: u32) -> FsResult<()> {
        let stat = Stat { mode: (stat.mode & TYPE_MASK) | (mode & 0o7777), ..*stat };
        if self.upper()?.store_stat(file, &stat)? { Ok(()) } else { node::set_mode(file, mode) }
    }
}

/// A mode without suid, and without sgid where the group may execute.
pub(super) fn without_privileges(mode: u32) -> u32 {
    let sgid = if mode & GROUP_EXEC != 0 { SGID } else { 0 };
    mode & !(SUID | sgid)
}

/// Takes file capabilities away, if there are any.
pub(super) fn take_capability(of: Target<'_>) -> FsResult<()> {
    match xattr::remove(of, CAPABILITY.as_ref()) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether a change is one of owner or mode.
pub(super) fn changes_owner_or_mode(set: &SetAttr) -> bool {
    set.uid.is_some() || set.gid.is_some() || set.mode.is_some()
}

/// The layer that a node has its attributes from.
fn attributes_layer(node: &Node) -> FsResult<LayerIndex> {
    if node.is_upper() {
        return Ok(LayerIndex::UPPER);
    }
    if let Some(dir) = &node.dir {
        return Ok(dir.top()?.layer);
    }
    let state = node.state.lock();
    Ok(state.lower_attributes().map_or(LayerIndex::UPPER, |(dir, _)| dir.layer))
}
