//! A directory that nothing unpacked into it leaves: finding parents, implied parents, removal.
//!
//! Every path of an archive is resolved by the kernel with this directory as its root, and only
//! its last component is then created, linked or removed, relative to the parent's descriptor.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::attributes::Attributes;
use super::entry_path::split;
use super::marks::Deletions;
use crate::error::{Errno, Error, FsResult, Result};
use crate::layer::LayerMarks;
use crate::sys::stat::{Stat, Time, stat_at, stat_fd};
use crate::sys::{OFlags, OwnedFd, beneath, dir, file, node};

/// What the directory is, into which an archive is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// It becomes a layer.
    Layer,
    /// A tree that a layer is applied to.
    Tree,
    /// A tree that files are copied to. A directory there and what is none never replace one
    /// another: what somebody has would be gone with one name in an archive.
    Files,
}

/// The directory, and what is still to be done in it.
#[derive(Debug)]
pub(crate) struct Contained {
    root: OwnedFd,
    /// What messages call it.
    path: PathBuf,
    target: Target,
    deletions: Deletions,
    /// The parent of the entry before: most entries have the same one.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories by inode number: their modes and times are set last, because a directory may
    /// be read-only and each name made in it changes its time.
    directories: HashMap<u64, Pending>,
    /// Bytes of xattrs among these.
    pending_xattrs: usize,
}

/// The most bytes of xattrs of directories that are kept until the end: what compresses well could
/// claim any number of them.
const PENDING_MAX: usize = 256 << 20;

#[derive(Debug)]
struct Pending {
    path: Vec<u8>,
    attributes: Attributes,
}

impl Contained {
    /// Opens the directory `path`.
    pub(crate) fn open(path: &Path, target: Target) -> Result<Self> {
        let root = file::open_root(path).map_err(|e| Error::io("open directory", path, e))?;
        Contained::of(root, path, target)
    }

    /// The directory `root`, which messages call `path`.
    pub(crate) fn of(root: OwnedFd, path: &Path, target: Target) -> Result<Self> {
        let deletions = match target {
            Target::Layer => Deletions::in_layer(&root),
            Target::Tree | Target::Files => Ok(Deletions::in_tree()),
        };
        let deletions = deletions.map_err(|e| Error::io("probe whiteouts in", path, e))?;
        let path = path.to_path_buf();
        Ok(Contained {
            root,
            path,
            target,
            deletions,
            last: None,
            directories: HashMap::new(),
            pending_xattrs: 0,
        })
    }

    /// The error of a failed system call on the archive's path `name`.
    pub(crate) fn failed(&self, action: &'static str, name: &[u8], errno: Errno) -> Error {
        Error::io(action, self.path.join(OsStr::from_bytes(name)), errno)
    }

    /// The directory at the normal path `parent`, made with all above it where it is missing;
    /// a made one gets `time` and ordinary attributes unless an entry of its own follows.
    pub(crate) fn parent(&mut self, parent: &[u8], time: Time) -> Result<Rc<OwnedFd>> {
        if let Some((path, fd)) = &self.last
            && path == parent
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.open_directory(parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parent, time)?,
            other => other.map_err(|e| self.failed("open directory", parent, e))?,
        };
        let fd = Rc::new(fd);
        self.last = Some((parent.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// The directory at the normal path `path`, through symlinks, inside the root.
    pub(crate) fn open_directory(&self, path: &[u8]) -> FsResult<OwnedFd> {
        let (path, flags) = (OsStr::from_bytes(path), OFlags::PATH | OFlags::DIRECTORY);
        match self.target {
            // Somebody's tree may have mounts in it.
            Target::Files => beneath::open_in_root_across(&self.root, path, flags),
            Target::Layer | Target::Tree => beneath::open_in_root(&self.root, path, flags),
        }
    }

    fn make_parents(&mut self, parent: &[u8], time: Time) -> Result<OwnedFd> {
        let mut fd = self.open_directory(b"").map_err(|e| self.failed("open", b"", e))?;
        let ends = parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in ends.chain([parent.len()]).collect::<Vec<_>>() {
            let path = parent.get(..end).unwrap_or(parent);
            fd = match self.open_directory(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let Some(place) = split(path) else { return Ok(fd) };
                    self.make_implied(&fd, place.name, path, time)?
                }
                other => other.map_err(|e| self.failed("open directory", path, e))?,
            };
        }
        Ok(fd)
    }

    fn make_implied(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        time: Time,
    ) -> Result<OwnedFd> {
        match stat_at(dir, name) {
            Ok(stat) if self.is_whiteout(dir, name, &stat, path)? => {}
            Ok(_) => return Err(self.failed("open directory", path, Errno::NOTDIR)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.failed("stat", path, errno)),
        }
        self.make_directory(dir, name, path, Attributes::of_implied_directory(time))?;
        file::open_path_at(dir, name).map_err(|e| self.failed("open", path, e))
    }

    /// Makes the directory `dir`/`name`, or keeps the one that is there; `attributes` are set
    /// by [`Contained::finish`]. It replaces any other file; over a whiteout of the same layer
    /// it becomes opaque, because what is hidden below stays hidden.
    pub(crate) fn make_directory(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        attributes: Attributes,
    ) -> Result<()> {
        let made = node::make_dir(dir, name, 0o700);
        if made == Err(Errno::EXIST) {
            self.replace_by_directory(dir, name, path)?;
        } else {
            made.map_err(|e| self.failed("create directory", path, e))?;
            let lifted = self.deletions.lift(dir, name);
            if lifted.map_err(|e| self.failed("remove whiteout", path, e))? {
                self.make_opaque(dir, name, path)?;
            }
        }
        let stat = stat_at(dir, name).map_err(|e| self.failed("stat", path, e))?;
        self.deletions.spare(&stat);
        self.pending_xattrs += attributes.xattr_bytes();
        if self.pending_xattrs > PENDING_MAX {
            return Err(self.failed("keep the xattrs of", path, Errno::TOOBIG));
        }
        self.directories.insert(stat.ino, Pending { path: path.to_vec(), attributes });
        Ok(())
    }

    fn replace_by_directory(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let stat = stat_at(dir, name).map_err(|e| self.failed("stat", path, e))?;
        if stat.is_dir() {
            return Ok(());
        }
        if self.target == Target::Files {
            return Err(self.failed("copy a directory over", path, Errno::NOTDIR));
        }
        let was_hidden = self.is_whiteout(dir, name, &stat, path)?;
        self.remove(dir, name, path)?;
        node::make_dir(dir, name, 0o700).map_err(|e| self.failed("create directory", path, e))?;
        if was_hidden {
            self.make_opaque(dir, name, path)?;
        }
        Ok(())
    }

    fn is_whiteout(&self, dir: &OwnedFd, name: &OsStr, stat: &Stat, path: &[u8]) -> Result<bool> {
        self.deletions.is_whiteout(dir, name, stat).map_err(|e| self.failed("stat", path, e))
    }

    /// The file `dir`/`name`; `None` where there is none, or a whiteout.
    pub(crate) fn file_at(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<Option<Stat>> {
        match stat_at(dir, name) {
            Ok(stat) if self.deletions.is_whiteout(dir, name, &stat)? => Ok(None),
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Remembers that the archive made the file `dir`/`name`.
    pub(crate) fn made(&mut self, dir: &OwnedFd, name: &OsStr) -> FsResult<()> {
        if self.deletions.needs_to_know() {
            self.deletions.spare(&stat_at(dir, name)?);
        }
        Ok(())
    }

    /// Hides what the layers below have in the directory `dir`/`name`; in a tree, removes what
    /// was there before.
    pub(crate) fn make_opaque(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let done = match &self.deletions {
            Deletions::InLayer(marks) => file::open_path_at(dir, name).and_then(|fd| {
                marks.make_opaque(&fd)?;
                // A symlink may have led to the root under any name.
                if stat_fd(&fd)?.ino == stat_fd(&self.root)?.ino {
                    marks.note_opaque_root();
                }
                Ok(())
            }),
            Deletions::InTree { .. } => self.remove_tree(dir, name, Remove::OldChildren),
        };
        done.map_err(|e| self.failed("make opaque", path, e))
    }

    /// Hides `name` of the layers below, and nothing of this layer: a directory of that name
    /// becomes opaque, any other file hides what is below by itself. In a tree, removes it
    /// unless this archive made it.
    pub(crate) fn hide(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let stat = match stat_at(dir, name) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(self.failed("stat", path, errno)),
        };
        match (&self.deletions, stat) {
            (Deletions::InLayer(marks), None) => {
                marks.hide(dir, name).map_err(|e| self.failed("create whiteout", path, e))
            }
            (Deletions::InLayer(_), Some(stat)) if stat.is_dir() => {
                self.make_opaque(dir, name, path)
            }
            (Deletions::InTree { made }, Some(stat)) if !made.contains(&stat.ino) => {
                self.last = None;
                let removed = match node::unlink(dir, name) {
                    Err(Errno::ISDIR) => self.remove_tree(dir, name, Remove::Old),
                    other => other,
                };
                removed.map_err(|e| self.failed("remove", path, e))
            }
            (Deletions::InTree { .. }, Some(stat)) if stat.is_dir() => {
                self.make_opaque(dir, name, path)
            }
            _ => Ok(()),
        }
    }

    /// Removes `dir`/`name` whatever it is, with everything below it.
    pub(crate) fn remove(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        match node::unlink(dir, name) {
            Err(Errno::ISDIR) if self.target == Target::Files => {
                return Err(self.failed("copy a file over", path, Errno::ISDIR));
            }
            Err(Errno::ISDIR) => {}
            other => return other.map_err(|e| self.failed("remove", path, e)),
        }
        // The parent that is remembered may be among what goes.
        self.last = None;
        self.remove_tree(dir, name, Remove::All)
            .map_err(|e| self.failed("remove directory", path, e))
    }

    /// Works without recursion: an archive can nest directories deeper than the stack.
    fn remove_tree(&mut self, dir: &OwnedFd, name: &OsStr, what: Remove) -> FsResult<()> {
        let mut open = vec![Open::directory(dir, name)?];
        while let Some(current) = open.last_mut() {
            if let Some(child) = current.names.pop() {
                let stat = stat_at(&current.fd, &child)?;
                if stat.is_dir() {
                    let below = Open::directory(&current.fd, &child)?;
                    open.push(below);
                } else if what == Remove::All || !self.deletions.spares(&stat) {
                    node::unlink(&current.fd, &child)?;
                }
                continue;
            }
            let Some(emptied) = open.pop() else { break };
            let stat = stat_fd(&emptied.fd)?;
            let outermost = open.is_empty() && what == Remove::OldChildren;
            if outermost || (what != Remove::All && self.deletions.spares(&stat)) {
                continue;
            }
            match node::remove_dir(open.last().map_or(dir, |above| &above.fd), &emptied.name) {
                Ok(()) => drop(self.directories.remove(&stat.ino)),
                // Something in it was made by this archive.
                Err(Errno::NOTEMPTY) if what != Remove::All => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// What the marks that were made ask of readers.
    pub(crate) fn marks(&self) -> LayerMarks {
        self.deletions.made()
    }

    /// Sets the attributes of the root by [`Contained::finish`].
    pub(crate) fn root_attributes(&mut self, attributes: Attributes) -> Result<()> {
        let stat = stat_fd(&self.root).map_err(|e| self.failed("stat", b"", e))?;
        self.directories.insert(stat.ino, Pending { path: Vec::new(), attributes });
        Ok(())
    }

    /// Sets the attributes of all directories, deepest first: a parent's may forbid to go in.
    pub(crate) fn finish(&mut self, privileged: bool) -> Result<()> {
        let mut directories: Vec<Pending> =
            std::mem::take(&mut self.directories).into_values().collect();
        let depth = |path: &[u8]| path.iter().filter(|b| **b == b'/').count();
        directories.sort_by_cached_key(|d| std::cmp::Reverse((depth(&d.path), d.path.clone())));
        for Pending { path, attributes } in directories {
            let set = || {
                let fd = self.open_directory(&path)?;
                if self.deletions.needs_to_know() {
                    attributes.remove_other_xattrs(&fd)?;
                }
                attributes.set_on_directory(&fd, privileged)
            };
            set().map_err(|e| self.failed("set attributes of", &path, e))?;
        }
        Ok(())
    }
}

/// What a removal takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remove {
    /// A directory with everything in it.
    All,
    /// The same but for what this archive made.
    Old,
    /// Not the directory itself, and of what is in it nothing that this archive made.
    OldChildren,
}

/// A directory being emptied.
struct Open {
    fd: OwnedFd,
    name: OsString,
    names: Vec<OsString>,
}

impl Open {
    fn directory(above: &OwnedFd, name: &OsStr) -> FsResult<Self> {
        let fd = dir::open_dir(above, name)?;
        let mut names = Vec::new();
        dir::read_dir(&fd, |entry| {
            names.push(entry.name.to_owned());
            Ok(true)
        })?;
        Ok(Open { fd, name: name.to_owned(), names })
    }
}
