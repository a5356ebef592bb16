//! Bytes to changesets and images, and back. The only user of tar and of the codecs.
//!
//! An archive of images is opened with [`Archive::open`], lists its [images](Archive::images)
//! and unpacks their [layers](LayerSource). Everything in it is hostile until proven:
//! names are only ever looked up, never opened as paths; sizes and counts are bounded; and every
//! digest is checked while its bytes stream by, so that a layer counts as unpacked only when it
//! was what its image promised.

mod attributes;
pub mod blob;
pub mod compress;
mod contained;
mod docker;
mod entry_path;
mod files;
pub(crate) mod holes;
pub mod layer;
mod marks;
mod oci;
pub mod oci_whiteout;
mod pax;
mod pipe;
mod plain_dir;
pub mod recompress;
pub mod save;
mod sparse;
mod tar_header;
mod tar_index;
pub mod tar_read;
mod tar_sink;
mod tar_stream;
pub mod tar_write;
pub mod verify;
pub mod watch;

use std::cell::Cell;
use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::image::{Digest, ImageConfig, ImageId, Reference, manifest};
use files::{Files, Section};
pub use layer::{ArchivedLayer, LayerSource};
pub use tar_sink::source_date_epoch;

/// The most bytes of manifests, indexes and configs that one archive may make us read.
const METADATA_MAX: u64 = 64 << 20;

/// An archive of images: docker-archive, OCI archive, OCI layout directory, or a plain directory
/// with one image.
#[derive(Debug)]
pub struct Archive {
    files: Files,
    what: String,
    metadata_left: Cell<u64>,
}

/// An image of an archive. Its config has been checked against its digest, its layers not yet.
#[derive(Debug)]
pub struct ArchivedImage {
    /// The digest of the config.
    pub id: ImageId,
    /// The config.
    pub config: ImageConfig,
    /// The very bytes of the config.
    pub config_bytes: Vec<u8>,
    /// The very bytes of its manifest, where the archive has one.
    pub manifest: Option<Vec<u8>>,
    /// The names that the archive gives it.
    pub references: Vec<Reference>,
    /// The layers, lowest first; as many as the config names.
    pub layers: Vec<ArchivedLayer>,
}

impl Archive {
    /// Opens the archive in `file`, which must be seekable and not compressed as a whole; `what`
    /// names it in errors.
    ///
    /// # Errors
    /// Where it is not a tar or cannot be read.
    pub fn open(file: File, what: impl Into<String>) -> Result<Archive> {
        let what = what.into();
        let files = Files::tar(file, &what)?;
        Ok(Archive { files, what, metadata_left: Cell::new(METADATA_MAX) })
    }

    /// Opens the OCI layout, or the plain image, in the directory at `path`.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open_directory(path: &Path) -> Result<Archive> {
        let files = Files::directory(path)?;
        let what = path.display().to_string();
        Ok(Archive { files, what, metadata_left: Cell::new(METADATA_MAX) })
    }

    /// The images in it, in its order. An archive with a `manifest.json` is read as
    /// docker-archive, as docker itself does, also where it is an OCI layout besides.
    ///
    /// # Errors
    /// Where it is neither, or any part of it is not what it should be.
    pub fn images(&self) -> Result<Vec<ArchivedImage>> {
        if self.files.has(docker::MANIFEST)? {
            let bytes = self.metadata(docker::MANIFEST)?;
            return if plain_dir::is_manifest(&bytes) {
                plain_dir::images(self, bytes)
            } else {
                docker::images(self, &bytes)
            };
        }
        if self.files.has(oci::INDEX)? {
            return oci::images(self);
        }
        if self.files.has(docker::REPOSITORIES)? {
            let why = "written by docker before 1.10, without manifest.json; save it again";
            return Err(Error::invalid(&self.what, why));
        }
        let why = "neither a docker-archive (no manifest.json) nor an OCI archive (no index.json)";
        Err(Error::invalid(&self.what, why))
    }

    /// The content of a small file of the archive.
    fn metadata(&self, name: &str) -> Result<Vec<u8>> {
        let section = self.section(name)?;
        let invalid = |why: String| Err(Error::invalid(self.describe(name), why));
        if section.len() > manifest::MAX_BYTES {
            return invalid(format!("larger than {} bytes", manifest::MAX_BYTES));
        }
        let Some(left) = self.metadata_left.get().checked_sub(section.len()) else {
            return invalid(format!("more than {METADATA_MAX} bytes of manifests and configs"));
        };
        self.metadata_left.set(left);
        section.read_whole().map_err(|errno| Error::io("read", self.describe(name), errno))
    }

    fn section(&self, name: &str) -> Result<Section> {
        match self.files.find(name)? {
            Some(section) => Ok(section),
            None => Err(Error::invalid(&self.what, format!("{name:?} is missing"))),
        }
    }

    fn describe(&self, name: &str) -> String {
        format!("{}: {name}", self.what)
    }

    /// An image from its parts, whose numbers of layers must agree.
    fn assemble(
        &self,
        config_name: &str,
        config_bytes: Vec<u8>,
        layers: Vec<(String, Option<(Digest, u64)>)>,
        references: Vec<Reference>,
    ) -> Result<ArchivedImage> {
        let (id, config) = ImageConfig::parse(&config_bytes)
            .map_err(|e| Error::invalid(self.describe(config_name), e.to_string()))?;
        let (promised, found) = (config.diff_ids().len(), layers.len());
        if promised != found {
            let why = format!("its config names {promised} layers, its manifest {found}");
            return Err(Error::invalid(self.describe(config_name), why));
        }
        let layers = layers.into_iter().zip(config.diff_ids()).map(|((name, blob), diff_id)| {
            let (section, what) = (self.section(&name)?, self.describe(&name));
            Ok(ArchivedLayer::new(*diff_id, what, section, blob))
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok(ArchivedImage { id, config, config_bytes, manifest: None, references, layers })
    }
}
