//! Images: their configs, and what is told of them.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::image::{ChainId, ImageConfig, ImageId, Reference, RepoDigest};

use super::catalog::Catalog;
use super::lock::Exclusive;
use super::transaction::Transaction;
use super::{Store, durable};

/// An image that is to come into the store.
#[derive(Debug)]
pub(super) struct NewImage {
    pub(super) id: ImageId,
    /// The very bytes of its config.
    pub(super) config: Vec<u8>,
    /// Its layers, lowest first.
    pub(super) layers: Vec<ChainId>,
    /// The names that it gets.
    pub(super) references: Vec<Reference>,
    /// Under which manifests a registry has it.
    pub(super) digests: Vec<RepoDigest>,
    /// The very bytes of the manifest that it came with.
    pub(super) manifest: Option<Vec<u8>>,
}

/// An image of the store.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// The digest of its config.
    pub id: ImageId,
    /// Its names, sorted.
    pub references: Vec<Reference>,
    /// Under which manifests registries have it, sorted.
    pub digests: Vec<RepoDigest>,
    /// When it was made, as its config says, RFC 3339.
    pub created: Option<String>,
    /// Bytes of the files in all its layers.
    pub size: u64,
    /// Its layers, lowest first.
    pub layers: Vec<ChainId>,
}

impl Store {
    /// All images: those made last first, as docker lists them.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn images(&self) -> Result<Vec<Image>> {
        let _shared = self.lock_shared()?;
        let catalog = self.catalog()?;
        let mut images =
            catalog.ids().map(|id| self.image(&catalog, id)).collect::<Result<Vec<_>>>()?;
        images.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(images)
    }

    pub(super) fn image(&self, catalog: &Catalog, id: &ImageId) -> Result<Image> {
        let config = self.image_config(id)?;
        let layers = config.chain();
        let mut size = 0;
        for chain in &layers {
            size += self.layer(chain)?.size;
        }
        let (references, digests) = (catalog.references(id), catalog.digests(id));
        Ok(Image { id: *id, references, digests, created: config.created, size, layers })
    }

    /// The config of an image, which must still be what its id says.
    pub(super) fn image_config(&self, id: &ImageId) -> Result<ImageConfig> {
        Ok(self.image_config_bytes(id)?.1)
    }

    /// As [`Store::image_config`], with its very bytes.
    pub(super) fn image_config_bytes(&self, id: &ImageId) -> Result<(Vec<u8>, ImageConfig)> {
        let path = self.layout.image_config(id);
        let Some(bytes) = durable::read_if_present(&path)? else {
            let why = "it is missing: see what plyfs check --repair does";
            return Err(Error::invalid(path.display().to_string(), why));
        };
        let what = || path.display().to_string();
        let (found, config) =
            ImageConfig::parse(&bytes).map_err(|e| Error::invalid(what(), e.to_string()))?;
        if found != *id {
            let (expected, found) = (id.to_string(), found.to_string());
            return Err(Error::Mismatch { what: what(), expected, found });
        }
        Ok((bytes, config))
    }

    /// Moves the image into the store, where nothing leads to it yet.
    pub(super) fn publish_image(
        &self,
        image: &NewImage,
        transaction: &Transaction,
        _: &Exclusive,
    ) -> Result<()> {
        let target: PathBuf = self.layout.image(&image.id);
        if target.exists() {
            return Ok(());
        }
        let staged = transaction.path(format!("image-{}", image.id.0.hex()));
        durable::create_dir(&staged, 0o700)?;
        durable::write_new(&staged.join("config.json"), &image.config)?;
        durable::sync_dir(&staged)?;
        durable::rename_new(&staged, &target)
    }
}
