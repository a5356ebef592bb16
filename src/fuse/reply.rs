//! Encoding: what the overlay returned to the bytes of a reply's body.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::abi::{self, OpenFlags};
use super::buffer::{ReplyBuffer, zeroed};
use crate::error::{Errno, FsResult};
use crate::overlay::{DirEntry, Entry, HandleId, NodeId};
use crate::sys::StatVfs;
use crate::sys::stat::{Stat, Time, decode_dev};

/// How long the kernel may keep names and attributes without asking again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttl {
    sec: u64,
    nsec: u32,
}

impl Ttl {
    /// As good as for ever (34 years): every change of the merged tree comes through the kernel,
    /// which keeps its caches true by itself. Not `u64::MAX`, which the kernel would have to
    /// clamp when it turns it into ticks.
    const ENDLESS: Ttl = Ttl { sec: 1 << 30, nsec: 0 };

    /// The kernel asks each time.
    pub(crate) const NONE: Ttl = Ttl { sec: 0, nsec: 0 };

    /// For `timeout`, or endless.
    pub(crate) fn new(timeout: Option<Duration>) -> Ttl {
        match timeout {
            Some(time) if time.as_secs() < Ttl::ENDLESS.sec => {
                Ttl { sec: time.as_secs(), nsec: time.subsec_nanos() }
            }
            _ => Ttl::ENDLESS,
        }
    }
}

fn attr(stat: &Stat) -> abi::Attr {
    abi::Attr {
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: stat.atime.sec.cast_unsigned(),
        mtime: stat.mtime.sec.cast_unsigned(),
        ctime: stat.ctime.sec.cast_unsigned(),
        atimensec: stat.atime.nsec,
        mtimensec: stat.mtime.nsec,
        ctimensec: stat.ctime.nsec,
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        blksize: stat.blksize,
        flags: 0,
    }
}

fn entry_out(entry: &Entry, ttl: Ttl, attributes: Ttl) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: entry.node.0,
        // Node ids are never reused, so that their generation never changes.
        generation: 0,
        entry_valid: ttl.sec,
        attr_valid: attributes.sec,
        entry_valid_nsec: ttl.nsec,
        attr_valid_nsec: attributes.nsec,
        attr: attr(&entry.stat),
    }
}

/// A name that exists; how long it and how long its attributes may be kept.
pub(crate) fn entry(
    reply: &mut ReplyBuffer,
    entry: &Entry,
    ttl: Ttl,
    attributes: Ttl,
) -> FsResult<()> {
    reply.put(&entry_out(entry, ttl, attributes))
}

/// A name that does not exist, which the kernel may remember.
pub(crate) fn no_entry(reply: &mut ReplyBuffer, ttl: Ttl) -> FsResult<()> {
    let absent =
        abi::EntryOut { entry_valid: ttl.sec, entry_valid_nsec: ttl.nsec, ..zeroed::<_>() };
    reply.put(&absent)
}

/// The attributes of a node.
pub(crate) fn attributes(reply: &mut ReplyBuffer, stat: &Stat, ttl: Ttl) -> FsResult<()> {
    reply.put(&abi::AttrOut {
        attr_valid: ttl.sec,
        attr_valid_nsec: ttl.nsec,
        dummy: 0,
        attr: attr(stat),
    })
}

/// The attributes of a node with the time of its creation.
pub(crate) fn statx(reply: &mut ReplyBuffer, stat: &Stat, ttl: Ttl) -> FsResult<()> {
    const BASIC_STATS: u32 = 0x7ff;
    const BTIME: u32 = 0x800;
    let time = |t: Time| abi::StatxTime { sec: t.sec, nsec: t.nsec, reserved: 0 };
    let (rdev_major, rdev_minor) = decode_dev(stat.rdev);
    reply.put(&abi::StatxOut {
        attr_valid: ttl.sec,
        attr_valid_nsec: ttl.nsec,
        mask: BASIC_STATS | if stat.btime.is_some() { BTIME } else { 0 },
        blksize: stat.blksize,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        mode: u16::try_from(stat.mode).map_err(|_| Errno::IO)?,
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        btime: time(stat.btime.unwrap_or_default()),
        ctime: time(stat.ctime),
        mtime: time(stat.mtime),
        rdev_major,
        rdev_minor,
        ..zeroed::<_>()
    })
}

/// An open file.
pub(crate) fn open(
    reply: &mut ReplyBuffer,
    handle: Option<HandleId>,
    flags: OpenFlags,
    backing: Option<i32>,
) -> FsResult<()> {
    reply.put(&abi::OpenOut {
        fh: handle.map_or(0, |handle| handle.0),
        open_flags: flags.bits(),
        backing_id: backing.unwrap_or(0),
    })
}

/// The figures of the filesystem.
pub(crate) fn statfs(reply: &mut ReplyBuffer, figures: &StatVfs) -> FsResult<()> {
    // A block size or name length beyond 32 bits does not exist.
    reply.put(&abi::StatfsOut {
        blocks: figures.f_blocks,
        bfree: figures.f_bfree,
        bavail: figures.f_bavail,
        files: figures.f_files,
        ffree: figures.f_ffree,
        bsize: figures.f_bsize as u32,
        namelen: figures.f_namemax as u32,
        frsize: figures.f_frsize as u32,
        padding: 0,
        spare: [0; 6],
    })
}

/// How long an xattr's value or the list of names is.
pub(crate) fn xattr_size(reply: &mut ReplyBuffer, size: usize) -> FsResult<()> {
    let size = u32::try_from(size).map_err(|_| Errno::TOOBIG)?;
    reply.put(&abi::GetXattrOut { size, padding: 0 })
}

/// Packs the entries of a directory until `limit` bytes are used.
pub(crate) struct Listing<'a> {
    reply: &'a mut ReplyBuffer,
    limit: usize,
    /// READDIRPLUS: each entry comes with its attributes.
    plus: Option<Plus<'a>>,
}

/// How long names may be kept, and the attributes of a node.
pub(crate) type Plus<'a> = (Ttl, &'a dyn Fn(NodeId) -> Ttl);

impl<'a> Listing<'a> {
    pub(crate) fn new(reply: &'a mut ReplyBuffer, limit: usize, plus: Option<Plus<'a>>) -> Self {
        Listing { reply, limit, plus }
    }

    /// Adds one entry; `false` where it does not fit any more, and then nothing was added.
    pub(crate) fn add(&mut self, entry: &DirEntry<'_>) -> bool {
        let head = size_of::<abi::Dirent>() + self.plus.map_or(0, |_| size_of::<abi::EntryOut>());
        let size = (head + entry.name.len()).next_multiple_of(8);
        if self.reply.len() + size > self.limit {
            return false;
        }
        self.put(entry).is_ok()
    }

    fn put(&mut self, entry: &DirEntry<'_>) -> FsResult<()> {
        if let Some((ttl, attributes)) = self.plus {
            let out = |entry| entry_out(entry, ttl, attributes(entry.node));
            // Node id 0 says that this entry was not looked up (`.` and `..`).
            let out = entry.entry.as_ref().map_or_else(zeroed, out);
            self.reply.put(&out)?;
        }
        self.reply.put(&abi::Dirent {
            ino: entry.ino,
            off: entry.cookie,
            namelen: entry.name.len() as u32,
            kind: entry.kind,
        })?;
        self.reply.put_bytes(entry.name.as_bytes())?;
        self.reply.pad()
    }
}
