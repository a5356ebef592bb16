//! Where an archive goes: standard output, or a file or directory that appears when complete.
//! Nobody but its owner may read that, as with docker: it may hold anything.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error, FsResult, Result, errno_of};
use crate::sys::{OFlags, OwnedFd, file, node};

use super::output;

/// Has `write` write to the file that the user gave, or to standard output where there is none
/// or it is `-`.
pub(super) fn write(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    match path {
        Some(path) if path.as_os_str() != "-" => to_file(path, write),
        _ => {
            output::check_not_terminal()?;
            let out = io::stdout().lock();
            buffered(out, Path::new("standard output"), write)
        }
    }
}

/// Has `write` fill the directory at `path`, which appears only when it is complete; there must
/// be nothing, or an empty directory.
pub(super) fn directory(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |error: &io::Error| Error::std_io("create directory", path, error);
    let first = match fs::read_dir(path) {
        Ok(mut entries) => entries.next(),
        Err(error) if errno_of(&error) == Errno::NOENT => None,
        Err(error) => return Err(failed(&error)),
    };
    if first.is_some() {
        return Err(Error::io("write to", path, Errno::NOTEMPTY));
    }
    let part = part_beside(path);
    DirBuilder::new().mode(0o700).create(&part).map_err(|error| failed(&error))?;
    let outcome =
        write(&part).and_then(|()| fs::rename(&part, path).map_err(|error| failed(&error)));
    if outcome.is_err()
        && let Err(error) = fs::remove_dir_all(&part)
    {
        tracing::warn!(%error, part = %part.display(), "an incomplete directory is left");
    }
    outcome
}

/// A name beside `path` for what is not complete yet.
fn part_beside(path: &Path) -> PathBuf {
    let mut part = path.components().as_path().as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    PathBuf::from(part)
}

/// Has `write` fill the file at `path`, which appears only when it is complete. What is not a
/// regular file, such as a pipe, is written directly.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let failed = |error: &io::Error| Error::std_io("write", path, error);
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path).map_err(|error| failed(&error))?;
        return buffered(file, path, write);
    }
    // A symlink stays and what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match Nameless::beside(path).map_err(|errno| Error::io("write", path, errno))? {
        Some(nameless) => {
            buffered(&nameless.file, path, write)?;
            nameless.name(path)
        }
        None => to_named_file(path, write),
    }
}

/// A file that has no name before it is complete: one that is not goes by itself, also where this
/// process is killed.
struct Nameless {
    file: File,
    dir: OwnedFd,
}

impl Nameless {
    /// On the filesystem that `path` is to lie on; `None` where that knows no such files.
    fn beside(path: &Path) -> FsResult<Option<Nameless>> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let dir = file::open_root(parent.unwrap_or(Path::new(".")))?;
        match file::create_tmpfile(&dir, OFlags::WRONLY, 0o600) {
            Ok(file) => Ok(Some(Nameless { file: file.into(), dir })),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Gives it the name `path`, also where that is another file's.
    fn name(&self, path: &Path) -> Result<()> {
        let failed = |errno| Error::io("write", path, errno);
        let name = path.file_name().ok_or(Errno::INVAL).map_err(failed)?;
        match node::link_fd(&self.file, &self.dir, name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(failed),
        }
        // Nothing links over a name: it is linked beside, and renamed.
        let part = part_beside(path);
        let beside = part.file_name().unwrap_or_default();
        node::link_fd(&self.file, &self.dir, beside).map_err(failed)?;
        rename_part(&part, path)
    }
}

/// As [`to_file`], for filesystems on which every file has a name.
fn to_named_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let part = part_beside(path);
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(&part);
    let file = file.map_err(|error| Error::std_io("write", path, &error))?;
    match buffered(file, path, write) {
        Ok(()) => rename_part(&part, path),
        Err(error) => {
            remove_part(&part);
            Err(error)
        }
    }
}

fn rename_part(part: &Path, path: &Path) -> Result<()> {
    fs::rename(part, path).map_err(|error| {
        remove_part(part);
        Error::std_io("write", path, &error)
    })
}

fn remove_part(part: &Path) {
    if let Err(error) = fs::remove_file(part) {
        tracing::warn!(%error, part = %part.display(), "an incomplete file is left");
    }
}

fn buffered(
    out: impl Write,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    write(&mut out)?;
    out.flush().map_err(|error| Error::std_io("write", path, &error))
}
