//! Manifests: kept as they came, so that what is pushed or saved has the digest of what was
//! pulled or loaded.

use crate::archive::blob::KeptLayer;
use crate::archive::compress::Compression;
use crate::error::{Error, Result};
use crate::image::manifest::{Descriptor, Document, Manifest};
use crate::image::{Digest, ImageId};

use super::catalog::Catalog;
use super::lock::Exclusive;
use super::transaction::Transaction;
use super::{Store, durable};

impl Store {
    /// Moves a manifest into the store, where nothing leads to it yet.
    pub(super) fn publish_manifest(
        &self,
        bytes: &[u8],
        transaction: &Transaction,
        _: &Exclusive,
    ) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let target = self.layout.blob(&digest);
        if !target.exists() {
            let staged = transaction.path(format!("manifest-{}", digest.hex()));
            durable::write_new(&staged, bytes)?;
            durable::rename_new(&staged, &target)?;
        }
        Ok(digest)
    }

    /// The last manifest that the image came with and that is true of `layers`, the archives
    /// that are kept. A layer that had come before in another form is kept in that one; then no
    /// manifest may be left that is.
    pub(super) fn kept_manifest(
        &self,
        catalog: &Catalog,
        id: &ImageId,
        layers: &[KeptLayer],
    ) -> Result<Option<Vec<u8>>> {
        for digest in catalog.manifests(id).iter().rev() {
            let Some(bytes) = durable::read_if_present(&self.layout.blob(digest))? else {
                continue;
            };
            if Digest::of(&bytes) == *digest
                && let Ok(Document::Image(manifest)) = Document::parse(&bytes, "")
                && is_true(&manifest, id, layers)
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Whether the manifests of an image are what they were.
    pub(super) fn verify_manifests(&self, catalog: &Catalog, id: &ImageId) -> Result<()> {
        for digest in catalog.manifests(id) {
            let path = self.layout.blob(digest);
            let bytes = durable::read_if_present(&path)?;
            let found = bytes.as_deref().map(Digest::of);
            if found != Some(*digest) {
                let (what, expected) = (path.display().to_string(), digest.to_string());
                let found = found.map_or("nothing".to_owned(), |found| found.to_string());
                return Err(Error::Mismatch { what, expected, found });
            }
        }
        Ok(())
    }
}

fn is_true(manifest: &Manifest, id: &ImageId, layers: &[KeptLayer]) -> bool {
    let same = |(told, kept): (&Descriptor, &KeptLayer)| {
        (told.digest, told.size) == (kept.blob.digest, kept.blob.size) && says_so(told, kept)
    };
    manifest.config.digest == id.0
        && manifest.layers.len() == layers.len()
        && manifest.layers.iter().zip(layers).all(same)
}

/// Whether the type of a layer names its compression, by which others than us go.
fn says_so(told: &Descriptor, kept: &KeptLayer) -> bool {
    let ending = match kept.blob.compression {
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        Compression::Plain | Compression::Bzip2 | Compression::Xz => "tar",
    };
    told.media_type.ends_with(ending)
}
