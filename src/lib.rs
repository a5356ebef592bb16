//! PlyFS: a copy-on-write layered filesystem for containers.
//!
//! The crate is a house of layers; each module uses only those above it in this list, never
//! the ones below (a test holds these walls):
//!
//! | module | what it holds |
//! |---|---|
//! | [`error`] | the error types and the only mapping to errno |
//! | [`image`] | pure data: digests, references, image configs, manifests |
//! | [`sys`] | the only raw syscalls and the only `unsafe` |
//! | [`layer`] | what one tree on disk means: whiteouts, opaque markers, overlay xattrs, the upper and its workdir |
//! | [`overlay`] | the merged filesystem: one merge rule, copy-up, one file per verb; knows no FUSE |
//! | [`changeset`] | the difference of two trees, independent of tar |
//! | [`fuse`] | the kernel's FUSE protocol: decode, one overlay call, reply |
//! | [`archive`] | bytes to changesets and images and back: tar, gzip, zstd |
//! | [`store`] | images, layers and containers on disk |
//! | [`registry`] | pull and push: OCI registries |
//! | [`snapshotter`] | containerd's snapshots on a store, over gRPC |
//! | [`cli`] | the `plyfs` command |
//!
//! Vocabulary: a *stack* is an optional *upper* above read-only *lowers*, topmost first. A
//! *whiteout* in one layer hides a name of the layers below; an *opaque* directory ends the merge
//! below it. *Copy-up* brings a lower file into the upper before its first change. A *redirect*
//! names the lower directory that a renamed upper directory merges with; an *origin* names the
//! lower inode that a copied-up one came from.

pub mod archive;
pub mod changeset;
pub mod cli;
pub mod error;
pub mod fuse;
pub mod image;
pub mod layer;
pub mod overlay;
pub mod registry;
pub mod snapshotter;
pub mod store;
pub mod sys;
