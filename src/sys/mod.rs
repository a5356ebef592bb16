//! System calls: the only module that makes them, and the only one that may hold `unsafe`.
//!
//! Every function works relative to a directory descriptor and never follows a symlink in the
//! last component, unless its name says so. Each mutating call passes [`fault::step`] first, so
//! that tests can fail, or stop the process at, the k-th one.

pub mod beneath;
pub mod copy;
pub mod cpu_latency;
pub mod creds;
pub mod dir;
pub mod extended;
pub mod fault;
pub mod file;
pub mod file_handle;
pub mod footprint;
pub mod fs_uuid;
pub mod fuse_dev;
pub mod journal;
pub mod lease;
pub mod mount;
pub mod mount_clone;
pub mod mountinfo;
pub mod node;
pub mod overlayfs;
pub mod privileges;
pub mod process;
pub mod random;
pub mod small_dir;
pub mod stat;
pub mod terminal;
pub mod tree;
pub mod unmount;
pub mod writeback;
pub mod xattr;

pub use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub use rustix::fs::{AtFlags, FallocateFlags, IFlags, Mode, OFlags, RenameFlags, StatVfs};
pub use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
