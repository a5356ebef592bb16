//! A reference model of the merged tree, and random operations that a real one must answer alike.
//!
//! The model is a plain tree in memory: it knows no layers, copy-up or whiteouts after the start,
//! so none of an implementation's mistakes can be its own. [`merge`] makes its first state from
//! the layers' texts. A [`Subject`] is what is tested: a mounted tree, or the overlay core alone.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

pub(crate) mod core;
pub(crate) mod generate;
pub(crate) mod merge;
pub(crate) mod mountpoint;
pub(crate) mod op;
pub(crate) mod rng;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod threads;
pub(crate) mod tree;
mod verbs;

use crate::support::Snapshot;
use op::{Op, Outcome};
use rustix::io::Errno;

/// A tree whose answers are compared with the model's.
pub(crate) trait Subject {
    /// The name for messages.
    fn name(&self) -> String;
    /// Whether a rename that fails may leave its directories with new times. Overlayfs does: it
    /// has copied up what it then could not rename.
    fn failed_rename_shows(&self) -> bool {
        false
    }
    /// Carries out one operation.
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno>;
    /// Forgets all that is not on disk, held files included.
    fn remount(&mut self);
    /// Everything that can be seen.
    fn snapshot(&mut self) -> Snapshot;
}
