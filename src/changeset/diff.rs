//! What an upper changed of the tree below it.
//!
//! Only directories that the upper has are entered, so the cost is that of the changes; the one
//! exception is what a rename moved or a new directory replaced, which is listed in full.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::change::{Change, ChangeKind, Meta};
use super::same::{Carried, Exact, Rule};
use super::tree::{Directory, Node, Tree};
use crate::error::{Errno, Error, FsResult, Result};

/// The deepest directory that is entered; a path of `PATH_MAX` bytes cannot lie deeper.
pub(super) const DEPTH_MAX: usize = 2048;

/// Compares the merged tree of `upper` over `lowers` (topmost first) with that of the lowers
/// alone: what was added, changed and deleted, sorted by the bytes of the paths.
///
/// - A file is changed if its type, mode, owner, size, mtime, content, xattrs, target or device
///   is another; one that was copied up and is as before is not listed.
/// - A directory is changed if its mode, owner, mtime or xattrs are others, and where anything
///   below it is listed. The root is never listed.
/// - A deleted directory is one line. A renamed one is the deletion of its old name, and the
///   addition of every path of its new tree.
///
/// # Errors
/// Names the layer or the path that cannot be read.
pub fn diff(lowers: &[PathBuf], upper: &Path) -> Result<Vec<Change>> {
    diff_by(lowers, upper, &Exact)
}

/// As [`diff`], for an archive of the changes: a file of the upper that has several names is
/// listed under each of them, changed or not, so that they can be linked again.
pub fn changes_to_carry(lowers: &[PathBuf], upper: &Path) -> Result<Vec<Change>> {
    diff_by(lowers, upper, &Carried)
}

/// As [`diff`], with another rule of what has changed.
pub(super) fn diff_by(lowers: &[PathBuf], upper: &Path, rule: &dyn Rule) -> Result<Vec<Change>> {
    let tree = Tree::open_with_upper(lowers, upper)?;
    let mut comparison =
        Comparison { tree: &tree, rule, path: Vec::new(), depth: 0, changes: Vec::new() };
    let compared = match tree.root_below_top() {
        Some(old) => comparison.compare(tree.root(), &old),
        None => comparison.add_children(tree.root()),
    };
    compared.map_err(|errno| {
        let below = OsStr::from_bytes(comparison.path.strip_prefix(b"/").unwrap_or_default());
        Error::io("compare", upper.join(below), errno)
    })?;
    let mut changes = comparison.changes;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

struct Comparison<'a> {
    tree: &'a Tree,
    rule: &'a dyn Rule,
    /// Where the comparison is; after an error, where it happened.
    path: Vec<u8>,
    depth: usize,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    /// Compares what is in two directories.
    fn compare(&mut self, new: &Directory, old: &Directory) -> FsResult<()> {
        for name in new.names_to_compare(old)? {
            self.at(&name, |this| {
                let before = this.tree.lookup(old, &name)?;
                let after = this.tree.lookup(new, &name)?;
                this.compare_nodes(before, after)
            })?;
        }
        Ok(())
    }

    /// Runs `step` one component deeper. After a failure the path stays where it happened.
    fn at(
        &mut self,
        name: &OsString,
        step: impl FnOnce(&mut Self) -> FsResult<()>,
    ) -> FsResult<()> {
        if self.depth == DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name.as_bytes());
        self.depth += 1;
        step(self)?;
        self.depth -= 1;
        self.path.truncate(length);
        Ok(())
    }

    fn compare_nodes(&mut self, before: Option<Node>, after: Option<Node>) -> FsResult<()> {
        match (before, after) {
            (None, None) => Ok(()),
            (Some(old), None) => self.list(ChangeKind::Deleted, Some(&old), None),
            (None, Some(new)) => self.add(&new),
            (Some(old), Some(new)) => match (&old, &new) {
                (Node::Dir(old_dir), Node::Dir(new_dir)) => {
                    let listed = self.changes.len();
                    self.compare(new_dir, old_dir)?;
                    let inside = self.changes.len() > listed;
                    if inside || self.rule.directory_changed(old_dir, new_dir)? {
                        self.list(ChangeKind::Changed, Some(&old), Some(&new))?;
                    }
                    Ok(())
                }
                (Node::File(old_file), Node::File(new_file)) => {
                    if self.rule.file_changed(old_file, new_file)? {
                        self.list(ChangeKind::Changed, Some(&old), Some(&new))?;
                    }
                    Ok(())
                }
                (_, new_node) => {
                    self.list(ChangeKind::Changed, Some(&old), Some(new_node))?;
                    match new_node {
                        Node::Dir(dir) => self.add_children(dir),
                        Node::File(_) => Ok(()),
                    }
                }
            },
        }
    }

    fn add(&mut self, node: &Node) -> FsResult<()> {
        self.list(ChangeKind::Added, None, Some(node))?;
        match node {
            Node::Dir(dir) => self.add_children(dir),
            Node::File(_) => Ok(()),
        }
    }

    fn add_children(&mut self, dir: &Directory) -> FsResult<()> {
        for (name, node) in self.tree.list(dir)? {
            self.at(&name, |this| this.add(&node))?;
        }
        Ok(())
    }

    fn list(&mut self, kind: ChangeKind, old: Option<&Node>, new: Option<&Node>) -> FsResult<()> {
        let meta = |node: &Node| -> FsResult<Meta> { Ok(Meta::of(&node.stat()?)) };
        let (old, new) = (old.map(meta).transpose()?, new.map(meta).transpose()?);
        self.changes.push(Change { kind, path: self.path.clone(), old, new });
        Ok(())
    }
}
