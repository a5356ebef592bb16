//! Names in directories, on the overlay core.

use std::path::Path;

use plyfs::sys::RenameFlags;
use rustix::io::Errno;

use super::{Answer, CALLER, Core, FIFO};
use crate::model::op::{Op, Outcome, RenameHow};

impl Core<'_> {
    pub(super) fn call_on_names(&mut self, op: &Op) -> Answer {
        match op {
            Op::Mkdir { path, mode } => {
                let (dir, name) = self.vacant(path)?;
                self.made(self.fs().mkdir(&CALLER, dir, name, mode & 0o1777, 0))
            }
            Op::Symlink { target, path } => {
                let (dir, name) = self.vacant(path)?;
                self.made(self.fs().symlink(&CALLER, dir, name, target))
            }
            Op::Fifo { path, mode } => {
                let (dir, name) = self.vacant(path)?;
                self.made(self.fs().mknod(&CALLER, dir, name, FIFO | mode, 0, 0))
            }
            Op::Rmdir { path } => {
                let (dir, name) = self.parent(path)?;
                if !self.walk(path)?.stat.is_dir() {
                    return Err(Errno::NOTDIR);
                }
                self.fs().rmdir(dir, name).map(|()| Outcome::Done)
            }
            Op::Unlink { path } => {
                let (dir, name) = self.parent(path)?;
                if self.walk(path)?.stat.is_dir() {
                    return Err(Errno::ISDIR);
                }
                self.fs().unlink(dir, name).map(|()| Outcome::Done)
            }
            Op::Link { from, to } => {
                let source = self.walk(from)?;
                let (dir, name) = self.vacant(to)?;
                if source.stat.is_dir() {
                    return Err(Errno::PERM);
                }
                self.made(self.fs().link(source.node, dir, name))
            }
            Op::Rename { from, to, how } => self.rename(from, to, *how),
            _ => self.call_on_attributes(op),
        }
    }

    fn rename(&self, from: &Path, to: &Path, how: RenameHow) -> Answer {
        let flags = match how {
            RenameHow::Replace => RenameFlags::empty(),
            RenameHow::NoReplace => RenameFlags::NOREPLACE,
            RenameHow::Exchange => RenameFlags::EXCHANGE,
        };
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        self.walk(from)?;
        let target = self.walk(to);
        match (how, &target) {
            (RenameHow::NoReplace, Ok(_)) => return Err(Errno::EXIST),
            (RenameHow::Exchange, Err(errno)) => return Err(*errno),
            _ => {}
        }
        // Neither may lie in the other; the kernel finds that before it asks.
        if from != to && to.starts_with(from) {
            return Err(Errno::INVAL);
        }
        if from != to && from.starts_with(to) {
            let exchange = how == RenameHow::Exchange;
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        self.fs().rename(from_dir, from_name, to_dir, to_name, flags).map(|()| Outcome::Done)
    }
}
