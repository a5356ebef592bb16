//! Images, layers and containers on disk.
//!
//! # How it changes
//! Whatever a verb makes is built in a *transaction*: a directory under `staging/` that no other
//! command looks into, held by a lock that the kernel releases when the process dies. It becomes
//! visible by renames, under the store's exclusive lock; that section is short, and nothing in
//! it unpacks, copies or waits. Each verb has one rename that decides:
//!
//! | verb | decided by the rename of |
//! |---|---|
//! | load, commit, import, tag, rmi, prune | the new `catalog.json` over the old one |
//! | create | the container's directory into `containers/`, to which its name leads before |
//! | rename | the new `container.json` over the old one; the new name leads there before |
//! | rm | the container's directory out of `containers/` |
//! | Prepare, View, Remove of a snapshot | its directory into `snapshots/`, out of it |
//! | Commit, Update of a snapshot | the new `snapshot.json` over the old one |
//!
//! A layer or image directory that the catalog does not lead to is invisible. Load moves such
//! directories in before it decides, rmi out after; so one that dies between leaves them, and
//! with them its staging directory, whose lock is then free. The next verb that changes the
//! store sees that and sweeps both away.
//!
//! # Lock order
//! A transaction's own lock (never contended), then a container's, then the store's. The lock of
//! a container is waited for a moment only; nothing waits while it has the store's exclusively.

mod at_once;
mod blobs;
mod catalog;
mod check;
mod commit;
mod containers;
mod copy;
mod create;
mod diff;
mod downloads;
mod durable;
mod export;
mod history;
mod images;
mod import;
mod incoming;
mod inspect;
mod layers;
mod layout;
mod load;
mod lock;
mod manifests;
mod mount;
mod mount_kernel;
mod names;
mod outgoing;
mod prune;
mod publish;
mod remove_container;
mod remove_image;
mod rename;
mod save;
mod snapshot_health;
mod snapshots;
mod tag;
mod transaction;
mod umount;
mod unpack;
mod usage;
mod verify;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(crate) use at_once::at_once;
pub use check::{Collected, Problem, Repair};
pub use commit::CommitOptions;
pub use containers::{Container, ContainerId, State};
pub use copy::{CopyEnd, CopyOptions};
pub use diff::ChangeRule;
pub use downloads::Download;
pub use history::Step;
pub use images::Image;
pub use incoming::IncomingImage;
pub use inspect::{ContainerDetails, ImageDetails};
pub use load::{Loaded, Source};
pub use mount::MountDriver;
pub use outgoing::{OutgoingImage, Workspace};
pub use prune::Pruned;
pub use remove_image::Removed;
pub use save::ArchiveForm;
pub use snapshot_health::SnapshotUsage;
pub use snapshots::{SnapshotId, SnapshotKind, SnapshotRecord, Snapshots};
pub use umount::MOUNT_KIND;
pub use usage::{ContainerUsage, DiskUsage, ImageUsage, TreeUsage, Usage};
pub use verify::{Damage, Verified};

use layout::Layout;

/// The version of the format on disk that this program reads and writes.
const FORMAT: u32 = 3;

/// The one before it, in which names led to no container: they are made to when it is opened.
const FORMAT_WITHOUT_NAMES: u32 = 2;

/// A store: one directory with images, layers and containers.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
}

impl Store {
    /// Opens the store at `root`, and makes it where there is none.
    ///
    /// # Errors
    /// Where it cannot be made or read, or was written by a newer version of PlyFS.
    pub fn open(root: &Path) -> Result<Store> {
        durable::create_dir_all(root)?;
        // Mounts and lock files must mean the same place however the root was spelt.
        let root =
            std::fs::canonicalize(root).map_err(|error| Error::std_io("open", root, &error))?;
        let layout = Layout::new(root);
        for dir in layout.dirs() {
            durable::create_dir_all(&dir)?;
        }
        let store = Store { layout };
        store.check_format()?;
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    fn check_format(&self) -> Result<()> {
        let path = self.layout.format();
        let Some(bytes) = durable::read_if_present(&path)? else {
            return self.write_format();
        };
        let found = String::from_utf8_lossy(&bytes).trim().parse::<u32>().ok();
        match found {
            Some(FORMAT) => Ok(()),
            Some(FORMAT_WITHOUT_NAMES) => self.add_names(),
            Some(newer) if newer > FORMAT => Err(Error::invalid(
                path.display().to_string(),
                format!("format {newer}, this version of plyfs knows {FORMAT}; use a newer one"),
            )),
            Some(older @ 1..) => Err(Error::invalid(
                path.display().to_string(),
                format!("format {older}, from before layers were kept for save: load anew"),
            )),
            _ => Err(Error::invalid(path.display().to_string(), "not a store's format number")),
        }
    }

    fn write_format(&self) -> Result<()> {
        let exclusive = self.lock_exclusive()?;
        if self.layout.format().exists() {
            return Ok(());
        }
        self.replace_format(&exclusive)
    }

    fn add_names(&self) -> Result<()> {
        let exclusive = self.lock_exclusive()?;
        // One whose record is damaged is found by its id, and by `check`.
        let sound = self.containers_with_problems(&mut Vec::new())?;
        self.link_names(&sound, &exclusive)?;
        self.replace_format(&exclusive)
    }

    fn replace_format(&self, _: &lock::Exclusive) -> Result<()> {
        let path = self.layout.format();
        let via = self.layout.staging().join(format!("format-{}", std::process::id()));
        durable::replace(&path, &via, format!("{FORMAT}\n").as_bytes())
    }

    /// The directories of a container's layers, topmost first.
    fn lowers(&self, container: &Container) -> Vec<PathBuf> {
        self.layer_trees(&container.layers)
    }

    /// The directories of layers that are given lowest first, topmost first.
    fn layer_trees(&self, chain: &[crate::image::ChainId]) -> Vec<PathBuf> {
        if chain.is_empty() {
            return vec![self.layout.empty()];
        }
        chain.iter().rev().map(|chain| self.layout.layer_tree(chain)).collect()
    }
}
