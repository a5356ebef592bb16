//! Making the upper durable, and what a volatile one does instead.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use super::Upper;
use crate::error::{Errno, FsResult};
use crate::sys::{self, AsFd, file, writeback};

impl Upper {
    /// fsync of an open file of the upper, unless the mount is volatile.
    pub fn sync(&self, fd: impl AsFd, data_only: bool) -> FsResult<()> {
        if self.volatile { Ok(()) } else { file::sync(fd, data_only) }
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
}
