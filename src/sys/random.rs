//! Random bytes of the kernel.

use crate::error::{Errno, FsResult};

/// Fills `buffer` with bytes that nobody can foretell.
pub fn fill(buffer: &mut [u8]) -> FsResult<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
