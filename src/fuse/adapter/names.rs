//! Requests about names in directories.

use super::{Adapter, Context};
use crate::error::{Errno, FsResult};
use crate::fuse::reply::{self, Listing, Ttl};
use crate::fuse::request::Operation;
use crate::overlay::{Entry, NodeId, With};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

impl Adapter {
    pub(super) fn serve_names(
        &self,
        context: &mut Context<'_>,
        operation: Operation<'_>,
    ) -> FsResult<()> {
        let (node, caller) = (context.request.node, &context.request.caller);
        let overlay = &self.overlay;
        match operation {
            Operation::Lookup { name } => self.lookup(context, name),
            Operation::Forget { count } => {
                self.forget(node, count);
                Ok(())
            }
            Operation::BatchForget { nodes } => {
                for one in nodes {
                    self.forget(NodeId(one.nodeid), one.nlookup);
                }
                Ok(())
            }
            Operation::ReadLink => {
                let target = overlay.readlink(node)?;
                context.reply.put_bytes(target.as_bytes())
            }
            Operation::Symlink { name, target } => {
                let entry = overlay.symlink(caller, node, name, target)?;
                self.answer_entry(context, &entry)
            }
            Operation::MkNod { name, mode, umask, rdev } => {
                let entry = overlay.mknod(caller, node, name, mode, umask, rdev)?;
                self.answer_entry(context, &entry)
            }
            Operation::MkDir { name, mode, umask } => {
                let entry = overlay.mkdir(caller, node, name, mode, umask)?;
                self.answer_entry(context, &entry)
            }
            Operation::Link { node: target, name } => {
                let calm = self.passthrough.settlings();
                let entry = overlay.link(target, node, name)?;
                self.answer_known(context, &entry, calm)
            }
            Operation::Unlink { name } => overlay.unlink(node, name),
            Operation::RmDir { name } => overlay.rmdir(node, name),
            Operation::Rename { name, new_parent, new_name, flags } => {
                overlay.rename(node, name, new_parent, new_name, flags)
            }
            Operation::ReadDir { cookie, size, plus } => self.list(context, cookie, size, plus),
            _ => Err(Errno::NOSYS),
        }
    }

    fn lookup(&self, context: &mut Context<'_>, name: &OsStr) -> FsResult<()> {
        let calm = self.passthrough.settlings();
        match self.overlay.lookup(context.request.node, name) {
            Ok(entry) => {
                if !entry.stat.is_dir() {
                    self.readers.found_file(context.request.caller.pid, context.request.node);
                }
                self.answer_known(context, &entry, calm)
            }
            // Said so, the kernel remembers it; a plain error would be asked for each time.
            Err(Errno::NOENT) => reply::no_entry(context.reply, self.ttl),
            Err(errno) => Err(errno),
        }
    }

    fn list(
        &self,
        context: &mut Context<'_>,
        cookie: u64,
        size: usize,
        plus: bool,
    ) -> FsResult<()> {
        let (dir, thread) = (context.request.node, context.request.caller.pid);
        let with = if plus { self.readers.gets(thread, dir, cookie) } else { With::Nothing };
        let calm = self.passthrough.settlings();
        let attributes = |node| self.ttl_of_found(node, calm);
        let plus = plus.then_some((self.ttl, &attributes as &dyn Fn(NodeId) -> Ttl));
        let mut listing = Listing::new(context.reply, size, plus);
        self.overlay.readdir(dir, cookie, with, &mut |entry| listing.add(&entry))
    }

    /// Answers with something new.
    fn answer_entry(&self, context: &mut Context<'_>, entry: &Entry) -> FsResult<()> {
        reply::entry(context.reply, entry, self.ttl, self.ttl)
    }

    /// Answers with what was there, and may be open.
    fn answer_known(&self, context: &mut Context<'_>, entry: &Entry, calm: u64) -> FsResult<()> {
        reply::entry(context.reply, entry, self.ttl, self.ttl_of_found(entry.node, calm))
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.overlay.forget(node, count);
        if self.passthrough.may_be_mapped(node) && !self.overlay.knows(node) {
            self.passthrough.forget(node);
        }
    }
}
