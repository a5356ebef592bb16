//! Paths as archives write them: checked, split, and what their names mean.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::oci_whiteout::{Meaning, meaning};

/// An archive's path, checked: its parent's components joined by `/`, and its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) parent: &'a [u8],
    pub(crate) name: &'a OsStr,
}

/// `path` without leading, doubled and trailing slashes and `.` components.
///
/// # Errors
/// Why no entry may have that path, in words.
pub(crate) fn normalize(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut normal = Vec::with_capacity(path.len());
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err("a path with `..`"),
            _ if component.contains(&0) => return Err("a path with a NUL byte"),
            _ => {}
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(component);
    }
    Ok(normal)
}

/// Parent and name of a normal path; `None` for the empty one, the root.
pub(crate) fn split(normal: &[u8]) -> Option<Place<'_>> {
    if normal.is_empty() {
        return None;
    }
    let (parent, name) = match normal.iter().rposition(|b| *b == b'/') {
        Some(slash) => (normal.get(..slash)?, normal.get(slash + 1..)?),
        None => (&b""[..], normal),
    };
    Some(Place { parent, name: OsStr::from_bytes(name) })
}

/// What the components of `parent` say of everything below them: `Some(Bookkeeping)` where it
/// is to be skipped.
///
/// # Errors
/// Why nothing may lie below them, in words.
pub(crate) fn parent_meaning(parent: &[u8]) -> Result<Meaning<'_>, &'static str> {
    for component in parent.split(|b| *b == b'/') {
        match meaning(component)? {
            Meaning::File => {}
            Meaning::Bookkeeping => return Ok(Meaning::Bookkeeping),
            Meaning::Whiteout(_) | Meaning::Opaque => return Err("a path through a whiteout"),
        }
    }
    Ok(Meaning::File)
}
