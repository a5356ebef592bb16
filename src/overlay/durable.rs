//! Making things durable: with a file, its place and the directories that lead there.

use std::ffi::OsStr;
use std::sync::Arc;

use super::node::Node;
use super::{Caller, FileRef, HandleId, NodeId, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::upper::Upper;
use crate::sys::{OwnedFd, dir};

impl Overlay {
    /// Makes a file, or the entries of a directory, durable; a lower file already is.
    pub fn fsync(
        &self,
        caller: &Caller,
        node: NodeId,
        handle: Option<HandleId>,
        data_only: bool,
    ) -> FsResult<()> {
        let file = handle.map_or(FileRef::Of(node), FileRef::Opened);
        let node = self.nodes.get(node)?;
        let Some(upper) = self.upper.as_ref().filter(|_| node.is_upper()) else { return Ok(()) };
        if let Some(directory) = &node.dir {
            self.settle_above(upper, &node)?;
            let fd = self.dir_fds.get(directory.upper()?)?;
            if upper.settle(&fd)? {
                return Ok(());
            }
            // Filesystems differ in whether the entries are a directory's data.
            return upper.sync_for_user(dir::open_dir(&fd, OsStr::new("."))?, false);
        }
        let synced = self.sync_file(&node, &*self.file_to_read(file)?, data_only);
        match handle {
            Some(_) => synced,
            None => self.implied.tell(node.id, caller.pid, synced),
        }
    }

    /// Syncs a file of the upper, open as `file`. After a copy-up its data alone is not enough: as
    /// long as the name, or the mark that is gone, may be lost, the lower file would show again.
    pub(super) fn sync_file(
        &self,
        node: &Arc<Node>,
        file: &OwnedFd,
        data_only: bool,
    ) -> FsResult<()> {
        let upper = self.upper()?;
        if !node.is_place_unsynced() {
            return upper.sync_for_user(file, data_only);
        }
        // Who comes meanwhile must not take the place for durable before it is.
        let _one_at_a_time = node.copy_up.lock();
        let unsynced = node.begin_sync_of_place();
        let above = if unsynced { self.settle_above(upper, node) } else { Ok(()) };
        let synced = above.and_then(|()| match unsynced && upper.settle(file)? {
            true => Ok(()),
            false => upper.sync_for_user(file, data_only && !unsynced),
        });
        node.end_sync_of_place(synced.is_ok() || !unsynced);
        synced
    }

    /// Makes durable where the directories lie that lead to `node`, by each of its names.
    fn settle_above(&self, upper: &Upper, node: &Node) -> FsResult<()> {
        if !upper.must_settle() {
            return Ok(());
        }
        let parents: Vec<_> = node.state.lock().names().map(|alias| alias.parent.clone()).collect();
        parents.iter().try_for_each(|parent| self.settle_from(upper, parent))
    }

    /// Makes durable where the directory `at`, and those above it, lie.
    pub(super) fn settle_from(&self, upper: &Upper, at: &Arc<Node>) -> FsResult<()> {
        if !upper.must_settle() {
            return Ok(());
        }
        let mut at = at.clone();
        loop {
            if let Some(part) = at.directory()?.upper.get() {
                match self.dir_fds.get(part).and_then(|fd| upper.settle(&fd)) {
                    // It was removed meanwhile.
                    Ok(_) | Err(Errno::NOENT | Errno::STALE) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let Ok(alias) = at.alias() else { return Ok(()) };
            at = alias.parent;
        }
    }
}
