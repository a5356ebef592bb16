//! Downloads under way. What has come stays when one breaks off, so that the next one of the same
//! blob goes on from there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Errno, Error, Result, errno_of};
use crate::image::Digest;
use crate::sys::file;

use super::lock::{Hold, try_hold};
use super::transaction::entries;
use super::{Store, durable};

/// How long what has come of a download is kept after it broke off.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A blob that is being downloaded, by this process alone. Its file is a prefix of the blob for
/// all that is known; nothing in it has been checked.
#[derive(Debug)]
pub struct Download {
    file: File,
    path: PathBuf,
}

impl Download {
    /// What has come so far, open for reading.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes a part of the blob.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write_at(&self, offset: u64, part: &[u8]) -> std::io::Result<()> {
        Ok(file::write_all_at(&self.file, part, offset)?)
    }

    /// Forgets what has come.
    ///
    /// # Errors
    /// Where the file cannot be changed.
    pub fn empty(&self) -> Result<()> {
        file::truncate(&self.file, 0).map_err(|errno| Error::io("write", &self.path, errno))
    }

    /// Gives the file, which is complete, one more name on the same filesystem.
    ///
    /// # Errors
    /// Where `to` exists or cannot be written.
    pub fn link(&self, to: &Path) -> Result<()> {
        durable::link(&self.path, to)
    }

    /// Ends it: the file is no longer needed under its first name.
    ///
    /// # Errors
    /// Where that cannot be removed.
    pub fn finish(self) -> Result<()> {
        durable::remove_all(&self.path)
    }
}

impl Store {
    /// The download of the blob `digest`, as far as it had come. Waits while another process
    /// downloads the same.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn download(&self, digest: &Digest) -> Result<Download> {
        let path = self.layout.download(digest);
        loop {
            let file = open(&path)?;
            file.lock().map_err(|error| Error::std_io("lock", &path, &error))?;
            // Whoever had it before may have finished it, or it was swept away.
            if is_still(&file, &path)? {
                return Ok(Download { file, path });
            }
        }
    }

    /// Removes downloads that broke off long ago.
    ///
    /// # Errors
    /// Where they cannot be listed or removed.
    pub fn sweep_downloads(&self) -> Result<()> {
        for path in self.idle_downloads()? {
            let age = fs::metadata(&path).and_then(|found| found.modified());
            if age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT)) {
                durable::remove_all(&path)?;
            }
        }
        Ok(())
    }

    /// The downloads that no process is working on.
    pub(super) fn idle_downloads(&self) -> Result<Vec<PathBuf>> {
        let mut idle = Vec::new();
        for path in entries(&self.layout.downloads())? {
            match try_hold(&path, Hold::Exclusive) {
                Ok(Some(_)) => idle.push(path),
                Ok(None) | Err(Error::Io { source: Errno::NOENT, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(idle)
    }
}

fn open(path: &Path) -> Result<File> {
    file::open_or_create(path).map_err(|errno| Error::io("open", path, errno))
}

fn is_still(file: &File, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error: &std::io::Error| Error::std_io("open", path, error);
    let own = file.metadata().map_err(|error| failed(&error))?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if errno_of(&error) == Errno::NOENT => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}
