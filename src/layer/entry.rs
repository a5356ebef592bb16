//! What one name in one directory of one layer is.

use std::ffi::OsStr;

use super::whiteout;
use super::xattrs::{DirMarks, Namespace, dir_marks};
use crate::error::{Errno, FsResult};
use crate::sys::AsFd;
use crate::sys::small_dir::SmallDir;
use crate::sys::stat::{Stat, stat_at};
use crate::sys::xattr::Target;

/// What a layer says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: ask the next layer.
    Absent,
    /// The name ends here: the layers below are hidden.
    Whiteout,
    /// Anything but a directory.
    File(Stat),
    /// A directory. Its marks are read by [`marks_of_fd`], where there is something to merge with.
    Dir(Stat),
}

/// Asks the directory `dir` of one layer for `name`.
///
/// Whether whiteouts in xattr form may be there, `xattr_whiteouts` is asked for an empty file only.
/// With `last`, nothing lies below, and whiteouts in the form `.wh.NAME` need not be looked for.
pub fn probe(
    dir: impl AsFd,
    name: &OsStr,
    xattr_whiteouts: impl FnOnce() -> FsResult<bool>,
    last: bool,
) -> FsResult<Probe> {
    if whiteout::is_reserved_name(name) {
        return Ok(Probe::Absent);
    }
    match stat_at(&dir, name) {
        Ok(stat) if stat.is_dir() => Ok(Probe::Dir(stat)),
        Ok(stat) if whiteout::is_whiteout(&dir, name, &stat, xattr_whiteouts)? => {
            Ok(Probe::Whiteout)
        }
        Ok(stat) => Ok(Probe::File(stat)),
        Err(Errno::NOENT) if last => Ok(Probe::Absent),
        Err(Errno::NOENT) => match whiteout::file_name(name) {
            Some(file) if exists(&dir, &file)? => Ok(Probe::Whiteout),
            _ => Ok(Probe::Absent),
        },
        Err(errno) => Err(errno),
    }
}

/// What an open directory says about merging with the layers below.
pub fn marks_of_fd(fd: impl AsFd, trust: Option<Namespace>) -> FsResult<DirMarks> {
    let marks = dir_marks(Target::dir(&fd), trust)?;
    with_opaque_file(fd, marks)
}

/// As [`marks_of_fd`], of a lower directory that was just opened. One that is small is read for it,
/// which finds the file that makes it opaque, and takes no longer than asking for that: who
/// enters a directory mostly lists it next.
pub fn marks_and_entries(
    fd: impl AsFd,
    trust: Option<Namespace>,
) -> FsResult<(DirMarks, Option<SmallDir>)> {
    let mut marks = dir_marks(Target::dir(&fd), trust)?;
    if marks.opaque {
        return Ok((marks, None));
    }
    // What cannot be read, because it was opened without the right to, may still have the file.
    match SmallDir::read(&fd).unwrap_or_default() {
        Some(entries) => {
            marks.opaque = entries.has(OsStr::new(whiteout::OPAQUE_FILE));
            Ok((marks, Some(entries)))
        }
        None => Ok((with_opaque_file(fd, marks)?, None)),
    }
}

/// Those of an open directory, with what its xattrs said.
pub(super) fn with_opaque_file(fd: impl AsFd, mut marks: DirMarks) -> FsResult<DirMarks> {
    if !marks.opaque && exists(&fd, OsStr::new(whiteout::OPAQUE_FILE))? {
        marks.opaque = true;
    }
    Ok(marks)
}

fn exists(dir: impl AsFd, name: &OsStr) -> FsResult<bool> {
    match stat_at(dir, name) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
