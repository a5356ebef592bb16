//! Owner, mode, xattrs and times of what is unpacked, set in the one order that keeps them all:
//! chown clears suid and capabilities, so it comes first; everything changes ctime and some the
//! mtime, so times come last.

use std::ffi::{OsStr, OsString};

use super::tar_stream::Entry;
use crate::error::{Errno, FsResult};
use crate::layer::xattrs;
use crate::sys::stat::Time;
use crate::sys::xattr::{self, Target, XattrFlags};
use crate::sys::{AsFd, OwnedFd, Timespec, Timestamps, file, node};

/// What an entry says of its file besides type and content.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    atime: Time,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Attributes {
    /// Takes them from `entry`, and says how many xattrs were left out: those by which an
    /// overlay filesystem keeps its own records, which an archive must not plant.
    pub(crate) fn of_entry(entry: &mut Entry) -> (Self, usize) {
        let mut xattrs = std::mem::take(&mut entry.xattrs);
        let all = xattrs.len();
        xattrs.retain(|(name, _)| !xattrs::is_private(name));
        let left_out = all - xattrs.len();
        let atime = entry.atime.unwrap_or(entry.mtime);
        let Entry { mode, uid, gid, mtime, .. } = *entry;
        (Attributes { mode, uid, gid, mtime, atime, xattrs }, left_out)
    }

    /// Those of a directory that the archive only implies.
    pub(crate) fn of_implied_directory(time: Time) -> Self {
        let xattrs = Vec::new();
        Attributes { mode: 0o755, uid: 0, gid: 0, mtime: time, atime: time, xattrs }
    }

    /// Sets them on a regular file open for writing.
    pub(crate) fn set_on_file(&self, fd: &OwnedFd, privileged: bool) -> FsResult<()> {
        if privileged {
            node::set_owner(fd, OsStr::new(""), Some(self.uid), Some(self.gid))?;
        }
        node::set_open_mode(fd, self.mode)?;
        self.set_xattrs(Target::fd(fd), privileged)?;
        node::set_times(fd, OsStr::new(""), &self.times())
    }

    /// Sets them on what the `O_PATH` descriptor of a directory names.
    pub(crate) fn set_on_directory(&self, fd: &OwnedFd, privileged: bool) -> FsResult<()> {
        if privileged {
            node::set_owner(fd, OsStr::new(""), Some(self.uid), Some(self.gid))?;
        }
        self.set_xattrs(Target::fd(fd), privileged)?;
        node::set_times(fd, OsStr::new(""), &self.times())?;
        // Last: the owner may be forbidden to change more by the mode itself.
        node::set_mode(fd, self.mode)
    }

    /// Sets them on the symlink, device node or fifo `dir`/`name`.
    pub(crate) fn set_on_node(
        &self,
        dir: &impl AsFd,
        name: &OsStr,
        is_symlink: bool,
        privileged: bool,
    ) -> FsResult<()> {
        if privileged {
            node::set_owner(dir, name, Some(self.uid), Some(self.gid))?;
        }
        if !is_symlink {
            node::set_mode(file::open_path_at(dir, name)?, self.mode)?;
        }
        self.set_xattrs(Target::at(dir, name), privileged)?;
        node::set_times(dir, name, &self.times())
    }

    /// Removes the xattrs that the directory has and the entry has not.
    pub(crate) fn remove_other_xattrs(&self, fd: &OwnedFd) -> FsResult<()> {
        for name in xattr::list(Target::fd(fd))? {
            let given = self.xattrs.iter().any(|(own, _)| **own == *name);
            if !given && !xattrs::is_private(&name) && *name != *"security.selinux" {
                xattr::remove(Target::fd(fd), &name)?;
            }
        }
        Ok(())
    }

    fn set_xattrs(&self, target: Target<'_>, privileged: bool) -> FsResult<()> {
        for (name, value) in &self.xattrs {
            match xattr::set(target, name, value, XattrFlags::empty()) {
                // An ordinary user's files cannot have them, nor can anybody's symlinks have
                // `user.*`; the layer is unpacked without, as docker and podman do it.
                Err(Errno::PERM) if !privileged || is_users(name) => left_out(name),
                // Those of other systems, or of a filesystem that has more.
                Err(Errno::OPNOTSUPP) => left_out(name),
                other => other?,
            }
        }
        Ok(())
    }

    /// About how much memory the xattrs take.
    pub(crate) fn xattr_bytes(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
    }

    fn times(&self) -> Timestamps {
        let time = |t: Time| Timespec { tv_sec: t.sec, tv_nsec: t.nsec.into() };
        Timestamps { last_access: time(self.atime), last_modification: time(self.mtime) }
    }
}

fn is_users(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"user.")
}

fn left_out(name: &OsStr) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "xattrs are left out that files here cannot have; PLYFS_LOG=debug names them"
        );
    });
    tracing::debug!(?name, "xattr left out");
}
