//! Owner, mode and device of a file kept in an xattr, while the file itself belongs to whoever
//! mounts: for users who may own no other, and filesystems that know no other (NFS).
//!
//! containers/storage writes layers so (`force_mask`), fuse-overlayfs uppers
//! (`xattr_permissions`). A layer is read so if its root has such an xattr; the value is
//! `UID:GID:MODE`, octal, with the type in it or not, and perhaps `:TYPE` behind it: `file`, `dir`,
//! `symlink`, `pipe`, `socket`, `char-MAJOR-MINOR` or `block-MAJOR-MINOR`.

use std::ffi::OsStr;

use rustix::fs::{FileType, XattrFlags};

use crate::error::{Errno, FsResult};
use crate::sys::stat::{Stat, decode_dev, encode_dev};
use crate::sys::xattr::{self, Target};

/// The xattr in which a layer keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatXattr {
    /// containers/storage's, and fuse-overlayfs 2.0's.
    Containers,
    /// What fuse-overlayfs 1.10 writes without privilege.
    User,
    /// What it writes with `CAP_SYS_ADMIN`; no user of the layer can change it.
    Privileged,
}

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    /// `None`, here and below: the file's own. fuse-overlayfs 1.10 writes -1 for the one of both ids
    /// that a chown leaves alone.
    uid: Option<u32>,
    gid: Option<u32>,
    permissions: u32,
    kind: Option<FileType>,
    rdev: u32,
}

impl StatXattr {
    const ALL: [StatXattr; 3] = [StatXattr::Privileged, StatXattr::User, StatXattr::Containers];

    /// Its name.
    pub fn name(self) -> &'static OsStr {
        OsStr::new(match self {
            StatXattr::Containers => "user.containers.override_stat",
            StatXattr::User => "user.fuseoverlayfs.override_stat",
            StatXattr::Privileged => "security.fuseoverlayfs.override_stat",
        })
    }

    /// The one that the root of a layer has, if any.
    pub fn of_root(root: Target<'_>) -> FsResult<Option<StatXattr>> {
        Ok(StatXattr::among(&xattr::list(root)?))
    }

    /// As [`StatXattr::of_root`], of a root whose xattrs are called `names`.
    pub(super) fn among(names: &[Box<OsStr>]) -> Option<StatXattr> {
        let has = |xattr: &StatXattr| names.iter().any(|name| **name == *xattr.name());
        StatXattr::ALL.into_iter().find(has)
    }

    /// Puts what is kept for `of` in place of what its filesystem says.
    ///
    /// # Errors
    /// `EIO` for a value that makes no sense: to show the file's own would open it to others.
    pub fn read(self, of: Target<'_>, stat: &mut Stat) -> FsResult<()> {
        let Some(value) = xattr::get(of, self.name())? else { return Ok(()) };
        let stored = Stored::parse(&value).filter(|stored| stored.fits(stat)).ok_or(Errno::IO)?;
        let kind = stored.kind.unwrap_or(stat.file_type());
        stat.mode = kind.as_raw_mode() | stored.permissions;
        stat.uid = stored.uid.unwrap_or(stat.uid);
        stat.gid = stored.gid.unwrap_or(stat.gid);
        if stored.kind.is_some_and(is_device) {
            stat.rdev = stored.rdev;
        }
        if !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink) {
            (stat.size, stat.blocks) = (0, 0);
        }
        Ok(())
    }

    /// Keeps owner, mode and device of `stat` for `of`.
    ///
    /// # Errors
    /// `EPERM` for what is neither a regular file nor a directory, where the xattr is one of users.
    pub fn write(self, of: Target<'_>, stat: &Stat) -> FsResult<()> {
        xattr::set(of, self.name(), self.value(stat).as_bytes(), XattrFlags::empty())
    }

    fn value(self, stat: &Stat) -> String {
        let (uid, gid, mode) = (stat.uid, stat.gid, stat.mode);
        let kind = kind_word(stat.file_type(), stat.rdev);
        match self {
            StatXattr::Containers => format!("{uid}:{gid}:{:04o}:{kind}", mode & 0o7777),
            StatXattr::User | StatXattr::Privileged => format!("{uid}:{gid}:{mode:o}:{kind}"),
        }
    }
}

impl Stored {
    fn parse(value: &[u8]) -> Option<Stored> {
        let mut parts = std::str::from_utf8(value).ok()?.splitn(4, ':');
        let uid = parse_id(parts.next()?)?;
        let gid = parse_id(parts.next()?)?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok().filter(|mode| *mode <= 0o177_777)?;
        let typed = (mode > 0o7777).then(|| FileType::from_raw_mode(mode));
        let (kind, rdev) = match parts.next() {
            None | Some("") => (typed, 0),
            Some(word) => parse_kind(word).map(|(kind, rdev)| (Some(kind), rdev))?,
        };
        Some(Stored { uid, gid, permissions: mode & 0o7777, kind, rdev })
    }

    /// A regular file may stand for anything but a directory or a symlink, all else for itself
    /// alone. Nobody may be shown a whiteout.
    fn fits(&self, stat: &Stat) -> bool {
        let Some(kind) = self.kind else { return true };
        let own = kind == stat.file_type();
        let stands = stat.is_file() && !matches!(kind, FileType::Directory | FileType::Symlink);
        let rdev = if own && !stat.is_file() && self.rdev == 0 { stat.rdev } else { self.rdev };
        (own || stands) && !(is_device(kind) && rdev == 0)
    }
}

#[expect(clippy::option_option, reason = "no id, the file's own, or this one")]
fn parse_id(text: &str) -> Option<Option<u32>> {
    if text == "-1" { Some(None) } else { text.parse().ok().map(Some) }
}

fn is_device(kind: FileType) -> bool {
    matches!(kind, FileType::CharacterDevice | FileType::BlockDevice)
}

fn kind_word(kind: FileType, rdev: u32) -> String {
    let (major, minor) = decode_dev(rdev);
    match kind {
        FileType::Directory => "dir".into(),
        FileType::Symlink => "symlink".into(),
        FileType::Fifo => "pipe".into(),
        FileType::Socket => "socket".into(),
        FileType::CharacterDevice => format!("char-{major}-{minor}"),
        FileType::BlockDevice => format!("block-{major}-{minor}"),
        FileType::RegularFile | FileType::Unknown => "file".into(),
    }
}

fn parse_kind(word: &str) -> Option<(FileType, u32)> {
    let plain = |kind| Some((kind, 0));
    match word {
        "file" => plain(FileType::RegularFile),
        "dir" => plain(FileType::Directory),
        "symlink" => plain(FileType::Symlink),
        "pipe" => plain(FileType::Fifo),
        "socket" => plain(FileType::Socket),
        _ => {
            let (kind, rest) = word.split_once('-')?;
            let (major, minor) = rest.split_once('-')?;
            let kind = match kind {
                "char" => FileType::CharacterDevice,
                "block" => FileType::BlockDevice,
                _ => return None,
            };
            let major = major.parse().ok().filter(|major| *major < 1 << 12)?;
            let minor = minor.parse().ok().filter(|minor| *minor < 1 << 20)?;
            Some((kind, encode_dev(major, minor)))
        }
    }
}

/// The fuzz target's way in: what a value says, and the value that says the same.
#[cfg(fuzzing)]
#[allow(clippy::panic, reason = "a finding stops the target")]
pub fn fuzz_value(value: &[u8]) {
    let Some(stored) = Stored::parse(value) else { return };
    let (Some(uid), Some(gid), Some(kind)) = (stored.uid, stored.gid, stored.kind) else { return };
    if kind == FileType::Unknown {
        return;
    }
    let mode = kind.as_raw_mode() | stored.permissions;
    let stat = Stat { uid, gid, mode, rdev: stored.rdev, ..Stat::default() };
    for xattr in StatXattr::ALL {
        assert_eq!(
            Stored::parse(xattr.value(&stat).as_bytes()),
            Some(stored),
            "{}",
            xattr.value(&stat)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &str) -> Option<(u32, u32, u32, Option<FileType>, u32)> {
        let s = Stored::parse(value.as_bytes())?;
        Some((s.uid.unwrap_or(999), s.gid.unwrap_or(999), s.permissions, s.kind, s.rdev))
    }

    #[test]
    fn values_of_all_writers_are_read() {
        let file = Some(FileType::RegularFile);
        assert_eq!(stored("5:6:0640"), Some((5, 6, 0o640, None, 0)));
        assert_eq!(stored("5:6:640"), Some((5, 6, 0o640, None, 0)));
        assert_eq!(stored("5:6:104640:file"), Some((5, 6, 0o4640, file, 0)));
        assert_eq!(stored("5:6:100640"), Some((5, 6, 0o640, file, 0)));
        assert_eq!(stored("0:0:40755"), Some((0, 0, 0o755, Some(FileType::Directory), 0)));
        let dir = Some(FileType::Directory);
        assert_eq!(stored("5:-1:40755"), Some((5, 999, 0o755, dir, 0)));
        let null = encode_dev(1, 3);
        let device = Some(FileType::CharacterDevice);
        assert_eq!(stored("0:0:0666:char-1-3"), Some((0, 0, 0o666, device, null)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["", "1:2", "a:b:c", "1:2:9", "-2:0:0644", "1:2:0644:door", "1:2:7777777"] {
            assert_eq!(stored(wrong), None, "{wrong}");
        }
        for wrong in
            ["1:2:0644:char-1", "1:2:0644:char-x-1", "1:2:0644:char-9999-1", "4294967296:0:0"]
        {
            assert_eq!(stored(wrong), None, "{wrong}");
        }
    }
}
