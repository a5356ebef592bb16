//! The operations and their answers.

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;

use crate::support::Time;

/// Bytes that are printed in short.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Data(pub(crate) Vec<u8>);

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.0[..self.0.len().min(24)];
        write!(f, "{} bytes \"{}\"", self.0.len(), start.escape_ascii())?;
        // Where two differ further on, this shows it.
        let sum = self.0.iter().fold(0u32, |sum, b| sum.rotate_left(5) ^ u32::from(*b));
        if self.0.len() > start.len() { write!(f, ".. #{sum:08x}") } else { Ok(()) }
    }
}

/// One operation; paths are relative to the root. No symlink is followed in the last component
/// but by `Truncate` and `Chmod`; all symlinks dangle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// open(O_CREAT|O_EXCL|O_WRONLY)
    Create {
        path: PathBuf,
        mode: u32,
    },
    /// open(O_WRONLY), pwrite
    Write {
        path: PathBuf,
        offset: u64,
        data: Data,
    },
    /// open(O_WRONLY|O_APPEND), write
    Append {
        path: PathBuf,
        data: Data,
    },
    /// open(O_CREAT|O_TRUNC|O_WRONLY, 0644), write
    Replace {
        path: PathBuf,
        data: Data,
    },
    Truncate {
        path: PathBuf,
        size: u64,
    },
    /// open(O_WRONLY), fallocate
    Allocate {
        path: PathBuf,
        how: AllocateHow,
        offset: u64,
        length: u64,
    },
    /// open(O_RDWR), a shared mapping, a write to as much of it as the file has, msync
    MapWrite {
        path: PathBuf,
        offset: u64,
        data: Data,
    },
    /// open(O_TMPFILE) in the directory of `path`, write, linkat
    Unnamed {
        path: PathBuf,
        mode: u32,
        data: Data,
    },
    Mkdir {
        path: PathBuf,
        mode: u32,
    },
    Rmdir {
        path: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        how: RenameHow,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Symlink {
        target: OsString,
        path: PathBuf,
    },
    Fifo {
        path: PathBuf,
        mode: u32,
    },
    Chmod {
        path: PathBuf,
        mode: u32,
    },
    /// lchown; `None` leaves that id.
    Chown {
        path: PathBuf,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// Sets both times.
    SetTimes {
        path: PathBuf,
        time: Time,
    },
    SetXattr {
        path: PathBuf,
        name: &'static str,
        value: Data,
        how: XattrHow,
    },
    RemoveXattr {
        path: PathBuf,
        name: &'static str,
    },
    GetXattr {
        path: PathBuf,
        name: &'static str,
    },
    Stat {
        path: PathBuf,
    },
    Read {
        path: PathBuf,
    },
    ReadLink {
        path: PathBuf,
    },
    List {
        path: PathBuf,
    },
    /// Opens a file and keeps it.
    Hold {
        slot: usize,
        path: PathBuf,
        write: bool,
    },
    HeldRead {
        slot: usize,
    },
    HeldWrite {
        slot: usize,
        offset: u64,
        data: Data,
    },
    HeldTruncate {
        slot: usize,
        size: u64,
    },
    HeldStat {
        slot: usize,
    },
    HeldChmod {
        slot: usize,
        mode: u32,
    },
    Release {
        slot: usize,
    },
}

/// The mode of a fallocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllocateHow {
    Extend,
    KeepSize,
    Punch,
}

impl AllocateHow {
    pub(crate) fn flags(self) -> FallocateFlags {
        match self {
            AllocateHow::Extend => FallocateFlags::empty(),
            AllocateHow::KeepSize => FallocateFlags::KEEP_SIZE,
            AllocateHow::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        }
    }
}

/// The flags of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenameHow {
    Replace,
    NoReplace,
    Exchange,
}

/// The flags of setxattr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XattrHow {
    Either,
    Create,
    Replace,
}

/// What an operation that succeeds tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Bytes(Data),
    /// In order; a doubled name stays doubled.
    Names(Vec<OsString>),
    Stat(Seen),
}

/// What stat shows; `None` where the model cannot know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of files and symlinks.
    pub(crate) size: Option<u64>,
    /// Of everything but directories.
    pub(crate) nlink: Option<u32>,
    pub(crate) mtime: Option<Time>,
}

impl Outcome {
    /// Whether `observed` is what `self`, the model's answer, allows.
    pub(crate) fn allows(&self, observed: &Outcome) -> bool {
        let (Outcome::Stat(model), Outcome::Stat(seen)) = (self, observed) else {
            return self == observed;
        };
        let known = Seen {
            size: model.size.and(seen.size),
            nlink: model.nlink.and(seen.nlink),
            mtime: model.mtime.and(seen.mtime),
            ..seen.clone()
        };
        *model == known
    }
}
