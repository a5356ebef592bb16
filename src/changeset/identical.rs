//! Whether two directories hold the same tree on disk, to the last attribute that is kept.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Errno, Error, FsResult, Result};
use crate::layer::whiteout;
use crate::sys::stat::{Stat, stat_at, stat_fd};
use crate::sys::xattr::{self, Target};
use crate::sys::{OFlags, OwnedFd, dir, file, node};

/// A path that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// The path from the root of the tree, `/` first.
    pub path: Vec<u8>,
    /// What differs, in a few words.
    pub what: &'static str,
}

/// Compares the directory `found` with `expected` as they are, whiteouts and overlay xattrs
/// included: types, modes, owners, sizes, mtimes, link counts, xattrs, targets, content. The
/// roots' own attributes count with `root` only. Access times never do.
///
/// # Errors
/// Names the tree that cannot be read.
pub fn deviations(expected: &Path, found: &Path, root: bool) -> Result<Vec<Deviation>> {
    let open = |path: &Path| {
        let fd = file::open_root(path).and_then(|fd| dir::open_dir(fd, OsStr::new(".")));
        fd.map_err(|errno| Error::io("open", path, errno))
    };
    let (expected_root, found_root) = (open(expected)?, open(found)?);
    let mut comparison = Comparison { path: Vec::new(), deviations: Vec::new() };
    comparison.run(expected_root, found_root, root).map_err(|errno| {
        let below = OsStr::from_bytes(comparison.path.strip_prefix(b"/").unwrap_or_default());
        Error::io("compare", found.join(below), errno)
    })?;
    Ok(comparison.deviations)
}

struct Comparison {
    path: Vec<u8>,
    deviations: Vec<Deviation>,
}

/// Two directories of one name, and the names in them that are still to be compared.
struct Level {
    expected: OwnedFd,
    found: OwnedFd,
    names: std::collections::btree_set::IntoIter<OsString>,
    path: usize,
}

impl Comparison {
    /// Works without recursion: layers nest directories deeper than the stack.
    fn run(&mut self, expected: OwnedFd, found: OwnedFd, root: bool) -> FsResult<()> {
        if root {
            let what = attributes(&expected, &found)?;
            self.report(what);
        }
        let mut levels = vec![self.enter(expected, found)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            self.path.push(b'/');
            self.path.extend_from_slice(name.as_bytes());
            let below = self.compare(&level.expected, &level.found, &name)?;
            if let Some((expected, found)) = below {
                levels.push(self.enter(expected, found)?);
            }
        }
        Ok(())
    }

    fn enter(&self, expected: OwnedFd, found: OwnedFd) -> FsResult<Level> {
        let mut names = BTreeSet::new();
        for fd in [&expected, &found] {
            dir::list_dir(fd, |entry| {
                names.insert(entry.name.to_owned());
                Ok(true)
            })?;
        }
        Ok(Level { expected, found, names: names.into_iter(), path: self.path.len() })
    }

    fn report(&mut self, what: Option<&'static str>) {
        let path = match self.path.as_slice() {
            b"" => b"/".to_vec(),
            path => path.to_vec(),
        };
        self.deviations.extend(what.map(|what| Deviation { path, what }));
    }

    /// Compares one name; gives the directories that it is in both.
    fn compare(
        &mut self,
        expected: &OwnedFd,
        found: &OwnedFd,
        name: &OsStr,
    ) -> FsResult<Option<(OwnedFd, OwnedFd)>> {
        let present = |dir: &OwnedFd| match stat_at(dir, name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
        let (before, after) = match (present(expected)?, present(found)?) {
            (Some(before), Some(after)) => (before, after),
            (Some(_), None) => {
                self.report(Some("is missing"));
                return Ok(None);
            }
            _ => {
                self.report(Some("should not be there"));
                return Ok(None);
            }
        };
        if before.is_dir() && after.is_dir() {
            let (expected, found) = (dir::open_dir(expected, name)?, dir::open_dir(found, name)?);
            let what = attributes(&expected, &found)?;
            self.report(what);
            return Ok(Some((expected, found)));
        }
        // A whiteout has nothing of its own: its time is that of its making.
        let is_whiteout = |dir, stat| whiteout::is_whiteout(dir, name, stat, || Ok(true));
        if is_whiteout(expected, &before)? && is_whiteout(found, &after)? {
            return Ok(None);
        }
        let what = match stat_differs(&before, &after) {
            None => file_differs((expected, found), name, &before)?,
            what => what,
        };
        self.report(what);
        Ok(None)
    }
}

fn stat_differs(before: &Stat, after: &Stat) -> Option<&'static str> {
    let kind = |stat: &Stat| (stat.mode & 0o170_000, stat.rdev);
    if kind(before) != kind(after) {
        return Some("is of another type");
    }
    if before.mode != after.mode {
        return Some("has another mode");
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        return Some("has another owner");
    }
    if before.is_dir() {
        return (before.mtime != after.mtime).then_some("has another modification time");
    }
    if before.size != after.size {
        return Some("has another size");
    }
    if before.nlink != after.nlink {
        return Some("has another number of names");
    }
    None
}

fn attributes(expected: &OwnedFd, found: &OwnedFd) -> FsResult<Option<&'static str>> {
    let what = stat_differs(&stat_fd(expected)?, &stat_fd(found)?);
    if what.is_some() {
        return Ok(what);
    }
    let differ = xattrs(Target::fd(expected))? != xattrs(Target::fd(found))?;
    Ok(differ.then_some("has other xattrs"))
}

/// What differs beyond attributes; content first, for that is what hurts.
fn file_differs(
    (expected, found): (&OwnedFd, &OwnedFd),
    name: &OsStr,
    stat: &Stat,
) -> FsResult<Option<&'static str>> {
    if stat.is_symlink() && node::read_link(expected, name)? != node::read_link(found, name)? {
        return Ok(Some("has another target"));
    }
    if stat.is_file() {
        let open = |dir: &OwnedFd| file::open_at(dir, name, OFlags::RDONLY);
        if super::same::content_of_fds_differs(&open(expected)?, &open(found)?)? {
            return Ok(Some("has other content"));
        }
    }
    if xattrs(Target::at(expected, name))? != xattrs(Target::at(found, name))? {
        return Ok(Some("has other xattrs"));
    }
    let after = stat_at(found, name)?;
    Ok((stat.mtime != after.mtime).then_some("has another modification time"))
}

fn xattrs(of: Target<'_>) -> FsResult<BTreeSet<(OsString, Option<Vec<u8>>)>> {
    let mut found = BTreeSet::new();
    for name in xattr::list(of)? {
        // A label of this machine's policy is not the layer's.
        if *name != *"security.selinux" {
            let value = xattr::get(of, &name)?;
            found.insert((name.into_os_string(), value));
        }
    }
    Ok(found)
}
