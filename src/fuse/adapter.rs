//! From a decoded request to one overlay call and its reply.

mod attributes;
mod files;
mod names;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer::ReplyBuffer;
use super::channel::Channel;
use super::control::Pages;
use super::log;
use super::negotiate::Agreed;
use super::notify;
use super::passthrough::Passthrough;
use super::readers::Readers;
use super::reply::Ttl;
use super::request::{Operation, Request};
use super::stats::{Board, Snapshot};
use super::wakeful::Wakeful;
use crate::error::{Errno, FsResult};
use crate::overlay::options::Options;
use crate::overlay::{Caller, NodeId, Overlay};
use crate::sys::footprint::Footprint;

/// Serves requests; shared by all threads.
pub(super) struct Adapter {
    pub(super) overlay: Arc<Overlay>,
    agreed: Agreed,
    ttl: Ttl,
    noxattrs: bool,
    passthrough: Passthrough,
    readers: Readers,
    pub(super) board: Board,
    pub(super) wakeful: Wakeful,
    pages: Pages,
    mountpoint: PathBuf,
    closed: AtomicBool,
}

/// What one request is served with.
pub(super) struct Context<'a> {
    pub(super) channel: &'a Channel,
    pub(super) request: &'a Request<'a>,
    pub(super) reply: &'a mut ReplyBuffer,
}

impl Adapter {
    pub(super) fn new(
        overlay: Arc<Overlay>,
        options: &Options,
        agreed: Agreed,
        wakeful: Wakeful,
        mountpoint: &Path,
    ) -> Adapter {
        Adapter {
            overlay,
            agreed,
            ttl: Ttl::new(options.timeout),
            noxattrs: options.noxattrs,
            passthrough: Passthrough::new(options, agreed.passthrough),
            readers: Readers::new(),
            board: Board::new(),
            wakeful,
            pages: Pages::default(),
            mountpoint: mountpoint.to_path_buf(),
            closed: AtomicBool::new(false),
        }
    }

    /// From now on every request is refused.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Serves one request and leaves the body of the answer in the reply buffer.
    ///
    /// # Errors
    /// The errno for the caller.
    pub(super) fn serve(&self, context: &mut Context<'_>) -> FsResult<()> {
        let served = self.serve_operation(context);
        // Before the caller, who gets the answer after this, can look.
        self.overlay.tell_outdated(|node| {
            if let Err(errno) = notify::attributes(context.channel, node) {
                tracing::debug!(node = node.0, "the kernel keeps attributes: {errno}");
            }
        });
        served
    }

    fn serve_operation(&self, context: &mut Context<'_>) -> FsResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Errno::NOTCONN);
        }
        let operation = context.request.operation(self.agreed.setxattr_ext)?;
        match operation {
            Operation::Lookup { .. }
            | Operation::Forget { .. }
            | Operation::BatchForget { .. }
            | Operation::ReadLink
            | Operation::Symlink { .. }
            | Operation::MkNod { .. }
            | Operation::MkDir { .. }
            | Operation::Unlink { .. }
            | Operation::RmDir { .. }
            | Operation::Rename { .. }
            | Operation::Link { .. }
            | Operation::ReadDir { .. } => self.serve_names(context, operation),
            Operation::GetAttr { .. }
            | Operation::Statx { .. }
            | Operation::SetAttr { .. }
            | Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Ioctl { .. } => self.serve_attributes(context, operation),
            Operation::StatFs => self.statfs(context),
            Operation::SyncFs => self.overlay.syncfs(),
            Operation::Destroy | Operation::Interrupt => Ok(()),
            // The session is past its INIT.
            Operation::Init(_) => Err(Errno::IO),
            Operation::Unsupported => Err(Errno::NOSYS),
            _ => self.serve_files(context, operation),
        }
    }

    /// How long the kernel may keep the attributes of `node` that are read after this: not at all
    /// while somebody may write to them through a mapping, of which nobody tells us.
    fn ttl_of(&self, node: NodeId) -> Ttl {
        let calm = || self.overlay.nobody_writes(node).unwrap_or(false);
        match self.passthrough.may_be_mapped(node) && !self.passthrough.settle(node, calm) {
            true => Ttl::NONE,
            false => self.ttl,
        }
    }

    /// As [`Adapter::ttl_of`], of attributes that were read when, or after, `calm` was the number
    /// of [`Passthrough::settlings`].
    fn ttl_of_found(&self, node: NodeId, calm: u64) -> Ttl {
        // A file that was settled since may have been written to after its attributes were read.
        match self.passthrough.may_be_mapped(node) || self.passthrough.settlings() != calm {
            true => Ttl::NONE,
            false => self.ttl,
        }
    }

    /// Everything that is counted, as of now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mountpoint: self.mountpoint.clone(),
            uptime_seconds: self.board.started.elapsed().as_secs_f64(),
            log: log::filter(),
            threads: self.board.threads(),
            panics: self.board.panics(),
            kept_awake: self.wakeful.times(),
            requests: self.board.requests(),
            passthrough: self.passthrough.figures(),
            overlay: self.overlay.figures(),
            process: Footprint::own().ok(),
        }
    }

    fn answer_control(&self, caller: &Caller, command: u32, input: &[u8]) -> FsResult<Vec<u8>> {
        self.pages.answer(caller, command, input, || self.snapshot())
    }

    fn statfs(&self, context: &mut Context<'_>) -> FsResult<()> {
        super::reply::statfs(context.reply, &self.overlay.statfs()?)
    }
}
