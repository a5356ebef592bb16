//! The names of overlay's own xattrs, and what they say about a directory.
//!
//! Sources: the kernel's `Documentation/filesystems/overlayfs.rst` for `trusted.overlay.*` and
//! `user.overlay.*`; `user.fuseoverlayfs.opaque` is what fuse-overlayfs writes when rootless; of
//! `override_stat` see `stored_stat`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;

use super::redirect::Redirect;
use crate::error::{Errno, FsResult};
use crate::sys::xattr::{self, Target};

/// Where overlay's xattrs are kept: `trusted.` where privileged, else `user.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.*`: needs `CAP_SYS_ADMIN` in the initial user namespace.
    Trusted,
    /// `user.overlay.*`: on regular files and directories only.
    User,
}

/// One of overlay's own xattrs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// On a directory: `y` ends the merge below, `x` says that xattr whiteouts are inside.
    Opaque,
    /// On a directory: the lower directory it merges with.
    Redirect,
    /// On a copied-up inode: the file handle of the lower one.
    Origin,
    /// On a directory: entries with an origin are inside.
    Impure,
    /// On an upper file without data of its own.
    Metacopy,
    /// On a zero-size file: it is a whiteout.
    Whiteout,
    /// On an indexed inode: its link count beside the lower's.
    Nlink,
    /// On an indexed inode: the lower's link count, from which `L` in [`Mark::Nlink`] counts. Ours
    /// alone; the kernel asks the lower inode.
    LowerNlink,
    /// On a directory of the index: the upper inode it stands for.
    Upper,
}

impl Mark {
    const fn suffix(self) -> &'static str {
        match self {
            Mark::Opaque => "opaque",
            Mark::Redirect => "redirect",
            Mark::Origin => "origin",
            Mark::Impure => "impure",
            Mark::Metacopy => "metacopy",
            Mark::Whiteout => "whiteout",
            Mark::Nlink => "nlink",
            Mark::LowerNlink => "lower_nlink",
            Mark::Upper => "upper",
        }
    }
}

impl Namespace {
    const fn prefix(self) -> &'static str {
        match self {
            Namespace::Trusted => "trusted.overlay.",
            Namespace::User => "user.overlay.",
        }
    }

    /// The full name of `mark` in this namespace.
    pub fn name(self, mark: Mark) -> OsString {
        OsString::from(format!("{}{}", self.prefix(), mark.suffix()))
    }

    /// The value of `mark`, if it is set.
    pub fn get(self, of: Target<'_>, mark: Mark) -> FsResult<Option<Vec<u8>>> {
        xattr::get(of, &self.name(mark))
    }

    /// Sets `mark`.
    pub fn set(self, of: Target<'_>, mark: Mark, value: &[u8]) -> FsResult<()> {
        xattr::set(of, &self.name(mark), value, XattrFlags::empty())
    }

    /// Removes `mark`; it is no error if it was not set.
    pub fn remove(self, of: Target<'_>, mark: Mark) -> FsResult<()> {
        match xattr::remove(of, &self.name(mark)) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }
}

const PRIVATE: [&[u8]; 4] =
    [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"security.fuseoverlayfs."];

/// Of this one name alone, and its escaped forms, are ours.
const CONTAINERS: &[u8] = b"user.containers.";

const ESCAPE: &[u8] = b"overlay.";

/// The prefix and the rest of a name that is overlay's own on disk.
fn private_parts(name: &[u8]) -> Option<(&'static [u8], &[u8])> {
    if let Some(rest) = name.strip_prefix(CONTAINERS) {
        let mut bare = rest;
        while let Some(inner) = bare.strip_prefix(ESCAPE) {
            bare = inner;
        }
        return (bare == b"override_stat").then_some((CONTAINERS, rest));
    }
    PRIVATE.iter().find_map(|prefix| name.strip_prefix(*prefix).map(|rest| (*prefix, rest)))
}

/// Whether `name` is overlay's own on disk: hidden from users, never copied up.
/// `trusted.overlayfoo` is an ordinary name.
pub fn is_private(name: &OsStr) -> bool {
    private_parts(name.as_bytes()).is_some()
}

/// The name under which a user's xattr is kept: one that looks like overlay's own (a nested
/// overlay set it) gets a second `overlay.`, as the kernel does.
pub fn escape(name: &OsStr) -> Cow<'_, OsStr> {
    match private_parts(name.as_bytes()) {
        Some((prefix, rest)) => Cow::Owned(OsString::from_vec([prefix, ESCAPE, rest].concat())),
        None => Cow::Borrowed(name),
    }
}

/// The inverse of [`escape`], for listing: the user's name of an xattr on disk, or `None` where
/// it is overlay's own.
pub fn unescape(name: &OsStr) -> Option<Cow<'_, OsStr>> {
    match private_parts(name.as_bytes()) {
        Some((prefix, rest)) => {
            let rest = rest.strip_prefix(ESCAPE)?;
            Some(Cow::Owned(OsString::from_vec([prefix, rest].concat())))
        }
        None => Some(Cow::Borrowed(name)),
    }
}

/// What a directory's xattrs say about merging.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirMarks {
    /// The merge ends here.
    pub opaque: bool,
    /// Whiteouts in xattr form may be inside.
    pub xattr_whiteouts: bool,
    /// The lower part lies elsewhere.
    pub redirect: Option<Redirect>,
    /// Entries with an origin are inside.
    pub impure: bool,
}

/// Reads the marks of a directory: one call where it has no xattrs.
///
/// A redirect is followed only from `trust`, the namespace that an image author without
/// privilege cannot have written (`None`: from none).
pub fn dir_marks(of: Target<'_>, trust: Option<Namespace>) -> FsResult<DirMarks> {
    marks_among(of, &xattr::list(of)?, trust)
}

/// As [`dir_marks`], of the directory whose xattrs are called `names`.
pub fn marks_among(
    of: Target<'_>,
    names: &[Box<OsStr>],
    trust: Option<Namespace>,
) -> FsResult<DirMarks> {
    let mut marks = DirMarks::default();
    for name in names {
        if !is_private(name) {
            continue;
        }
        match name.as_bytes() {
            b"trusted.overlay.opaque" | b"user.overlay.opaque" | b"user.fuseoverlayfs.opaque" => {
                match xattr::get(of, name)?.as_deref() {
                    Some(b"y") => marks.opaque = true,
                    Some(b"x") => marks.xattr_whiteouts = true,
                    _ => {}
                }
            }
            b"trusted.overlay.impure" | b"user.overlay.impure" => marks.impure = true,
            _ if trust.is_some_and(|ns| **name == *ns.name(Mark::Redirect)) => {
                let value = xattr::get(of, name)?.unwrap_or_default();
                marks.redirect = Some(Redirect::parse(&value)?);
            }
            _ => {}
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_prefix_is_private() {
        assert!(is_private(OsStr::new("trusted.overlay.opaque")));
        assert!(is_private(OsStr::new("user.fuseoverlayfs.opaque")));
        assert!(is_private(OsStr::new("user.containers.override_stat")));
        assert!(!is_private(OsStr::new("user.containers.other")));
        assert!(!is_private(OsStr::new("trusted.overlayfoo")));
        assert!(!is_private(OsStr::new("user.mime_type")));
    }

    #[test]
    fn escaping_round_trips_and_hides_our_own() {
        for (nested, on_disk) in [
            ("trusted.overlay.opaque", "trusted.overlay.overlay.opaque"),
            ("user.fuseoverlayfs.opaque", "user.fuseoverlayfs.overlay.opaque"),
            ("user.containers.override_stat", "user.containers.overlay.override_stat"),
        ] {
            let kept = escape(OsStr::new(nested));
            assert_eq!(&*kept, OsStr::new(on_disk));
            assert_eq!(unescape(&kept).as_deref(), Some(OsStr::new(nested)));
            assert_eq!(unescape(OsStr::new(nested)), None);
            let twice = escape(&kept).into_owned();
            assert_eq!(unescape(&twice).as_deref(), Some(&*kept));
        }
        assert_eq!(unescape(OsStr::new("user.x")).as_deref(), Some(OsStr::new("user.x")));
    }
}
