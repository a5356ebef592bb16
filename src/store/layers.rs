//! Layers: the tree of each, once, under the chain id that names it together with all below it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use serde::{Deserialize, Serialize};

use crate::archive::ArchivedImage;
use crate::error::{Errno, Error, FsResult, Result};
use crate::image::{ChainId, DiffId};
use crate::layer::xattrs;
use crate::sys::xattr::{self, Target};
use crate::sys::{OwnedFd, dir, file, node, stat};

use super::catalog::Catalog;
use super::lock::Exclusive;
use super::transaction::Transaction;
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
}

/// Layers that a transaction has unpacked.
#[derive(Debug, Default)]
pub(super) struct StagedLayers(BTreeMap<ChainId, PathBuf>);

impl Store {
    /// Whether the layer is in the store.
    pub(super) fn has_layer(&self, chain: &ChainId) -> bool {
        self.layout.layer_record(chain).exists()
    }

    /// The record of a layer.
    pub(super) fn layer(&self, chain: &ChainId) -> Result<LayerRecord> {
        let record = durable::read_record(&self.layout.layer_record(chain))?;
        record.ok_or_else(|| Error::NotFound { kind: "layer", name: chain.to_string() })
    }

    /// Unpacks the layers of `image` that are neither in the store nor in `staged`.
    pub(super) fn stage_layers(
        &self,
        image: &ArchivedImage,
        transaction: &Transaction,
        staged: &mut StagedLayers,
    ) -> Result<()> {
        let mut parent = None;
        for (archived, chain_id) in image.layers.iter().zip(image.config.chain()) {
            if !staged.0.contains_key(&chain_id) && !self.has_layer(&chain_id) {
                let dir = transaction.path(format!("layer-{}", chain_id.0.hex()));
                let below = parent.map(|chain| self.staged_or_stored_tree(staged, &chain));
                let tree = make_layer_dir(&dir, below.as_deref())?;
                let size = archived.unpack(&tree)?;
                let record = LayerRecord { diff_id: archived.diff_id, chain_id, parent, size };
                durable::write_new(&dir.join("layer.json"), &durable::record_bytes(&record)?)?;
                staged.0.insert(chain_id, dir);
            }
            parent = Some(chain_id);
        }
        Ok(())
    }

    fn staged_or_stored_tree(&self, staged: &StagedLayers, chain: &ChainId) -> PathBuf {
        let staged = staged.0.get(chain).map(|dir| dir.join("diff"));
        staged.unwrap_or_else(|| self.layout.layer_tree(chain))
    }

    /// Whether every layer of `image` is in the store or staged. Under the lock this stays so;
    /// before it, another command may still remove one.
    pub(super) fn layers_at_hand(
        &self,
        image: &ArchivedImage,
        staged: &StagedLayers,
        _: &Exclusive,
    ) -> bool {
        let mut chain = image.config.chain().into_iter();
        chain.all(|chain| staged.0.contains_key(&chain) || self.has_layer(&chain))
    }

    /// Moves staged layers into the store, where nothing leads to them yet. One that another
    /// command has brought meanwhile stays in staging, to be removed.
    pub(super) fn publish_layers(&self, staged: &StagedLayers, _: &Exclusive) -> Result<()> {
        for (chain, dir) in &staged.0 {
            match durable::rename_new(dir, &self.layout.layer(chain)) {
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

/// Makes the directory of a layer. A tar that does not speak of the root leaves it as it is
/// below, so the new tree starts with the root of `below`.
fn make_layer_dir(dir: &Path, below: Option<&Path>) -> Result<PathBuf> {
    let tree = dir.join("diff");
    durable::create_dir(dir, 0o700)?;
    durable::create_dir(&tree, 0o755)?;
    if let Some(below) = below {
        copy_root(below, &tree)?;
    }
    Ok(tree)
}

/// Gives the directory `to` the owner, mode and xattrs of `from`, overlay's own ones excepted.
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
        copy_xattrs(&from, &to)
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
