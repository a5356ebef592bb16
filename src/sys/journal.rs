//! Whether a filesystem's journal shows a name only with the data that was written before it.

use super::stat::stat_fd;
use super::{AsFd, mountinfo};
use crate::error::FsResult;

const EXT4: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;

/// Whether changes of names and inodes in the filesystem of `fd` reach its disk in their order, and
/// none before the content that [`write_out`] wrote until then. Where that cannot be told, `false`.
///
/// Both journals note a file's size and its blocks before a page counts as written, and flush the
/// disk's cache with each commit. What is left out: ext4 without a journal, with one on another
/// disk (only an fsync flushes the disk with the data then), or with commits that do not wait; xfs
/// with a log or files on other disks.
///
/// [`write_out`]: super::writeback::write_out
pub fn shows_data_before_names(fd: impl AsFd) -> FsResult<bool> {
    let kind = rustix::fs::fstatfs(&fd)?.f_type as i64;
    if kind != EXT4 && kind != XFS {
        return Ok(false);
    }
    let stat = stat_fd(&fd)?;
    let device = format!("{}:{}", stat.dev >> 32, stat.dev & u64::from(u32::MAX));
    let Some(options) = options_of(&device)? else { return Ok(false) };
    Ok(match kind {
        EXT4 => !has_any(&options, &["journal_async_commit"]) && has_own_journal(&device),
        _ => !has_any(&options, &["logdev", "rtdev"]),
    })
}

/// The options of the filesystem on this device, which are the same for all its mounts.
fn options_of(device: &str) -> FsResult<Option<String>> {
    let mounts = mountinfo::read()?;
    Ok(mounts.into_iter().find(|mount| mount.device == device).map(|mount| mount.options))
}

fn has_any(options: &str, names: &[&str]) -> bool {
    options.split(',').any(|option| {
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        names.contains(&name)
    })
}

/// Whether ext4's journal is a file on the same disk, inode 8 as `mkfs` makes it.
fn has_own_journal(device: &str) -> bool {
    let disk = std::fs::read_link(format!("/sys/dev/block/{device}"));
    let Some(disk) = disk.ok().and_then(|link| link.file_name()?.to_str().map(str::to_owned))
    else {
        return false;
    };
    std::path::Path::new(&format!("/proc/fs/jbd2/{disk}-8")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_by_their_whole_name() {
        assert!(has_any("rw,attr2,logdev=/dev/sdb,noquota", &["logdev", "rtdev"]));
        assert!(has_any("rw,journal_async_commit", &["journal_async_commit"]));
        assert!(!has_any("rw,logbufs=8,inode64", &["logdev", "rtdev"]));
    }
}
