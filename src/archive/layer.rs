//! One layer on its way into a directory: digests checked, the archive kept as it came.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::blob::Blob;
use super::compress::{self, Compression};
use super::files::Section;
use super::pipe;
use super::tar_read::{self, Unpacked};
use super::verify::{self, Verified};
use super::watch::{Stage, Telling, Watch, Watched};
use crate::error::{Error, Result};
use crate::image::{DiffId, Digest};
use crate::sys::file;

/// Where a layer comes from.
pub trait LayerSource: Sync {
    /// The digest that its uncompressed tar must have.
    fn diff_id(&self) -> DiffId;

    /// Unpacks the layer into the empty directory `into`, and leaves it as it came as the new
    /// file `keep`, for [`KeptLayer`](super::blob::KeptLayer); compressed in a way that OCI
    /// images do not know, it is kept uncompressed. Every digest is checked on the way.
    ///
    /// # Errors
    /// Where a digest or size does not match, the tar is malformed or something cannot be
    /// written; `into` and `keep` then hold a part and must be thrown away.
    fn unpack(&self, into: &Path, keep: &Path, watch: &dyn Watch) -> Result<(Unpacked, Blob)>;
}

/// A layer of an archive.
#[derive(Debug)]
pub struct ArchivedLayer {
    diff_id: DiffId,
    what: String,
    section: Section,
    /// The digest and size that its bytes in the archive must have, where the archive says so.
    blob: Option<(Digest, u64)>,
}

impl LayerSource for ArchivedLayer {
    fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    fn unpack(&self, into: &Path, keep: &Path, watch: &dyn Watch) -> Result<(Unpacked, Blob)> {
        let keep = file::create_new(keep).map_err(|errno| Error::io("create", keep, errno))?;
        self.telling(watch, |section| self.unpack_as_it_came(section, into, keep))
    }
}

impl ArchivedLayer {
    pub(super) fn new(
        diff_id: DiffId,
        what: String,
        section: Section,
        blob: Option<(Digest, u64)>,
    ) -> ArchivedLayer {
        ArchivedLayer { diff_id, what, section, blob }
    }

    /// The layer whose archive is all that is in `file`, of which digest and size were checked.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn of_blob(file: File, what: String, diff_id: DiffId) -> Result<ArchivedLayer> {
        let section = Section::whole(file)
            .map_err(|errno| Error::io("read", std::path::PathBuf::from(&what), errno))?;
        Ok(ArchivedLayer { diff_id, what, section, blob: None })
    }

    /// How its bytes are compressed.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn compression(&self) -> Result<Compression> {
        let mut head = Vec::new();
        let mut start = self.section.clone().take(compress::MAGIC_MAX as u64);
        let read = start.read_to_end(&mut head);
        read.map_err(|error| verify::read_error(&self.what, &error))?;
        Ok(compress::detect(&head))
    }

    /// Unpacks it, and keeps nothing. Returns the digest and size of the uncompressed tar.
    ///
    /// # Errors
    /// As [`LayerSource::unpack`].
    pub fn unpack_only(&self, into: &Path, watch: &dyn Watch) -> Result<(Unpacked, (Digest, u64))> {
        self.telling(watch, |section| self.unpack_plain(section, into, None))
    }

    fn telling<'a, T>(
        &self,
        watch: &'a dyn Watch,
        work: impl FnOnce(Watched<'a, Section>) -> T,
    ) -> T {
        let telling = Telling { watch, stage: Stage::Unpack };
        telling.while_reading(self.diff_id.0, self.section.len(), self.section.clone(), work)
    }

    fn unpack_as_it_came(
        &self,
        bytes: impl Read + Send,
        into: &Path,
        keep: File,
    ) -> Result<(Unpacked, Blob)> {
        let compression = self.compression()?;
        if compression == Compression::Plain {
            return self.unpack_uncompressed(bytes, into, keep);
        }
        let blob = Verified::new(bytes, self.what.clone(), self.blob);
        let (mut blob, keep) = match compression.is_kept() {
            true => (blob.copying(keep), None),
            false => (blob, Some(keep)),
        };
        let outcome = self.unpack_plain(&mut blob, into, keep);
        // A wrong blob explains whatever else went wrong with it.
        blob.finish()?;
        let (unpacked, plain) = outcome?;
        let (compression, (digest, size)) = match compression.is_kept() {
            true => (compression, blob.found().ok_or_else(|| self.unfinished())?),
            false => (Compression::Plain, plain),
        };
        Ok((unpacked, Blob { digest, size, compression, plain_size: plain.1 }))
    }

    /// What is not compressed is hashed once: the one digest must be both that it has.
    fn unpack_uncompressed(
        &self,
        bytes: impl Read + Send,
        into: &Path,
        keep: File,
    ) -> Result<(Unpacked, Blob)> {
        if let Some((digest, size)) = self.blob {
            let mismatch = |expected: String, found: String| {
                Err(Error::Mismatch { what: self.what.clone(), expected, found })
            };
            if digest != self.diff_id.0 {
                return mismatch(self.diff_id.to_string(), digest.to_string());
            }
            if size != self.section.len() {
                return mismatch(format!("{size} bytes"), self.section.len().to_string());
            }
        }
        let (unpacked, (digest, size)) = self.unpack_plain(bytes, into, Some(keep))?;
        let compression = Compression::Plain;
        Ok((unpacked, Blob { digest, size, compression, plain_size: size }))
    }

    fn unpack_plain(
        &self,
        blob: impl Read + Send,
        into: &Path,
        keep: Option<File>,
    ) -> Result<(Unpacked, (Digest, u64))> {
        let plain = compress::decompressed(blob, &self.what)?;
        let what = format!("{}, uncompressed", self.what);
        pipe::read_ahead(plain, |plain| {
            let mut tar = Verified::diff(plain, what, self.diff_id);
            if let Some(keep) = keep {
                tar = tar.copying(keep);
            }
            let outcome = tar_read::unpack_layer(&mut tar, into, &self.what);
            match (outcome, tar.take_failure()) {
                (_, Some(failure)) => Err(failure),
                (Err(error), None) => Err(error),
                (Ok(unpacked), None) => {
                    tar.finish()?;
                    Ok((unpacked, tar.found().ok_or_else(|| self.unfinished())?))
                }
            }
        })
    }

    fn unfinished(&self) -> Error {
        Error::invalid(&self.what, "it was not read to its end")
    }
}
