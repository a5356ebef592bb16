//! Making regular files that have no name (`O_TMPFILE`).

use std::sync::Arc;

use rustix::fs::FileType;

use super::copy_up::Data;
use super::create::{Birth, inherits_acl};
use super::frozen::Change;
use super::node::{Node, RealKey};
use super::{Caller, Entry, NodeId, Opened, Overlay};
use crate::error::{Errno, FsResult};
use crate::sys::creds::ActAs;
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::{OFlags, OwnedFd, file};

impl Overlay {
    /// Makes a regular file without a name in the directory `parent`, and opens it. Without `O_EXCL`
    /// in `flags` it may be given a name later.
    pub fn tmpfile(
        &self,
        caller: &Caller,
        parent: NodeId,
        mode: u32,
        umask: u32,
        flags: OFlags,
    ) -> FsResult<(Entry, Opened)> {
        let parent = self.nodes.get(parent)?;
        let dir = parent.directory()?;
        self.copy_up_to(Change::Adds, &parent, Data::Attributes)?;
        let mut state = dir.state.write();
        if state.dead {
            return Err(Errno::NOENT);
        }
        let dir_fd = self.dir_fds.get(dir.upper()?)?;
        let inherits = inherits_acl(&mut state.default_acl, &dir_fd)?;
        let birth = self.birth(caller, if inherits { mode } else { mode & !umask });
        let wanted = super::file::backing_flags(flags) - OFlags::TRUNC;
        // Without O_EXCL it may be given a name later.
        let wanted = wanted | (flags & OFlags::EXCL);
        let (fd, stat) = match self.stores_stat() {
            true => self.unnamed_stored(&dir_fd, birth, wanted)?,
            false => {
                let acting = ActAs::user(birth.uid, birth.gid);
                let fd = file::create_tmpfile(&dir_fd, wanted, birth.mode);
                drop(acting);
                let fd = fd?;
                let stat = stat_fd(&fd)?;
                (fd, stat)
            }
        };
        let fd = Arc::new(fd);
        let mut own = self.upper_state(&stat);
        own.pin(Some(fd.clone()));
        let key = RealKey { dev: stat.dev, ino: stat.ino };
        let kind = FileType::RegularFile;
        let node = self.nodes.add_unnamed(key, |id| {
            let node = Node::new(id, key, kind, true, own, None);
            node.set_dead(true);
            Ok(node)
        })?;
        let entry = Entry { node: node.id, stat: self.shown(&node, stat)? };
        let opened = self.handles.insert(node, fd, flags, true, stat.mode)?;
        Ok((entry, opened))
    }

    /// An open file of our own without a name.
    fn unnamed_stored(
        &self,
        dir: &OwnedFd,
        birth: Birth,
        flags: OFlags,
    ) -> FsResult<(OwnedFd, Stat)> {
        let fd = file::create_tmpfile(dir, flags, 0o600)?;
        let stat = self.born(dir, FileType::RegularFile, birth, stat_fd(&fd)?)?;
        self.upper()?.store_stat(&fd, &stat)?;
        Ok((fd, stat))
    }
}
