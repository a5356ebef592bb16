//! The operations on the overlay core alone: what the kernel does around a filesystem (walking
//! paths, refusing what needs no filesystem to refuse) is done here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use plyfs::overlay::options::UpperOption;
use plyfs::overlay::{Caller, FileRef, HandleId, NodeId, Options, Overlay, SetAttr};
use plyfs::sys::OFlags;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::Subject;
use super::op::{Data, Op, Outcome};
use crate::support::{Scene, Snapshot};
use look::Visit;
use walk::check_dir;

mod attributes;
mod data;
mod held;
mod look;
mod names;
mod walk;

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

    /// Takes back the lookups that were counted.
    pub(crate) fn forget_counted(&self) {
        for node in self.counted.borrow_mut().drain(..) {
            self.fs().forget(node, 1);
        }
    }
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
