//! `push`: an image of the store becomes one of a registry.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use oci_client::errors::OciDistributionError as Failure;
use oci_client::secrets::RegistryAuth;

use super::connection::{Connection, Operation};
use super::failure::explain;
use super::{Access, PARALLEL};
use crate::archive::blob::Blob;
use crate::archive::compress::Compression;
use crate::archive::recompress::recompress;
use crate::archive::save::oci_manifest;
use crate::archive::watch::{Stage, Watch};
use crate::error::{Error, Result};
use crate::image::manifest::{Document, media_type};
use crate::image::{Digest, Reference, Remote};
use crate::store::{OutgoingImage, Store, Workspace, at_once};

const UPLOAD: &str = "an upload";

/// Bytes handed to the network at once.
const PIECE: usize = 256 << 10;

/// What was pushed.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The digest of the manifest in the registry.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: usize,
    /// How many layers the registry had already, or took from another repository of its own.
    pub present: usize,
    /// How many went there.
    pub uploaded: usize,
}

/// A blob that is to be in the registry.
struct Upload {
    digest: Digest,
    size: u64,
    content: Content,
}

enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// Pushes `image` to the registry and repository of `to`. An image that came with a manifest
/// that is true of its layers goes there with just that one, so that its digest stays; in any
/// other, layers that are kept uncompressed are compressed with `compression` first.
///
/// # Errors
/// Where the registry cannot be reached or does not let us in, or a layer is not what it was.
pub fn push(
    store: &Store,
    image: &OutgoingImage,
    to: &Reference,
    compression: Compression,
    access: &Access,
    watch: &dyn Watch,
) -> Result<Pushed> {
    let remote = Remote::Tag(to.clone());
    let connection = Connection::open(&remote, access, Operation::Push)?;
    let workspace = store.workspace()?;
    let (mut uploads, manifest) = prepare(image, compression, &workspace, watch)?;
    let mut known = BTreeSet::new();
    uploads.retain(|upload| known.insert(upload.digest));
    let sources = mount_sources(image, &remote);
    let uploaded = all(&connection, &uploads, &sources, watch)?;
    let config = Upload {
        digest: image.id.0,
        size: image.config.len() as u64,
        content: Content::Bytes(image.config.clone()),
    };
    config.bring(&connection, &[], watch)?;
    let digest = put_manifest(&connection, &manifest)?;
    drop(workspace);
    store.note_digest(image.id, remote.pinned(digest))?;
    let present = uploads.len() - uploaded;
    Ok(Pushed { digest, size: manifest.len(), present, uploaded })
}

/// The blobs of the layers, and the manifest that names them.
fn prepare(
    image: &OutgoingImage,
    compression: Compression,
    workspace: &Workspace,
    watch: &dyn Watch,
) -> Result<(Vec<Upload>, Vec<u8>)> {
    let kept = |blob: &Blob, file: PathBuf| Upload {
        digest: blob.digest,
        size: blob.size,
        content: Content::File(file),
    };
    if let Some(manifest) = &image.manifest {
        let uploads = image.layers.iter().map(|layer| kept(&layer.blob, layer.file.clone()));
        return Ok((uploads.collect(), manifest.clone()));
    }
    let mut blobs = Vec::new();
    let mut uploads = Vec::new();
    for (i, layer) in image.layers.iter().enumerate() {
        if layer.blob.compression != Compression::Plain || compression == Compression::Plain {
            uploads.push(kept(&layer.blob, layer.file.clone()));
            blobs.push(layer.blob.clone());
            continue;
        }
        let file = workspace.path(&format!("compressed-{i}"));
        let blob = recompress(layer, compression, &file, watch)?;
        uploads.push(kept(&blob, file));
        blobs.push(blob);
    }
    let manifest = oci_manifest(&image.config, &blobs.iter().collect::<Vec<_>>());
    Ok((uploads, manifest))
}

/// Other repositories of the same registry that have the image, and so its layers.
fn mount_sources(image: &OutgoingImage, to: &Remote) -> Vec<Remote> {
    let there = image.digests.iter().cloned().map(Remote::Digest);
    there.filter(|from| from.domain() == to.domain() && from.path() != to.path()).collect()
}

/// Brings all of them, several at once; returns how many had to be sent.
fn all(
    connection: &Connection,
    uploads: &[Upload],
    sources: &[Remote],
    watch: &dyn Watch,
) -> Result<usize> {
    let left = Mutex::new(uploads.iter());
    let outcome = Mutex::new(Ok(0));
    let next = || left.lock().ok().and_then(|mut left| left.next());
    let work = || {
        while let Some(upload) = next() {
            let sent = upload.bring(connection, sources, watch);
            let Ok(mut outcome) = outcome.lock() else { return };
            match (&mut *outcome, sent) {
                (Ok(count), Ok(sent)) => *count += usize::from(sent),
                (Ok(_), Err(error)) => *outcome = Err(error),
                (Err(_), _) => {}
            }
            if outcome.is_err() {
                return;
            }
        }
    };
    at_once(PARALLEL.min(uploads.len()), UPLOAD, work)?;
    outcome.into_inner().map_err(|_| Error::bug(UPLOAD))?
}

impl Upload {
    /// Has the blob be in the registry; returns whether it had to be sent.
    fn bring(
        &self,
        connection: &Connection,
        sources: &[Remote],
        watch: &dyn Watch,
    ) -> Result<bool> {
        let (client, reference) = (&connection.client, connection.repository());
        let digest = self.digest.to_string();
        if connection.retried(|| client.blob_exists(&reference, &digest))? {
            return Ok(false);
        }
        for source in sources {
            let from = connection.reference(source);
            // A registry that does not do it, or does not know it there, has it sent.
            if connection.wait(client.mount_blob(&reference, &from, &digest)).is_ok() {
                return Ok(false);
            }
        }
        watch.begin(Stage::Upload, &self.digest, Some(self.size));
        let outcome = connection.retried(|| self.send(connection, watch));
        watch.end(Stage::Upload, &self.digest);
        outcome.map(|()| true)
    }

    async fn send(&self, connection: &Connection, watch: &dyn Watch) -> Result<(), Failure> {
        let (client, reference) = (&connection.client, connection.repository());
        let (digest, size) = (self.digest.to_string(), Some(self.size));
        match &self.content {
            Content::Bytes(bytes) => {
                let whole = Ok(Bytes::from(bytes.clone()));
                let stream = stream::iter([whole]);
                client.push_blob_stream(&reference, stream, &digest, size).await?;
            }
            Content::File(path) => {
                let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
                let pieces = stream::iter(Pieces { file: File::open(path)?, tell });
                let pushing = client.push_blob_stream(&reference, pieces, &digest, size);
                let watching = async {
                    while let Some(bytes) = told.recv().await {
                        watch.advance(Stage::Upload, &self.digest, bytes);
                    }
                };
                let (outcome, ()) = futures_util::future::join(pushing, watching).await;
                outcome?;
            }
        }
        Ok(())
    }
}

/// The content of a file, piece by piece.
struct Pieces {
    file: File,
    tell: tokio::sync::mpsc::UnboundedSender<u64>,
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = Vec::with_capacity(PIECE);
        match Read::by_ref(&mut self.file).take(PIECE as u64).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(n) => match self.tell.send(n as u64) {
                Ok(()) => Some(Ok(Bytes::from(piece))),
                // Nobody waits for it any more.
                Err(_) => None,
            },
            Err(error) => Some(Err(error.into())),
        }
    }
}

fn put_manifest(connection: &Connection, manifest: &[u8]) -> Result<Digest> {
    let kind = match Document::parse(manifest, "") {
        Ok(Document::Image(kept)) => kept.media_type().to_owned(),
        _ => media_type::MANIFEST.to_owned(),
    };
    let invalid = |_| Error::invalid("a manifest", format!("media type {kind:?}"));
    let content_type = kind.parse().map_err(invalid)?;
    let (client, reference) = (&connection.client, connection.repository());
    let auth = RegistryAuth::Anonymous;
    connection.retried(|| {
        client.push_manifest_raw(
            &reference,
            manifest.to_vec(),
            std::clone::Clone::clone(&content_type),
        )
    })?;
    // What the tag means now is what was put there, or somebody else was faster.
    let there = connection.wait(client.fetch_manifest_digest(&reference, &auth));
    let there = there.map_err(|failure| explain(&connection.remote, &failure))?;
    let digest = Digest::of(manifest);
    if there.parse() != Ok(digest) {
        tracing::warn!(%there, "the tag leads to another manifest meanwhile");
    }
    Ok(digest)
}
