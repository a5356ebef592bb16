//! The index of copied-up hard links (kernel format `index=on`).
//!
//! `index/` in the workdir holds a hard link to the upper inode of every copied-up lower file
//! that has several names. It is called by the hexadecimal form of the lower inode's origin, so
//! that each of the lower names leads to the one upper inode, after a remount too.
//!
//! The upper inode's link count says nothing about the merged tree: it counts the index entry,
//! and not the names that are still lower only. The xattr `overlay.nlink` says how the merged
//! count differs from the upper's (`U+n`, `U-n`), or, while a lower name is being brought up, from
//! the lower's (`L+n`), which does not change meanwhile. The lower's own count is kept beside it
//! (`overlay.lower_nlink`), because not everybody may find the lower inode by its handle.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::origin::Origin;
use super::workdir::{Workdir, private_dir};
use super::xattrs::{Mark, Namespace};
use crate::error::{Errno, FsResult};
use crate::sys::stat::{stat_at, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, dir, file, node};

const DIR: &str = "index";

/// What a merged link count is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nlink {
    /// The link count of the upper inode plus this.
    Upper(i64),
    /// The link count of the lower inode plus this.
    Lower(i64),
}

impl Nlink {
    /// Reads the xattr; garbage, and what no count of links comes near to, is unknown.
    pub fn parse(value: &[u8]) -> Option<Nlink> {
        let text = std::str::from_utf8(value).ok()?;
        let (base, number) = text.split_at_checked(1)?;
        let number = i64::from(number.parse::<i32>().ok()?);
        match base {
            "U" => Some(Nlink::Upper(number)),
            "L" => Some(Nlink::Lower(number)),
            _ => None,
        }
    }

    /// The xattr's value.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Nlink::Upper(n) => format!("U{n:+}").into_bytes(),
            Nlink::Lower(n) => format!("L{n:+}").into_bytes(),
        }
    }
}

/// The merged link count of an indexed inode that has `own` links itself.
pub fn merged_count(namespace: Namespace, of: Target<'_>, own: u32) -> FsResult<i64> {
    let value = namespace.get(of, Mark::Nlink)?;
    let own = i64::from(own);
    Ok(match value.as_deref().and_then(Nlink::parse) {
        Some(Nlink::Upper(more)) => own + more,
        // Without the lower's count (a kernel mount stopped between two steps) what the upper
        // has is certain.
        Some(Nlink::Lower(more)) => lower_count(namespace, of)?.map_or(own - 1, |base| base + more),
        None => own - 1,
    })
}

/// Keeps the merged link count at `merged` whatever the inode's own becomes, until
/// [`count_from_upper`]; `lower` is the lower's count where that is known.
pub fn hold_count(
    namespace: Namespace,
    of: Target<'_>,
    merged: i64,
    lower: Option<u32>,
) -> FsResult<()> {
    let base = match lower_count(namespace, of)? {
        Some(base) => base,
        None => {
            let base = lower.map_or(merged, i64::from);
            namespace.set(of, Mark::LowerNlink, base.to_string().as_bytes())?;
            base
        }
    };
    namespace.set(of, Mark::Nlink, &Nlink::Lower(merged - base).to_bytes())
}

/// Lets the merged link count, which is `merged` now, follow the inode's own, which is `own` now.
pub fn count_from_upper(
    namespace: Namespace,
    of: Target<'_>,
    merged: i64,
    own: u32,
) -> FsResult<()> {
    namespace.set(of, Mark::Nlink, &Nlink::Upper(merged - i64::from(own)).to_bytes())
}

fn lower_count(namespace: Namespace, of: Target<'_>) -> FsResult<Option<i64>> {
    let value = namespace.get(of, Mark::LowerNlink)?;
    let count = |value: Vec<u8>| std::str::from_utf8(&value).ok()?.parse::<u32>().ok();
    Ok(value.and_then(count).map(i64::from))
}

/// The index of one upper.
#[derive(Debug)]
pub struct Index {
    /// The directory, once there is one.
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// Whether it may have entries; asked on every lookup of a lower hard link.
    used: AtomicBool,
}

impl Index {
    /// The index in `work`, cleaned of entries that no name uses any more.
    pub fn open(work: &Workdir, namespace: Namespace) -> FsResult<Index> {
        let fd = match stat_at(work.base(), OsStr::new(DIR)) {
            Ok(_) => Some(Arc::new(private_dir(work.base(), OsStr::new(DIR))?.0)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        let used = match &fd {
            Some(fd) => clean(fd, namespace)?,
            None => false,
        };
        Ok(Index { fd: Mutex::new(fd), used: AtomicBool::new(used) })
    }

    /// The index in the workdir at `path` as it is, for one who only reads it; it is used if it
    /// has entries. Works beside a live mount.
    pub fn open_to_read(path: &Path) -> FsResult<Index> {
        let base = file::open_root(path)?;
        let found = file::open_at(&base, OsStr::new(DIR), OFlags::PATH | OFlags::DIRECTORY);
        let fd = match found {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                return Ok(Index { fd: Mutex::new(None), used: AtomicBool::new(false) });
            }
            Err(errno) => return Err(errno),
        };
        let used = !entries(&fd)?.is_empty();
        Ok(Index { fd: Mutex::new(Some(Arc::new(fd))), used: AtomicBool::new(used) })
    }

    /// The origins that it has entries for; what is called otherwise is none of its entries.
    pub fn origins(&self) -> FsResult<Vec<Origin>> {
        let Some(fd) = self.fd.lock().clone() else { return Ok(Vec::new()) };
        let bytes = entries(&fd)?.into_iter().filter_map(|name| hex::decode(name.as_bytes()).ok());
        Ok(bytes.filter_map(|bytes| Origin::parse(&bytes)).collect())
    }

    /// Whether it may have entries.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// The directory, made where there is none yet.
    pub fn dir(&self, work: &Workdir) -> FsResult<Arc<OwnedFd>> {
        let mut fd = self.fd.lock();
        if let Some(fd) = fd.as_ref() {
            return Ok(fd.clone());
        }
        let (opened, _) = private_dir(work.base(), OsStr::new(DIR))?;
        let opened = Arc::new(opened);
        *fd = Some(opened.clone());
        Ok(opened)
    }

    /// The entry of the lower inode `origin`: the directory and its name there, if there is one.
    pub fn find(&self, origin: &Origin) -> FsResult<Option<(Arc<OwnedFd>, OsString)>> {
        if !self.is_used() {
            return Ok(None);
        }
        let Some(fd) = self.fd.lock().clone() else { return Ok(None) };
        let name = entry_name(origin);
        match stat_at(&fd, &name) {
            Ok(_) => Ok(Some((fd, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Takes note that an entry is about to be added.
    pub fn set_used(&self) {
        self.used.store(true, Ordering::Release);
    }
}

/// What the entry of `origin` is called.
pub fn entry_name(origin: &Origin) -> OsString {
    OsString::from(hex::encode(origin.to_bytes()))
}

/// Removes the entries whose merged link count fell to nothing, and lets counts that a crash left
/// held follow the upper again. Returns whether any are left.
fn clean(fd: &OwnedFd, namespace: Namespace) -> FsResult<bool> {
    let mut left = false;
    for name in entries(fd)? {
        let entry = file::open_path_at(fd, &name)?;
        let stat = stat_fd(&entry)?;
        let of = Target::fd(&entry);
        let value = namespace.get(of, Mark::Nlink)?;
        let unused = match value.as_deref().and_then(Nlink::parse) {
            Some(Nlink::Upper(n)) => i64::from(stat.nlink) + n <= 0,
            Some(Nlink::Lower(_)) if lower_count(namespace, of)?.is_some() => {
                let merged = merged_count(namespace, of, stat.nlink)?;
                count_from_upper(namespace, of, merged, stat.nlink)?;
                false
            }
            _ => false,
        };
        if unused && !stat.is_dir() {
            node::unlink(fd, &name)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// The names in the directory of the index.
fn entries(fd: &OwnedFd) -> FsResult<Vec<OsString>> {
    let mut names = Vec::new();
    dir::list_dir(fd, |entry| {
        names.push(entry.name.to_owned());
        Ok(true)
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_round_trip_in_the_kernels_form() {
        for (nlink, text) in
            [(Nlink::Upper(0), "U+0"), (Nlink::Upper(-2), "U-2"), (Nlink::Lower(1), "L+1")]
        {
            assert_eq!(nlink.to_bytes(), text.as_bytes());
            assert_eq!(Nlink::parse(text.as_bytes()), Some(nlink));
        }
        assert_eq!(Nlink::parse(b"U+9223372036854775807"), None);
        assert_eq!(Nlink::parse(b""), None);
        assert_eq!(Nlink::parse(b"X+1"), None);
        assert_eq!(Nlink::parse(b"\xffU"), None);
    }
}
