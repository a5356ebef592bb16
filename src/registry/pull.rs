//! `pull`: an image of a registry becomes one of the store.

use super::connection::{Connection, Operation};
use super::fetch::RemoteLayer;
use super::manifests::{Found, resolve, small_blob};
use super::{Access, PARALLEL};
use crate::archive::LayerSource;
use crate::archive::watch::Watch;
use crate::error::{Error, Result};
use crate::image::{Digest, ImageConfig, ImageId, Platform, Remote};
use crate::store::{IncomingImage, Store};

/// An image that was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// The digest of the manifest or index that the name means.
    pub digest: Digest,
    /// Whether the store did not have just this under this name before.
    pub is_news: bool,
}

/// Pulls what `remote` means on `platform` into `store`; of layers that are there already
/// nothing comes. What has come of a pull that breaks off is used by the next one.
///
/// # Errors
/// Where the registry cannot be reached or does not let us in, there is no such image, or
/// something is not what its digest says; the store is then as it was.
pub fn pull(
    store: &Store,
    remote: &Remote,
    platform: &Platform,
    access: &Access,
    watch: &dyn Watch,
) -> Result<Pulled> {
    store.sweep_downloads()?;
    let connection = Connection::open(remote, access, Operation::Pull)?;
    let Found { digest, manifest, bytes } = resolve(&connection, platform)?;
    let config_bytes = small_blob(&connection, &manifest.config)?;
    let (id, config) = ImageConfig::parse(&config_bytes)
        .map_err(|error| Error::invalid(format!("{remote}, its config"), error.to_string()))?;
    let (promised, found) = (config.diff_ids().len(), manifest.layers.len());
    if promised != found {
        let why = format!("its config names {promised} layers, its manifest {found}");
        return Err(Error::invalid(remote.to_string(), why));
    }
    let layers = manifest.layers.into_iter().zip(config.diff_ids());
    let (connection, layer) = (&connection, |(blob, diff_id): (_, &_)| RemoteLayer {
        connection: &connection,
        store,
        diff_id: *diff_id,
        blob,
    });
    let layers: Vec<_> = layers.map(layer).collect();
    let references = match remote {
        Remote::Tag(reference) => vec![reference.clone()],
        Remote::Digest(_) => Vec::new(),
    };
    let is_news = !store.has_pulled(&id, remote, digest)?;
    let incoming = IncomingImage {
        id,
        config,
        config_bytes,
        manifest: Some(bytes),
        references,
        digests: vec![connection.remote.pinned(digest)],
        layers: layers.iter().map(|layer| layer as &dyn LayerSource).collect(),
    };
    store.receive(&[incoming], PARALLEL, watch)?;
    Ok(Pulled { id, digest, is_news })
}
