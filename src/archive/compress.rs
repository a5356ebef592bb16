//! Compression, told by the first bytes and never by a name or media type.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use serde::{Deserialize, Serialize};

use crate::error::Result;

use super::verify::read_error;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
    /// bzip2, of one or more streams; only read.
    Bzip2,
    /// xz, of one or more streams; only read.
    Xz,
}

impl Compression {
    /// What the media type of a layer that is kept like this ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
            Compression::Plain | Compression::Bzip2 | Compression::Xz => "",
        }
    }

    /// Whether layers are kept like this, because the OCI image-spec has a media type for it.
    pub fn is_kept(self) -> bool {
        matches!(self, Compression::Plain | Compression::Gzip | Compression::Zstd)
    }
}

/// As many bytes as the longest magic has.
pub(super) const MAGIC_MAX: usize = 6;

/// Bytes read from the source at once.
const BUFFER: usize = 128 << 10;

/// The most KiB that an xz stream may make us hold: as much as `xz -9` needs to decompress, and
/// some more.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// Tells the compression of what starts with `head`.
pub fn detect(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, with which seekable zstd variants may start.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Compression::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        _ => Compression::Plain,
    }
}

/// What `source` holds, uncompressed; `what` names it in errors.
///
/// # Errors
/// Where its start cannot be read, or is damaged.
pub fn decompressed<'a>(
    mut source: impl Read + Send + 'a,
    what: &str,
) -> Result<Box<dyn Read + Send + 'a>> {
    let head = read_head(&mut source).map_err(|e| read_error(what, &e))?;
    let compression = detect(&head);
    let whole = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
    Ok(match compression {
        Compression::Plain => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd_decoder(whole).map_err(|e| read_error(what, &e))?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY_KIB))
        }
    })
}

fn zstd_decoder<R: BufRead + Send>(source: R) -> io::Result<impl Read + Send> {
    zstd::stream::read::Decoder::with_buffer(source)
}

fn read_head(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(MAGIC_MAX);
    source.take(MAGIC_MAX as u64).read_to_end(&mut head)?;
    Ok(head)
}
