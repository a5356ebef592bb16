//! What `statx` tells of a file.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, statx};

use super::{AsFd, StatVfs};
use crate::error::FsResult;

/// A point in time: seconds since the epoch (negative before it) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nsec: u32,
}

/// The attributes of one file, as its own filesystem gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(Default))]
pub struct Stat {
    /// Device of the filesystem that holds it, `major << 32 | minor`.
    pub dev: u64,
    /// Inode number on that device.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, in the kernel's `new_encode_dev` form.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
    /// Creation, where the filesystem records it.
    pub btime: Option<Time>,
    /// Nothing of it may be changed (`chattr +i`).
    pub immutable: bool,
    /// Its content, or its entries, may only become more (`chattr +a`).
    pub append_only: bool,
}

impl Stat {
    /// The type alone.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// Whether it is a block or character device.
    pub fn is_device(&self) -> bool {
        matches!(self.file_type(), FileType::BlockDevice | FileType::CharacterDevice)
    }

    /// Whether it is the character device 0:0, overlayfs's whiteout.
    pub fn is_whiteout_device(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && self.rdev == 0
    }
}

/// The attributes of `dir`/`name`; a symlink is not followed.
pub fn stat_at(dir: impl AsFd, name: &OsStr) -> FsResult<Stat> {
    statx_raw(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The attributes of an open file, `O_PATH` descriptors included.
pub fn stat_fd(fd: impl AsFd) -> FsResult<Stat> {
    statx_raw(fd, OsStr::new(""), AtFlags::EMPTY_PATH)
}

fn statx_raw(dir: impl AsFd, name: &OsStr, flags: AtFlags) -> FsResult<Stat> {
    let x = statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let time = |t: rustix::fs::StatxTimestamp| Time { sec: t.tv_sec, nsec: t.tv_nsec };
    let has_btime = x.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Stat {
        dev: u64::from(x.stx_dev_major) << 32 | u64::from(x.stx_dev_minor),
        ino: x.stx_ino,
        mode: u32::from(x.stx_mode),
        nlink: x.stx_nlink,
        uid: x.stx_uid,
        gid: x.stx_gid,
        rdev: encode_dev(x.stx_rdev_major, x.stx_rdev_minor),
        size: x.stx_size,
        blocks: x.stx_blocks,
        blksize: x.stx_blksize,
        atime: time(x.stx_atime),
        mtime: time(x.stx_mtime),
        ctime: time(x.stx_ctime),
        btime: has_btime.then(|| time(x.stx_btime)),
        immutable: x.stx_attributes.contains(StatxAttributes::IMMUTABLE),
        append_only: x.stx_attributes.contains(StatxAttributes::APPEND),
    })
}

/// A device number in the kernel's 32-bit form (`new_encode_dev`), as FUSE and mknod carry it.
pub fn encode_dev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12)
}

/// The inverse of [`encode_dev`]: `(major, minor)`.
pub fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00))
}

/// The figures of the filesystem that holds `fd`.
pub fn statvfs(fd: impl AsFd) -> FsResult<StatVfs> {
    rustix::fs::fstatvfs(fd)
}

/// Whether the filesystem of `fd` is known to bring changes of names to the disk in their order,
/// whatever is synced in between.
pub fn keeps_order(fd: impl AsFd) -> FsResult<bool> {
    /// ext2, ext3 and ext4; xfs; tmpfs, where nothing is durable.
    const KNOWN: [i64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    Ok(KNOWN.contains(&(kind as i64)))
}

/// Whether a daemon serves the filesystem of `fd`.
pub fn is_fuse(fd: impl AsFd) -> FsResult<bool> {
    const FUSE: i64 = 0x6573_5546;
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64 == FUSE)
}

/// Major and minor number of the device of what `path` names, as the kernel knows it: the
/// filesystem is asked nothing, so that a daemon may look at its own mount before it serves it.
pub fn device_as_known(path: &Path) -> FsResult<(u32, u32)> {
    let stat = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (10, 229), (259, 70_000), (4095, 0xfffff)] {
            assert_eq!(decode_dev(encode_dev(major, minor)), (major, minor));
        }
    }
}
