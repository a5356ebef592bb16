//! Long runs of zeros take no space: what is written leaves holes for them.

use crate::error::FsResult;
use crate::sys::{AsFd, file};

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
