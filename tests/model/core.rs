//! The operations on the overlay core alone: what the kernel does around a filesystem (walking
//! paths, refusing what needs no filesystem to refuse) is done here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plyfs::overlay::options::UpperOption;
use plyfs::overlay::{
    Caller, Entry, FileRef, HandleId, NodeId, Options, Overlay, SetAttr, SetTime, With,
};
use plyfs::sys::stat::{Stat, decode_dev};
use plyfs::sys::{OFlags, RenameFlags};
use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::Subject;
use super::op::{Data, Op, Outcome, RenameHow, Seen, XattrHow};
use crate::support::{self, Kind, Scene, Snapshot, Time};

mod data;

type Answer = Result<Outcome, Errno>;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const DONE: Answer = Ok(Outcome::Done);
const FIFO: u32 = 0o010_000;
const FILE: u32 = 0o100_000;

/// The core over the layers of a scene.
#[derive(Debug)]
pub(crate) struct Core<'a> {
    scene: &'a Scene,
    metacopy: Option<bool>,
    /// `None` only between two mounts.
    fs: Option<Overlay>,
    /// The lookups that the operation in hand has counted: forgotten at its end, so that nodes
    /// come and go all the time.
    counted: RefCell<Vec<NodeId>>,
    held: BTreeMap<usize, Held>,
    /// Uses of files so far: every other one is of a node that is not open.
    uses: Cell<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    node: NodeId,
    handle: HandleId,
    write: bool,
}

impl<'a> Core<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        Core::with_metacopy(scene, None)
    }

    /// With `metacopy` as the option says.
    pub(crate) fn with_metacopy(scene: &'a Scene, metacopy: Option<bool>) -> Self {
        let (counted, held) = (RefCell::default(), BTreeMap::new());
        let fs = Some(open(scene, metacopy));
        Core { scene, metacopy, fs, counted, held, uses: Cell::new(0) }
    }

    /// The content of a file.
    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        let opened = self.fs().open(self.walk(path).unwrap().node, OFlags::RDONLY, false).unwrap();
        let content = self.read_all(opened.handle.into()).unwrap();
        self.fs().release(opened.handle);
        content
    }

    /// Ends the mount as an unmount does.
    pub(crate) fn close(&mut self) {
        if let Some(fs) = self.fs.take() {
            fs.shutdown();
        }
    }

    /// Ends the mount as the end of the process would.
    pub(crate) fn abandon(&mut self) {
        self.fs = None;
    }

    /// Ends the mount and makes the next, whatever is still looked up or open.
    pub(crate) fn reopen(&mut self) {
        self.close();
        self.fs = Some(open(self.scene, self.metacopy));
    }

    /// The overlay itself.
    pub(crate) fn fs(&self) -> &Overlay {
        self.fs.as_ref().unwrap()
    }

    /// What a path leads to; one lookup of it stays counted until the next operation.
    pub(crate) fn walk(&self, path: &Path) -> Result<Entry, Errno> {
        let stat = self.fs().getattr(NodeId::ROOT, None)?;
        let mut here = Entry { node: NodeId::ROOT, stat };
        for name in path {
            here = self.child(&here, name)?;
        }
        Ok(here)
    }

    fn child(&self, dir: &Entry, name: &OsStr) -> Result<Entry, Errno> {
        check_dir(dir)?;
        let found = self.fs().lookup(dir.node, name)?;
        self.counted.borrow_mut().push(found.node);
        Ok(found)
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<(NodeId, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::EXIST)?;
        let parent = self.walk(path.parent().unwrap())?;
        check_dir(&parent)?;
        Ok((parent.node, name))
    }

    /// The directory and the name of something that is to be new.
    fn vacant<'p>(&self, path: &'p Path) -> Result<(NodeId, &'p OsStr), Errno> {
        let (dir, name) = self.parent(path)?;
        match self.walk(path) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok((dir, name)),
            Err(errno) => Err(errno),
        }
    }

    fn made(&self, entry: Result<Entry, Errno>) -> Answer {
        self.counted.borrow_mut().push(entry?.node);
        DONE
    }

    /// Symlinks dangle.
    fn follow(&self, path: &Path) -> Result<Entry, Errno> {
        let found = self.walk(path)?;
        if found.stat.is_symlink() { Err(Errno::NOENT) } else { Ok(found) }
    }

    /// What open(2) refuses before it asks a filesystem; `None` is a fifo.
    fn openable(&self, path: &Path, write: bool) -> Result<Option<NodeId>, Errno> {
        let found = self.walk(path)?;
        match found.stat.file_type() {
            FileType::Symlink => Err(Errno::LOOP),
            FileType::Directory => Err(Errno::ISDIR),
            FileType::Fifo if write => Err(Errno::NXIO),
            FileType::Fifo => Ok(None),
            _ => Ok(Some(found.node)),
        }
    }

    fn with_file<T>(
        &self,
        path: &Path,
        flags: OFlags,
        use_it: impl FnOnce(FileRef) -> Result<T, Errno>,
    ) -> Result<Option<T>, Errno> {
        let write = flags.contains(OFlags::WRONLY);
        let Some(node) = self.openable(path, write)? else { return Ok(None) };
        self.uses.set(self.uses.get() + 1);
        if !flags.contains(OFlags::TRUNC) && self.uses.get().is_multiple_of(2) {
            return use_it(FileRef::Of(node)).map(Some);
        }
        let opened = self.fs().open(node, flags, false)?;
        let used = use_it(opened.handle.into());
        self.fs().release(opened.handle);
        used.map(Some)
    }

    fn read_all(&self, file: FileRef) -> Result<Vec<u8>, Errno> {
        let mut content = Vec::new();
        let mut part = [0u8; 8192];
        loop {
            match self.fs().read(file, content.len() as u64, &mut part)? {
                0 => return Ok(content),
                n => content.extend_from_slice(&part[..n]),
            }
        }
    }

    fn write_all(&self, file: FileRef, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < data.len() {
            let rest = &data[done..];
            done += self.fs().write(file, offset + done as u64, rest, OFlags::empty())?;
        }
        Ok(())
    }

    fn set(&self, node: NodeId, handle: Option<HandleId>, set: &SetAttr) -> Answer {
        self.fs().setattr(&CALLER, node, handle, set).map(|_| Outcome::Done)
    }

    fn call(&mut self, op: &Op) -> Answer {
        match op {
            Op::Create { path, mode } => {
                let (dir, name) = self.vacant(path)?;
                self.create(dir, name, *mode, &[])
            }
            Op::Write { path, offset, data } => self
                .with_file(path, OFlags::WRONLY, |handle| self.write_all(handle, *offset, &data.0))
                .map(|_| Outcome::Done),
            Op::Append { path, data } => {
                let end = self.walk(path).map_or(0, |found| found.stat.size);
                let flags = OFlags::WRONLY | OFlags::APPEND;
                self.with_file(path, flags, |handle| self.write_all(handle, end, &data.0))
                    .map(|_| Outcome::Done)
            }
            Op::Replace { path, data } => self.replace(path, &data.0),
            Op::Allocate { .. } | Op::MapWrite { .. } | Op::Unnamed { .. } => self.call_on_data(op),
            Op::Truncate { path, size } => {
                let found = self.follow(path)?;
                match found.stat.file_type() {
                    FileType::Directory => Err(Errno::ISDIR),
                    FileType::RegularFile => {
                        let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                        self.set(found.node, None, &set)
                    }
                    _ => Err(Errno::INVAL),
                }
            }
            Op::Read { path } => {
                let content = self.with_file(path, OFlags::RDONLY, |handle| self.read_all(handle));
                content.map(|content| Outcome::Bytes(Data(content.unwrap_or_default())))
            }
            Op::List { path } => {
                let found = self.follow(path)?;
                check_dir(&found)?;
                let names = self.names(found.node).into_iter().map(|(name, _)| name);
                Ok(Outcome::Names(names.collect()))
            }
            _ => self.call_on_names(op),
        }
    }

    fn create(&self, dir: NodeId, name: &OsStr, mode: u32, data: &[u8]) -> Answer {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let (entry, opened) = self.fs().create(&CALLER, dir, name, FILE | mode, 0, flags)?;
        self.counted.borrow_mut().push(entry.node);
        let written = self.write_all(opened.handle.into(), 0, data);
        self.fs().release(opened.handle);
        written.map(|()| Outcome::Done)
    }

    fn replace(&self, path: &Path, data: &[u8]) -> Answer {
        let flags = OFlags::WRONLY | OFlags::TRUNC;
        match self.with_file(path, flags, |handle| self.write_all(handle, 0, data)) {
            Err(Errno::NOENT) => {
                let (dir, name) = self.vacant(path)?;
                self.create(dir, name, 0o644, data)
            }
            other => other.map(|_| Outcome::Done),
        }
    }

    fn call_on_names(&mut self, op: &Op) -> Answer {
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

    fn call_on_attributes(&mut self, op: &Op) -> Answer {
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

    fn xattr(&self, node: NodeId, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; 4096];
        let n = self.fs().getxattr(node, name, &mut value)?;
        value.truncate(n);
        Ok(value)
    }

    fn call_held(&mut self, op: &Op) -> Answer {
        let held = |slot: &usize| self.held.get(slot).copied().ok_or(Errno::BADF);
        match op {
            Op::Hold { slot, path, write } => self.hold(*slot, path, *write),
            Op::Release { slot } => {
                let Held { node, handle, .. } = held(slot)?;
                self.fs().release(handle);
                self.fs().forget(node, 1);
                self.held.remove(slot);
                DONE
            }
            Op::HeldRead { slot } => {
                let content = self.read_all(held(slot)?.handle.into())?;
                Ok(Outcome::Bytes(Data(content)))
            }
            Op::HeldWrite { slot, offset, data } => match held(slot)? {
                Held { handle, write: true, .. } => {
                    self.write_all(handle.into(), *offset, &data.0).map(|()| Outcome::Done)
                }
                _ => Err(Errno::BADF),
            },
            Op::HeldTruncate { slot, size } => match held(slot)? {
                Held { node, handle, write: true } => {
                    let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                    self.set(node, Some(handle), &set)
                }
                _ => Err(Errno::INVAL),
            },
            Op::HeldStat { slot } => {
                let Held { node, handle, .. } = held(slot)?;
                Ok(Outcome::Stat(seen(&self.fs().getattr(node, Some(handle))?)))
            }
            Op::HeldChmod { slot, mode } => {
                let Held { node, handle, .. } = held(slot)?;
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                self.set(node, Some(handle), &set)
            }
            _ => panic!("an operation without a call: {op:?}"),
        }
    }

    /// Only files are held: a directory's descriptor is the kernel's own affair.
    fn hold(&mut self, slot: usize, path: &Path, write: bool) -> Answer {
        let node = self.openable(path, write)?.ok_or(Errno::NXIO)?;
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let opened = self.fs().open(node, flags, false)?;
        // The lookup that found it stays counted, as the kernel's does.
        self.counted.borrow_mut().pop();
        self.held.insert(slot, Held { node, handle: opened.handle, write });
        DONE
    }

    /// The names in a directory with their types, in order.
    fn names(&self, dir: NodeId) -> Vec<(OsString, u32)> {
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let before = cookie;
            let mut room = 3;
            let listed = self.fs().readdir(dir, cookie, With::Nothing, &mut |entry| {
                room -= 1;
                if room < 0 {
                    return false;
                }
                cookie = entry.cookie;
                names.push((entry.name.to_owned(), entry.kind));
                true
            });
            listed.unwrap();
            if cookie == before {
                break;
            }
        }
        names.retain(|(name, _)| name != "." && name != "..");
        names.sort();
        names
    }

    fn visit(&self, found: &Entry, path: PathBuf, into: &mut Visit) {
        let stat = &found.stat;
        let kind = self.kind(found);
        let first = into.first_names.get(&stat.ino).cloned().filter(|_| !stat.is_dir());
        if first.is_none() {
            into.first_names.insert(stat.ino, path.clone());
        }
        let entry = support::Entry {
            kind,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.nlink,
            mtime: Time { sec: stat.mtime.sec, nsec: stat.mtime.nsec },
            xattrs: self.xattrs(found.node),
            same_as: first,
            ino: stat.ino,
        };
        let doubled = into.snapshot.entries.insert(path.clone(), entry);
        assert!(doubled.is_none(), "{} is listed twice", path.display());
        if !stat.is_dir() {
            return;
        }
        for (name, kind) in self.names(found.node) {
            let child = self.child(found, &name);
            let child = child.unwrap_or_else(|e| panic!("{name:?} is listed, lookup says {e}"));
            assert_eq!(kind, child.stat.mode >> 12, "d_type of {name:?}");
            self.visit(&child, path.join(&name), into);
        }
    }

    fn kind(&self, found: &Entry) -> Kind {
        let (major, minor) = decode_dev(found.stat.rdev);
        match found.stat.file_type() {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => {
                let opened = self.fs().open(found.node, OFlags::RDONLY, false).unwrap();
                let content = self.read_all(opened.handle.into()).unwrap();
                self.fs().release(opened.handle);
                let digest = hex::encode(&Sha256::digest(content)[..12]);
                Kind::File { size: found.stat.size, digest }
            }
            FileType::Symlink => Kind::Symlink(self.fs().readlink(found.node).unwrap()),
            FileType::CharacterDevice => Kind::Char(major, minor),
            FileType::BlockDevice => Kind::Block(major, minor),
            FileType::Fifo => Kind::Fifo,
            _ => Kind::Socket,
        }
    }

    fn xattrs(&self, node: NodeId) -> BTreeMap<OsString, Vec<u8>> {
        let names = self.fs().listxattr(node).unwrap();
        let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
        names
            .map(|name| {
                let name = OsStr::from_bytes(name);
                (name.to_owned(), self.xattr(node, name).unwrap())
            })
            .collect()
    }

    /// Takes back the lookups that were counted.
    pub(crate) fn forget_counted(&self) {
        for node in self.counted.borrow_mut().drain(..) {
            self.fs().forget(node, 1);
        }
    }
}

#[derive(Default)]
struct Visit {
    snapshot: Snapshot,
    first_names: BTreeMap<u64, PathBuf>,
}

impl Subject for Core<'_> {
    fn name(&self) -> String {
        "the overlay core".to_owned()
    }

    fn apply(&mut self, op: &Op) -> Answer {
        let answer = self.call(op);
        self.forget_counted();
        answer
    }

    fn remount(&mut self) {
        for (_, held) in std::mem::take(&mut self.held) {
            self.fs().release(held.handle);
            self.fs().forget(held.node, 1);
        }
        assert!(self.fs().live_nodes() <= 1, "{} nodes after all forgets", self.fs().live_nodes());
        self.fs().shutdown();
        // The index of hard links is meant to stay; nothing else is.
        let left = std::fs::read_dir(&self.scene.work).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name != "index").collect();
        assert!(left.is_empty(), "the workdir is not empty: {left:?}");
        self.fs = None;
        self.fs = Some(open(self.scene, self.metacopy));
    }

    fn snapshot(&mut self) -> Snapshot {
        let root = self.walk(Path::new("")).unwrap();
        let mut visit = Visit::default();
        self.visit(&root, PathBuf::new(), &mut visit);
        self.forget_counted();
        visit.snapshot
    }
}

fn open(scene: &Scene, metacopy: Option<bool>) -> Overlay {
    let (upperdir, workdir) = (scene.upper.clone(), scene.work.clone());
    let options = Options {
        lowerdirs: scene.lowers.clone(),
        upper: Some(UpperOption { upperdir, workdir }),
        metacopy,
        ..Options::default()
    };
    Overlay::new(&options).unwrap()
}

fn check_dir(entry: &Entry) -> Result<(), Errno> {
    match entry.stat.file_type() {
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(Errno::NOENT),
        _ => Err(Errno::NOTDIR),
    }
}

fn seen(stat: &Stat) -> Seen {
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
