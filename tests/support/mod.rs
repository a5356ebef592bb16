//! What the integration tests share: layer trees from a text, a mount of them by PlyFS or by the
//! kernel's overlayfs, and comparison of whole trees.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod build;
mod compare;
mod mapping;
mod mounted;
mod require;
mod scene;
mod snapshot;
mod spec;

pub(crate) use build::{DEFAULT_MTIME, build_layer, set_mtime};
pub(crate) use compare::{Policy, assert_same, differences};
pub(crate) use mapping::Mapping;
pub(crate) use mounted::{Driver, MountedOverlay, Options, unmount_patiently};
pub(crate) use require::{as_host_root, overlay_xattr, ready, require, rootless};
pub(crate) use scene::{Scene, scratch};
pub(crate) use snapshot::{Entry, Kind, Snapshot, Time};
pub(crate) use spec::{Attributes, EntrySpec, LayerSpec, SceneSpec, What};

/// The errno of something that must not succeed.
pub(crate) fn refused<T: std::fmt::Debug>(
    result: Result<T, impl Into<std::io::Error>>,
) -> rustix::io::Errno {
    let error: std::io::Error = result.expect_err("it is refused").into();
    rustix::io::Errno::from_raw_os_error(error.raw_os_error().expect("a system call's error"))
}

/// The names in a directory, in order; a doubled one stays doubled.
pub(crate) fn names(dir: impl AsRef<std::path::Path>) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
