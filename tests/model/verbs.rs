//! What each operation does to the model, and the errno it gives: Linux's rules for root.

use std::ffi::OsStr;
use std::path::Path;

use rustix::io::Errno;

use super::op::{AllocateHow, Data, Op, Outcome, RenameHow, XattrHow};
use super::tree::{Held, Ino, Inode, Model, Node};

type Answer = Result<Outcome, Errno>;

const DONE: Answer = Ok(Outcome::Done);
const SUID: u32 = 0o4000;
const SGID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;

impl Model {
    /// Carries out one operation.
    pub(crate) fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Create { path, mode } => {
                self.make(path, Node::File(Vec::new()), *mode).map(|_| Outcome::Done)
            }
            Op::Mkdir { path, mode } => {
                // mkdir(2) takes the sticky bit, but neither SUID nor SGID.
                self.make(path, Node::Dir(Default::default()), mode & 0o1777).map(|_| Outcome::Done)
            }
            Op::Symlink { target, path } => {
                self.make(path, Node::Symlink(target.clone()), 0o777).map(|_| Outcome::Done)
            }
            Op::Fifo { path, mode } => self.make(path, Node::Fifo, *mode).map(|_| Outcome::Done),
            Op::Write { path, offset, data } => {
                let ino = self.open(path, true)?;
                self.write(ino, *offset, &data.0)
            }
            Op::Append { path, data } => {
                let ino = self.open(path, true)?;
                let end = self.content(ino)?.len() as u64;
                self.write(ino, end, &data.0)
            }
            Op::Replace { path, data } => self.replace(path, &data.0),
            Op::Allocate { path, how, offset, length } => {
                let ino = self.open(path, true)?;
                self.allocate(ino, *how, *offset as usize, (*offset + *length) as usize)
            }
            Op::MapWrite { path, offset, data } => {
                let ino = self.open(path, true)?;
                self.map_write(ino, *offset as usize, &data.0)
            }
            Op::Unnamed { path, mode, data } => {
                let ino = self.make(path, Node::File(Vec::new()), *mode)?;
                self.write(ino, 0, &data.0)
            }
            Op::Truncate { path, size } => {
                let ino = self.follow(path)?;
                self.truncate(ino, *size)
            }
            Op::Rmdir { path } => self.rmdir(path),
            Op::Unlink { path } => self.unlink(path),
            Op::Rename { from, to, how } => self.rename(from, to, *how),
            Op::Link { from, to } => self.link(from, to),
            _ => self.apply_to_inode(op),
        }
    }

    /// The operations that change no name.
    fn apply_to_inode(&mut self, op: &Op) -> Answer {
        match op {
            Op::Chmod { path, mode } => {
                let ino = self.follow(path)?;
                self.inodes[ino].mode = *mode;
                DONE
            }
            Op::Chown { path, uid, gid } => self.chown(path, *uid, *gid),
            Op::SetTimes { path, time } => {
                let ino = self.walk(path)?;
                self.inodes[ino].mtime = Some(*time);
                DONE
            }
            Op::SetXattr { path, name, value, how } => self.set_xattr(path, name, &value.0, *how),
            Op::RemoveXattr { path, name } => {
                let inode = self.xattr_target(path, name, true)?;
                inode.xattrs.remove(OsStr::new(name)).ok_or(Errno::NODATA)?;
                DONE
            }
            Op::GetXattr { path, name } => {
                let inode = self.xattr_target(path, name, false)?;
                let value = inode.xattrs.get(OsStr::new(name)).ok_or(Errno::NODATA)?;
                Ok(Outcome::Bytes(Data(value.clone())))
            }
            Op::Stat { path } => Ok(Outcome::Stat(self.inodes[self.walk(path)?].seen())),
            Op::Read { path } => {
                let ino = self.open(path, false)?;
                match self.inodes[ino].node {
                    Node::Fifo => Ok(Outcome::Bytes(Data(Vec::new()))),
                    _ => Ok(Outcome::Bytes(Data(self.content(ino)?.clone()))),
                }
            }
            Op::ReadLink { path } => match &self.inodes[self.walk(path)?].node {
                Node::Symlink(target) => {
                    Ok(Outcome::Bytes(Data(target.as_encoded_bytes().to_vec())))
                }
                _ => Err(Errno::INVAL),
            },
            Op::List { path } => match &self.inodes[self.follow(path)?].node {
                Node::Dir(names) => Ok(Outcome::Names(names.keys().cloned().collect())),
                _ => Err(Errno::NOTDIR),
            },
            _ => self.apply_to_held(op),
        }
    }

    /// The operations on files that are kept open.
    fn apply_to_held(&mut self, op: &Op) -> Answer {
        let held = |slot: &usize, held: &std::collections::BTreeMap<usize, Held>| {
            held.get(slot).copied().ok_or(Errno::BADF)
        };
        match op {
            Op::Hold { slot, path, write } => {
                let ino = self.open(path, *write)?;
                self.held.insert(*slot, Held { ino, write: *write });
                DONE
            }
            Op::Release { slot } => {
                held(slot, &self.held)?;
                self.held.remove(slot);
                DONE
            }
            Op::HeldRead { slot } => {
                let held = held(slot, &self.held)?;
                Ok(Outcome::Bytes(Data(self.content(held.ino)?.clone())))
            }
            Op::HeldWrite { slot, offset, data } => match held(slot, &self.held)? {
                Held { ino, write: true } => self.write(ino, *offset, &data.0),
                _ => Err(Errno::BADF),
            },
            Op::HeldTruncate { slot, size } => match held(slot, &self.held)? {
                Held { ino, write: true } => self.truncate(ino, *size),
                _ => Err(Errno::INVAL),
            },
            Op::HeldStat { slot } => {
                let held = held(slot, &self.held)?;
                Ok(Outcome::Stat(self.inodes[held.ino].seen()))
            }
            Op::HeldChmod { slot, mode } => {
                let held = held(slot, &self.held)?;
                self.inodes[held.ino].mode = *mode;
                DONE
            }
            _ => panic!("an operation without a rule: {op:?}"),
        }
    }

    /// Makes a new name; a parent with SGID gives its group, and SGID to directories.
    fn make(&mut self, path: &Path, node: Node, mode: u32) -> Result<Ino, Errno> {
        let (dir, name) = self.parent(path).map_err(busy_is_exist)?;
        if self.names(dir).contains_key(name) {
            return Err(Errno::EXIST);
        }
        let mut inode = Inode::new(node, mode);
        let parent = &self.inodes[dir];
        if parent.mode & SGID != 0 {
            inode.gid = parent.gid;
            if inode.is_dir() {
                inode.mode |= SGID;
            }
        }
        let ino = self.add(inode);
        self.names_mut(dir).insert(name.to_owned(), ino);
        Ok(ino)
    }

    /// Opens a file without following a symlink and without waiting for a fifo's other end.
    fn open(&self, path: &Path, write: bool) -> Result<Ino, Errno> {
        let ino = self.walk(path)?;
        match self.inodes[ino].node {
            Node::Symlink(_) => Err(Errno::LOOP),
            Node::Dir(_) if write => Err(Errno::ISDIR),
            Node::Fifo if write => Err(Errno::NXIO),
            _ => Ok(ino),
        }
    }

    fn content(&mut self, ino: Ino) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.inodes[ino].node {
            Node::File(content) => Ok(content),
            Node::Dir(_) => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Answer {
        if data.is_empty() {
            return DONE;
        }
        let content = self.content(ino)?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(data);
        self.changed(ino);
        DONE
    }

    fn allocate(&mut self, ino: Ino, how: AllocateHow, start: usize, end: usize) -> Answer {
        let content = self.content(ino)?;
        let within = start.min(content.len())..end.min(content.len());
        match how {
            AllocateHow::Extend if content.len() < end => content.resize(end, 0),
            AllocateHow::Extend | AllocateHow::KeepSize => {}
            AllocateHow::Punch => content[within].fill(0),
        }
        self.changed(ino);
        DONE
    }

    /// A mapping reaches to the end of the file.
    fn map_write(&mut self, ino: Ino, offset: usize, data: &[u8]) -> Answer {
        let room = self.content(ino)?.len().saturating_sub(offset);
        self.write(ino, offset as u64, &data[..data.len().min(room)])
    }

    fn replace(&mut self, path: &Path, data: &[u8]) -> Answer {
        let ino = match self.open(path, true) {
            Err(Errno::NOENT) => self.make(path, Node::File(Vec::new()), 0o644)?,
            other => other?,
        };
        self.content(ino)?.clear();
        self.changed(ino);
        self.write(ino, 0, data)
    }

    fn truncate(&mut self, ino: Ino, size: u64) -> Answer {
        self.content(ino)?.resize(size as usize, 0);
        self.changed(ino);
        DONE
    }

    /// The content of a file was changed: its time becomes unknown, and it loses suid and sgid
    /// unless root of the machine changed it.
    fn changed(&mut self, ino: Ino) {
        let keeps = self.keeps_privileges;
        let inode = &mut self.inodes[ino];
        inode.mtime = None;
        if !keeps {
            inode.mode = without_privileges(inode.mode);
        }
    }

    fn rmdir(&mut self, path: &Path) -> Answer {
        let (dir, name) = self.parent(path)?;
        let ino = *self.names(dir).get(name).ok_or(Errno::NOENT)?;
        match &self.inodes[ino].node {
            Node::Dir(names) if names.is_empty() => {}
            Node::Dir(_) => return Err(Errno::NOTEMPTY),
            _ => return Err(Errno::NOTDIR),
        }
        self.names_mut(dir).remove(name);
        DONE
    }

    fn unlink(&mut self, path: &Path) -> Answer {
        let (dir, name) = self.parent(path).map_err(busy_is_directory)?;
        let ino = *self.names(dir).get(name).ok_or(Errno::NOENT)?;
        if self.inodes[ino].is_dir() {
            return Err(Errno::ISDIR);
        }
        self.names_mut(dir).remove(name);
        self.inodes[ino].nlink -= 1;
        DONE
    }

    fn link(&mut self, from: &Path, to: &Path) -> Answer {
        let ino = self.walk(from)?;
        let (dir, name) = self.parent(to).map_err(busy_is_exist)?;
        if self.names(dir).contains_key(name) {
            return Err(Errno::EXIST);
        }
        if self.inodes[ino].is_dir() {
            return Err(Errno::PERM);
        }
        self.names_mut(dir).insert(name.to_owned(), ino);
        self.inodes[ino].nlink += 1;
        DONE
    }

    fn rename(&mut self, from: &Path, to: &Path, how: RenameHow) -> Answer {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let source = *self.names(from_dir).get(from_name).ok_or(Errno::NOENT)?;
        let target = self.names(to_dir).get(to_name).copied();
        match (how, target) {
            (RenameHow::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameHow::Exchange, None) => return Err(Errno::NOENT),
            _ => {}
        }
        if self.inodes[source].is_dir() && self.contains(source, to_dir) {
            return Err(Errno::INVAL);
        }
        if target.is_some_and(|t| self.inodes[t].is_dir() && self.contains(t, from_dir)) {
            let exchange = how == RenameHow::Exchange;
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if target == Some(source) {
            return DONE;
        }
        if how == RenameHow::Exchange {
            self.names_mut(from_dir).insert(from_name.to_owned(), target.unwrap());
            self.names_mut(to_dir).insert(to_name.to_owned(), source);
            return DONE;
        }
        if let Some(target) = target {
            self.check_replaceable(source, target)?;
            self.inodes[target].nlink -= 1;
        }
        self.names_mut(from_dir).remove(from_name);
        self.names_mut(to_dir).insert(to_name.to_owned(), source);
        DONE
    }

    fn check_replaceable(&self, source: Ino, target: Ino) -> Result<(), Errno> {
        match (&self.inodes[source].node, &self.inodes[target].node) {
            (Node::Dir(_), Node::Dir(names)) if !names.is_empty() => Err(Errno::NOTEMPTY),
            (Node::Dir(_), Node::Dir(_)) => Ok(()),
            (Node::Dir(_), _) => Err(Errno::NOTDIR),
            (_, Node::Dir(_)) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    /// A change of owner clears SUID, and SGID where the group may execute, for root too.
    fn chown(&mut self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Answer {
        let ino = self.walk(path)?;
        let inode = &mut self.inodes[ino];
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        if !inode.is_dir() && !matches!(inode.node, Node::Symlink(_)) {
            inode.mode = without_privileges(inode.mode);
        }
        DONE
    }

    fn set_xattr(&mut self, path: &Path, name: &str, value: &[u8], how: XattrHow) -> Answer {
        let inode = self.xattr_target(path, name, true)?;
        match (how, inode.xattrs.contains_key(OsStr::new(name))) {
            (XattrHow::Create, true) => return Err(Errno::EXIST),
            (XattrHow::Replace, false) => return Err(Errno::NODATA),
            _ => inode.xattrs.insert(name.into(), value.to_vec()),
        };
        DONE
    }

    /// `user.*` is for files and directories alone.
    fn xattr_target(&mut self, path: &Path, name: &str, write: bool) -> Result<&mut Inode, Errno> {
        let ino = self.walk(path)?;
        let inode = &mut self.inodes[ino];
        let may_have = matches!(inode.node, Node::Dir(_) | Node::File(_));
        if name.starts_with("user.") && !may_have {
            return Err(if write { Errno::PERM } else { Errno::NODATA });
        }
        Ok(inode)
    }
}

/// A mode without suid, and without sgid where the group may execute.
fn without_privileges(mode: u32) -> u32 {
    let sgid = if mode & GROUP_EXEC != 0 { SGID } else { 0 };
    mode & !(SUID | sgid)
}

/// The root as a new name exists already.
fn busy_is_exist(errno: Errno) -> Errno {
    if errno == Errno::BUSY { Errno::EXIST } else { errno }
}

/// The root as a name to unlink is a directory.
fn busy_is_directory(errno: Errno) -> Errno {
    if errno == Errno::BUSY { Errno::ISDIR } else { errno }
}
