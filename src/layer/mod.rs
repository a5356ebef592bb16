//! What one tree on disk means; knows nothing of merging.
//!
//! | file | what it decides |
//! |---|---|
//! | `entry` | what a name in one layer is: absent, whiteout, file or directory |
//! | `whiteout` | the only place that makes or recognises a whiteout |
//! | `dialect` | which readers understand the marks in a tree |
//! | `xattrs` | the names of overlay's own xattrs, their escaping, and the marks on a directory |
//! | `redirect` | where a renamed directory's lower part lies |
//! | `origin` | which lower inode a copied-up file came from |
//! | `stored_stat` | owner, mode and device that are kept in an xattr |
//! | `upper` | every mutation of the writable layer |
//! | `sync` | making it durable, unless it is volatile |
//! | `index` | which upper inode the names of a copied-up hard link lead to |
//! | `workdir` | staging beside the upper: made there, then published by one rename |
//! | `unsettled` | what came from staging, and whose place may not be durable yet |
//! | `ids` | uid and gid maps |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, FsResult, Result};
use crate::sys::mount_clone::SharedClone;
use crate::sys::xattr::Target;
use crate::sys::{self, OwnedFd, stat::Stat};

pub mod dialect;
pub mod entry;
pub mod ids;
pub mod index;
pub mod origin;
mod probes;
pub mod redirect;
pub mod stored_stat;
mod sync;
mod unsettled;
pub mod upper;
mod upper_roots;
pub mod whiteout;
pub mod workdir;
pub mod xattrs;

pub use dialect::{Dialect, LayerMarks};
pub use entry::{Probe, probe};
pub use stored_stat::StatXattr;
pub use upper::Upper;
pub use xattrs::{DirMarks, Namespace};

/// Position of a layer in its stack: 0 is the upper, 1 the topmost lower, and so on. A stack
/// without an upper begins at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerIndex(pub u32);

impl LayerIndex {
    /// The writable layer.
    pub const UPPER: LayerIndex = LayerIndex(0);

    /// Whether this is the writable layer.
    pub fn is_upper(self) -> bool {
        self == LayerIndex::UPPER
    }
}

/// A read-only layer.
#[derive(Debug)]
pub struct Layer {
    /// Its place in the stack.
    pub index: LayerIndex,
    /// Where it was found; for messages only, everything goes through `root`.
    pub path: PathBuf,
    /// Its root directory, an `O_PATH` descriptor.
    pub root: Arc<OwnedFd>,
    /// The attributes of its root.
    pub stat: Stat,
    /// Whether the kernel itself refuses writes through `root`: it is a private read-only clone
    /// of the mount, which needs `CAP_SYS_ADMIN`.
    pub sealed: bool,
    /// UUID of its filesystem, for origins; zeros where it has none.
    pub uuid: [u8; 16],
    /// Where owner, mode and device of its files are kept, if not in their inodes.
    pub stat_xattr: Option<StatXattr>,
    /// What its root says about merging; a root has no redirect.
    pub marks: DirMarks,
    /// The clone that `root` is reached through, where others are, too.
    _shared: Option<Arc<SharedClone>>,
}

impl Layer {
    /// Opens the lower at `path`, which may be a symlink to a directory.
    ///
    /// Where permitted, the layer is reached through a private, read-only, noatime clone of its
    /// mount: then not even a mistake of ours can write there, and mounts made over it later
    /// do not show.
    ///
    /// # Errors
    /// Names the path where it is missing, no directory or not readable.
    pub fn open(index: LayerIndex, path: &Path) -> Result<Layer> {
        Layer::open_alone(index, path, &mut Uuids::default())
    }

    fn open_alone(index: LayerIndex, path: &Path, uuids: &mut Uuids) -> Result<Layer> {
        let failed = |errno| Error::io("open lower layer", path, errno);
        let plain = sys::file::open_root(path).map_err(failed)?;
        let (root, sealed) = match sys::mount_clone::clone_read_only(&plain) {
            Ok(clone) => (clone, true),
            Err(_) => (plain, false),
        };
        let stat = sys::stat::stat_fd(&root).map_err(failed)?;
        Layer::of_root(index, path, (root, stat), sealed, uuids)
    }

    /// Opens the lowers at `paths`, topmost first, each as [`Layer::open`] does; where they all lie
    /// on one mount they share one clone of it.
    ///
    /// # Errors
    /// Names the first path that is missing, no directory or not readable.
    pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Layer>> {
        let shared = SharedClone::of(paths).ok().map(Arc::new);
        let mut uuids = Uuids::default();
        let opened = paths.iter().enumerate().zip(1u32..).map(|((number, path), index)| {
            let index = LayerIndex(index);
            match shared.as_ref().map(|shared| shared.dir(number)) {
                Some(Ok(root)) => {
                    let layer = Layer::of_root(index, path, root, true, &mut uuids)?;
                    Ok(Layer { _shared: shared.clone(), ..layer })
                }
                _ => Layer::open_alone(index, path, &mut uuids),
            }
        });
        opened.collect()
    }

    fn of_root(
        index: LayerIndex,
        path: &Path,
        (root, stat): (OwnedFd, Stat),
        sealed: bool,
        uuids: &mut Uuids,
    ) -> Result<Layer> {
        let failed = |errno| Error::io("open lower layer", path, errno);
        let uuid = uuids.of(stat.dev, &root).map_err(failed)?;
        let reading = |errno| Error::io("read xattrs of layer", path, errno);
        let names = sys::xattr::list(Target::dir(&root)).map_err(reading)?;
        let stat_xattr = StatXattr::among(&names);
        let marks = xattrs::marks_among(Target::dir(&root), &names, None);
        let marks = marks.and_then(|marks| entry::with_opaque_file(&root, marks));
        let marks = marks.map_err(reading)?;
        let (path, root) = (path.to_path_buf(), Arc::new(root));
        Ok(Layer { index, path, root, stat, sealed, uuid, stat_xattr, marks, _shared: None })
    }
}

/// The UUIDs of the filesystems that layers lie on: mostly one, which is asked for once.
#[derive(Debug, Default)]
struct Uuids(Vec<(u64, [u8; 16])>);

impl Uuids {
    /// That of the filesystem with the device `dev`, which holds `dir`, an `O_PATH` descriptor;
    /// zeros where it has none.
    ///
    /// # Errors
    /// Where `dir` cannot be listed, which opening an `O_PATH` descriptor did not tell.
    fn of(&mut self, dev: u64, dir: &OwnedFd) -> FsResult<[u8; 16]> {
        if let Some((_, uuid)) = self.0.iter().find(|(known, _)| *known == dev) {
            sys::dir::check_readable(dir)?;
            return Ok(*uuid);
        }
        let readable = sys::dir::open_dir(dir, ".".as_ref())?;
        let uuid = sys::fs_uuid::filesystem_uuid(&readable).unwrap_or_default();
        self.0.push((dev, uuid));
        Ok(uuid)
    }
}
