//! Making the upper durable, and what a volatile one does instead.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use super::Upper;
use crate::error::{Errno, FsResult};
use crate::sys::{self, AsFd, OwnedFd, file, writeback};

impl Upper {
    /// Makes sure that a name which this complete copy, with data, is given from now on is on the
    /// disk only with all of it. By a journal that keeps this order its content must only be
    /// written out; waiting for a commit as well, as the kernel's overlayfs does, would take
    /// several times as long, and leave the same after a crash: the name is not durable either.
    pub fn before_published(&self, fd: &OwnedFd) -> FsResult<()> {
        if self.volatile {
            return Ok(());
        }
        if self.shows_data_before_names() {
            match writeback::write_out(fd) {
                // Not permitted, or not known.
                Err(Errno::PERM | Errno::NOSYS) => {}
                other => return other,
            }
        }
        file::sync(fd, false)
    }

    fn shows_data_before_names(&self) -> bool {
        *self.journal_shows_data.get_or_init(|| {
            let shows = sys::journal::shows_data_before_names(&self.root);
            tracing::debug!(?shows, "whether the journal shows data before names");
            shows.unwrap_or(false)
        })
    }

    /// fsync as a user asks for it. A volatile mount writes nothing then; but once a failed write
    /// has shown, this one fails, and so do all later ones, as in the kernel.
    pub fn sync_for_user(&self, fd: impl AsFd, data_only: bool) -> FsResult<()> {
        if !self.volatile {
            return file::sync(fd, data_only);
        }
        if writeback::failure(fd).is_err() {
            self.lost_data.store(true, Ordering::Relaxed);
        }
        self.no_data_lost()
    }

    fn no_data_lost(&self) -> FsResult<()> {
        if self.lost_data.load(Ordering::Relaxed) { Err(Errno::IO) } else { Ok(()) }
    }

    /// Makes the whole filesystem of the upper durable, unless the mount is volatile.
    pub fn sync_all(&self) -> FsResult<()> {
        if self.volatile {
            return self.no_data_lost();
        }
        let now = self.unsettled.now();
        file::sync_filesystem(sys::dir::open_dir(&self.root, OsStr::new("."))?)?;
        self.unsettled.all_settled(now);
        Ok(())
    }

    /// Whether something must be done about what came from staging.
    pub fn must_settle(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Whether renames may come to the disk in another order than they were made in.
    pub fn reorders(&self) -> bool {
        self.unsettled.watches()
    }

    /// Takes note of what came to `dir`/`name` from staging, its data durable: its place may not
    /// be. Before it is there it must not be noted: a sync in between would count for it.
    ///
    /// A directory must not be synced in staging by itself either: btrfs (Linux 6.18) then brings
    /// it back with both names after a power cut, and refuses to be mounted for that.
    pub fn moved_in(&self, dir: &OwnedFd, name: &OsStr) {
        if !self.unsettled.watches() {
            return;
        }
        let too_many = sys::stat::stat_at(dir, name).map(|stat| self.unsettled.add(stat.ino));
        // Too many, or one that cannot be told: all is made durable at once.
        if !matches!(too_many, Ok(false))
            && let Err(errno) = self.sync_all()
        {
            tracing::warn!(%errno, "cannot sync the upper");
        }
    }

    /// Makes the place of `file`, a file or directory, durable if it may not be, with all else.
    /// Tells whether that was done.
    pub fn settle(&self, file: &OwnedFd) -> FsResult<bool> {
        if self.unsettled.is_empty() || !self.unsettled.has(sys::stat::stat_fd(file)?.ino) {
            return Ok(false);
        }
        self.sync_all()?;
        Ok(true)
    }
}
