//! The named files of an archive, whether it is a tar or a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::{OFlags, OwnedFd, dir, file, stat};

use super::tar_index::{self, TarIndex};

/// Where the files of an archive are.
#[derive(Debug)]
pub(super) enum Files {
    /// Inside a tar; only looked up, never opened as paths.
    Tar { file: Arc<File>, index: TarIndex },
    /// In a directory, which they may not leave.
    Directory { root: OwnedFd, what: String },
}

impl Files {
    pub(super) fn tar(file: File, what: &str) -> Result<Files> {
        let index = tar_index::scan(&file, what)?;
        Ok(Files::Tar { file: Arc::new(file), index })
    }

    pub(super) fn directory(path: &Path) -> Result<Files> {
        let root = file::open_root(path).map_err(|errno| Error::io("open", path, errno))?;
        Ok(Files::Directory { root, what: path.display().to_string() })
    }

    /// Whether there is a file `name`.
    pub(super) fn has(&self, name: &str) -> Result<bool> {
        Ok(self.find(name)?.is_some())
    }

    /// The file `name`, or `None` where there is none.
    pub(super) fn find(&self, name: &str) -> Result<Option<Section>> {
        match self {
            Files::Tar { file, index } => Ok(index.find(name.as_bytes()).map(|(start, size)| {
                Section { file: Arc::clone(file), position: start, end: start + size }
            })),
            Files::Directory { root, what } => match open_beneath(root, name) {
                Ok(section) => Ok(Some(section)),
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => Err(Error::io("open", Path::new(what).join(name), errno)),
            },
        }
    }
}

/// Opens a regular file below `root`; no symlink is followed on the way.
fn open_beneath(root: &OwnedFd, name: &str) -> FsResult<Section> {
    let (folders, last) = name.rsplit_once('/').unwrap_or(("", name));
    let mut at = dir::open_dir(root, OsStr::new("."))?;
    for folder in folders.split('/').filter(|part| !part.is_empty()) {
        crate::error::check_name(OsStr::new(folder))?;
        at = dir::open_dir(&at, OsStr::new(folder))?;
    }
    crate::error::check_name(OsStr::new(last))?;
    // Without NONBLOCK a fifo in the place of a file would hold us up for ever.
    let fd = file::open_at(&at, OsStr::new(last), OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = stat::stat_fd(&fd)?;
    if !stat.is_file() {
        return Err(Errno::INVAL);
    }
    Ok(Section { file: Arc::new(File::from(fd)), position: 0, end: stat.size })
}

/// A part of a file, readable in sequence. Clones read independently.
#[derive(Debug, Clone)]
pub(super) struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Section {
    /// All that is in `file`.
    pub(super) fn whole(file: File) -> FsResult<Section> {
        let end = stat::stat_fd(&file)?.size;
        Ok(Section { file: Arc::new(file), position: 0, end })
    }

    /// The bytes left in it.
    pub(super) fn len(&self) -> u64 {
        self.end - self.position
    }

    /// All of it. Its length must have been bounded before.
    pub(super) fn read_whole(&self) -> FsResult<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len()).map_err(|_| Errno::FBIG)?];
        let n = file::read_at(&*self.file, &mut bytes, self.position)?;
        bytes.truncate(n);
        Ok(bytes)
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.len()).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..want) else { return Ok(0) };
        let n = file::read_at(&*self.file, part, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}
