//! Docker-archives: what `docker save`, `podman save` and skopeo's `docker-archive:` write.
//!
//! `manifest.json` lists the images; configs and layers are files that it names, layers possibly
//! through symlinks. Since docker 25 they are called `blobs/sha256/HEX` and an OCI layout lies
//! beside them.

use crate::error::{Error, Result};
use crate::image::manifest::ArchiveEntry;
use crate::image::{Digest, Reference};

use super::{Archive, ArchivedImage};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const REPOSITORIES: &str = "repositories";

/// The images that `bytes`, the `manifest.json` of `archive`, list.
pub(super) fn images(archive: &Archive, bytes: &[u8]) -> Result<Vec<ArchivedImage>> {
    let entries = ArchiveEntry::parse_all(bytes)
        .map_err(|e| Error::invalid(archive.describe(MANIFEST), e.to_string()))?;
    if entries.is_empty() {
        return Err(Error::invalid(archive.describe(MANIFEST), "no images in it"));
    }
    entries.into_iter().map(|entry| image(archive, entry)).collect()
}

fn image(archive: &Archive, entry: ArchiveEntry) -> Result<ArchivedImage> {
    let config = archive.metadata(&entry.config)?;
    if let Some(expected) = promised_digest(&entry.config) {
        let found = Digest::of(&config);
        if found != expected {
            let (what, expected) = (archive.describe(&entry.config), expected.to_string());
            return Err(Error::Mismatch { what, expected, found: found.to_string() });
        }
    }
    let references = entry.repo_tags.unwrap_or_default();
    let references = references.iter().map(|tag| {
        Reference::parse(tag).map_err(|e| Error::invalid(archive.describe(MANIFEST), e.to_string()))
    });
    let references = references.collect::<Result<_>>()?;
    let layers = entry.layers.unwrap_or_default().into_iter().map(|name| {
        let Some(digest) = name.strip_prefix("blobs/sha256/").and_then(promised_digest) else {
            return Ok((name, None));
        };
        // The manifest states no sizes; what is there has whatever size it has.
        let size = archive.section(&name)?.len();
        Ok((name, Some((digest, size))))
    });
    let layers = layers.collect::<Result<_>>()?;
    archive.assemble(&entry.config, config, layers, references)
}

/// The digest that a config's name states: `HEX.json`, `blobs/sha256/HEX` or `sha256:HEX`.
fn promised_digest(name: &str) -> Option<Digest> {
    let name = name.strip_prefix("blobs/sha256/").unwrap_or(name);
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    Digest::from_hex(name.strip_suffix(".json").unwrap_or(name)).ok()
}
