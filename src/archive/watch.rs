//! Telling how far a verb is.

use std::io::{self, Read};

use crate::image::Digest;

/// What is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It comes from a registry.
    Download,
    /// It becomes a directory.
    Unpack,
    /// It is written to an archive.
    Save,
    /// What a container changed becomes one.
    Write,
    /// It is compared with its digests.
    Verify,
    /// It goes to a registry.
    Upload,
}

/// Who is told of it; by several threads at once.
pub trait Watch: Sync {
    /// A layer, which has `bytes` where that is known, is begun with.
    fn begin(&self, stage: Stage, layer: &Digest, bytes: Option<u64>);
    /// So many more bytes of it are done.
    fn advance(&self, stage: Stage, layer: &Digest, bytes: u64);
    /// It is done, or was at hand.
    fn end(&self, stage: Stage, layer: &Digest);
}

/// Nobody.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _: Stage, _: &Digest, _: Option<u64>) {}
    fn advance(&self, _: Stage, _: &Digest, _: u64) {}
    fn end(&self, _: Stage, _: &Digest) {}
}

/// Tells of the bytes that are read from `inner`.
#[allow(missing_debug_implementations, reason = "who watches may be anything")]
pub struct Watched<'a, R> {
    inner: R,
    watch: &'a dyn Watch,
    stage: Stage,
    layer: Digest,
}

impl<'a, R: Read> Watched<'a, R> {
    /// The layer was begun with before.
    pub fn new(inner: R, watch: &'a dyn Watch, stage: Stage, layer: Digest) -> Self {
        Watched { inner, watch, stage, layer }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.watch.advance(self.stage, &self.layer, n as u64);
        Ok(n)
    }
}
