//! `prune`: what nobody uses.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::image::{ChainId, Digest, ImageId};

use super::Store;
use super::containers::State;
use super::remove_image::Removed;

/// What a `prune` took away.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Names of containers.
    pub containers: Vec<String>,
    /// Images, with their names.
    pub images: Vec<Removed>,
    /// Bytes that are free now.
    pub space: u64,
}

impl Store {
    /// Removes every container that is not mounted.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub fn prune_containers(&self) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for container in self.containers()? {
            if self.state(&container)? != State::Unmounted {
                continue;
            }
            let size = self.writable_size(&container)?;
            match self.remove_container(&container.id.hex(), false) {
                Ok(_) => {
                    pruned.space += size;
                    pruned.containers.push(container.name);
                }
                // Somebody began to use or removed it.
                Err(Error::InUse { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    /// Removes every image that has no name and no container; with `all` also those that have
    /// names.
    ///
    /// # Errors
    /// Where a record is damaged or the store cannot be written.
    pub fn prune_images(&self, all: bool) -> Result<Pruned> {
        let transaction = self.begin()?;
        let exclusive = self.lock_exclusive()?;
        let before = self.catalog()?;
        let used: BTreeSet<ImageId> =
            self.read_containers()?.into_iter().map(|container| container.image).collect();
        let mut catalog = before.clone();
        let mut pruned = Pruned::default();
        for id in before.ids().filter(|id| !used.contains(id)) {
            let untagged = before.references(id);
            if untagged.is_empty() || all {
                catalog.remove(id);
                pruned.images.push(Removed { untagged, image: Some(*id), layers: Vec::new() });
            }
        }
        if catalog != before {
            let (old, new) = (self.live_layers(&before)?, self.live_layers(&catalog)?);
            pruned.space = self.freed(&old, &new)?;
            transaction.may_leave_orphans();
            self.commit_catalog(&catalog, &transaction, &exclusive)?;
            self.bury_orphans(&transaction, &exclusive)?;
        }
        drop(exclusive);
        transaction.end()?;
        Ok(pruned)
    }

    /// Bytes of the layers and archives that are among `old` and not among `new`.
    fn freed(&self, old: &BTreeSet<ChainId>, new: &BTreeSet<ChainId>) -> Result<u64> {
        let mut space = 0;
        let mut kept = BTreeSet::<Digest>::new();
        for chain in new {
            kept.insert(self.layer(chain)?.blob.digest);
        }
        for chain in old.difference(new) {
            let record = self.layer(chain)?;
            space += record.size;
            if kept.insert(record.blob.digest) {
                space += record.blob.size;
            }
        }
        Ok(space)
    }
}
