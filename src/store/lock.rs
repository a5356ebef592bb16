//! Locks, all of them flock(2): the kernel releases them when their holder dies.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::Store;

/// How often a lock that somebody else holds is tried again.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// Proof that nobody changes the store meanwhile; held while several of its files are read.
#[derive(Debug)]
pub(super) struct Shared(#[expect(dead_code, reason = "its drop is the unlock")] File);

/// Proof that nobody else reads or changes the store meanwhile; held while changes are made
/// visible, and never longer.
#[derive(Debug)]
pub(super) struct Exclusive(#[expect(dead_code, reason = "its drop is the unlock")] File);

impl Store {
    /// Waits until nobody is changing the store.
    pub(super) fn lock_shared(&self) -> Result<Shared> {
        let path = self.layout.lock();
        let file = open_lock(&path)?;
        file.lock_shared().map_err(|error| Error::std_io("lock", &path, &error))?;
        Ok(Shared(file))
    }

    /// Waits until nobody is reading or changing the store.
    pub(super) fn lock_exclusive(&self) -> Result<Exclusive> {
        let path = self.layout.lock();
        let file = open_lock(&path)?;
        file.lock().map_err(|error| Error::std_io("lock", &path, &error))?;
        Ok(Exclusive(file))
    }
}

fn open_lock(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // Whoever can open it can hold it, and everybody up.
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::std_io("open", path, &error))
}

/// How a directory is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Beside others that only read.
    Shared,
    /// Alone.
    Exclusive,
}

/// Tries to lock the directory at `path`; `None` where somebody else holds it in a way that
/// does not allow that.
pub(super) fn try_hold(path: &Path, hold: Hold) -> Result<Option<File>> {
    let dir = File::open(path).map_err(|error| Error::std_io("open", path, &error))?;
    Ok(try_lock(&dir, path, hold)?.then_some(dir))
}

/// As [`try_hold`], but somebody else is given a moment to let go: those who only look hold a
/// lock for microseconds.
pub(super) fn hold_patiently(path: &Path, hold: Hold, patience: Duration) -> Result<Option<File>> {
    let dir = File::open(path).map_err(|error| Error::std_io("open", path, &error))?;
    let start = Instant::now();
    loop {
        if try_lock(&dir, path, hold)? {
            return Ok(Some(dir));
        }
        if start.elapsed() > patience {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn try_lock(dir: &File, path: &Path, hold: Hold) -> Result<bool> {
    let outcome = match hold {
        Hold::Shared => dir.try_lock_shared(),
        Hold::Exclusive => dir.try_lock(),
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::std_io("lock", path, &error)),
    }
}
