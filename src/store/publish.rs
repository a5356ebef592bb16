//! Making new images visible: the last part of every verb that brings some.

use crate::error::Result;

use super::images::NewImage;
use super::layers::StagedLayers;
use super::transaction::Transaction;
use super::{Store, durable};

impl Store {
    /// Makes images visible, all of them at once; returns `false`, and changes nothing, where a
    /// layer is missing, because another command removed it meanwhile.
    pub(super) fn publish(
        &self,
        images: &[NewImage],
        staged: &StagedLayers,
        transaction: &Transaction,
    ) -> Result<bool> {
        // Before the lock is taken, because it takes long: what becomes visible must be on disk
        // in full.
        durable::sync_filesystem(self.layout.root())?;
        let exclusive = self.lock_exclusive()?;
        if !images.iter().all(|image| self.layers_at_hand(&image.layers, staged, &exclusive)) {
            return Ok(false);
        }
        transaction.may_leave_orphans();
        self.publish_blobs(staged, &exclusive)?;
        self.publish_layers(staged, &exclusive)?;
        let before = self.catalog()?;
        let mut catalog = before.clone();
        for image in images {
            self.publish_image(image, transaction, &exclusive)?;
            catalog.add(image.id);
            if let Some(manifest) = &image.manifest {
                let digest = self.publish_manifest(manifest, transaction, &exclusive)?;
                catalog.add_manifest(image.id, digest);
            }
            for pinned in &image.digests {
                catalog.add_digest(image.id, pinned.clone());
            }
            for reference in &image.references {
                catalog.name(image.id, reference.clone());
            }
        }
        durable::sync_dir(&self.layout.images())?;
        durable::sync_dir(&self.layout.blobs())?;
        if catalog != before {
            self.commit_catalog(&catalog, transaction, &exclusive)?;
        }
        Ok(true)
    }
}
