//! `diff`: what a container changed.

use std::path::PathBuf;

use crate::changeset::{self, Change, Tree, UpperDir};
use crate::error::{Error, Result};

use super::Store;
use super::lock::Hold;

/// What counts as a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRule {
    /// Content, attributes and xattrs, compared for what they are.
    Exact,
    /// What docker's overlay2 driver lists.
    Docker,
}

impl ChangeRule {
    /// The changes that `upper` makes to the `lowers`, topmost first, sorted by path.
    ///
    /// # Errors
    /// Names the layer or path that cannot be read.
    pub fn diff(self, lowers: &[PathBuf], upper: UpperDir) -> Result<Vec<Change>> {
        match self {
            ChangeRule::Exact => changeset::diff(lowers, upper),
            ChangeRule::Docker => changeset::diff_docker(lowers, upper),
        }
    }

    /// What makes the tree `new` of the tree `old`, sorted by path.
    ///
    /// # Errors
    /// Where a tree cannot be read.
    pub fn diff_trees(self, old: &Tree, new: &Tree) -> Result<Vec<Change>> {
        match self {
            ChangeRule::Exact => changeset::diff_trees(old, new),
            ChangeRule::Docker => changeset::diff_trees_docker(old, new),
        }
    }
}

impl Store {
    /// The changes that the container that `text` names made to its image, sorted by path.
    ///
    /// # Errors
    /// Where there is no such container, or a tree cannot be read.
    pub fn diff(&self, text: &str, rule: ChangeRule) -> Result<Vec<Change>> {
        let container = self.container(text)?;
        let _held = self.hold(&container, Hold::Shared)?;
        rule.diff(&self.lowers(&container), self.upper_dir(&container))
    }

    /// What makes the tree that `new` names of the one that `old` names; each is a container or
    /// an image.
    ///
    /// # Errors
    /// Where there is no such container or image, or a tree cannot be read.
    pub fn diff_between(&self, old: &str, new: &str, rule: ChangeRule) -> Result<Vec<Change>> {
        let ((old_tree, _old_held), (new_tree, _new_held)) = (self.tree(old)?, self.tree(new)?);
        let changes = rule.diff_trees(&old_tree, &new_tree)?;
        // A container that is held stays; an image may have been removed under our eyes.
        for name in [old, new] {
            self.tree(name)?;
        }
        Ok(changes)
    }

    /// The tree of a container, which is then held, or of an image.
    fn tree(&self, text: &str) -> Result<(Tree, Option<std::fs::File>)> {
        match self.container(text) {
            Ok(container) => {
                let held = self.hold(&container, Hold::Shared)?;
                let upper = self.upper_dir(&container);
                Ok((Tree::open_with_upper(&self.lowers(&container), upper)?, Some(held)))
            }
            Err(Error::NotFound { .. }) => Ok((self.image_tree(text)?, None)),
            Err(error) => Err(error),
        }
    }

    fn image_tree(&self, text: &str) -> Result<Tree> {
        let _shared = self.lock_shared()?;
        let (id, _) = self.catalog()?.find(text).map_err(|error| match error {
            Error::NotFound { name, .. } => Error::NotFound { kind: "container or image", name },
            error => error,
        })?;
        let chain = self.image_config(&id)?.chain();
        Tree::open(&self.layer_trees(&chain))
    }
}
