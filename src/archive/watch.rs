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

/// Who is told of what is done with one layer after the other.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "who watches may be anything")]
pub struct Telling<'a> {
    /// Who.
    pub watch: &'a dyn Watch,
    /// What is done.
    pub stage: Stage,
}

impl<'a> Telling<'a> {
    /// Nobody is told.
    pub const NOBODY: Telling<'static> = Telling { watch: &Unwatched, stage: Stage::Verify };

    /// Tells of all that `work` reads from `inner`, which are the `bytes` of `layer`.
    pub fn while_reading<R: Read, T>(
        self,
        layer: Digest,
        bytes: u64,
        inner: R,
        work: impl FnOnce(Watched<'a, R>) -> T,
    ) -> T {
        let Telling { watch, stage } = self;
        watch.begin(stage, &layer, Some(bytes));
        let outcome = work(Watched { inner, watch, stage, layer });
        watch.end(stage, &layer);
        outcome
    }
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

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.watch.advance(self.stage, &self.layer, n as u64);
        Ok(n)
    }
}
