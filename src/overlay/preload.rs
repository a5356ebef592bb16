//! Offering the content of small files when they are opened.

use super::{Opened, Overlay};
use crate::error::FsResult;
use crate::sys::file::read_at;
use crate::sys::stat::stat_fd;

impl Overlay {
    /// Offers the content of a file that was just opened for reading, and not before in the life of
    /// its node, if it lies in a lower and has at most `most` bytes: `give` gets its size and what
    /// reads all of it.
    ///
    /// Nothing copies the file up meanwhile. What is given is true when it is given, and whatever
    /// changes the file later comes later.
    pub fn preload(
        &self,
        opened: &Opened,
        most: u64,
        give: impl FnOnce(usize, &mut dyn FnMut(&mut [u8]) -> FsResult<usize>) -> FsResult<()>,
    ) -> FsResult<()> {
        if opened.upper || opened.writable {
            return Ok(());
        }
        let handle = self.handles.get(opened.handle)?;
        let node = &handle.node;
        if node.was_offered() {
            return Ok(());
        }
        let Some(_as_it_is) = node.copy_up.try_lock() else { return Ok(()) };
        let size = stat_fd(&opened.file)?.size;
        if node.has_upper_data() || size == 0 || size > most {
            return Ok(());
        }
        // At most `most` bytes: it fits.
        give(size as usize, &mut |room| read_at(&opened.file, room, 0))
    }
}
