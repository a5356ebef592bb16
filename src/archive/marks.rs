//! What deletions become: in a layer that is being unpacked whiteouts and opaque directories, in
//! the best form that its filesystem and this process's rights allow; in a tree, removals.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;

use crate::error::{Errno, FsResult};
use crate::layer::whiteout::{self, OPAQUE_FILE, Style};
use crate::layer::xattrs::Mark;
use crate::layer::{Dialect, LayerMarks, Namespace};
use crate::sys::stat::{Stat, stat_at};
use crate::sys::xattr::Target;
use crate::sys::{AsFd, OFlags, OwnedFd, dir, file, node};

/// What becomes of an archive's deletions.
#[derive(Debug)]
pub(crate) enum Deletions {
    /// They are kept as marks.
    InLayer(Marks),
    /// They are carried out, but spare what the archive itself made (inode numbers): its
    /// deletions mean what was there before.
    InTree {
        /// What it made so far.
        made: HashSet<u64>,
    },
}

impl Deletions {
    /// For the layer whose directory is `root`.
    pub(crate) fn in_layer(root: &OwnedFd) -> FsResult<Self> {
        Marks::probe(root).map(Deletions::InLayer)
    }

    /// For a tree.
    pub(crate) fn in_tree() -> Self {
        Deletions::InTree { made: HashSet::new() }
    }

    /// What the marks that were made ask of readers.
    pub(crate) fn made(&self) -> LayerMarks {
        match self {
            Deletions::InLayer(marks) => marks.made.get(),
            Deletions::InTree { .. } => LayerMarks::default(),
        }
    }

    /// Whether what the archive makes has to be told to [`Deletions::spare`].
    pub(crate) fn needs_to_know(&self) -> bool {
        matches!(self, Deletions::InTree { .. })
    }

    /// Spares a file that the archive made.
    pub(crate) fn spare(&mut self, stat: &Stat) {
        if let Deletions::InTree { made } = self {
            made.insert(stat.ino);
        }
    }

    /// Whether the archive made this file.
    pub(crate) fn spares(&self, stat: &Stat) -> bool {
        matches!(self, Deletions::InTree { made } if made.contains(&stat.ino))
    }

    /// See [`Marks::is_whiteout`]; a tree has none.
    pub(crate) fn is_whiteout(&self, dir: impl AsFd, name: &OsStr, stat: &Stat) -> FsResult<bool> {
        match self {
            Deletions::InLayer(marks) => marks.is_whiteout(dir, name, stat),
            Deletions::InTree { .. } => Ok(false),
        }
    }

    /// See [`Marks::lift`].
    pub(crate) fn lift(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<bool> {
        match self {
            Deletions::InLayer(marks) => marks.lift(dir, name),
            Deletions::InTree { .. } => Ok(false),
        }
    }
}

/// How the layer is marked.
#[derive(Debug)]
pub(crate) struct Marks {
    style: Style,
    namespace: Namespace,
    /// What those that were made ask of readers.
    made: Cell<LayerMarks>,
}

impl Marks {
    /// Finds out by trying in `root`.
    pub(crate) fn probe(root: &OwnedFd) -> FsResult<Self> {
        let trial = Namespace::Trusted.set(Target::fd(root), Mark::Impure, b"y");
        let namespace = match trial {
            Ok(()) => {
                Namespace::Trusted.remove(Target::fd(root), Mark::Impure)?;
                Namespace::Trusted
            }
            Err(Errno::PERM | Errno::OPNOTSUPP) => Namespace::User,
            Err(errno) => return Err(errno),
        };
        let style = whiteout::probe_style(root, namespace)?;
        Ok(Marks { style, namespace, made: Cell::default() })
    }

    fn note(&self, dialect: Dialect) {
        let made = self.made.get();
        self.made.set(LayerMarks { dialect: made.dialect.and(dialect), ..made });
    }

    /// Takes note that the root was made opaque.
    pub(crate) fn note_opaque_root(&self) {
        self.made.set(LayerMarks { opaque_root: true, ..self.made.get() });
    }

    /// Whether `dir`/`name` is a whiteout that was made here.
    pub(crate) fn is_whiteout(&self, dir: impl AsFd, name: &OsStr, stat: &Stat) -> FsResult<bool> {
        whiteout::is_whiteout(dir, name, stat, || Ok(self.style == Style::Xattr))
    }

    /// Hides `name`, which `dir` does not have, in the layers below.
    pub(crate) fn hide(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<()> {
        if self.style == Style::Xattr {
            match self.namespace.get(Target::fd(dir), Mark::Opaque)?.as_deref() {
                // Nothing is visible through an opaque directory; and what its mark says leaves
                // no room for saying that xattr whiteouts are inside.
                Some(b"y") => return Ok(()),
                Some(b"x") => {}
                _ => self.namespace.set(Target::fd(dir), Mark::Opaque, b"x")?,
            }
        }
        if self.style != Style::Device {
            self.note(Dialect::Mixed);
        }
        match whiteout::make(dir, name, self.style, self.namespace) {
            Err(Errno::EXIST) if self.style == Style::File => Ok(()),
            other => other,
        }
    }

    /// Removes the whiteout of `name` that stands in `dir` as a file of another name; returns
    /// whether there was one.
    pub(crate) fn lift(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<bool> {
        let beside = whiteout::file_name(name).filter(|_| self.style == Style::File);
        let Some(beside) = beside else { return Ok(false) };
        match node::unlink(dir, &beside) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Hides everything that the layers below have in `dir`.
    pub(crate) fn make_opaque(&self, dir: &OwnedFd) -> FsResult<()> {
        if self.style == Style::Xattr {
            self.remove_whiteouts(dir)?;
        }
        match self.namespace.set(Target::fd(dir), Mark::Opaque, b"y") {
            Err(Errno::OPNOTSUPP) => self.note(Dialect::Mixed),
            other => {
                self.note(Dialect::of(self.namespace));
                return other;
            }
        }
        match file::create_at(dir, OsStr::new(OPAQUE_FILE), OFlags::WRONLY, 0o000) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// See [`Marks::hide`] for why there must be none in an opaque directory.
    fn remove_whiteouts(&self, dir: &OwnedFd) -> FsResult<()> {
        let mut names = Vec::new();
        dir::list_dir(dir, |entry| {
            names.push(entry.name.to_owned());
            Ok(true)
        })?;
        for name in names {
            if self.is_whiteout(dir, &name, &stat_at(dir, &name)?)? {
                node::unlink(dir, &name)?;
            }
        }
        Ok(())
    }
}
