//! What a mount is asked to be.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::layer::ids::IdRange;

mod parse;

/// The options of one mount, as data. [`Options::parse`] reads them from `-o` strings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// The read-only layers, topmost first; at least one.
    pub lowerdirs: Vec<PathBuf>,
    /// The layer that is written to, or `None` for a read-only mount.
    pub upper: Option<UpperOption>,
    /// Nothing may be changed: asked for by `ro`, or because there is no upper.
    pub read_only: bool,
    /// Changes need not survive a crash: no fsync reaches the disk.
    pub volatile: bool,
    /// How renamed directories are treated.
    pub redirect_dir: RedirectDir,
    /// Whether a change of attributes alone copies no data (`metacopy`); `None` leaves it to us.
    pub metacopy: Option<bool>,
    /// Whether hard links survive copy-up (`index`); `None` leaves it to us.
    pub index: Option<bool>,
    /// Whether inode numbers carry the layer in their upper bits (`xino`); `None` leaves it to us.
    pub xino: Option<bool>,
    /// Overlay xattrs are `user.overlay.*` instead of `trusted.overlay.*`.
    pub userxattr: bool,
    /// How the owners of the merged tree map to those in the layers; empty for as they are.
    pub uid_map: Vec<IdRange>,
    /// As `uid_map`, for groups.
    pub gid_map: Vec<IdRange>,
    /// Everything belongs to root.
    pub squash_to_root: bool,
    /// Everything belongs to this user.
    pub squash_to_uid: Option<u32>,
    /// Everything belongs to this group.
    pub squash_to_gid: Option<u32>,
    /// Owner and mode are kept in an xattr: 0 not at all, 1 in the privileged form, 2 in the
    /// user form.
    pub xattr_permissions: u8,
    /// Directories have the constant link count 1.
    pub static_nlink: bool,
    /// No POSIX ACLs.
    pub noacl: bool,
    /// No xattrs at all.
    pub noxattrs: bool,
    /// How long the kernel may keep names and attributes; `None` for ever.
    pub timeout: Option<Duration>,
    /// What concerns the mount itself.
    pub mount: MountOptions,
    /// Serving threads; `None` leaves it to us.
    pub threads: Option<usize>,
    /// Which open files the kernel reads and writes without asking.
    pub passthrough: PassthroughPolicy,
    /// How fast idle processors wake up while requests come.
    pub cpu_latency: CpuLatencyPolicy,
    /// Names are never found before they are asked for.
    pub no_look_ahead: bool,
    /// Where figures are given to whoever connects; `None` for nowhere.
    pub stats_socket: Option<PathBuf>,
    /// What is logged: a level or directives; `None` leaves it to the environment.
    pub log_level: Option<String>,
}

/// Where changes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperOption {
    /// The writable layer.
    pub upperdir: PathBuf,
    /// An empty directory on the same filesystem, where changes are prepared.
    pub workdir: PathBuf,
}

/// `redirect_dir=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectDir {
    /// Renaming a lower directory leaves a redirect; redirects are followed.
    #[default]
    On,
    /// Renaming a lower directory gives `EXDEV`; redirects are followed.
    Follow,
    /// Renaming a lower directory gives `EXDEV`; redirects are not followed.
    NoFollow,
}

/// `passthrough=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PassthroughPolicy {
    /// Files of the upper, and programs and libraries of the lowers; without an upper, large files, too.
    #[default]
    Auto,
    /// No file.
    Off,
    /// Data files of the lowers too: their page cache is then shared between mounts, but a
    /// descriptor opened for reading does not see what is written after a copy-up.
    All,
}

/// `cpu_latency=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpuLatencyPolicy {
    /// As fast as is worth the power: on a machine of few processors none of them sleeps, on a
    /// larger one they sleep lightly.
    #[default]
    Auto,
    /// As they like.
    Off,
    /// Within so many microseconds; within none they do not sleep.
    Most(u32),
}

/// What mount(2) and the FUSE mount are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// The source that the mount table shows; `None` for "plyfs".
    pub fsname: Option<String>,
    /// The mount's type is `fuse.SUBTYPE`; `None` for "plyfs".
    pub subtype: Option<String>,
    /// Where the upper is mounted already, by a mount of the same source, that one is bound here.
    pub join: bool,
    /// The mount ends when standard input does: when whoever wanted it is gone.
    pub until_stdin_ends: bool,
    /// Other users may enter; `None` where it was not said.
    pub allow_other: Option<bool>,
    /// Root may enter.
    pub allow_root: bool,
    /// An SELinux label for all files.
    pub context: Option<String>,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
    /// `noatime`.
    pub noatime: bool,
    /// `nodiratime`.
    pub nodiratime: bool,
    /// `relatime`.
    pub relatime: bool,
    /// `strictatime`.
    pub strictatime: bool,
    /// `sync`.
    pub sync: bool,
    /// `dirsync`.
    pub dirsync: bool,
}
