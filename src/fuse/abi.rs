//! The kernel's wire format (`include/uapi/linux/fuse.h`), protocol 7.45: what a request and its
//! reply are made of. Only data; every structure is plain bytes without padding, in the byte
//! order of the machine.
//!
//! Fields whose meaning is not obvious from their name are explained; the others are named as in
//! the kernel's header.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version whose structures are described here.
pub(crate) const MINOR: u32 = 45;
/// The oldest minor version that is served (Linux 5.4): older ones have shorter structures.
pub(crate) const OLDEST_MINOR: u32 = 31;

/// What a request asks for.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const GETLK: u32 = 31;
    pub(crate) const SETLK: u32 = 32;
    pub(crate) const SETLKW: u32 = 33;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const POLL: u32 = 40;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
    /// As `COPY_FILE_RANGE`, answered with 64 bits.
    pub(crate) const COPY_FILE_RANGE_64: u32 = 53;
}

/// Codes of the messages that the daemon sends unasked.
pub(crate) mod notify {
    pub(crate) const INVAL_INODE: i32 = 2;
    pub(crate) const INVAL_ENTRY: i32 = 3;
    pub(crate) const STORE: i32 = 4;
}

bitflags! {
    /// What both sides can do, exchanged by INIT. Bits 32 and up travel in `flags2`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct InitFlags: u64 {
        const ASYNC_READ = 1;
        const ATOMIC_O_TRUNC = 1 << 3;
        const BIG_WRITES = 1 << 5;
        /// The umask is sent along and left to the daemon.
        const DONT_MASK = 1 << 6;
        const HAS_IOCTL_DIR = 1 << 11;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        const ASYNC_DIO = 1 << 15;
        /// OPEN may be answered with ENOSYS, and is then never sent again, nor RELEASE.
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        const POSIX_ACL = 1 << 20;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR may be answered with ENOSYS, and is then never sent again.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// The daemon clears suid, sgid and capabilities where a request says so.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` is valid.
        const INIT_EXT = 1 << 30;
        const HAS_EXPIRE_ONLY = 1 << 35;
        const PASSTHROUGH = 1 << 37;
        /// Files cannot be opened by handles.
        const NO_EXPORT_SUPPORT = 1 << 38;
    }

    /// How the kernel treats an open file.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct OpenFlags: u32 {
        const KEEP_CACHE = 1 << 1;
        /// No FLUSH when a descriptor is closed.
        const NOFLUSH = 1 << 5;
        /// Reads, writes and mappings go to the backing file. May stand only with NOFLUSH.
        const PASSTHROUGH = 1 << 7;
    }

    /// Which fields of [`SetAttrIn`] are meant.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct SetAttrValid: u32 {
        const MODE = 1;
        const UID = 1 << 1;
        const GID = 1 << 2;
        const SIZE = 1 << 3;
        const ATIME = 1 << 4;
        const MTIME = 1 << 5;
        const FH = 1 << 6;
        const ATIME_NOW = 1 << 7;
        const MTIME_NOW = 1 << 8;
        const KILL_SUIDGID = 1 << 11;
    }
}

/// [`GetAttrIn::flags`]: `fh` is valid.
pub(crate) const GETATTR_FH: u32 = 1;
/// [`OpenIn::open_flags`], [`CreateIn::open_flags`]: suid and sgid are to be cleared.
pub(crate) const OPEN_KILL_SUIDGID: u32 = 1;
/// [`WriteIn::write_flags`]: suid and sgid are to be cleared.
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// [`FsyncIn::fsync_flags`]: data only.
pub(crate) const FSYNC_FDATASYNC: u32 = 1;
/// [`SetXattrIn::setxattr_flags`]: sgid is to be cleared with the new ACL.
pub(crate) const SETXATTR_ACL_KILL_SGID: u32 = 1;
/// [`IoctlIn::flags`]: the file is a directory.
pub(crate) const IOCTL_DIR: u32 = 1 << 4;

macro_rules! wire {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $($(#[$fmeta])* pub(crate) $field: $type),* }
    )*};
}

// Requests.
wire! {
    /// Precedes every request.
    struct InHeader {
        /// Length of the whole request.
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    struct InitIn {
        major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11],
    }
    struct ForgetIn { nlookup: u64 }
    struct BatchForgetIn { count: u32, dummy: u32 }
    struct ForgetOne { nodeid: u64, nlookup: u64 }
    struct GetAttrIn { flags: u32, dummy: u32, fh: u64 }
    struct StatxIn { flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    struct SetAttrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    struct MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    struct MkdirIn { mode: u32, umask: u32 }
    struct RenameIn { newdir: u64 }
    struct Rename2In { newdir: u64, flags: u32, padding: u32 }
    struct LinkIn { oldnodeid: u64 }
    struct OpenIn { flags: u32, open_flags: u32 }
    struct CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    struct ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    struct ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    struct WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    struct FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// Without SETXATTR_EXT only the first two fields are sent.
    struct SetXattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    struct SetXattrShortIn { size: u32, flags: u32 }
    struct GetXattrIn { size: u32, padding: u32 }
    struct IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    struct FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    struct LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    struct CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
}

// Replies.
wire! {
    /// Precedes every reply.
    struct OutHeader {
        /// Length of the whole reply.
        len: u32,
        /// Zero or a negative errno; a code of [`notify`] where `unique` is zero.
        error: i32, unique: u64,
    }
    struct InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32,
        /// Granularity of times in nanoseconds.
        time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32,
        /// How many stacked filesystems may stand below a passthrough file, plus one.
        max_stack_depth: u32, request_timeout: u16, unused: [u16; 11],
    }
    struct Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev: u32, blksize: u32, flags: u32,
    }
    struct EntryOut {
        /// Zero: the name does not exist, and that may be cached.
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    }
    struct AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    struct StatxTime { sec: i64, nsec: u32, reserved: i32 }
    struct StatxOut {
        attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2],
        /// The fields from here on are `struct fuse_statx`.
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    struct OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    struct WriteOut { size: u32, padding: u32 }
    struct StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32,
        frsize: u32, padding: u32, spare: [u32; 6],
    }
    struct GetXattrOut { size: u32, padding: u32 }
    struct IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// `struct fsxattr`: what an ioctl of that name answers.
    struct FsXattr {
        xflags: u32, extsize: u32, nextents: u32, projid: u32, cowextsize: u32, pad: [u8; 8],
    }
    struct LseekOut { offset: u64 }
    struct CopyFileRangeOut { bytes_copied: u64 }
    /// Followed by the name, padded to eight bytes.
    struct Dirent {
        ino: u64,
        /// Where the next READDIR goes on.
        off: u64, namelen: u32, kind: u32,
    }
    struct NotifyInvalInodeOut { ino: u64, off: i64, len: i64 }
    /// Followed by the data.
    struct NotifyStoreOut { nodeid: u64, offset: u64, size: u32, padding: u32 }
    /// Followed by the name and a NUL.
    struct NotifyInvalEntryOut { parent: u64, namelen: u32, flags: u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the kernel's header: a field too many or too few shows here.
    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<InHeader>(), 40);
        assert_eq!(size_of::<OutHeader>(), 16);
        assert_eq!(size_of::<InitIn>(), 64);
        assert_eq!(size_of::<InitOut>(), 64);
        assert_eq!(size_of::<Attr>(), 88);
        assert_eq!(size_of::<EntryOut>(), 128);
        assert_eq!(size_of::<AttrOut>(), 104);
        assert_eq!(size_of::<SetAttrIn>(), 88);
        assert_eq!(size_of::<StatxOut>(), 32 + 256);
        assert_eq!(size_of::<WriteIn>(), 40);
        assert_eq!(size_of::<StatfsOut>(), 80);
        assert_eq!(size_of::<CopyFileRangeIn>(), 56);
        assert_eq!(size_of::<Dirent>(), 24);
    }
}
