//! A seam for tests: fail, or stop the process at, the k-th mutating system call.
//!
//! Disarmed (always, outside tests) a step costs one relaxed load.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::error::{Errno, FsResult};

/// What happens at the step that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// That one call fails with this errno; later ones work again.
    Fail(Errno),
    /// The process ends at once, as after `kill -9`.
    Stop,
}

const DISARMED: i64 = -1;
const STOP: u64 = 0;

static REMAINING: AtomicI64 = AtomicI64::new(DISARMED);
static ACTION: AtomicU64 = AtomicU64::new(STOP);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Arms the seam: the `k`-th mutating call from now (counted from 0) meets `action`.
pub fn arm(k: u32, action: Action) {
    let code = match action {
        Action::Fail(errno) => u64::from(errno.raw_os_error().unsigned_abs()),
        Action::Stop => STOP,
    };
    ACTION.store(code, Ordering::SeqCst);
    TAKEN.store(0, Ordering::SeqCst);
    REMAINING.store(i64::from(k), Ordering::SeqCst);
}

/// Disarms the seam and returns how many steps were taken since it was armed.
pub fn disarm() -> u64 {
    REMAINING.store(DISARMED, Ordering::SeqCst);
    TAKEN.load(Ordering::SeqCst)
}

/// Passed by every mutating call before it is made.
pub(crate) fn step() -> FsResult<()> {
    if REMAINING.load(Ordering::Relaxed) == DISARMED {
        return Ok(());
    }
    armed_step()
}

#[cold]
fn armed_step() -> FsResult<()> {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    if REMAINING.fetch_sub(1, Ordering::SeqCst) != 0 {
        return Ok(());
    }
    REMAINING.store(i64::MAX, Ordering::SeqCst);
    match ACTION.load(Ordering::SeqCst) {
        STOP => std::process::abort(),
        code => Err(Errno::from_raw_os_error(i32::try_from(code).unwrap_or(libc::EIO))),
    }
}
