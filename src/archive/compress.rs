//! Compression, told by the first bytes and never by a name or media type.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use crate::error::{Error, Result};

use super::verify::read_error;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
    /// A format that is recognised in order to name it in an error.
    Unsupported(&'static str),
}

/// As many bytes as the longest magic has.
const MAGIC_MAX: usize = 6;

/// Bytes read from the source at once.
const BUFFER: usize = 128 << 10;

/// Tells the compression of what starts with `head`.
pub fn detect(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, with which seekable zstd variants may start.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Compression::Unsupported("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Unsupported("bzip2"),
        _ => Compression::Plain,
    }
}

/// What `source` holds, uncompressed; `what` names it in errors.
///
/// # Errors
/// Where its start cannot be read, or is of a format that is not supported.
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
        Compression::Unsupported(name) => {
            let why = format!("compressed with {name}; supported are gzip and zstd");
            return Err(Error::invalid(what, why));
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
