//! A fresh node for a file whose old one the kernel cannot use any more.

use std::ffi::OsString;

use super::{NodeId, Overlay};
use crate::error::{Errno, FsResult};

impl Overlay {
    /// Gives the file of `node` another node: from now on its names lead there, with the same
    /// inode number, and `node` goes on for those who have it open.
    ///
    /// Needed after a copy-up while the kernel reads the lower file by itself: it allows an
    /// inode one such file only, and the upper one must be another's. Returns the names, each with
    /// its directory: the kernel may still know them as those of `node`.
    ///
    /// # Errors
    /// `EINVAL` for what does not lie in the upper, and for directories.
    pub fn renew_node(&self, node: NodeId) -> FsResult<Vec<(NodeId, OsString)>> {
        let node = self.nodes.get(node)?;
        if !node.is_upper() || node.dir.is_some() {
            return Err(Errno::INVAL);
        }
        let held = self.at(&node, |at| at.path_fd())?;
        let names = self.nodes.supersede(&node, held)?;
        Ok(names.into_iter().map(|alias| (alias.parent.id, alias.name.to_os_string())).collect())
    }
}
