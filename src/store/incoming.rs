//! Images on their way into the store, from wherever.

use crate::archive::watch::Watch;
use crate::archive::{ArchivedImage, LayerSource};
use crate::error::Result;
use crate::image::{ImageConfig, ImageId, Reference, RepoDigest};

use super::Store;
use super::images::NewImage;
use super::layers::StagedLayers;
use super::transaction::Transaction;
use super::unpack::How;

/// An image that is to come into the store.
#[allow(missing_debug_implementations, reason = "a layer may be anything")]
pub struct IncomingImage<'a> {
    /// The digest of its config.
    pub id: ImageId,
    /// The config.
    pub config: ImageConfig,
    /// The very bytes of the config.
    pub config_bytes: Vec<u8>,
    /// The very bytes of the manifest that it came with.
    pub manifest: Option<Vec<u8>>,
    /// The names that it gets.
    pub references: Vec<Reference>,
    /// Under which manifests a registry has it.
    pub digests: Vec<RepoDigest>,
    /// Its layers, lowest first; as many as the config names, with these digests.
    pub layers: Vec<&'a dyn LayerSource>,
}

impl<'a> IncomingImage<'a> {
    pub(super) fn of_archive(image: &'a ArchivedImage) -> IncomingImage<'a> {
        IncomingImage {
            id: image.id,
            config: image.config.clone(),
            config_bytes: image.config_bytes.clone(),
            manifest: image.manifest.clone(),
            references: image.references.clone(),
            digests: Vec::new(),
            layers: image.layers.iter().map(|layer| layer as &dyn LayerSource).collect(),
        }
    }

    fn new_image(&self) -> NewImage {
        NewImage {
            id: self.id,
            config: self.config_bytes.clone(),
            layers: self.config.chain(),
            references: self.references.clone(),
            digests: self.digests.clone(),
            manifest: self.manifest.clone(),
        }
    }
}

impl Store {
    /// Brings images into the store, all of them or none; `threads` layers are worked on at
    /// once, and those that are there already not at all. A name that another image had moves to
    /// the new one.
    ///
    /// # Errors
    /// Where a layer cannot be had or is not what it should be; the store is then as it was.
    pub fn receive(
        &self,
        images: &[IncomingImage<'_>],
        threads: usize,
        watch: &dyn Watch,
    ) -> Result<()> {
        self.bring(images, How { threads, watch }, self.begin()?)
    }

    pub(super) fn bring(
        &self,
        images: &[IncomingImage<'_>],
        how: How<'_>,
        transaction: Transaction,
    ) -> Result<()> {
        let new: Vec<_> = images.iter().map(IncomingImage::new_image).collect();
        let mut staged = StagedLayers::default();
        loop {
            self.unpack(images, how, &transaction, &mut staged)?;
            if self.publish(&new, &staged, &transaction)? {
                break;
            }
            // An image was removed while we relied on its layers: unpack those after all.
        }
        transaction.end()
    }
}
