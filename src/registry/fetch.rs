//! How a layer comes: into a file that outlives a broken download, then into its directory.

use std::fs::File;
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
use crate::store::Store;
use crate::sys::{file, node};

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
        let outcome = self.fetch(download.file(), watch);
        watch.end(Stage::Download, &self.blob.digest);
        outcome?;
        let came = keep.with_extension("came");
        download.link(&came)?;
        let unpacked = self.unpack_file(&came, into, keep, watch)?;
        // Only now: what was downloaded but could not be unpacked for want of space need not
        // come again.
        download.finish()?;
        Ok(unpacked)
    }
}

impl RemoteLayer<'_> {
    fn unpack_file(
        &self,
        came: &Path,
        into: &Path,
        keep: &Path,
        watch: &dyn Watch,
    ) -> Result<(Unpacked, Blob)> {
        let file = File::open(came).map_err(|error| Error::std_io("open", came, &error))?;
        let layer = ArchivedLayer::of_blob(file, self.what(), self.diff_id)?;
        let compression = layer.compression()?;
        if !compression.is_kept() {
            return layer.unpack(into, keep, watch);
        }
        let (unpacked, (_, plain_size)) = layer.unpack_only(into, watch)?;
        node::rename_path(came, keep).map_err(|errno| Error::io("create", keep, errno))?;
        let Descriptor { digest, size, .. } = self.blob;
        Ok((unpacked, Blob { digest, size, compression, plain_size }))
    }

    /// Completes `file`, whatever of the blob is in it.
    fn fetch(&self, file: &File, watch: &dyn Watch) -> Result<()> {
        let state = std::cell::RefCell::new(self.resume(file, watch)?);
        self.connection.retried(|| self.go_on(&state))?;
        let mut state = state.into_inner();
        let (count, resumed) = (state.count, state.resumed);
        let found = std::mem::take(&mut state.hasher).finish();
        if found == self.blob.digest && count == self.blob.size {
            return Ok(());
        }
        // Nothing that is wrong is kept; and where it was so before, a new beginning may help.
        self.truncate(file)?;
        if resumed {
            return self.fetch(file, watch);
        }
        let expected = format!("{}, {} bytes", self.blob.digest, self.blob.size);
        Err(Error::Mismatch {
            what: self.what(),
            expected,
            found: format!("{found}, {count} bytes"),
        })
    }

    /// Takes in what has come before.
    fn resume<'a>(&self, file: &'a File, watch: &'a dyn Watch) -> Result<Progress<'a>> {
        let failed = |error: &io::Error| Error::std_io("read", self.what(), error);
        let length = file.metadata().map_err(|error| failed(&error))?.len();
        if length > self.blob.size {
            self.truncate(file)?;
        }
        let mut source = file;
        source.rewind().map_err(|error| failed(&error))?;
        let digest = self.blob.digest;
        let mut state = Progress::new(file, watch, digest);
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

    fn truncate(&self, file: &File) -> Result<()> {
        file::truncate(file, 0).map_err(|errno| Error::io("write", self.what(), errno))
    }

    fn what(&self) -> String {
        format!("{}, layer {}", self.connection.remote, self.blob.digest)
    }
}

/// How far a download is.
struct Progress<'a> {
    file: &'a File,
    watch: &'a dyn Watch,
    digest: Digest,
    hasher: Hasher,
    count: u64,
    /// Whether a part had come before this process.
    resumed: bool,
}

impl<'a> Progress<'a> {
    fn new(file: &'a File, watch: &'a dyn Watch, digest: Digest) -> Progress<'a> {
        Progress { file, watch, digest, hasher: Hasher::new(), count: 0, resumed: false }
    }

    fn take(&mut self, part: &[u8]) {
        self.hasher.update(part);
        self.count += part.len() as u64;
        self.watch.advance(Stage::Download, &self.digest, part.len() as u64);
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        file::write_all_at(self.file, part, self.count)?;
        self.take(part);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        file::truncate(self.file, 0)?;
        *self = Progress::new(self.file, self.watch, self.digest);
        Ok(())
    }
}
