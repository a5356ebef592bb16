//! Attributes and xattrs, on the overlay core.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use plyfs::overlay::{NodeId, SetAttr, SetTime};
use plyfs::sys::stat::Stat;
use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;

use super::{Answer, Core};
use crate::model::op::{Data, Op, Outcome, Seen, XattrHow};
use crate::support::Time;

impl Core<'_> {
    pub(super) fn call_on_attributes(&mut self, op: &Op) -> Answer {
        match op {
            Op::Chmod { path, mode } => {
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                self.set(self.follow(path)?.node, None, &set)
            }
            Op::Chown { path, uid, gid } => {
                let found = self.walk(path)?;
                let kill_suidgid = !found.stat.is_dir() && !found.stat.is_symlink();
                let set = SetAttr { uid: *uid, gid: *gid, kill_suidgid, ..SetAttr::default() };
                self.set(found.node, None, &set)
            }
            Op::SetTimes { path, time } => {
                let at = plyfs::sys::stat::Time { sec: time.sec, nsec: time.nsec };
                let at = Some(SetTime::At(at));
                let set = SetAttr { atime: at, mtime: at, ..SetAttr::default() };
                self.set(self.walk(path)?.node, None, &set)
            }
            Op::SetXattr { path, name, value, how } => {
                let flags = match how {
                    XattrHow::Either => XattrFlags::empty(),
                    XattrHow::Create => XattrFlags::CREATE,
                    XattrHow::Replace => XattrFlags::REPLACE,
                };
                let node = self.xattr_target(path, name, Errno::PERM)?;
                let set = self.fs().setxattr(node, OsStr::new(name), &value.0, flags, false);
                set.map(|()| Outcome::Done)
            }
            Op::RemoveXattr { path, name } => {
                let node = self.xattr_target(path, name, Errno::PERM)?;
                self.fs().removexattr(node, OsStr::new(name)).map(|()| Outcome::Done)
            }
            Op::GetXattr { path, name } => {
                let node = self.xattr_target(path, name, Errno::NODATA)?;
                self.xattr(node, OsStr::new(name)).map(|value| Outcome::Bytes(Data(value)))
            }
            Op::Stat { path } => Ok(Outcome::Stat(seen(&self.walk(path)?.stat))),
            Op::ReadLink { path } => {
                let found = self.walk(path)?;
                if !found.stat.is_symlink() {
                    return Err(Errno::INVAL);
                }
                let target = self.fs().readlink(found.node)?;
                Ok(Outcome::Bytes(Data(target.as_bytes().to_vec())))
            }
            _ => self.call_held(op),
        }
    }

    fn xattr_target(&self, path: &Path, name: &str, refusal: Errno) -> Result<NodeId, Errno> {
        let found = self.walk(path)?;
        let may_have = found.stat.is_dir() || found.stat.is_file();
        if name.starts_with("user.") && !may_have {
            return Err(refusal);
        }
        Ok(found.node)
    }

    pub(super) fn xattr(&self, node: NodeId, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; 4096];
        let n = self.fs().getxattr(node, name, &mut value)?;
        value.truncate(n);
        Ok(value)
    }
}

pub(super) fn seen(stat: &Stat) -> Seen {
    let kind = match stat.file_type() {
        FileType::Directory => 'd',
        FileType::RegularFile => 'f',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::CharacterDevice => 'c',
        _ => '?',
    };
    Seen {
        kind,
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        size: matches!(kind, 'f' | 'l').then_some(stat.size),
        nlink: (kind != 'd').then_some(stat.nlink),
        mtime: Some(Time { sec: stat.mtime.sec, nsec: stat.mtime.nsec }),
    }
}
