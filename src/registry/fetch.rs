//! How a layer comes: into a file that outlives a broken download, then into its directory.

use std::io::{self, Read, Seek};
use std::path::Path;

use futures_util::StreamExt;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError as Failure;

use super::connection::{Connection, descriptor};
use crate::archive::blob::Blob;
use crate::archive::tar_read::Unpacked;
use crate::archive::watch::{Stage, Watch};
use crate::archive::{ArchivedLayer, LayerSource};
use crate::error::{Error, Result};
use crate::image::digest::Hasher;
use crate::image::manifest::Descriptor;
use crate::image::{DiffId, Digest};
use crate::store::{Download, Store};

/// A layer in a registry.
pub(super) struct RemoteLayer<'a> {
    pub(super) connection: &'a Connection,
    pub(super) store: &'a Store,
    pub(super) diff_id: DiffId,
    pub(super) blob: Descriptor,
}

impl LayerSource for RemoteLayer<'_> {
    fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    fn unpack(&self, into: &Path, keep: &Path, watch: &dyn Watch) -> Result<(Unpacked, Blob)> {
        let download = self.store.download(&self.blob.digest)?;
        watch.begin(Stage::Download, &self.blob.digest, Some(self.blob.size));
        let outcome = self.fetch(&download, watch);
        watch.end(Stage::Download, &self.blob.digest);
        outcome?;
        let unpacked = self.unpack_download(&download, into, keep, watch)?;
        // Only now: what was downloaded but could not be unpacked for want of space need not
        // come again.
        download.finish()?;
        Ok(unpacked)
    }
}

impl RemoteLayer<'_> {
    fn unpack_download(
        &self,
        download: &Download,
        into: &Path,
        keep: &Path,
        watch: &dyn Watch,
    ) -> Result<(Unpacked, Blob)> {
        let file = download.file().try_clone();
        let file = file.map_err(|error| Error::std_io("open", self.what(), &error))?;
        let layer = ArchivedLayer::of_blob(file, self.what(), self.diff_id)?;
        let compression = layer.compression()?;
        if !compression.is_kept() {
            return layer.unpack(into, keep, watch);
        }
        let (unpacked, (_, plain_size)) = layer.unpack_only(into, watch)?;
        download.link(keep)?;
        let Descriptor { digest, size, .. } = self.blob;
        Ok((unpacked, Blob { digest, size, compression, plain_size }))
    }

    /// Completes the download, whatever of the blob is in it.
    fn fetch(&self, download: &Download, watch: &dyn Watch) -> Result<()> {
        let state = std::cell::RefCell::new(self.resume(download, watch)?);
        self.connection.retried(|| self.go_on(&state))?;
        let mut state = state.into_inner();
        let (count, resumed) = (state.count, state.resumed);
        let found = std::mem::take(&mut state.hasher).finish();
        if found == self.blob.digest && count == self.blob.size {
            return Ok(());
        }
        // Nothing that is wrong is kept; and where it was so before, a new beginning may help.
        download.empty()?;
        if resumed {
            return self.fetch(download, watch);
        }
        let expected = format!("{}, {} bytes", self.blob.digest, self.blob.size);
        Err(Error::Mismatch {
            what: self.what(),
            expected,
            found: format!("{found}, {count} bytes"),
        })
    }

    /// Takes in what has come before.
    fn resume<'a>(&self, download: &'a Download, watch: &'a dyn Watch) -> Result<Progress<'a>> {
        let failed = |error: &io::Error| Error::std_io("read", self.what(), error);
        let mut source = download.file();
        let length = source.metadata().map_err(|error| failed(&error))?.len();
        if length > self.blob.size {
            download.empty()?;
        }
        source.rewind().map_err(|error| failed(&error))?;
        let digest = self.blob.digest;
        let mut state = Progress::new(download, watch, digest);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = source.read(&mut buffer).map_err(|error| failed(&error))?;
            if n == 0 {
                state.resumed = state.count > 0;
                return Ok(state);
            }
            state.take(buffer.get(..n).unwrap_or_default());
        }
    }

    /// Has the rest of the blob come.
    async fn go_on(&self, state: &std::cell::RefCell<Progress<'_>>) -> Result<(), Failure> {
        let Connection { client, .. } = self.connection;
        let (reference, blob) = (self.connection.repository(), descriptor(&self.blob));
        let offset = state.borrow().count;
        if offset >= self.blob.size {
            return Ok(());
        }
        let response = match offset {
            0 => BlobResponse::Full(client.pull_blob_stream(&reference, &blob).await?),
            _ => client.pull_blob_stream_partial(&reference, &blob, offset, None).await?,
        };
        let mut stream = match response {
            BlobResponse::Partial(stream) => stream,
            BlobResponse::Full(stream) => {
                // It does not know ranges.
                state.borrow_mut().restart()?;
                stream
            }
        };
        // When so much has come, it is right or wrong, whatever else would come.
        while state.borrow().count < self.blob.size {
            let Some(part) = stream.next().await else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            state.borrow_mut().write(&part?)?;
        }
        Ok(())
    }

    fn what(&self) -> String {
        format!("{}, layer {}", self.connection.remote, self.blob.digest)
    }
}

/// How far a download is.
struct Progress<'a> {
    download: &'a Download,
    watch: &'a dyn Watch,
    digest: Digest,
    hasher: Hasher,
    count: u64,
    /// Whether a part had come before this process.
    resumed: bool,
}

impl<'a> Progress<'a> {
    fn new(download: &'a Download, watch: &'a dyn Watch, digest: Digest) -> Progress<'a> {
        Progress { download, watch, digest, hasher: Hasher::new(), count: 0, resumed: false }
    }

    fn take(&mut self, part: &[u8]) {
        self.hasher.update(part);
        self.count += part.len() as u64;
        self.watch.advance(Stage::Download, &self.digest, part.len() as u64);
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.download.write_at(self.count, part)?;
        self.take(part);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.download.empty().map_err(io::Error::other)?;
        *self = Progress::new(self.download, self.watch, self.digest);
        Ok(())
    }
}
