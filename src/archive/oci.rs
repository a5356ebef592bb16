//! OCI image layouts: `index.json` names manifests by digest, and every blob is called by its
//! own digest.

use crate::error::{Error, Result};
use crate::image::manifest::{self, Descriptor, Document, Index, Manifest};
use crate::image::{Digest, Platform, Reference};

use super::{Archive, ArchivedImage};

pub(super) const INDEX: &str = "index.json";

/// Indexes within indexes that are followed; real ones have one.
const DEPTH_MAX: u32 = 4;

/// The images that the `index.json` of `archive` lists. An index of one image for several
/// machines gives the one for this machine.
pub(super) fn images(archive: &Archive) -> Result<Vec<ArchivedImage>> {
    let index = match parse(archive, INDEX, &archive.metadata(INDEX)?, "")? {
        Document::Index(index) => index,
        Document::Image(_) => {
            return Err(Error::invalid(archive.describe(INDEX), "not an index"));
        }
    };
    let mut images = Vec::new();
    for entry in index.images() {
        let found = resolve(archive, entry, DEPTH_MAX)?;
        add(&mut images, image(archive, entry, found)?);
    }
    if images.is_empty() {
        return Err(Error::invalid(archive.describe(INDEX), "no images in it"));
    }
    Ok(images)
}

/// One image may be listed once for each of its names.
fn add(images: &mut Vec<ArchivedImage>, image: ArchivedImage) {
    match images.iter_mut().find(|known| known.id == image.id) {
        Some(known) => known.references.extend(image.references),
        None => images.push(image),
    }
}

/// A manifest that was found, with its bytes and the name of its blob.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) blob: String,
}

fn image(archive: &Archive, entry: &Descriptor, found: Found) -> Result<ArchivedImage> {
    let references = reference(archive, entry)?.into_iter().collect();
    assemble(archive, found, references, blob_name)
}

/// The image of a manifest, whose blobs are called as `named` says.
pub(super) fn assemble(
    archive: &Archive,
    found: Found,
    references: Vec<Reference>,
    named: fn(&Digest) -> String,
) -> Result<ArchivedImage> {
    let Found { manifest, bytes, blob } = found;
    if let Some(why) = manifest.refusal() {
        return Err(Error::invalid(archive.describe(&blob), why));
    }
    let config_name = named(&manifest.config.digest);
    let config = verified(archive, &manifest.config, &config_name)?;
    let layers = manifest.layers.iter();
    let layers = layers.map(|layer| (named(&layer.digest), Some((layer.digest, layer.size))));
    let mut image = archive.assemble(&config_name, config, layers.collect(), references)?;
    image.manifest = Some(bytes);
    Ok(image)
}

/// The name that an index entry gives its image.
fn reference(archive: &Archive, entry: &Descriptor) -> Result<Option<Reference>> {
    let parsed =
        match (entry.annotation(manifest::IMAGE_NAME), entry.annotation(manifest::REF_NAME)) {
            (Some(full), _) => Reference::parse(full),
            (None, Some(name)) if !name.is_empty() => Reference::parse_local(name),
            (None, _) => return Ok(None),
        };
    parsed.map(Some).map_err(|e| Error::invalid(archive.describe(INDEX), e.to_string()))
}

/// The manifest that `entry` leads to.
fn resolve(archive: &Archive, entry: &Descriptor, depth: u32) -> Result<Found> {
    let name = blob_name(&entry.digest);
    let bytes = verified(archive, entry, &name)?;
    match parse(archive, &name, &bytes, &entry.media_type)? {
        Document::Image(manifest) => Ok(Found { manifest, bytes, blob: name }),
        Document::Index(_) if depth == 0 => {
            Err(Error::invalid(archive.describe(&name), "indexes nested too deeply"))
        }
        Document::Index(index) => match choose(&index) {
            Some(entry) => resolve(archive, entry, depth - 1),
            None => {
                let why = format!("no image for {} in it", Platform::host());
                Err(Error::invalid(archive.describe(&name), why))
            }
        },
    }
}

/// The entry for this machine; an only entry is taken whatever it is for.
fn choose(index: &Index) -> Option<&Descriptor> {
    index.for_platform(&Platform::host()).or_else(|| {
        let mut images = index.images();
        images.next().filter(|_| images.next().is_none())
    })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The bytes of the small blob `name`, which are what its descriptor promises.
fn verified(archive: &Archive, descriptor: &Descriptor, name: &str) -> Result<Vec<u8>> {
    let bytes = archive.metadata(name)?;
    let mismatch = |expected: String, found: String| {
        Err(Error::Mismatch { what: archive.describe(name), expected, found })
    };
    if bytes.len() as u64 != descriptor.size {
        return mismatch(format!("{} bytes", descriptor.size), format!("{}", bytes.len()));
    }
    let found = Digest::of(&bytes);
    if found != descriptor.digest {
        return mismatch(descriptor.digest.to_string(), found.to_string());
    }
    Ok(bytes)
}

pub(super) fn parse(
    archive: &Archive,
    name: &str,
    bytes: &[u8],
    media_type: &str,
) -> Result<Document> {
    Document::parse(bytes, media_type)
        .map_err(|e| Error::invalid(archive.describe(name), e.to_string()))
}
