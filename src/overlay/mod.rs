//! The merged filesystem: one read-only or writable tree over a stack of layers.
//!
//! It knows nothing of FUSE and can be tested without a mount. Every public operation takes
//! node numbers and names, as a kernel filesystem does, and fails with a bare errno.
//!
//! | file | what it holds |
//! |---|---|
//! | `merge` | **the** merge rule; `lookup`, `listing` and `readdir` are built on it |
//! | `node`, `node_state`, `directory` | nodes, and the order of locks |
//! | `node_table` | all nodes that the kernel knows, by number and by inode |
//! | `layer_dir` | directories of one layer and the bounded set of open descriptors |
//! | `foresight`, `look_ahead` | finding names before they are asked for |
//! | `copy_up` | bringing a lower file into the upper before its first change |
//! | `stage` | the complete copy in the workdir, before it is published |
//! | `metacopy` | files whose attributes alone are copied up |
//! | `hard_link` | keeping the names of a copied-up hard link together |
//! | `stored_stat` | layers whose owners and modes stand in an xattr |
//! | `preload` | offering the content of small files when they are opened |
//! | `create`, `remove`, `rename`, `link`, `attr`, `xattr`, `file` | one verb each |
//! | `moving` | the steps of a rename on disk |
//! | `program` | which files are programs and libraries, whose pages all mounts share |
//! | `durable` | fsync: with a file, the directories that lead to it |
//! | `counters` | what was done so far, in numbers |
//! | `stack` | opening the layers of a mount, and refusing what cannot work |

use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};

use crate::error::{Errno, FsResult};
use crate::layer::ids::IdMap;
use crate::layer::{Layer, LayerIndex, Namespace, Upper};
use crate::sys::stat::{Stat, Time};
use crate::sys::{OwnedFd, StatVfs};

mod attr;
mod copy_up;
pub mod counters;
mod create;
mod directory;
mod durable;
mod file;
mod foresight;
mod frozen;
mod handle;
mod hard_link;
mod implied;
mod inode_number;
mod layer_dir;
mod link;
mod listing;
mod look_ahead;
mod lookup;
mod lower_path;
mod merge;
mod metacopy;
#[cfg(all(test, feature = "models"))]
mod models;
mod moving;
mod node;
mod node_state;
mod node_table;
pub mod options;
mod outdated;
mod place;
mod preload;
mod program;
mod readdir;
mod remove;
mod rename;
mod renew;
mod stack;
mod stage;
mod stored_stat;
mod sync;
mod tmpfile;
mod xattr;

pub use options::Options;
pub use readdir::With;

use counters::Counters;
use foresight::Foresight;
use handle::HandleTable;
use implied::ImpliedHandles;
use inode_number::InodeNumbers;
use layer_dir::{DirFds, LayerDir};
use node_table::NodeTable;
use outdated::Outdated;
use readdir::ListingBudget;
use sync::Mutex;
use sync::atomic::AtomicU64;

/// A name in a directory as the tables keep it: short ones in place, long ones shared.
pub(crate) type Name = hipstr::HipOsStr<'static>;

/// The number of a node: growing, never used again within a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the merged tree.
    pub const ROOT: NodeId = NodeId(1);
}

/// The number of an open file: growing, never used again within a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleId(pub u64);

/// The file whose content a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRef {
    /// An open file.
    Opened(HandleId),
    /// That of a node, where the kernel does not tell of files that it opens.
    Of(NodeId),
}

impl From<HandleId> for FileRef {
    fn from(handle: HandleId) -> FileRef {
        FileRef::Opened(handle)
    }
}

/// On whose behalf something is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem uid, as the mount shows ids.
    pub uid: u32,
    /// Filesystem gid, as the mount shows ids.
    pub gid: u32,
    /// Process.
    pub pid: u32,
}

/// A node that was found or made; one lookup of it was counted, to be taken back by
/// [`Overlay::forget`].
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Its attributes as users see them.
    pub stat: Stat,
}

/// An open file.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its number.
    pub handle: HandleId,
    /// The file of the layer that it reads and writes.
    pub file: Arc<OwnedFd>,
    /// Whether that layer is the upper.
    pub upper: bool,
    /// Whether it is a program or library of a lower of which nothing was changed.
    pub program: bool,
    /// Whether it may be written through this handle.
    pub writable: bool,
    /// Whether it may be mapped so that what is written to memory reaches the file.
    pub mappable: bool,
    /// The file's mode.
    pub mode: u32,
    /// Whether opening it took privileges away: the mode that the kernel keeps is no longer so.
    pub mode_changed: bool,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// A given one.
    At(Time),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner, as the mount shows ids.
    pub uid: Option<u32>,
    /// Group, as the mount shows ids.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// The change is one that takes suid, sgid and file capabilities away.
    pub kill_suidgid: bool,
}

/// One entry of a directory.
#[derive(Debug)]
pub struct DirEntry<'a> {
    /// Its name; `.` and `..` are among them.
    pub name: &'a OsStr,
    /// The inode number that stat shows, too.
    pub ino: u64,
    /// Its type in the form of `d_type` (the mode shifted right by 12).
    pub kind: u32,
    /// Reading goes on behind it from here.
    pub cookie: u64,
    /// With its attributes and one lookup counted, where that was asked for.
    pub entry: Option<Entry>,
}

/// What a mount does where there is a choice; the outcome of its options.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// Renaming a directory with a lower part writes a redirect; else it fails with EXDEV.
    make_redirects: bool,
    /// Redirects are followed.
    follow_redirects: bool,
    /// Directories always have the link count 1.
    static_nlink: bool,
    /// Users may see and set POSIX ACLs.
    acls: bool,
    /// From this size on a change of attributes alone copies no data; `None`: never.
    metacopy_from: Option<u64>,
}

/// A mounted stack of layers.
#[derive(Debug)]
pub struct Overlay {
    upper: Option<Upper>,
    lowers: Vec<Layer>,
    lower_roots: Vec<Arc<LayerDir>>,
    policy: Policy,
    uids: IdMap,
    gids: IdMap,
    inode_numbers: InodeNumbers,
    nodes: NodeTable,
    handles: HandleTable,
    implied: ImpliedHandles,
    outdated: Outdated,
    dir_fds: Arc<DirFds>,
    listings: ListingBudget,
    foresight: Foresight,
    counters: Counters,
    /// Changes with each xattr that is set, see [`Overlay::has_no_xattrs`].
    xattrs_set: AtomicU64,
    /// See [`Overlay::is_bare`].
    new_files_are_bare: OnceLock<bool>,
    /// See the order of locks in `node`.
    moves: Mutex<()>,
}

impl Overlay {
    /// The writable layer.
    ///
    /// # Errors
    /// `EROFS` where the mount has none.
    fn upper(&self) -> FsResult<&Upper> {
        self.upper.as_ref().ok_or(Errno::ROFS)
    }

    /// Whether nothing lies below this layer.
    fn is_bottom(&self, layer: LayerIndex) -> bool {
        layer.0 as usize == self.lowers.len()
    }

    /// From which namespace a redirect in this layer is followed: in the upper from our own,
    /// in lowers only from the one that an image author without privilege cannot have written.
    fn redirect_trust(&self, layer: LayerIndex) -> Option<Namespace> {
        if !self.policy.follow_redirects {
            return None;
        }
        match &self.upper {
            Some(upper) if layer.is_upper() => Some(upper.namespace),
            _ => Some(Namespace::Trusted),
        }
    }

    /// Takes back `count` lookups of a node.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.implied.forget(node);
        self.listings.forget(&self.nodes.forget(node, count));
        if self.nodes.has_shrunk() {
            self.nodes.shrink();
            crate::sys::process::return_free_memory();
        }
    }

    /// Whether the kernel holds a node.
    pub fn knows(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_ok()
    }

    /// How many nodes the kernel holds.
    pub fn live_nodes(&self) -> u64 {
        self.nodes.live()
    }

    /// The figures of the filesystem that is written to, or of the topmost layer.
    pub fn statfs(&self) -> FsResult<StatVfs> {
        let root = match (&self.upper, self.lowers.first()) {
            (Some(upper), _) => &upper.root,
            (None, Some(lower)) => &lower.root,
            (None, None) => return Err(Errno::IO),
        };
        crate::sys::stat::statvfs(root)
    }

    /// Makes everything written so far durable; nothing on a volatile mount.
    pub fn syncfs(&self) -> FsResult<()> {
        self.upper.as_ref().map_or(Ok(()), Upper::sync_all)
    }

    /// Ends the mount: what was staged is removed, so that the workdir is left empty.
    pub fn shutdown(&self) {
        if let Some(upper) = &self.upper
            && let Err(errno) = upper.close()
        {
            tracing::warn!(%errno, "cannot leave the workdir empty; the next mount cleans it");
        }
    }
}
