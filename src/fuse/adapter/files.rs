//! Requests about open files.

use super::{Adapter, Context};
use crate::error::{Errno, FsResult};
use crate::fuse::abi::{CopyFileRangeOut, LseekOut, OpenFlags, WriteOut};
use crate::fuse::negotiate::Opens;
use crate::fuse::notify;
use crate::fuse::passthrough::{Admission, MOST_PRELOADED};
use crate::fuse::reply::{self, Ttl};
use crate::fuse::request::{CopyFileRange, Operation};
use crate::overlay::{Entry, FileRef, HandleId, NodeId, Opened};
use crate::sys::OFlags;

/// The most that one COPY_FILE_RANGE copies: its older reply counts in 32 bits.
const MAX_COPY: u64 = 1 << 30;

impl Adapter {
    pub(super) fn serve_files(
        &self,
        context: &mut Context<'_>,
        operation: Operation<'_>,
    ) -> FsResult<()> {
        let (node, caller) = (context.request.node, &context.request.caller);
        let overlay = &self.overlay;
        match operation {
            // The kernel then opens files without asking, and names their nodes alone.
            Operation::Open { .. } if self.agreed.opens == Opens::Unasked => Err(Errno::NOSYS),
            Operation::Open { flags, kill_suidgid } => {
                let opened = overlay.open(node, flags, kill_suidgid)?;
                self.mode_changed(context, node, opened.mode_changed);
                let known = self.passthrough.may_be_mapped(node);
                self.answer_open(context, node, &opened)?;
                // What the kernel keeps was to be kept for ever; cutting the file off has ended that.
                if !known && !flags.contains(OFlags::TRUNC) && self.passthrough.may_be_mapped(node)
                {
                    self.drop_attributes(context, node);
                }
                Ok(())
            }
            Operation::Create { name, mode, umask, flags } => {
                let flags = self.flags_of_new(flags);
                let made = overlay.create(caller, node, name, mode, umask, flags)?;
                self.answer_create(context, &made)
            }
            Operation::TmpFile { mode, umask, flags } => {
                let flags = self.flags_of_new(flags);
                let made = overlay.tmpfile(caller, node, mode, umask, flags)?;
                self.answer_create(context, &made)
            }
            Operation::Read { file, offset, size } => {
                context.reply.fill(size, |buffer| overlay.read(file, offset, buffer))
            }
            Operation::Write { file, offset, data, how, kill_suidgid } => {
                if kill_suidgid {
                    let changed = overlay.end_privileges(file)?;
                    self.mode_changed(context, node, changed);
                }
                let written = overlay.write(file, offset, data, how)?;
                // At most the length of a request.
                context.reply.put(&WriteOut { size: written as u32, padding: 0 })
            }
            Operation::FSync { handle, data_only } => {
                overlay.fsync(caller, node, handle, data_only)
            }
            Operation::Release { handle } => {
                self.close_file(context, node, handle);
                Ok(())
            }
            Operation::FAllocate { file, mode, offset, length } => {
                self.before_change(context, node, file)?;
                overlay.fallocate(file, mode, offset, length)
            }
            Operation::LSeek { file, offset, whence } => {
                let offset = overlay.lseek(file, offset, whence)?;
                context.reply.put(&LseekOut { offset })
            }
            Operation::CopyFileRange(range) => self.copy_range(context, range),
            _ => Err(Errno::NOSYS),
        }
    }

    fn answer_create(
        &self,
        context: &mut Context<'_>,
        (entry, opened): &(Entry, Opened),
    ) -> FsResult<()> {
        // Nobody writes to an empty file through a mapping, and whatever gives it content has the
        // kernel ask again.
        let mapped = opened.mappable && self.agreed.passthrough && entry.stat.size > 0;
        let attributes = if mapped { Ttl::NONE } else { self.ttl };
        reply::entry(context.reply, entry, self.ttl, attributes)?;
        let answered = match self.agreed.opens {
            Opens::Asked => self.answer_open(context, entry.node, opened),
            Opens::Unasked => self
                .overlay
                .leave_implied(opened)
                .and_then(|()| reply::open(context.reply, None, OpenFlags::KEEP_CACHE, None)),
        };
        answered.inspect_err(|_| self.overlay.forget(entry.node, 1))
    }

    fn answer_open(
        &self,
        context: &mut Context<'_>,
        node: NodeId,
        opened: &Opened,
    ) -> FsResult<()> {
        let (mut flags, backing) = match self.passthrough.admit(context.channel, node, opened) {
            Admission::Cached { keep: true } => {
                // Never for a file just made: the reply that is begun would be lost.
                if !opened.upper {
                    self.preload(context, node, opened);
                }
                (OpenFlags::KEEP_CACHE, None)
            }
            Admission::Cached { keep: false } => (OpenFlags::empty(), None),
            Admission::Passed { backing } => (OpenFlags::PASSTHROUGH, Some(backing)),
            Admission::Stale => {
                self.overlay.release(opened.handle);
                // One that was opened on the lower while another's copy-up went on fits as soon
                // as it is opened again.
                return Err(if opened.upper { self.renew(context, node)? } else { Errno::STALE });
            }
        };
        // Each write has reached its layer when it returns: closing has nothing to wait for.
        flags |= OpenFlags::NOFLUSH;
        reply::open(context.reply, Some(opened.handle), flags, backing)
    }

    /// The flags to make a file with: one that stands for all that will be opened serves each.
    fn flags_of_new(&self, flags: OFlags) -> OFlags {
        match self.agreed.opens {
            Opens::Asked => flags,
            Opens::Unasked => (flags - OFlags::RWMODE - OFlags::SYNC) | OFlags::RDWR,
        }
    }

    /// Gives the kernel a small lower file along with its first opening, so that no READ follows.
    fn preload(&self, context: &mut Context<'_>, node: NodeId, opened: &Opened) {
        let (channel, buffer) = (context.channel, &mut *context.reply);
        let given = self.overlay.preload(opened, MOST_PRELOADED, |size, read| {
            notify::store(channel, buffer, node, size, read)
        });
        context.reply.clear();
        if let Err(errno) = given {
            // It is read as usual then.
            tracing::debug!(node = node.0, "content was not given: {errno}");
        }
    }

    /// Gives the file of `node` a fresh one. The kernel, told so, looks the name up again, finds
    /// a node without open files, and opens that; the caller sees nothing of it.
    fn renew(&self, context: &Context<'_>, node: NodeId) -> FsResult<Errno> {
        let names = self.overlay.renew_node(node)?;
        if !names.is_empty() {
            notify::drop_entries(context.channel, names);
        }
        Ok(Errno::STALE)
    }

    fn close_file(&self, context: &Context<'_>, node: NodeId, handle: HandleId) {
        self.overlay.release(handle);
        self.passthrough.release(context.channel, node);
    }

    /// Takes privileges away that a change of content by this caller ends.
    fn before_change(&self, context: &Context<'_>, node: NodeId, file: FileRef) -> FsResult<()> {
        let changed = self.overlay.before_change_by(&context.request.caller, file)?;
        self.mode_changed(context, node, changed);
        Ok(())
    }

    /// Tells the kernel, if it is `changed`, that the mode that it keeps is no longer so.
    fn mode_changed(&self, context: &Context<'_>, node: NodeId, changed: bool) {
        if changed {
            self.drop_attributes(context, node);
        }
    }

    /// Tells the kernel that the attributes that it keeps are no longer so.
    pub(super) fn drop_attributes(&self, context: &Context<'_>, node: NodeId) {
        if let Err(errno) = notify::attributes(context.channel, node) {
            tracing::warn!(node = node.0, "the kernel keeps attributes: {errno}");
        }
    }

    fn copy_range(&self, context: &mut Context<'_>, range: CopyFileRange) -> FsResult<()> {
        let length = range.length.min(MAX_COPY);
        self.before_change(context, range.to_node, range.to)?;
        let copied = self.overlay.copy_file_range(
            range.from,
            range.from_offset,
            range.to,
            range.to_offset,
            length,
        )?;
        if range.wide {
            context.reply.put(&CopyFileRangeOut { bytes_copied: copied as u64 })
        } else {
            context.reply.put(&WriteOut { size: copied as u32, padding: 0 })
        }
    }
}
