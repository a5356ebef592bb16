//! The difference of two trees, independent of tar.
//!
//! | file | what it holds |
//! |---|---|
//! | `upper_dir` | where an upper lies and how it was mounted |
//! | `tree` | a stack of layers as one read-only tree, and its merge rule |
//! | `root` | the roots of its layers |
//! | `file` | a file of that tree |
//! | `links` | lower names that lead to copied-up hard links |
//! | `diff` | the walk that compares an upper with what lies below it |
//! | `same` | when two files count as changed |
//! | `docker` | the same walk by docker's rule |
//! | `identical` | whether two directories are the same on disk |
//! | `change` | one line of the result |

mod change;
mod diff;
mod docker;
mod file;
mod identical;
mod links;
mod root;
mod same;
pub mod tree;
mod upper_dir;

pub use change::{Change, ChangeKind, FileKind, Meta};
pub use diff::{changes_to_carry, diff, diff_trees, root_changed};
pub use docker::{diff_docker, diff_trees_docker};
pub use identical::{Deviation, deviations};
pub use tree::Tree;
pub use upper_dir::UpperDir;
