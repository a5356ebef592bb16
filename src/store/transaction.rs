//! Transactions: a private place to build in, and what is done about those who died.
//!
//! `staging/NAME/` belongs to the process that holds its lock (an flock of the directory itself).
//! One whose lock is free belonged to a process that died; it may also have left layers and
//! images that no catalog leads to. Both are swept when the next transaction begins.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error, Result, errno_of};
use crate::sys::{
    self,
    xattr::{self, Target},
};

use super::lock::{Exclusive, Hold, try_hold};
use super::{Store, durable};

/// A directory under `staging/`, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Transaction {
    dir: PathBuf,
    #[expect(dead_code, reason = "held: the lock says that this process lives")]
    lock: File,
    orphans: Cell<bool>,
}

impl Transaction {
    /// A place in it.
    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes `path` out of sight, in one rename; it is gone for good when the transaction ends.
    /// What is not there is fine.
    pub(super) fn bury(&self, path: &Path, _: &Exclusive) -> Result<()> {
        match durable::rename_new(path, &self.path(format!("buried-{}", unique_name()?))) {
            Err(Error::Io { source: Errno::NOENT, .. }) => Ok(()),
            other => other,
        }
    }

    /// To be said before anything is moved to where only a catalog still to come, or none any
    /// more, leads to it, and before a name leads to what does not have it. When the transaction fails after this, its directory stays, as after a
    /// crash, so that the next one sweeps.
    pub(super) fn may_leave_orphans(&self) {
        self.orphans.set(true);
    }

    /// Ends it and removes what is left in it.
    ///
    /// # Errors
    /// Where something cannot be removed; the next transaction tries again.
    pub(super) fn end(self) -> Result<()> {
        durable::remove_all(&self.dir)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.orphans.get() {
            return;
        }
        // After `end` there is nothing left. Otherwise an error is on its way to the user, which
        // matters more than this one; what stays is swept by the next transaction.
        if let Err(error) = durable::remove_all(&self.dir) {
            tracing::warn!(%error, "leftovers stay in the store until its next change");
        }
    }
}

fn unique_name() -> Result<String> {
    let mut random = [0; 16];
    sys::random::fill(&mut random).map_err(|errno| Error::io("read", "random bytes", errno))?;
    Ok(hex::encode(random))
}

impl Store {
    /// Begins a transaction, after sweeping what dead ones left.
    pub(super) fn begin(&self) -> Result<Transaction> {
        let transaction = self.begin_without_sweep()?;
        self.sweep(&transaction)?;
        Ok(transaction)
    }

    /// Begins a transaction in a store that may be too damaged to be swept.
    pub(super) fn begin_without_sweep(&self) -> Result<Transaction> {
        loop {
            let dir = self.layout.staging().join(unique_name()?);
            match durable::create_dir(&dir, 0o700) {
                // A sweep took it away before it had its mode.
                Err(Error::Io { source: Errno::NOENT, .. }) if self.layout.staging().is_dir() => {
                    continue;
                }
                other => other?,
            }
            // A sweep may have come between: it held the lock for a moment, or took the
            // directory away.
            let Some(lock) = hold_own(&dir)? else { continue };
            // Layers, uppers and workdirs are made here: they would get the ACL that a directory
            // above the store hands on, and an image's files with them.
            xattr::remove_acls(Target::dir(&lock))
                .map_err(|errno| Error::io("take the ACLs away from", &dir, errno))?;
            return Ok(Transaction { dir, lock, orphans: Cell::new(false) });
        }
    }

    /// Removes what processes that died have left behind.
    pub(super) fn sweep(&self, transaction: &Transaction) -> Result<()> {
        let dead = self.dead_transactions(transaction)?;
        if dead.is_empty() {
            return Ok(());
        }
        // Orphans first: once the dead directory is gone nobody would look for them.
        self.bury_orphans(transaction, &self.lock_exclusive()?)?;
        for (path, _lock) in &dead {
            if let Err(error) = durable::remove_all(path) {
                tracing::warn!(%error, "leftovers stay in the store until its next change");
            }
        }
        Ok(())
    }

    fn dead_transactions(&self, own: &Transaction) -> Result<Vec<(PathBuf, File)>> {
        let mut dead = Vec::new();
        for path in entries(&self.layout.staging())? {
            if path == own.dir {
                continue;
            }
            match try_hold(&path, Hold::Exclusive) {
                Ok(Some(lock)) => dead.push((path, lock)),
                Ok(None) | Err(Error::Io { source: Errno::NOENT, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(dead)
    }

    /// Takes layers, their blobs and images out of sight that neither the catalog nor a container
    /// leads to, and removes names that lead to no container.
    pub(super) fn bury_orphans(&self, into: &Transaction, exclusive: &Exclusive) -> Result<()> {
        let catalog = self.catalog()?;
        let layers = self.live_layers(&catalog)?;
        let images = catalog.ids().map(|id| self.layout.image(id)).collect::<Vec<_>>();
        let blobs = self.live_blobs(&catalog, &layers)?;
        let layers = layers.iter().map(|chain| self.layout.layer(chain)).collect::<Vec<_>>();
        let kinds = [
            (self.layout.images(), images),
            (self.layout.layers(), layers),
            (self.layout.blobs(), blobs),
        ];
        for (dir, live) in kinds {
            let live: std::collections::HashSet<_> = live.into_iter().collect();
            for path in entries(&dir)?.into_iter().filter(|path| !live.contains(path)) {
                into.bury(&path, exclusive)?;
            }
        }
        self.stale_names()?.iter().try_for_each(|link| durable::remove_all(link))
    }
}

/// Locks a directory that was just made; `None` where it is gone.
fn hold_own(dir: &Path) -> Result<Option<File>> {
    let open = |error: &std::io::Error| Error::std_io("open", dir, error);
    let lock = match File::open(dir) {
        Err(error) if errno_of(&error) == Errno::NOENT => return Ok(None),
        other => other.map_err(|error| open(&error))?,
    };
    lock.lock().map_err(|error| Error::std_io("lock", dir, &error))?;
    Ok(dir.exists().then_some(lock))
}

/// The paths of the entries of a directory.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: &std::io::Error| Error::std_io("read", dir, error);
    let listing = std::fs::read_dir(dir).map_err(|error| failed(&error))?;
    let entries = listing.map(|entry| entry.map(|entry| entry.path()));
    entries.collect::<std::io::Result<_>>().map_err(|error| failed(&error))
}
