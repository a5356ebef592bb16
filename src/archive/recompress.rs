//! A layer's archive in another compression than it is kept in.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use super::blob::{Blob, KeptLayer};
use super::compress::Compression;
use super::verify::read_error;
use super::watch::{Stage, Telling, Watch};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::image::digest::Hasher;
use crate::sys::file;

/// The levels: what docker and podman use for gzip, and zstd's own default.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Writes `layer` to the new file `to`, compressed `by` gzip or zstd. Equal layers give equal
/// bytes, as long as the compressor is the same.
///
/// # Errors
/// Where the layer is not what it was, `to` cannot be written, or archives are not written in
/// that compression.
pub fn recompress(
    layer: &KeptLayer,
    by: Compression,
    to: &Path,
    watch: &dyn Watch,
) -> Result<Blob> {
    let telling = Telling { watch, stage: Stage::Write };
    let failed = |error: &io::Error| Error::std_io("write", to, error);
    let file = file::create_new(to).map_err(|errno| Error::io("create", to, errno))?;
    let mut out = Hashed { out: BufWriter::new(file), hasher: Hasher::new(), size: 0 };
    match by {
        Compression::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            // Without name and time, which would differ.
            let mut gzip = flate2::GzBuilder::new().write(&mut out, level);
            layer.read_plain(telling, |plain| copy(plain, &mut gzip, layer, to))?;
            gzip.finish().map_err(|error| failed(&error))?;
        }
        Compression::Zstd => {
            let mut zstd = zstd::stream::write::Encoder::new(&mut out, ZSTD_LEVEL)
                .map_err(|error| failed(&error))?;
            layer.read_plain(telling, |plain| copy(plain, &mut zstd, layer, to))?;
            zstd.finish().map_err(|error| failed(&error))?;
        }
        Compression::Plain | Compression::Bzip2 | Compression::Xz => {
            return Err(Error::option("--compression-format", "gzip and zstd can be written"));
        }
    }
    out.out.flush().map_err(|error| failed(&error))?;
    let digest: Digest = out.hasher.finish();
    let plain_size = layer.blob.plain_size;
    Ok(Blob { digest, size: out.size, compression: by, plain_size })
}

fn copy(from: &mut dyn Read, out: &mut dyn Write, layer: &KeptLayer, to: &Path) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(&layer.file.display().to_string(), &error)),
        };
        let part = buffer.get(..n).unwrap_or_default();
        out.write_all(part).map_err(|error| Error::std_io("write", to, &error))?;
    }
}

struct Hashed<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
