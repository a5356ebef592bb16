//! Long runs of zeros take no space: what is written leaves holes for them, and holes are not read.

use crate::error::{Errno, FsResult};
use crate::sys::{AsFd, OwnedFd, file};

/// A run of this many zero bytes, aligned to as many, becomes a hole.
const HOLE: usize = 64 * 1024;
/// So does a shorter one at the end of the data, if it is at least a page.
const HOLE_MIN: usize = 4096;

/// Writes `data` at `position` but for long runs of zeros, which stay holes; returns the end of
/// what is written by now.
pub(crate) fn write(fd: &impl AsFd, data: &[u8], position: u64, written_to: u64) -> FsResult<u64> {
    let mut written_to = written_to;
    let mut at = position;
    // Pieces lie between multiples of HOLE in the file, so that a hole frees whole blocks.
    let first = HOLE - usize::try_from(position % HOLE as u64).unwrap_or(0);
    let (head, tail) = data.split_at(first.min(data.len()));
    for piece in std::iter::once(head).chain(tail.chunks(HOLE)) {
        let is_hole = piece.len() >= HOLE_MIN && is_zero(piece);
        if !is_hole {
            file::write_all_at(fd, piece, at)?;
            written_to = at + piece.len() as u64;
        }
        at += piece.len() as u64;
    }
    Ok(written_to)
}

fn is_zero(piece: &[u8]) -> bool {
    let (words, rest) = piece.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|b| *b == 0)
}

/// Where the next run of data of a file of `size` bytes begins and ends, at or after `position`.
pub(crate) fn next_run(fd: &OwnedFd, position: u64, size: u64) -> FsResult<(u64, u64)> {
    let data = next_data(fd, position, size)?;
    Ok((data, next_hole(fd, data, size)?))
}

/// Where data begins at or after `position`; `size` where none does.
fn next_data(fd: &OwnedFd, position: u64, size: u64) -> FsResult<u64> {
    match file::seek_sparse(fd, position, true) {
        Ok(start) => Ok(start.clamp(position, size)),
        Err(Errno::NXIO) => Ok(size),
        // A filesystem that knows of no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(position),
        Err(errno) => Err(errno),
    }
}

/// Where the data at `position` ends.
fn next_hole(fd: &OwnedFd, position: u64, size: u64) -> FsResult<u64> {
    match file::seek_sparse(fd, position, false) {
        Ok(end) if end > position => Ok(end.min(size)),
        Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(size),
        Err(errno) => Err(errno),
    }
}
