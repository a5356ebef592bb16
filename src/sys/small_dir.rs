//! A directory that is small enough to be read at once.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, RawDir};

use super::AsFd;
use super::dir::RawEntry;
use crate::error::FsResult;

/// Bytes asked of the kernel: some 50 entries of ordinary length. What is larger is not read here.
const BUFFER: usize = 2048;

/// The entries of one: of each its inode number (8 bytes), type, length of the name, and name.
#[derive(Debug)]
pub struct SmallDir(Box<[u8]>);

const TYPE: usize = 8;
const LENGTH: usize = 9;
const NAME: usize = 10;

impl SmallDir {
    /// Reads the directory `fd`, of which nothing was read yet; `None` if it is larger.
    pub fn read(fd: impl AsFd) -> FsResult<Option<SmallDir>> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
        let mut entries = RawDir::new(fd.as_fd(), &mut buffer);
        let (mut packed, mut calls) = (Vec::new(), 0);
        loop {
            calls += u32::from(entries.is_buffer_empty());
            let Some(entry) = entries.next() else { break };
            if calls > 1 {
                return Ok(None);
            }
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let Ok(length) = u8::try_from(name.len()) else { return Ok(None) };
            packed.extend(entry.ino().to_ne_bytes());
            packed.extend([kind_byte(entry.file_type()), length]);
            packed.extend(name);
        }
        Ok(Some(SmallDir(packed.into_boxed_slice())))
    }

    /// Its entries; `.` and `..` are left out.
    pub fn iter(&self) -> impl Iterator<Item = RawEntry<'_>> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (head, after) = rest.split_first_chunk::<NAME>()?;
            let (name, after) = after.split_at_checked(head[LENGTH].into())?;
            rest = after;
            let ino = head.first_chunk().map_or(0, |ino| u64::from_ne_bytes(*ino));
            let kind = FileType::from_raw_mode(u32::from(head[TYPE]) << 12);
            Some(RawEntry { name: OsStr::from_bytes(name), kind, ino })
        })
    }

    /// Whether it has this name.
    pub fn has(&self, name: &OsStr) -> bool {
        self.iter().any(|entry| entry.name == name)
    }
}

/// A type as the upper bits of a mode; 0 where the filesystem does not say.
fn kind_byte(kind: FileType) -> u8 {
    match kind {
        FileType::Unknown => 0,
        kind => u8::try_from(kind.as_raw_mode() >> 12).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::dir::{list_dir, open_dir};

    type Shown = (Vec<u8>, FileType, u64);

    fn shown(raw: &RawEntry<'_>) -> Shown {
        (raw.name.as_bytes().to_vec(), raw.kind, raw.ino)
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn it_has_what_a_listing_has_or_is_too_large() {
        let place = tempfile::tempdir().unwrap();
        let make = |names: &[&OsStr]| {
            for name in names {
                std::fs::write(place.path().join(name), "").unwrap();
            }
        };
        let both = || {
            let fd = open_dir(rustix::fs::CWD, place.path().as_os_str()).unwrap();
            let mut listed: Vec<Shown> = Vec::new();
            list_dir(&fd, |raw| {
                listed.push(shown(&raw));
                Ok(true)
            })
            .unwrap();
            let small = SmallDir::read(&fd).unwrap();
            let small = small.map(|small| small.iter().map(|raw| shown(&raw)).collect::<Vec<_>>());
            (listed, small)
        };
        let (listed, small) = both();
        assert_eq!((listed.len(), small), (0, Some(Vec::new())));

        let long = "x".repeat(255);
        make(&[OsStr::new("a"), OsStr::new(".wh..wh..opq"), OsStr::new(&long)]);
        make(&[OsStr::from_bytes(b"\xff\n")]);
        std::fs::create_dir(place.path().join("d")).unwrap();
        std::os::unix::fs::symlink("a", place.path().join("l")).unwrap();
        let (listed, small) = both();
        assert_eq!((listed.len(), small), (6, Some(listed)));

        for n in 0..100 {
            make(&[OsStr::new(&format!("{n:032}"))]);
        }
        let (listed, small) = both();
        assert_eq!((listed.len(), small), (106, None));
    }
}
