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
    /// That call and all later ones fail with this errno, as where a disk is gone.
    FailFrom(Errno),
    /// The process ends at once, as after `kill -9`.
    Stop,
    /// The thread panics, as a mistake of ours would have it.
    Panic,
}

const DISARMED: i64 = i64::MIN;

// An action as a number: an errno, or one of these, or both for `FailFrom`.
const STOP: u64 = 0;
const PANIC: u64 = 1 << 32;
const FOR_EVER: u64 = 1 << 33;

/// Steps that go before the chosen one; negative after it.
static REMAINING: AtomicI64 = AtomicI64::new(DISARMED);
static ACTION: AtomicU64 = AtomicU64::new(STOP);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Arms the seam: the `k`-th mutating call from now (counted from 0) meets `action`.
pub fn arm(k: u32, action: Action) {
    let number = |errno: Errno| u64::from(errno.raw_os_error().unsigned_abs());
    let code = match action {
        Action::Fail(errno) => number(errno),
        Action::FailFrom(errno) => number(errno) | FOR_EVER,
        Action::Stop => STOP,
        Action::Panic => PANIC,
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
#[expect(clippy::panic, reason = "a test asked for it")]
fn armed_step() -> FsResult<()> {
    let before_it = REMAINING.fetch_sub(1, Ordering::SeqCst);
    if before_it < DISARMED / 2 {
        // Another thread disarmed it just now.
        REMAINING.store(DISARMED, Ordering::SeqCst);
        return Ok(());
    }
    TAKEN.fetch_add(1, Ordering::SeqCst);
    let action = ACTION.load(Ordering::SeqCst);
    if before_it > 0 || (before_it < 0 && action & FOR_EVER == 0) {
        return Ok(());
    }
    match action {
        STOP => std::process::abort(),
        PANIC => panic!("a panic that a test asked for"),
        code => {
            let errno = i32::try_from(code & !FOR_EVER).unwrap_or(libc::EIO);
            Err(Errno::from_raw_os_error(errno))
        }
    }
}
