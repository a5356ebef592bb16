//! The only place that makes or recognises a whiteout.
//!
//! Four encodings exist in the wild, and all are read:
//! - a character device 0:0 (kernel overlayfs; what we write);
//! - a zero-size regular file with the xattr `overlay.whiteout`, in a directory whose
//!   `overlay.opaque` is `x` (kernel overlayfs, for nesting; written where mknod is refused);
//! - a file `.wh.NAME` beside it (AUFS and the OCI layer format; written where both fail);
//! - for a whole directory: `overlay.opaque=y` or a file `.wh..wh..opq`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::FileType;

use super::xattrs::{Mark, Namespace};
use crate::error::{Errno, FsResult};
use crate::sys::{AsFd, OFlags, file, node, stat::Stat, xattr::Target};

/// What a whiteout file's name begins with.
pub const PREFIX: &str = ".wh.";

/// The file that makes its directory opaque.
pub const OPAQUE_FILE: &str = ".wh..wh..opq";

/// How whiteouts are written; probed at mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Character device 0:0.
    Device,
    /// A zero-size file with an xattr; the directory must be marked `opaque=x`.
    Xattr,
    /// A file `.wh.NAME`.
    File,
}

/// Whether users may never see or make `name`, because it is a whiteout's name.
pub fn is_reserved_name(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX.as_bytes())
}

/// The name that the whiteout file `file` hides; `None` where it is not one or is AUFS's own
/// metadata (`.wh..wh.*`).
pub fn hidden_name(file: &OsStr) -> Option<&OsStr> {
    let name = file.as_bytes().strip_prefix(PREFIX.as_bytes())?;
    let own = name.starts_with(PREFIX.as_bytes()) || matches!(name, b"" | b"." | b"..");
    (!own).then(|| OsStr::from_bytes(name))
}

/// The name of the whiteout file that hides `name`; `None` where it would be too long to exist.
pub fn file_name(name: &OsStr) -> Option<OsString> {
    let bytes = [PREFIX.as_bytes(), name.as_bytes()].concat();
    (bytes.len() <= 255).then(|| OsString::from_vec(bytes))
}

/// Whether the entry `dir`/`name` with attributes `stat` is a whiteout. `.wh.` files are
/// recognised by name, see [`hidden_name`]. `xattr_whiteouts` says whether those in xattr form may
/// be in `dir`; it is asked only where it matters.
pub fn is_whiteout(
    dir: impl AsFd,
    name: &OsStr,
    stat: &Stat,
    xattr_whiteouts: impl FnOnce() -> FsResult<bool>,
) -> FsResult<bool> {
    if stat.is_whiteout_device() {
        return Ok(true);
    }
    if !stat.is_file() || stat.size != 0 || !xattr_whiteouts()? {
        return Ok(false);
    }
    for namespace in [Namespace::Trusted, Namespace::User] {
        if namespace.get(Target::at(&dir, name), Mark::Whiteout)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `getdents` leaves open what an entry of this type is, so that it must be looked at.
pub fn may_be_whiteout(kind: FileType, xattr_whiteouts: bool) -> bool {
    match kind {
        FileType::CharacterDevice | FileType::Unknown => true,
        FileType::RegularFile => xattr_whiteouts,
        _ => false,
    }
}

/// Makes a whiteout called `name` in `dir`, a directory where no such name exists. With
/// [`Style::File`] the caller passes the plain name; the file gets its prefix here.
pub fn make(dir: impl AsFd, name: &OsStr, style: Style, namespace: Namespace) -> FsResult<()> {
    match style {
        Style::Device => node::make_node(dir, name, FileType::CharacterDevice.as_raw_mode(), 0),
        Style::Xattr => {
            let fd = file::create_at(&dir, name, OFlags::WRONLY, 0o000)?;
            namespace.set(Target::fd(&fd), Mark::Whiteout, b"y")
        }
        Style::File => {
            let file = file_name(name).ok_or(Errno::NAMETOOLONG)?;
            file::create_at(dir, &file, OFlags::WRONLY, 0o000).map(drop)
        }
    }
}

/// The best style that works in `dir`, found by trying.
pub fn probe_style(dir: impl AsFd, namespace: Namespace) -> FsResult<Style> {
    let trial = OsStr::new("#probe");
    for style in [Style::Device, Style::Xattr] {
        let made = make(&dir, trial, style, namespace);
        match node::unlink(&dir, trial) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        match made {
            Ok(()) => return Ok(style),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Style::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteout_file_names_round_trip() {
        let file = file_name(OsStr::new("a")).unwrap();
        assert_eq!(file, ".wh.a");
        assert_eq!(hidden_name(&file), Some(OsStr::new("a")));
        for odd in [".wh.", ".wh..", ".wh...", ".wh..wh..opq", ".wh..wh.plnk", "plain"] {
            assert_eq!(hidden_name(OsStr::new(odd)), None, "{odd}");
        }
        assert_eq!(file_name(OsStr::new(&"x".repeat(252))), None);
    }
}
