//! `save`: images of the store as an archive.

use std::io::Write;
use std::path::Path;

use crate::archive::save::{self, SavedImage};
use crate::archive::watch::Watch;
use crate::error::Result;
use crate::image::ImageId;

use super::Store;
use super::catalog::Catalog;

/// The form of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// What `docker save` writes.
    Docker,
    /// A tar of an OCI image layout.
    Oci,
}

impl Store {
    /// Writes the images that `names` name to `out` as one archive; `watch` is told
    /// of each layer. A name is saved with its
    /// image; an image that is asked for by its id has none.
    ///
    /// # Errors
    /// Where there is no such image, a layer is not what it was, or `out` cannot be written.
    pub fn save(
        &self,
        names: &[String],
        form: ArchiveForm,
        out: &mut dyn Write,
        watch: &dyn Watch,
    ) -> Result<()> {
        let images = self.images_to_save(names)?;
        match form {
            ArchiveForm::Docker => save::docker_archive(&images, out, watch),
            ArchiveForm::Oci => save::oci_archive(&images, out, watch),
        }
    }

    /// Writes the images that `names` name into the empty directory `dir` as OCI layout.
    ///
    /// # Errors
    /// As [`Store::save`]; `dir` then holds a part.
    pub fn save_directory(&self, names: &[String], dir: &Path, watch: &dyn Watch) -> Result<()> {
        save::oci_directory(&self.images_to_save(names)?, dir, watch)
    }

    fn images_to_save(&self, names: &[String]) -> Result<Vec<SavedImage>> {
        let _shared = self.lock_shared()?;
        let catalog = self.catalog()?;
        let mut images: Vec<(_, SavedImage)> = Vec::new();
        for name in names {
            let (id, reference) = catalog.find(name)?;
            match images.iter_mut().find(|(known, _)| *known == id) {
                Some((_, image)) => image.references.extend(reference),
                None => {
                    let mut image = self.image_to_save(&catalog, &id)?;
                    image.references = reference.into_iter().collect();
                    images.push((id, image));
                }
            }
        }
        for (_, image) in &mut images {
            image.references.sort();
            image.references.dedup();
        }
        Ok(images.into_iter().map(|(_, image)| image).collect())
    }

    /// The image with all its names.
    pub(super) fn image_to_save(&self, catalog: &Catalog, id: &ImageId) -> Result<SavedImage> {
        let (bytes, config) = self.image_config_bytes(id)?;
        let chain = config.chain();
        let layers =
            chain.iter().map(|chain| self.kept_layer(chain)).collect::<Result<Vec<_>>>()?;
        let manifest = self.kept_manifest(catalog, id, &layers)?;
        Ok(SavedImage { config: bytes, manifest, references: catalog.references(id), layers })
    }
}
