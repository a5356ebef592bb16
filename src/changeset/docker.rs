//! A difference as `docker diff` lists it.

use std::path::PathBuf;

use super::change::Change;
use super::diff::{diff_by, diff_trees_by};
use super::same::Docker;
use super::tree::Tree;
use super::upper_dir::UpperDir;
use crate::error::Result;

/// As [`super::diff()`], but with docker's idea of a change (overlay2 driver): a directory's times
/// and all xattrs but capabilities do not count, content is judged by size and mtime, and only the
/// upper itself is looked at: the other names of a hard link that was changed are not listed.
///
/// # Errors
/// Names the layer or the path that cannot be read.
pub fn diff_docker(lowers: &[PathBuf], upper: impl Into<UpperDir>) -> Result<Vec<Change>> {
    diff_by(lowers, UpperDir { workdir: None, ..upper.into() }, &Docker)
}

/// As [`diff_docker`], of two trees that need have nothing in common.
///
/// # Errors
/// As [`diff_docker`].
pub fn diff_trees_docker(old: &Tree, new: &Tree) -> Result<Vec<Change>> {
    diff_trees_by(old, new, &Docker)
}
