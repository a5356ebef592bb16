//! What a difference of two trees consists of.

use std::fmt;

use rustix::fs::FileType;

use crate::sys::stat::{Stat, Time, decode_dev};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is another file, or its attributes or its content are others.
    Changed,
    /// It is gone, with everything below it.
    Deleted,
}

impl fmt::Display for ChangeKind {
    /// One letter, as `docker diff` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangeKind::Added => "A",
            ChangeKind::Changed => "C",
            ChangeKind::Deleted => "D",
        })
    }
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The kind of a file with attributes `stat`.
    pub fn of(stat: &Stat) -> FileKind {
        match stat.file_type() {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::RegularFile | FileType::Unknown => FileKind::File,
        }
    }

    /// Its name in machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::CharDevice => "char-device",
            FileKind::BlockDevice => "block-device",
            FileKind::Fifo => "fifo",
            FileKind::Socket => "socket",
        }
    }
}

/// What a path was or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits with suid, sgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file or of a symlink's target; 0 for everything else.
    pub size: u64,
    /// Last change of content.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
}

impl Meta {
    /// What `stat` says.
    pub fn of(stat: &Stat) -> Meta {
        let kind = FileKind::of(stat);
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let has_size = matches!(kind, FileKind::File | FileKind::Symlink);
        Meta {
            kind,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            size: if has_size { stat.size } else { 0 },
            mtime: stat.mtime,
            device: is_device.then(|| decode_dev(stat.rdev)),
        }
    }
}

/// One line of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The path from the root of the tree, `/` first; any bytes but NUL.
    pub path: Vec<u8>,
    /// What it was; `None` if it was added.
    pub old: Option<Meta>,
    /// What it is; `None` if it was deleted.
    pub new: Option<Meta>,
}

impl fmt::Display for Change {
    /// `A /path`, as `docker diff` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, String::from_utf8_lossy(&self.path))
    }
}
