//! `load`: from an archive of images to images of the store.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use crate::archive::compress::{self, Compression};
use crate::archive::holes;
use crate::archive::watch::{Unwatched, Watch};
use crate::archive::{Archive, ArchivedImage};
use crate::error::{Error, Result};
use crate::image::{ImageId, Reference};
use crate::sys::file;

use super::Store;
use super::incoming::IncomingImage;
use super::transaction::Transaction;
use super::unpack::How;

/// Where an archive comes from.
#[derive(Debug)]
pub enum Source<'a> {
    /// A file, or a directory that holds an OCI layout.
    Path(&'a Path),
    /// A stream that can be read once, such as standard input, which this is open as.
    Stream(File),
}

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names that the archive gave it.
    pub references: Vec<Reference>,
}

impl Store {
    /// Brings the images of an archive into the store, all of them or none. What is there
    /// already is not unpacked again; a name that another image had moves to the new one.
    ///
    /// # Errors
    /// Where the archive is not what it claims to be, in any digest too, or cannot be written;
    /// the store is then as it was.
    pub fn load(&self, source: Source<'_>) -> Result<Vec<Loaded>> {
        self.load_watched(source, &Unwatched)
    }

    /// As [`Store::load`]; `watch` is told of each layer.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_watched(&self, source: Source<'_>, watch: &dyn Watch) -> Result<Vec<Loaded>> {
        let transaction = self.begin()?;
        let archive = open(source, &transaction)?;
        let images = archive.images()?;
        let incoming: Vec<_> = images.iter().map(IncomingImage::of_archive).collect();
        self.bring(&incoming, How::busy(watch), transaction)?;
        let loaded = |image: ArchivedImage| Loaded { id: image.id, references: image.references };
        Ok(images.into_iter().map(loaded).collect())
    }
}

impl Source<'_> {
    /// The file, and what to call it.
    pub(super) fn open(self) -> Result<(File, String)> {
        match self {
            Source::Path(path) => {
                let file = File::open(path).map_err(|error| Error::std_io("open", path, &error))?;
                Ok((file, path.display().to_string()))
            }
            Source::Stream(file) => Ok((file, "standard input".to_owned())),
        }
    }
}

fn open(source: Source<'_>, transaction: &Transaction) -> Result<Archive> {
    if let Source::Path(path) = source
        && path.is_dir()
    {
        return Archive::open_directory(path);
    }
    let (file, what) = source.open()?;
    let file = seekable_and_plain(file, &what, transaction)?;
    Archive::open(file, what)
}

/// The file itself, where it can be read at any place and is not compressed as a whole; else
/// one in staging with the same, uncompressed content.
fn seekable_and_plain(mut file: File, what: &str, transaction: &Transaction) -> Result<File> {
    let failed = |error: &io::Error| Error::std_io("read", what, error);
    let is_file = file.metadata().map_err(|error| failed(&error))?.is_file();
    // A redirected standard input may have been read in part; only its start can be indexed.
    if is_file && file.stream_position().map_err(|error| failed(&error))? == 0 {
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(8).read_to_end(&mut head).map_err(|error| failed(&error))?;
        if compress::detect(&head) == Compression::Plain {
            return Ok(file);
        }
        file.rewind().map_err(|error| failed(&error))?;
    }
    spool(file, what, &transaction.path("archive"))
}

/// Writes what `source` holds, uncompressed, to the new file at `path`.
pub(super) fn spool(source: File, what: &str, path: &Path) -> Result<File> {
    let failed = |errno| Error::io("write", path, errno);
    let spooled = file::create_new(path).map_err(failed)?;
    let mut plain = compress::decompressed(BufReader::new(source), what)?;
    let (mut buffer, mut end, mut written_to) = (vec![0; 1 << 20], 0, 0);
    loop {
        let n = match plain.read(&mut buffer) {
            Ok(0) => {
                if written_to < end {
                    file::truncate(&spooled, end).map_err(failed)?;
                }
                return Ok(spooled);
            }
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(crate::archive::verify::read_error(what, &error)),
        };
        let part = buffer.get(..n).unwrap_or_default();
        written_to = holes::write(&spooled, part, end, written_to).map_err(failed)?;
        end += n as u64;
    }
}
