//! Deletions in layer archives: files named `.wh.NAME` and `.wh..wh..opq`.

use crate::layer::whiteout::{OPAQUE_FILE, PREFIX};

/// What the last component of an entry's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// The name of a file of this layer.
    File,
    /// This name of the layers below is hidden.
    Whiteout(&'a [u8]),
    /// Everything that the layers below have in the directory is hidden.
    Opaque,
    /// The bookkeeping of another filesystem, without meaning outside it.
    Bookkeeping,
}

/// The names that aufs kept its own records under; docker skips them, too.
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// What the component `name` of an entry's path means.
///
/// # Errors
/// Why it can mean nothing at all, in words.
pub fn meaning(name: &[u8]) -> Result<Meaning<'_>, &'static str> {
    let Some(hidden) = name.strip_prefix(PREFIX.as_bytes()) else { return Ok(Meaning::File) };
    if name == OPAQUE_FILE.as_bytes() {
        return Ok(Meaning::Opaque);
    }
    if AUFS.contains(&name) {
        return Ok(Meaning::Bookkeeping);
    }
    match hidden {
        b"" => Err("a whiteout that names nothing"),
        b"." | b".." => Err("a whiteout of a directory itself or of its parent"),
        _ if hidden.starts_with(PREFIX.as_bytes()) => Err("a whiteout of a whiteout"),
        _ => Ok(Meaning::Whiteout(hidden)),
    }
}

/// The name that hides `name` in a layer archive; the inverse of [`meaning`].
pub fn whiteout_of(name: &[u8]) -> Vec<u8> {
    [PREFIX.as_bytes(), name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_thing() {
        assert_eq!(meaning(b"etc"), Ok(Meaning::File));
        assert_eq!(meaning(b".wh"), Ok(Meaning::File));
        assert_eq!(meaning(b".whx"), Ok(Meaning::File));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(meaning(b".wh..wh.plnk"), Ok(Meaning::Bookkeeping));
        assert_eq!(meaning(&whiteout_of(b"..x")), Ok(Meaning::Whiteout(b"..x")));
        for bad in [&b".wh."[..], b".wh..", b".wh...", b".wh..wh.x", b".wh..wh."] {
            assert!(meaning(bad).is_err(), "{bad:?}");
        }
    }
}
