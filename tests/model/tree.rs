//! The model's state: inodes, names, held files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::op::Seen;
use crate::support::{Entry, Kind, Snapshot, Time, rootless};

/// The number of an inode in the model.
pub(crate) type Ino = usize;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Dir(BTreeMap<OsString, Ino>),
    File(Vec<u8>),
    Symlink(OsString),
    Fifo,
    Char(u32, u32),
}

/// One inode.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) node: Node,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Names of a non-directory.
    pub(crate) nlink: u32,
    /// Not known where a layer has names of this inode that the merged tree never showed.
    pub(crate) nlink_known: bool,
    /// Known from a layer or from `SetTimes` until the next change of content.
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// A file that is kept open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) ino: Ino,
    pub(crate) write: bool,
}

/// The tree.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) inodes: Vec<Inode>,
    pub(crate) held: BTreeMap<usize, Held>,
    /// Whether whoever writes may leave a file its suid and sgid: CAP_FSETID of the machine's root.
    pub(crate) keeps_privileges: bool,
}

/// The root's number.
pub(crate) const ROOT: Ino = 0;

impl Inode {
    pub(crate) fn new(node: Node, mode: u32) -> Inode {
        Inode {
            node,
            mode,
            uid: 0,
            gid: 0,
            nlink: 1,
            nlink_known: true,
            mtime: None,
            xattrs: BTreeMap::new(),
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.node, Node::Dir(_))
    }

    pub(crate) fn seen(&self) -> Seen {
        let (kind, size) = match &self.node {
            Node::Dir(_) => ('d', None),
            Node::File(content) => ('f', Some(content.len() as u64)),
            Node::Symlink(target) => ('l', Some(target.len() as u64)),
            Node::Fifo => ('p', None),
            Node::Char(..) => ('c', None),
        };
        let nlink = (!self.is_dir() && self.nlink_known).then_some(self.nlink);
        let (mode, uid, gid, mtime) = (self.mode, self.uid, self.gid, self.mtime);
        Seen { kind, mode, uid, gid, size, nlink, mtime }
    }
}

impl Model {
    /// An empty root.
    pub(crate) fn new(root: Inode) -> Model {
        Model { inodes: vec![root], held: BTreeMap::new(), keeps_privileges: !rootless() }
    }

    /// Adds an inode without a name.
    pub(crate) fn add(&mut self, inode: Inode) -> Ino {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    pub(crate) fn names(&self, dir: Ino) -> &BTreeMap<OsString, Ino> {
        match &self.inodes[dir].node {
            Node::Dir(names) => names,
            _ => panic!("not a directory"),
        }
    }

    /// The names of a directory that is about to change: its time becomes unknown.
    pub(crate) fn names_mut(&mut self, dir: Ino) -> &mut BTreeMap<OsString, Ino> {
        let inode = &mut self.inodes[dir];
        inode.mtime = None;
        match &mut inode.node {
            Node::Dir(names) => names,
            _ => panic!("not a directory"),
        }
    }

    /// The directory and the name that `path` ends in.
    pub(crate) fn parent<'p>(&self, path: &'p Path) -> Result<(Ino, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::BUSY)?;
        let parent = self.walk(path.parent().unwrap())?;
        match self.inodes[parent].node {
            Node::Dir(_) => Ok((parent, name)),
            // All symlinks dangle.
            Node::Symlink(_) => Err(Errno::NOENT),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// What `path` names; a symlink in its last component is not followed.
    pub(crate) fn walk(&self, path: &Path) -> Result<Ino, Errno> {
        let mut here = ROOT;
        for name in path {
            here = match &self.inodes[here].node {
                Node::Dir(names) => *names.get(name).ok_or(Errno::NOENT)?,
                Node::Symlink(_) => return Err(Errno::NOENT),
                _ => return Err(Errno::NOTDIR),
            };
        }
        Ok(here)
    }

    /// What `path` names, symlinks followed (to nowhere).
    pub(crate) fn follow(&self, path: &Path) -> Result<Ino, Errno> {
        let ino = self.walk(path)?;
        match self.inodes[ino].node {
            Node::Symlink(_) => Err(Errno::NOENT),
            _ => Ok(ino),
        }
    }

    /// The times of the directories above `path` are no longer known.
    pub(crate) fn forget_times_above(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1) {
            if let Ok(ino) = self.walk(dir) {
                self.inodes[ino].mtime = None;
            }
        }
    }

    /// Whether `ancestor` is `ino` or above it.
    pub(crate) fn contains(&self, ancestor: Ino, ino: Ino) -> bool {
        ancestor == ino
            || match &self.inodes[ancestor].node {
                Node::Dir(names) => names.values().any(|child| self.contains(*child, ino)),
                _ => false,
            }
    }

    /// All paths with their inodes, the root first.
    pub(crate) fn paths(&self) -> Vec<(PathBuf, Ino)> {
        let mut found = vec![(PathBuf::new(), ROOT)];
        let mut next = 0;
        while let Some((path, ino)) = found.get(next).cloned() {
            if let Node::Dir(names) = &self.inodes[ino].node {
                found.extend(names.iter().map(|(name, child)| (path.join(name), *child)));
            }
            next += 1;
        }
        found
    }

    /// What a look at the whole tree must show; what the model cannot know is as `observed`.
    pub(crate) fn expected(&self, observed: &Snapshot) -> Snapshot {
        let mut paths = self.paths();
        paths.sort();
        let mut first_names: BTreeMap<Ino, PathBuf> = BTreeMap::new();
        let mut expected = Snapshot::default();
        for (path, ino) in paths {
            let first = first_names.entry(ino).or_insert_with(|| path.clone());
            let same_as = (*first != path).then(|| first.clone());
            let entry = self.entry(ino, same_as, observed.entries.get(&path));
            expected.entries.insert(path, entry);
        }
        expected
    }

    fn entry(&self, ino: Ino, same_as: Option<PathBuf>, observed: Option<&Entry>) -> Entry {
        let inode = &self.inodes[ino];
        let kind = match &inode.node {
            Node::Dir(_) => Kind::Dir,
            Node::File(content) => Kind::File {
                size: content.len() as u64,
                digest: hex::encode(&Sha256::digest(content)[..12]),
            },
            Node::Symlink(target) => Kind::Symlink(target.clone()),
            Node::Fifo => Kind::Fifo,
            Node::Char(major, minor) => Kind::Char(*major, *minor),
        };
        let nlink = observed.map(|entry| entry.nlink).filter(|_| !inode.nlink_known);
        let mtime = observed.map(|entry| entry.mtime).unwrap_or(Time { sec: 0, nsec: 0 });
        Entry {
            kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            nlink: nlink.unwrap_or(inode.nlink),
            mtime: inode.mtime.unwrap_or(mtime),
            xattrs: inode.xattrs.clone(),
            same_as,
            ino: observed.map_or(0, |entry| entry.ino),
        }
    }
}
