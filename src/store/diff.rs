//! `diff`: what a container changed.

use std::path::PathBuf;

use crate::changeset::{self, Change, UpperDir};
use crate::error::Result;

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
}
