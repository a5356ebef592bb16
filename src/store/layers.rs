//! Layers: the tree of each, once, under the chain id that names it together with all below it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::archive::blob::Blob;
use crate::error::{Errno, Error, FsResult, Result};
use crate::image::{ChainId, DiffId};
use crate::layer::{LayerMarks, xattrs};
use crate::sys::xattr::{self, Target, XattrFlags};
use crate::sys::{OwnedFd, Timespec, Timestamps, dir, file, node, stat};

use super::catalog::Catalog;
use super::lock::Exclusive;
use super::{Store, durable};

/// What a layer is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    /// The digest of its uncompressed tar.
    pub(super) diff_id: DiffId,
    /// Its own name.
    pub(super) chain_id: ChainId,
    /// The layer that it lies on.
    pub(super) parent: Option<ChainId>,
    /// Bytes of the files in it.
    pub(super) size: u64,
    /// What it was unpacked from.
    pub(super) blob: Blob,
    /// What its marks ask of readers, where that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) marks: Option<LayerMarks>,
}

/// A layer that a transaction has unpacked.
#[derive(Debug)]
pub(super) struct StagedLayer {
    /// The directory that is to become that of the layer.
    pub(super) dir: PathBuf,
    /// The file that is to become its blob.
    pub(super) blob: PathBuf,
    pub(super) record: LayerRecord,
}

/// Layers that a transaction has unpacked.
#[derive(Debug, Default)]
pub(super) struct StagedLayers(BTreeMap<ChainId, StagedLayer>);

impl StagedLayers {
    pub(super) fn has(&self, chain: &ChainId) -> bool {
        self.0.contains_key(chain)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &StagedLayer> {
        self.0.values()
    }

    /// Adds a layer that is unpacked in full, and writes its record.
    pub(super) fn add(&mut self, layer: StagedLayer) -> Result<()> {
        let record = durable::record_bytes(&layer.record)?;
        durable::write_new(&layer.dir.join("layer.json"), &record)?;
        self.0.insert(layer.record.chain_id, layer);
        Ok(())
    }
}

impl Store {
    /// Whether the layer is in the store, with its archive: where only that is lost, a load
    /// brings it back.
    pub(super) fn has_layer(&self, chain: &ChainId) -> bool {
        let record = self.layer(chain);
        record.is_ok_and(|record| self.layout.blob(&record.blob.digest).exists())
    }

    /// The record of a layer.
    pub(super) fn layer(&self, chain: &ChainId) -> Result<LayerRecord> {
        let record = durable::read_record(&self.layout.layer_record(chain))?;
        record.ok_or_else(|| Error::NotFound { kind: "layer", name: chain.to_string() })
    }

    /// The tree of a layer, wherever it is by now.
    pub(super) fn staged_or_stored_tree(&self, staged: &StagedLayers, chain: &ChainId) -> PathBuf {
        let staged = staged.0.get(chain).map(|layer| layer.dir.join("diff"));
        staged.unwrap_or_else(|| self.layout.layer_tree(chain))
    }

    /// Whether every one of `chain` is in the store or staged. Under the lock this stays so;
    /// before it, another command may still remove one.
    pub(super) fn layers_at_hand(
        &self,
        chain: &[ChainId],
        staged: &StagedLayers,
        _: &Exclusive,
    ) -> bool {
        chain.iter().all(|chain| staged.has(chain) || self.has_layer(chain))
    }

    /// Moves staged layers into the store, where nothing leads to them yet. One that another
    /// command has brought meanwhile stays in staging, to be removed.
    pub(super) fn publish_layers(&self, staged: &StagedLayers, _: &Exclusive) -> Result<()> {
        for layer in staged.iter() {
            match durable::rename_new(&layer.dir, &self.layout.layer(&layer.record.chain_id)) {
                Ok(()) | Err(Error::Io { source: Errno::EXIST, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        durable::sync_dir(&self.layout.layers())
    }

    /// The layers that images or containers use.
    pub(super) fn live_layers(&self, catalog: &Catalog) -> Result<BTreeSet<ChainId>> {
        let mut live = BTreeSet::new();
        for id in catalog.ids() {
            live.extend(self.image_config(id)?.chain());
        }
        for container in self.read_containers()? {
            live.extend(container.layers);
        }
        Ok(live)
    }
}

/// Makes the directory of a layer, and in it the one for its tree, which is returned.
pub(super) fn make_layer_dir(dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("diff");
    durable::create_dir(dir, 0o700)?;
    durable::create_dir(&tree, 0o755)?;
    Ok(tree)
}

/// Gives the directory `to` the owner, mode, xattrs and times of `from`, overlay's own ones excepted.
pub(super) fn copy_root(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> FsResult<()> {
        let open = |path| dir::open_dir(file::open_root(path)?, OsStr::new("."));
        let (from, to) = (open(from)?, open(to)?);
        let stat = stat::stat_fd(&from)?;
        let now = stat::stat_fd(&to)?;
        if (stat.uid, stat.gid) != (now.uid, now.gid) {
            node::set_owner(&to, OsStr::new(""), Some(stat.uid), Some(stat.gid))?;
        }
        node::set_mode(&to, stat.mode)?;
        copy_xattrs(&from, &to)?;
        let time = |t: stat::Time| Timespec { tv_sec: t.sec, tv_nsec: t.nsec.into() };
        let (last_access, last_modification) = (time(stat.atime), time(stat.mtime));
        node::set_times(&to, OsStr::new(""), &Timestamps { last_access, last_modification })
    };
    copy().map_err(|errno| Error::io("copy the root's attributes to", to, errno))
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> FsResult<()> {
    for name in xattr::list(Target::fd(from))? {
        if xattrs::is_private(&name) {
            continue;
        }
        if let Some(value) = xattr::get(Target::fd(from), &name)? {
            xattr::set(Target::fd(to), &name, &value, XattrFlags::empty())?;
        }
    }
    Ok(())
}
