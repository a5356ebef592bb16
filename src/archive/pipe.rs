//! Reading ahead on another thread, so that decompression runs beside extraction.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes handed over at once (fewer for Miri, which is slow), and how many such pieces may wait.
const PIECE: usize = if cfg!(miri) { 1 << 10 } else { 256 << 10 };
const WAITING: usize = 16;

/// Gives `consume` the content of `source`, which a thread reads ahead of it. The thread has
/// ended when this returns, also where `consume` stopped early.
pub(super) fn read_ahead<T>(
    source: impl Read + Send,
    consume: impl FnOnce(&mut (dyn Read + '_)) -> T,
) -> T {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(WAITING);
        scope.spawn(move || produce(source, &sender));
        // Dropping the receiver, at the latest here, is what ends a producer that is ahead.
        consume(&mut Pieces { receiver, piece: Vec::new(), position: 0 })
    })
}

fn produce(mut source: impl Read, to: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let outcome = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let last = piece.len() < PIECE;
        if !piece.is_empty() && to.send(Ok(piece)).is_err() {
            return;
        }
        if let Err(error) = outcome {
            // Nobody to tell is nobody to mislead: whoever stopped reading has another reason.
            drop(to.send(Err(error)));
            return;
        }
        if last {
            return;
        }
    }
}

/// The receiving end.
struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    position: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.piece.len() {
            // A sender that is gone has sent everything.
            let Ok(next) = self.receiver.recv() else { return Ok(0) };
            self.piece = next?;
            self.position = 0;
        }
        let mut rest = self.piece.get(self.position..).unwrap_or_default();
        let n = rest.read(buffer)?;
        self.position += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_and_stopping_early_ends_the_thread() {
        // Some pieces and a part of one; fewer for Miri, which is slow.
        let length = if cfg!(miri) { 3 * PIECE as u32 + 7 } else { 3_000_000 };
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let all = read_ahead(bytes.as_slice(), |source| {
            let mut all = Vec::new();
            source.read_to_end(&mut all).map(|_| all)
        });
        assert!(all.unwrap() == bytes);
        let first = read_ahead(io::repeat(7), |source| {
            let mut first = [0; 3];
            source.read_exact(&mut first).map(|()| first)
        });
        assert_eq!(first.unwrap(), [7; 3]);
    }
}
