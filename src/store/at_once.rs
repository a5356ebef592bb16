//! Work on several threads at once.

use std::thread;

use crate::error::{Error, Result};

/// Runs `work` on so many threads; returns when all of them have ended.
///
/// # Errors
/// Where one of them panics, which is a bug of ours in `what`: whoever waits for them goes on, and
/// what it holds is cleaned up.
pub(crate) fn at_once(threads: usize, what: &str, work: impl Fn() + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        // Each is asked for: a panic that nobody asks for ends this thread, too.
        let mut ends: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ends.retain(Result::is_err);
        if ends.is_empty() { Ok(()) } else { Err(Error::bug(what)) }
    })
}
