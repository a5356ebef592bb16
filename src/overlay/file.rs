//! Opening, reading and writing files.

use std::ffi::OsString;
use std::sync::Arc;

use rustix::fs::FileType;

use super::copy_up::Data;
use super::frozen::Change;
use super::handle::Handle;
use super::implied::NOBODY;
use super::node::Node;
use super::place::At;
use super::stage::open_lower;
use super::stored_stat::without_privileges;
use super::{FileRef, HandleId, NodeId, Opened, Overlay};
use crate::error::{Errno, FsResult};
use crate::sys::extended::{self, Extended};
use crate::sys::{FallocateFlags, IFlags, OFlags, OwnedFd, file, lease, node};

/// The flags with which a file of a layer is opened for a client's flags.
///
/// The kernel turns appending into an offset and direct reads into requests of its own, so a
/// descriptor of ours has neither; what concerns durability is kept.
pub(super) fn backing_flags(flags: OFlags) -> OFlags {
    let kept = OFlags::RWMODE | OFlags::TRUNC | OFlags::DSYNC | OFlags::SYNC;
    (flags & kept) | OFlags::NONBLOCK
}

/// Opens a file of the upper for a client's `flags`. One that may only grow (`chattr +a`) is opened
/// in no other way than to append.
fn open_backing(at: &At, flags: OFlags) -> FsResult<OwnedFd> {
    let backing = backing_flags(flags);
    match at.open(backing) {
        Err(Errno::PERM) if appends(flags) => at.open(backing | OFlags::APPEND),
        other => other,
    }
}

fn appends(flags: OFlags) -> bool {
    flags.contains(OFlags::APPEND) && !flags.contains(OFlags::TRUNC)
}

impl Overlay {
    /// Opens a regular file; for writing it is copied up first, without data that `O_TRUNC`
    /// would cut off. With `kill_suidgid` the truncation takes privileges away.
    pub fn open(&self, node: NodeId, flags: OFlags, kill_suidgid: bool) -> FsResult<Opened> {
        let node = self.nodes.get(node)?;
        if node.dir.is_some() {
            return Err(Errno::ISDIR);
        }
        let truncates = flags.contains(OFlags::TRUNC);
        if truncates || (flags & OFlags::RWMODE) != OFlags::RDONLY {
            let change = if appends(flags) { Change::Adds } else { Change::Alters };
            self.copy_up_to(change, &node, if truncates { Data::Upto(0) } else { Data::All })?;
        }
        let before = node.mode();
        let (file, upper) = self.dir_fds.with_room(|| self.open_real(&node, flags))?;
        if upper && flags.intersects(OFlags::DSYNC | OFlags::SYNC) {
            // What is then written is as durable as the file's place is.
            self.sync_file(&node, &file, true)?;
        }
        // Where we lack CAP_FSETID over the machine the opening itself has ended them.
        let had = without_privileges(before) != before;
        let mode_changed = truncates && kill_suidgid && (self.kill_privileges(&file)? || had);
        let mode = node.mode();
        let opened = self.handles.insert(node, Arc::new(file), flags, upper, mode)?;
        Ok(Opened { mode_changed, ..opened })
    }

    /// Opens the file where it lies now; tells whether that is the upper.
    pub(super) fn open_real(&self, node: &Arc<Node>, flags: OFlags) -> FsResult<(OwnedFd, bool)> {
        let open = |at: &At| open_backing(at, flags);
        // Asked before opening: a copy-up in between only means an early re-open.
        if node.has_upper_data() {
            return self.at(node, open).map(|file| (file, true));
        }
        let lower = node.state.lock().lower();
        match lower {
            Some((dir, name)) => {
                let at = At::Entry(self.dir_fds.get(&dir)?, name);
                open_lower(&at).map(|file| (file, false))
            }
            None => self.at(node, open).map(|file| (file, true)),
        }
    }

    /// The file that a handle reads now: where its node was copied up since, the upper's.
    pub(super) fn current_file(&self, handle: &Handle) -> FsResult<Arc<OwnedFd>> {
        if handle.is_outdated() {
            let (file, _) = self.open_real(&handle.node, OFlags::RDONLY)?;
            handle.reroute(Arc::new(file));
        }
        Ok(handle.file())
    }

    /// As [`Overlay::current_file`], of what a request names.
    pub(super) fn file_to_read(&self, file: FileRef) -> FsResult<Arc<OwnedFd>> {
        self.current_file(&*self.to_read(file)?)
    }

    /// The file of a handle, if that lies in the upper.
    pub(super) fn upper_file(&self, handle: HandleId) -> FsResult<Option<Arc<OwnedFd>>> {
        let handle = self.handles.get(handle)?;
        let file = self.current_file(&handle)?;
        Ok(handle.is_upper().then_some(file))
    }

    /// The file of a handle, if it was opened for writing.
    pub(super) fn writable_file(&self, handle: HandleId) -> FsResult<Option<Arc<OwnedFd>>> {
        let handle = self.handles.get(handle)?;
        if handle.writable { self.current_file(&handle).map(Some) } else { Ok(None) }
    }

    pub(super) fn file_to_write(&self, file: FileRef) -> FsResult<Arc<OwnedFd>> {
        self.current_file(&*self.to_write(file)?)
    }

    /// Reads at `offset`; fewer bytes than `buffer` holds mean the end.
    pub fn read(&self, file: FileRef, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let handle = self.to_read(file)?;
        let file = self.current_file(&handle)?;
        if handle.is_upper() || !handle.node.is_upper() {
            return file::read_at(file, buffer, offset);
        }
        // The data of a file whose attributes are in the upper ends where those say.
        let size = self.at(&handle.node, At::stat)?.size;
        let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(room);
        file::read_at(file, buffer.get_mut(..length).unwrap_or_default(), offset)
    }

    /// Writes at `offset`; what privileges that ends, [`Overlay::end_privileges`] has ended before.
    /// `how`: with `DSYNC` the data is durable when the write returns, with `SYNC` all of the file;
    /// with `APPEND` the writer asked to write at the end.
    pub fn write(&self, named: FileRef, offset: u64, data: &[u8], how: OFlags) -> FsResult<usize> {
        let handle = match self.to_write(named) {
            Err(Errno::PERM) if how.contains(OFlags::APPEND) => self.to_append(named)?,
            other => other?,
        };
        let file = self.current_file(&handle)?;
        let written = file::write_at(&file, data, offset)?;
        // One write alone may be durable (RWF_DSYNC), and a node's own descriptor knows nothing
        // of the flags with which it is open elsewhere.
        if how.intersects(OFlags::DSYNC | OFlags::SYNC) && !handle.synchronous {
            let synced = self.sync_file(&handle.node, &file, !how.contains(OFlags::SYNC));
            match named {
                FileRef::Opened(_) => synced?,
                FileRef::Of(node) => self.implied.tell(node, NOBODY, synced)?,
            }
        }
        Ok(written)
    }

    /// Whether nobody has a file of the upper open or mapped for writing; we do not either.
    pub fn nobody_writes(&self, node: NodeId) -> FsResult<bool> {
        let node = self.nodes.get(node)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOATIME;
        let file = self.dir_fds.with_room(|| self.at(&node, |at| at.open(flags)))?;
        Ok(lease::nobody_writes(file))
    }

    /// Closes an open file.
    pub fn release(&self, handle: HandleId) {
        drop(self.handles.remove(handle));
    }

    /// The target of a symlink.
    pub fn readlink(&self, node: NodeId) -> FsResult<OsString> {
        let node = self.nodes.get(node)?;
        if node.kind() != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        self.at(&node, |at| {
            let (dir, name) = at.dir_and_name();
            node::read_link(dir, name)
        })
    }

    /// fallocate(2) with every mode of the upper's filesystem.
    pub fn fallocate(&self, file: FileRef, mode: u32, offset: u64, length: u64) -> FsResult<()> {
        let mode = FallocateFlags::from_bits_retain(mode);
        file::allocate(self.file_to_write(file)?, mode, offset, length)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`; the others need no filesystem.
    pub fn lseek(&self, file: FileRef, offset: u64, whence: u32) -> FsResult<u64> {
        let data = match i32::try_from(whence) {
            Ok(file::SEEK_DATA) => true,
            Ok(file::SEEK_HOLE) => false,
            _ => return Err(Errno::INVAL),
        };
        file::seek_sparse(self.file_to_read(file)?, offset, data)
    }

    /// Copies between two open files inside the kernel, as a clone where it can.
    pub fn copy_file_range(
        &self,
        from: FileRef,
        from_offset: u64,
        to: FileRef,
        to_offset: u64,
        length: u64,
    ) -> FsResult<usize> {
        let source = self.file_to_read(from)?;
        let target = self.file_to_write(to)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(i32::MAX as usize);
        file::copy_range(source, from_offset, target, to_offset, length)
    }

    /// The inode flags (`chattr`).
    pub fn inode_flags(&self, node: NodeId, handle: Option<HandleId>) -> FsResult<u32> {
        let node = self.nodes.get(node)?;
        let file = self.for_ioctl(&node, handle)?;
        file::inode_flags(&file).map(|flags| flags.bits())
    }

    /// Sets the inode flags; the file is copied up first.
    pub fn set_inode_flags(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        flags: u32,
    ) -> FsResult<()> {
        let node = self.nodes.get(node)?;
        self.copy_up(&node, Data::All)?;
        let file = self.for_ioctl(&node, handle)?;
        file::set_inode_flags(&file, IFlags::from_bits_retain(flags))?;
        // They may forbid what a file that is kept open was opened for.
        self.implied.close(node.id);
        Ok(())
    }

    /// The inode flags in their longer form.
    pub fn extended_flags(&self, node: NodeId, handle: Option<HandleId>) -> FsResult<Extended> {
        let node = self.nodes.get(node)?;
        extended::get(self.for_ioctl(&node, handle)?)
    }

    /// As [`Overlay::set_inode_flags`], in their longer form.
    pub fn set_extended_flags(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        flags: &Extended,
    ) -> FsResult<()> {
        let node = self.nodes.get(node)?;
        self.copy_up(&node, Data::All)?;
        extended::set(self.for_ioctl(&node, handle)?, flags)?;
        self.implied.close(node.id);
        Ok(())
    }

    fn for_ioctl(&self, node: &Arc<Node>, handle: Option<HandleId>) -> FsResult<Arc<OwnedFd>> {
        match handle {
            Some(handle) => self.file_to_read(handle.into()),
            None if node.dir.is_some() || node.kind() == FileType::RegularFile => {
                let fd = self.at(node, |at| at.open(OFlags::RDONLY | OFlags::NONBLOCK))?;
                Ok(Arc::new(fd))
            }
            None => Err(Errno::NOTTY),
        }
    }
}
