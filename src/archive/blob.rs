//! Layers as they are kept: the very bytes that came, so that what is saved is what was loaded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compress::{self, Compression};
use super::verify::Verified;
use super::watch::Telling;
use crate::error::{Error, Result};
use crate::image::{DiffId, Digest};

/// A layer's archive in the form that it is kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// The digest of the bytes that are kept.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// How they are compressed; only in a way for which the OCI image-spec has a media type.
    pub compression: Compression,
    /// How many bytes they are uncompressed.
    pub plain_size: u64,
}

/// A layer that is at hand as a file.
#[derive(Debug, Clone)]
pub struct KeptLayer {
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// What the file has to be.
    pub blob: Blob,
    /// The file.
    pub file: std::path::PathBuf,
}

impl KeptLayer {
    /// Has `consume` read the bytes as they are kept. Their digest is checked before this
    /// returns: what has rotted on disk does not go anywhere unnoticed.
    ///
    /// # Errors
    /// Where the file cannot be read or is not what it was, and those of `consume`.
    pub fn read<T>(
        &self,
        telling: Telling<'_>,
        consume: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let promise = (self.blob.digest, self.blob.size);
        telling.while_reading(self.diff_id.0, self.blob.size, self.open()?, |bytes| {
            let mut blob = Verified::new(bytes, self.name(), Some(promise));
            let outcome = consume(&mut blob);
            blob.finish()?;
            outcome
        })
    }

    /// As [`KeptLayer::read`], uncompressed.
    ///
    /// # Errors
    /// As [`KeptLayer::read`].
    pub fn read_plain<T>(
        &self,
        telling: Telling<'_>,
        consume: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        telling.while_reading(self.diff_id.0, self.blob.size, self.open()?, |bytes| {
            let plain = compress::decompressed(bytes, &self.name())?;
            let mut plain = Verified::diff(plain, self.name(), self.diff_id);
            let outcome = consume(&mut plain);
            plain.finish()?;
            outcome
        })
    }

    fn open(&self) -> Result<File> {
        File::open(&self.file).map_err(|error| Error::std_io("open", &self.file, &error))
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}

/// Takes in the layer archive in `file`, which this process wrote itself, uncompressed.
///
/// # Errors
/// Where it cannot be read.
pub fn describe(file: &Path) -> Result<(DiffId, Blob)> {
    let failed = |error: &std::io::Error| Error::std_io("read", file, error);
    let mut source = File::open(file).map_err(|error| failed(&error))?;
    let (mut hasher, mut size) = (crate::image::digest::Hasher::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = source.read(&mut buffer).map_err(|error| failed(&error))?;
        if n == 0 {
            break;
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
        size += n as u64;
    }
    let digest = hasher.finish();
    let compression = Compression::Plain;
    Ok((DiffId(digest), Blob { digest, size, compression, plain_size: size }))
}
