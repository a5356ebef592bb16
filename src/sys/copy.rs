//! Copying a file's content: as a clone where the filesystem can, inside the kernel where it
//! can, and never the holes.

use std::ops::Range;

use super::{AsFd, BorrowedFd, fault, file, writeback};
use crate::error::{Errno, FsResult};

/// How content was copied, for counters and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// Extents are shared (FICLONE): no data moved.
    Cloned,
    /// This many bytes were copied.
    Bytes(u64),
}

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// It is all of the file, which may be cloned.
    pub whole: bool,
    /// It will be waited for on the disk: what is copied starts on its way there while the rest is
    /// copied.
    pub write_out: bool,
}

/// The most that one call copies, so that a signal or a dying client is noticed in between.
const CHUNK: usize = 16 << 20;

/// Up to this size a file without holes is copied by one read and one write.
const SMALL: u64 = 64 << 10;

/// Makes the empty file `to` hold the first `size` bytes of the file `from`, which has no holes:
/// the cheapest way for a small one.
///
/// # Errors
/// As [`content`].
pub fn dense_content(from: impl AsFd, to: impl AsFd, size: u64, how: How) -> FsResult<Copied> {
    if size == 0 || size > SMALL {
        return content(from, to, size, how);
    }
    let mut buffer = vec![0u8; size as usize];
    let read = file::read_at(from, &mut buffer, 0)?;
    buffer.truncate(read);
    file::write_all_at(&to, &buffer, 0)?;
    if read < size as usize {
        // The file became shorter than its size said: what is missing reads as zeros.
        file::truncate(to, size)?;
    }
    Ok(Copied::Bytes(read as u64))
}

/// Makes the empty file `to` hold the first `size` bytes of `from`. A whole file is cloned where the
/// filesystem can do that; holes stay holes.
///
/// # Errors
/// Whatever reading and writing may give; `to` then holds a part and must be thrown away.
pub fn content(from: impl AsFd, to: impl AsFd, size: u64, how: How) -> FsResult<Copied> {
    let (from, to) = (from.as_fd(), to.as_fd());
    if size == 0 {
        return Ok(Copied::Bytes(0));
    }
    fault::step()?;
    if how.whole && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(Copied::Cloned);
    }
    let mut copied = 0;
    let mut position = 0;
    while position < size {
        let Some((start, end)) = next_data(from, position, size)? else { break };
        copy_extent(from, to, start..end, how)?;
        copied += end - start;
        position = end;
    }
    file::truncate(to, size)?;
    Ok(Copied::Bytes(copied))
}

/// The next run of data in `position..size`; everything counts as data where the filesystem
/// does not know of holes.
fn next_data(from: BorrowedFd<'_>, position: u64, size: u64) -> FsResult<Option<(u64, u64)>> {
    match file::seek_sparse(from, position, true) {
        Ok(start) if start >= size => Ok(None),
        Ok(start) => {
            let end = file::seek_sparse(from, start, false).unwrap_or(size).min(size);
            Ok(Some((start, end.max(start + 1))))
        }
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some((position, size))),
        Err(errno) => Err(errno),
    }
}

fn copy_extent(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    Range { start, end }: Range<u64>,
    how: How,
) -> FsResult<()> {
    let mut position = start;
    while position < end {
        let length = usize::try_from(end - position).unwrap_or(CHUNK).min(CHUNK);
        match file::copy_range(from, position, to, position, length) {
            // The file became shorter than its size said: what is missing reads as zeros.
            Ok(0) => return Ok(()),
            Ok(n) => {
                if how.write_out && n == CHUNK {
                    writeback::begin(to, position, CHUNK);
                }
                position += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, position, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    mut position: u64,
    end: u64,
) -> FsResult<()> {
    let mut buffer = vec![0u8; 1 << 20];
    while position < end {
        let want = usize::try_from(end - position).unwrap_or(buffer.len()).min(buffer.len());
        let Some(part) = buffer.get_mut(..want) else { return Err(Errno::IO) };
        let n = file::read_at(from, part, position)?;
        if n == 0 {
            return Ok(());
        }
        let mut done = 0;
        while let Some(rest) = part.get(done..n).filter(|rest| !rest.is_empty()) {
            match file::write_at(to, rest, position + done as u64)? {
                0 => return Err(Errno::IO),
                written => done += written,
            }
        }
        position += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn what_takes_several_calls_arrives_whole_whether_it_is_written_out_or_not() {
        let mut from = tempfile::tempfile().unwrap();
        let run: Vec<u8> = (0..CHUNK + 4096).map(|n| (n % 251) as u8).collect();
        from.write_all(&run).unwrap();
        // A hole, more, and an end that is no page's.
        let (second, size) = (3 * CHUNK as u64, 3 * CHUNK as u64 + 12_345);
        from.write_all_at(&run[..12_345], second).unwrap();
        for write_out in [false, true] {
            let to = tempfile::tempfile().unwrap();
            content(&from, &to, size, How { whole: false, write_out }).unwrap();
            assert_eq!(to.metadata().unwrap().len(), size);
            let mut part = vec![0; run.len()];
            to.read_exact_at(&mut part, 0).unwrap();
            assert!(part == run);
            part.truncate(12_345);
            to.read_exact_at(&mut part, second).unwrap();
            assert!(part == run[..12_345]);
        }
    }
}
