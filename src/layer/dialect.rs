//! In whose words a tree says what it hides: which readers understand its marks.
//!
//! We read all of them, at once too. The kernel's overlayfs reads those of one namespace, knows no
//! `.wh.` files, and merges the roots of its layers whatever is marked on them.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::whiteout;
use super::xattrs::{self, Mark, Namespace};
use crate::error::{Errno, FsResult};
use crate::sys::stat::stat_at;
use crate::sys::xattr::{self, Target};
use crate::sys::{OwnedFd, dir, file};

/// Who understands the marks in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Everybody: there are none but whiteout devices.
    #[default]
    Plain,
    /// A mount that keeps its marks as `trusted.overlay.*`.
    Trusted,
    /// One that keeps them as `user.overlay.*`.
    User,
    /// We alone: several kinds, or such as overlayfs does not know.
    Mixed,
}

impl Dialect {
    /// That of the marks in `namespace`.
    pub fn of(namespace: Namespace) -> Dialect {
        match namespace {
            Namespace::Trusted => Dialect::Trusted,
            Namespace::User => Dialect::User,
        }
    }

    /// That of a tree with marks of both kinds.
    #[must_use]
    pub fn and(self, other: Dialect) -> Dialect {
        match (self, other) {
            (Dialect::Plain, other) => other,
            (own, Dialect::Plain) => own,
            (own, other) if own == other => own,
            _ => Dialect::Mixed,
        }
    }

    /// Whether a mount that keeps its marks in `namespace` understands it.
    pub fn is_read_in(self, namespace: Namespace) -> bool {
        self == Dialect::Plain || self == Dialect::of(namespace)
    }
}

/// What a layer's marks ask of its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerMarks {
    /// Who understands them.
    pub dialect: Dialect,
    /// Its root hides all that lies below it, which overlayfs does not do.
    pub opaque_root: bool,
}

/// What was found in a tree.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What its marks ask.
    pub marks: LayerMarks,
    /// The first path in it that has one but for whiteout devices.
    pub first: Option<PathBuf>,
    /// The first path in it where they ask for more than one mount of overlayfs understands.
    pub odd: Option<PathBuf>,
    /// A directory whose lower part lies elsewhere, or a file that is attributes alone.
    pub leads_elsewhere: Option<PathBuf>,
}

/// Looks at every entry of the tree at `path`, which may be mounted meanwhile. What this process
/// may not see it does not find: `trusted.*` is for root alone.
///
/// # Errors
/// Where the tree cannot be read.
pub fn survey(path: &Path) -> FsResult<Survey> {
    let mut survey = Survey::default();
    let root = dir::open_dir(file::open_root(path)?, OsStr::new("."))?;
    survey.look(Target::fd(&root), Path::new(""))?;
    let mut waiting = vec![PathBuf::new()];
    while let Some(at) = waiting.pop() {
        let Some(fd) = open_below(&root, &at)? else { continue };
        for (name, is_dir) in names(&fd)? {
            let place = at.join(&name);
            if whiteout::is_reserved_name(&name) {
                survey.is_odd(&place);
                survey.marks.opaque_root |=
                    at.as_os_str().is_empty() && name == whiteout::OPAQUE_FILE;
            }
            match survey.look(Target::at(&fd, &name), &place) {
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                other => other?,
            }
            if is_dir {
                waiting.push(place);
            }
        }
    }
    Ok(survey)
}

impl Survey {
    /// Takes in the xattrs of what stands at `place`.
    fn look(&mut self, of: Target<'_>, place: &Path) -> FsResult<()> {
        let found: HashSet<Box<OsStr>> = xattr::list(of)?.into_iter().collect();
        let has = |namespace: Namespace, mark| found.contains(&*namespace.name(mark));
        for namespace in [Namespace::Trusted, Namespace::User] {
            if has(namespace, Mark::Whiteout) {
                self.is_odd(place);
            }
            if has(namespace, Mark::Opaque) {
                let value = namespace.get(of, Mark::Opaque)?;
                let ends = value.as_deref() == Some(b"y");
                self.marks.opaque_root |= ends && place.as_os_str().is_empty();
            }
            if has(namespace, Mark::Redirect) || has(namespace, Mark::Metacopy) {
                self.leads_elsewhere.get_or_insert_with(|| place.to_path_buf());
            }
        }
        for name in found.iter().filter(|name| xattrs::is_private(name)) {
            let dialect = match name.as_bytes() {
                name if name.starts_with(b"trusted.overlay.") => Dialect::Trusted,
                name if name.starts_with(b"user.overlay.") => Dialect::User,
                _ => Dialect::Mixed,
            };
            if self.marks.dialect.and(dialect) == Dialect::Mixed {
                self.is_odd(place);
            }
            self.marks.dialect = self.marks.dialect.and(dialect);
            self.first.get_or_insert_with(|| place.to_path_buf());
        }
        Ok(())
    }

    fn is_odd(&mut self, place: &Path) {
        self.marks.dialect = Dialect::Mixed;
        self.odd.get_or_insert_with(|| place.to_path_buf());
    }
}

/// The directory `path` below `root`, one component after the other; `None` where it went.
fn open_below(root: &OwnedFd, path: &Path) -> FsResult<Option<OwnedFd>> {
    let mut at = dir::open_dir(root, OsStr::new("."))?;
    for component in path {
        at = match dir::open_dir(&at, component) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other?,
        };
    }
    Ok(Some(at))
}

fn names(fd: &OwnedFd) -> FsResult<Vec<(OsString, bool)>> {
    let mut names = Vec::new();
    dir::read_dir(fd, |entry| {
        let is_dir = match entry.kind {
            FileType::Unknown => stat_at(fd, entry.name)?.is_dir(),
            kind => kind == FileType::Directory,
        };
        names.push((entry.name.to_owned(), is_dir));
        Ok(true)
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_marks_is_read_by_its_readers_and_two_by_none() {
        let both = Dialect::Trusted.and(Dialect::User);
        assert_eq!(Dialect::Plain.and(Dialect::User).and(Dialect::User), Dialect::User);
        assert!(Dialect::Plain.is_read_in(Namespace::User));
        assert!(Dialect::Trusted.is_read_in(Namespace::Trusted));
        assert!(!Dialect::Trusted.is_read_in(Namespace::User));
        for namespace in [Namespace::Trusted, Namespace::User] {
            assert!(!both.is_read_in(namespace) && !Dialect::Mixed.is_read_in(namespace));
        }
    }
}
