//! Telling the kernel that something it keeps is out of date.
//!
//! Never drop a name or pages from a thread that serves a request: the kernel takes a lock for it,
//! and the request's caller may hold it and wait for that thread. [`attributes`] may be called
//! there, and [`store`] under the condition that it names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::abi::{self, notify};
use super::buffer::ReplyBuffer;
use super::channel::Channel;
use crate::error::{Errno, Error, FsResult};
use crate::overlay::NodeId;

/// Sends notifications for one mount.
pub struct Notifier {
    channel: Channel,
    buffer: ReplyBuffer,
}

impl Notifier {
    pub(super) fn new(channel: Channel) -> Notifier {
        Notifier { channel, buffer: ReplyBuffer::new() }
    }

    /// Drops the name `name` of the directory `parent` from the kernel's cache.
    ///
    /// # Errors
    /// `ENODEV` after an unmount. A name or directory that the kernel does not know is none.
    pub fn entry(&mut self, parent: NodeId, name: &OsStr) -> FsResult<()> {
        let namelen = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        self.buffer.clear();
        self.buffer.put(&abi::NotifyInvalEntryOut { parent: parent.0, namelen, flags: 0 })?;
        self.buffer.put_bytes(name.as_bytes())?;
        self.buffer.put_bytes(&[0])?;
        self.send(notify::INVAL_ENTRY)
    }

    /// Drops the attributes and all pages of `node` from the kernel's cache.
    ///
    /// # Errors
    /// As [`Notifier::entry`].
    pub fn inode(&mut self, node: NodeId) -> FsResult<()> {
        self.buffer.clear();
        self.buffer.put(&abi::NotifyInvalInodeOut { ino: node.0, off: 0, len: 0 })?;
        self.send(notify::INVAL_INODE)
    }

    fn send(&mut self, code: i32) -> FsResult<()> {
        match self.channel.send(self.buffer.notification(code)) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}

/// Puts the whole content of a file, `size` bytes that `read` gives, into the kernel's page cache.
///
/// The kernel waits for pages that are being read: nobody may have been told yet that the file is
/// open.
pub(super) fn store(
    channel: &Channel,
    buffer: &mut ReplyBuffer,
    node: NodeId,
    size: usize,
    read: impl FnOnce(&mut [u8]) -> FsResult<usize>,
) -> FsResult<()> {
    let length = u32::try_from(size).map_err(|_| Errno::FBIG)?;
    buffer.clear();
    buffer.put(&abi::NotifyStoreOut { nodeid: node.0, offset: 0, size: length, padding: 0 })?;
    let head = buffer.len();
    buffer.fill(size, read)?;
    if buffer.len() - head != size {
        return Err(Errno::IO);
    }
    channel.send(buffer.notification(notify::STORE))
}

/// Drops the attributes of `node` from the kernel's cache. It takes no lock for that, so that this
/// may be called while a request is served.
pub(super) fn attributes(channel: &Channel, node: NodeId) -> FsResult<()> {
    let mut buffer = ReplyBuffer::small();
    buffer.put(&abi::NotifyInvalInodeOut { ino: node.0, off: -1, len: 0 })?;
    match channel.send(buffer.notification(notify::INVAL_INODE)) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Drops names from the kernel's cache, some time soon, from a thread of its own: this may be
/// called while a request is served. Rare enough that the thread costs nothing.
pub(super) fn drop_entries(channel: &Channel, names: Vec<(NodeId, OsString)>) {
    let started = channel.another().and_then(|channel| {
        std::thread::Builder::new()
            .name("notify".into())
            .spawn(move || {
                let mut notifier = Notifier::new(channel);
                for (parent, name) in names {
                    if let Err(errno) = notifier.entry(parent, &name) {
                        tracing::debug!(?name, "the kernel keeps a name: {errno}");
                    }
                }
            })
            .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))
    });
    if let Err(error) = started {
        tracing::warn!("{error}");
    }
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}
