//! Images on their way out of the store, to wherever.

use std::path::PathBuf;

use crate::archive::blob::KeptLayer;
use crate::error::Result;
use crate::image::{Digest, ImageId, Reference, Remote, RepoDigest};

use super::Store;
use super::transaction::Transaction;

/// An image that is to leave the store.
#[derive(Debug)]
pub struct OutgoingImage {
    /// The digest of its config.
    pub id: ImageId,
    /// The very bytes of its config.
    pub config: Vec<u8>,
    /// The very bytes of the manifest that it came with and that is true of its layers.
    pub manifest: Option<Vec<u8>>,
    /// The name by which it was asked for, where it was not by its id.
    pub reference: Option<Reference>,
    /// Under which manifests registries have it.
    pub digests: Vec<RepoDigest>,
    /// Its layers, lowest first.
    pub layers: Vec<KeptLayer>,
}

/// A directory of the store for files that are needed for a while; gone with all in it when
/// dropped, and swept where the process dies.
#[derive(Debug)]
pub struct Workspace(Transaction);

impl Workspace {
    /// A place in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

impl Store {
    /// A workspace.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub fn workspace(&self) -> Result<Workspace> {
        self.begin().map(Workspace)
    }

    /// The image that `text` names.
    ///
    /// # Errors
    /// Where there is no such image, or a record is damaged.
    pub fn outgoing(&self, text: &str) -> Result<OutgoingImage> {
        let _shared = self.lock_shared()?;
        let catalog = self.catalog()?;
        let (id, reference) = catalog.find(text)?;
        let saved = self.image_to_save(&catalog, &id)?;
        Ok(OutgoingImage {
            id,
            config: saved.config,
            manifest: saved.manifest,
            reference,
            digests: catalog.digests(&id),
            layers: saved.layers,
        })
    }

    /// Takes note that a registry has the image `id` as `pinned`. An image that was removed
    /// meanwhile is none to take note of.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub fn note_digest(&self, id: ImageId, pinned: RepoDigest) -> Result<()> {
        let transaction = self.begin()?;
        let exclusive = self.lock_exclusive()?;
        let before = self.catalog()?;
        let mut catalog = before.clone();
        if catalog.has(&id) {
            catalog.add_digest(id, pinned);
        }
        if catalog != before {
            self.commit_catalog(&catalog, &transaction, &exclusive)?;
        }
        drop(exclusive);
        transaction.end()
    }
}

impl Store {
    /// Whether the image `id` is here under the name that `remote` is, and known to be the
    /// manifest `digest` there.
    ///
    /// # Errors
    /// Where the catalog cannot be read.
    pub fn has_pulled(&self, id: &ImageId, remote: &Remote, digest: Digest) -> Result<bool> {
        let _shared = self.lock_shared()?;
        let catalog = self.catalog()?;
        let named = match remote {
            Remote::Tag(reference) => catalog.references(id).contains(reference),
            Remote::Digest(_) => true,
        };
        Ok(named && catalog.digests(id).contains(&remote.pinned(digest)))
    }
}
