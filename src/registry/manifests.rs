//! Which manifest a name means, and the small blobs.

use futures_util::StreamExt;
use oci_client::errors::OciDistributionError as Failure;

use super::connection::{Connection, descriptor};
use crate::error::{Error, Result};
use crate::image::manifest::{self, Descriptor, Document, Manifest};
use crate::image::{Digest, Platform, Remote};

/// Indexes within indexes that are followed; real ones have one.
const DEPTH_MAX: u32 = 4;

/// The manifest of one image.
pub(super) struct Found {
    /// The digest of what the name means, which may be an index.
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
}

/// Finds the image for `platform` under the name of the connection.
pub(super) fn resolve(connection: &Connection, platform: &Platform) -> Result<Found> {
    let remote = &connection.remote;
    let (bytes, digest) = get(connection, remote)?;
    let mut at = (bytes, String::new());
    for _ in 0..=DEPTH_MAX {
        let (bytes, media_type) = at;
        let document = Document::parse(&bytes, &media_type)
            .map_err(|error| Error::invalid(remote.to_string(), error.to_string()))?;
        let index = match document {
            Document::Image(manifest) => match manifest.refusal() {
                None => return Ok(Found { digest, manifest, bytes }),
                Some(why) => return Err(Error::invalid(remote.to_string(), why)),
            },
            Document::Index(index) => index,
        };
        let Some(entry) = index.for_platform(platform) else {
            let all = index.images().filter_map(|entry| entry.platform.as_ref());
            let all = all.map(Platform::to_string).collect::<Vec<_>>().join(", ");
            let why = format!("no image for {platform}; there are {all}: see --platform");
            return Err(Error::invalid(remote.to_string(), why));
        };
        let (bytes, _) = get(connection, &Remote::Digest(remote.pinned(entry.digest)))?;
        at = (bytes, entry.media_type.clone());
    }
    Err(Error::invalid(remote.to_string(), "indexes nested too deeply"))
}

/// The document that `remote` names, with its digest.
fn get(connection: &Connection, remote: &Remote) -> Result<(Vec<u8>, Digest)> {
    let most = manifest::MAX_BYTES;
    let asked = connection.retried(|| connection.document(remote, &manifest::ACCEPTED, most))?;
    let Some(bytes) = asked else {
        let why = format!("its manifest is larger than {most} bytes");
        return Err(Error::invalid(remote.to_string(), why));
    };
    let found = Digest::of(&bytes);
    if let Remote::Digest(pinned) = remote
        && pinned.digest() != found
    {
        let (expected, found) = (pinned.digest().to_string(), found.to_string());
        return Err(Error::Mismatch { what: remote.to_string(), expected, found });
    }
    Ok((bytes, found))
}

/// A small blob, which is what its descriptor promises.
pub(super) fn small_blob(connection: &Connection, blob: &Descriptor) -> Result<Vec<u8>> {
    let what = || format!("{}, blob {}", connection.remote, blob.digest);
    if blob.size > manifest::MAX_BYTES {
        return Err(Error::invalid(what(), format!("larger than {} bytes", manifest::MAX_BYTES)));
    }
    let bytes = connection.retried(|| read(connection, blob))?;
    let found = Digest::of(&bytes);
    if found != blob.digest || bytes.len() as u64 != blob.size {
        let expected = format!("{}, {} bytes", blob.digest, blob.size);
        let found = format!("{found}, {} bytes", bytes.len());
        return Err(Error::Mismatch { what: what(), expected, found });
    }
    Ok(bytes)
}

async fn read(connection: &Connection, blob: &Descriptor) -> Result<Vec<u8>, Failure> {
    let (client, reference) = (&connection.client, connection.repository());
    let mut stream = client.pull_blob_stream(&reference, &descriptor(blob)).await?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part?);
        // The client would report a wrong digest at the end as a failure that may pass.
        if bytes.len() as u64 >= blob.size {
            break;
        }
    }
    Ok(bytes)
}
