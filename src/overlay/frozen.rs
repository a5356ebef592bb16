//! What inode flags of a lower forbid (`chattr +i`, `chattr +a`).
//!
//! In the upper, its own filesystem refuses such changes. What still lies in a lower would be copied
//! up, or hidden, without that filesystem being asked.

use std::sync::Arc;

use super::Overlay;
use super::node::Node;
use crate::error::{Errno, FsResult};
use crate::sys::stat::Stat;
use crate::sys::{IFlags, OFlags, file};

/// A change, as the flags tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Content, or an entry, comes to what is there.
    Adds,
    /// Any other.
    Alters,
}

/// Whether what has the attributes `stat` may be changed so.
///
/// # Errors
/// `EPERM`.
pub(super) fn permits(stat: &Stat, change: Change) -> FsResult<()> {
    if stat.immutable || (stat.append_only && change == Change::Alters) {
        return Err(Errno::PERM);
    }
    Ok(())
}

impl Overlay {
    /// A copy of what only grows, made because something is added, only grows as well.
    pub(super) fn only_appended_to(&self, node: &Arc<Node>) -> FsResult<()> {
        let copy = self.at(node, |at| at.open(OFlags::RDONLY | OFlags::NONBLOCK))?;
        let flags = file::inode_flags(&copy)? | IFlags::APPEND;
        if let Err(errno) = file::set_inode_flags(&copy, flags) {
            tracing::warn!("a copy of an append-only file is not append-only: {errno}");
        }
        Ok(())
    }
}
