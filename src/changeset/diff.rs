//! What an upper changed of the tree below it.
//!
//! Only directories that the upper has are entered, so the cost is that of the changes. There
//! are two exceptions: what a rename moved or a new directory replaced is listed in full; and
//! once a lower hard link was copied up, all directories are read for its other names.

use std::collections::btree_set;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::change::{Change, ChangeKind, Meta};
use super::same::{Carried, Exact, Rule};
use super::tree::{Directory, Node, Tree};
use super::upper_dir::UpperDir;
use crate::error::{Error, FsResult, Result};

/// Compares the merged tree of `upper` over `lowers` (topmost first) with that of the lowers
/// alone: what was added, changed and deleted, sorted by the bytes of the paths.
///
/// - A file is changed if its type, mode, owner, size, mtime, content, xattrs, target or device
///   is another; one that was copied up and is as before is not listed.
/// - A directory is changed if its mode, owner, mtime or xattrs are others, and where anything
///   below it is listed. The root is never listed.
/// - What changed a hard link is listed under all its names, also those that only a lower has;
///   for these the upper's workdir must be given.
/// - A deleted directory is one line. A renamed one is the deletion of its old name, and the
///   addition of every path of its new tree.
///
/// # Errors
/// Names the layer or the path that cannot be read.
pub fn diff(lowers: &[PathBuf], upper: impl Into<UpperDir>) -> Result<Vec<Change>> {
    diff_by(lowers, upper.into(), &Exact)
}

/// As [`diff`], for an archive of the changes: a file of the upper that has several names is
/// listed under each of them, changed or not, so that they can be linked again.
pub fn changes_to_carry(lowers: &[PathBuf], upper: impl Into<UpperDir>) -> Result<Vec<Change>> {
    diff_by(lowers, upper.into(), &Carried)
}

/// Whether the upper's root differs from the one below it, which [`diff`] never lists: in mode,
/// owner or xattrs. Its times are no change: they are those of whatever was made in it.
///
/// # Errors
/// As [`diff`].
pub fn root_changed(lowers: &[PathBuf], upper: impl Into<UpperDir>) -> Result<bool> {
    let upper = upper.into();
    let path = upper.path.clone();
    let tree = Tree::open_with_upper(lowers, upper)?;
    let Some(old) = tree.root_below_top() else { return Ok(true) };
    let differs = || -> FsResult<bool> {
        let (before, after) = (old.stat()?, tree.root().stat()?);
        let key = |stat: &crate::sys::stat::Stat| (stat.mode, stat.uid, stat.gid);
        Ok(key(&before) != key(&after) || old.xattrs()? != tree.root().xattrs()?)
    };
    differs().map_err(|errno| Error::io("compare", path, errno))
}

/// As [`diff`], with another rule of what has changed.
pub(super) fn diff_by(lowers: &[PathBuf], upper: UpperDir, rule: &dyn Rule) -> Result<Vec<Change>> {
    let path = upper.path.clone();
    let tree = Tree::open_with_upper(lowers, upper)?;
    let old_root = tree.root_below_top();
    let comparison = Comparison::new((&tree, old_root), &tree, rule);
    comparison.changes(&path)
}

/// Compares two trees that need have nothing in common: what must be added, changed and deleted
/// to make `new` of `old`. Directories whose layers are the same ones in both are not entered.
pub(super) fn diff_trees_by(old: &Tree, new: &Tree, rule: &dyn Rule) -> Result<Vec<Change>> {
    let mut comparison = Comparison::new((old, Some(old.root().clone())), new, rule);
    comparison.apart = true;
    comparison.changes(Path::new("/"))
}

/// As [`diff`], of two trees that need have nothing in common. Directories whose layers are the
/// same ones in both are not entered.
///
/// # Errors
/// As [`diff`].
pub fn diff_trees(old: &Tree, new: &Tree) -> Result<Vec<Change>> {
    diff_trees_by(old, new, &Exact)
}

struct Comparison<'a> {
    /// Where what was is looked up, and its root.
    old: (&'a Tree, Option<Directory>),
    tree: &'a Tree,
    /// The two are different stacks, not one with and without its upper.
    apart: bool,
    rule: &'a dyn Rule,
    /// Where the comparison is; after an error, where it happened.
    path: Vec<u8>,
    changes: Vec<Change>,
}

/// A directory being compared.
struct Level {
    new: Directory,
    /// What it was before, if it was a directory.
    old: Option<Directory>,
    /// The names still to be compared.
    names: btree_set::IntoIter<OsString>,
    /// The length of its path.
    path: usize,
    /// How many changes were listed before it.
    listed: usize,
}

impl<'a> Comparison<'a> {
    fn new(old: (&'a Tree, Option<Directory>), tree: &'a Tree, rule: &'a dyn Rule) -> Self {
        Comparison { old, tree, apart: false, rule, path: Vec::new(), changes: Vec::new() }
    }

    /// All changes, sorted; `root` is where the tree is said to be in errors.
    fn changes(mut self, root: &Path) -> Result<Vec<Change>> {
        self.run().map_err(|errno| {
            let below = OsStr::from_bytes(self.path.strip_prefix(b"/").unwrap_or_default());
            Error::io("compare", root.join(below), errno)
        })?;
        self.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.changes)
    }

    /// Works without recursion: a container can nest directories deeper than the stack.
    fn run(&mut self) -> FsResult<()> {
        let mut levels = vec![self.enter(self.tree.root().clone(), self.old.1.clone())?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            let Some(name) = level.names.next() else {
                let Some(level) = levels.pop() else { break };
                if !levels.is_empty() {
                    self.leave(level)?;
                }
                continue;
            };
            self.path.push(b'/');
            self.path.extend_from_slice(name.as_bytes());
            let before = match &level.old {
                Some(old) => self.old.0.lookup(old, &name)?,
                None => None,
            };
            let after = self.tree.lookup(&level.new, &name)?;
            if let Some(below) = self.compare(before, after)? {
                levels.push(below);
            }
        }
        Ok(())
    }

    fn enter(&self, new: Directory, old: Option<Directory>) -> FsResult<Level> {
        let names = match &old {
            Some(old) if self.apart => new.names_of_either(old)?,
            Some(old) => new.names_to_compare(old, self.tree.links())?,
            None => new.names()?,
        };
        let (path, listed) = (self.path.len(), self.changes.len());
        Ok(Level { new, old, names: names.into_iter(), path, listed })
    }

    /// Lists a directory that was one before, now that everything in it is compared.
    fn leave(&mut self, level: Level) -> FsResult<()> {
        let Level { new, old: Some(old), listed, .. } = level else { return Ok(()) };
        if self.changes.len() > listed || self.rule.directory_changed(&old, &new)? {
            self.list(ChangeKind::Changed, Some(&Node::Dir(old)), Some(&Node::Dir(new)))?;
        }
        Ok(())
    }

    /// Compares what a path was with what it is; gives the directory to go on in.
    fn compare(&mut self, before: Option<Node>, after: Option<Node>) -> FsResult<Option<Level>> {
        let kind = match (&before, &after) {
            (None, None) => return Ok(None),
            (Some(_), None) => Some(ChangeKind::Deleted),
            (None, Some(_)) => Some(ChangeKind::Added),
            (Some(Node::Dir(_)), Some(Node::Dir(_))) => None,
            (Some(Node::File(old)), Some(Node::File(new))) => {
                self.rule.file_changed(old, new)?.then_some(ChangeKind::Changed)
            }
            (Some(_), Some(_)) => Some(ChangeKind::Changed),
        };
        if let Some(kind) = kind {
            self.list(kind, before.as_ref(), after.as_ref())?;
        }
        match (before, after) {
            (Some(Node::Dir(old)), Some(Node::Dir(new))) => self.enter(new, Some(old)).map(Some),
            (_, Some(Node::Dir(new))) => self.enter(new, None).map(Some),
            _ => Ok(None),
        }
    }

    fn list(&mut self, kind: ChangeKind, old: Option<&Node>, new: Option<&Node>) -> FsResult<()> {
        let meta = |node: &Node| -> FsResult<Meta> { Ok(Meta::of(&node.stat()?)) };
        let (old, new) = (old.map(meta).transpose()?, new.map(meta).transpose()?);
        self.changes.push(Change { kind, path: self.path.clone(), old, new });
        Ok(())
    }
}
