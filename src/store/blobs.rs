//! Blobs: the archives of layers as they came, by their digests.
//!
//! A layer's directory is what is mounted; its blob is what it was unpacked from. It is kept so
//! that what is saved or pushed has the very digests of what was loaded or pulled.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::archive::blob::KeptLayer;
use crate::error::{Errno, Error, Result};
use crate::image::{ChainId, Digest};
use crate::sys::file;

use super::catalog::Catalog;
use super::layers::StagedLayers;
use super::lock::Exclusive;
use super::{Store, durable};

/// Makes the empty file in which a transaction gathers a blob.
pub(super) fn create(path: &Path) -> Result<File> {
    file::create_new(path).map_err(|errno| Error::io("create", path, errno))
}

impl Store {
    /// The layer as it came.
    pub(super) fn kept_layer(&self, chain: &ChainId) -> Result<KeptLayer> {
        let record = self.layer(chain)?;
        let file = self.layout.blob(&record.blob.digest);
        Ok(KeptLayer { diff_id: record.diff_id, blob: record.blob, file })
    }

    /// Moves the blobs of staged layers into the store. One that is there already is the same.
    /// The directory is still to be synced.
    pub(super) fn publish_blobs(&self, staged: &StagedLayers, _: &Exclusive) -> Result<()> {
        for layer in staged.iter() {
            let target = self.layout.blob(&layer.record.blob.digest);
            match durable::rename_new(&layer.blob, &target) {
                Ok(()) | Err(Error::Io { source: Errno::EXIST, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Where the blobs of these layers are, and the manifests of all images.
    pub(super) fn live_blobs(
        &self,
        catalog: &Catalog,
        layers: &BTreeSet<ChainId>,
    ) -> Result<Vec<PathBuf>> {
        let digest = |chain: &ChainId| -> Result<Digest> { Ok(self.layer(chain)?.blob.digest) };
        let layers = layers.iter().map(digest);
        let all = layers.chain(catalog.all_manifests().map(|digest| Ok(*digest)));
        all.map(|digest| Ok(self.layout.blob(&digest?))).collect()
    }
}
