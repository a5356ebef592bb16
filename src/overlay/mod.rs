//! The merged filesystem; no fuse types, testable without a mount.

pub mod options;
