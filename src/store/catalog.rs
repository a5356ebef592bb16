//! The catalog: which images there are and what they are called.
//!
//! One file, so that one rename moves any number of images and names at once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{Digest, ImageId, Reference, RepoDigest};

use super::lock::Exclusive;
use super::transaction::Transaction;
use super::{Store, durable};

/// The images, each with its names. A name belongs to one image at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Catalog {
    images: BTreeMap<ImageId, BTreeSet<Reference>>,
    /// Under which manifests registries have an image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    digests: BTreeMap<ImageId, BTreeSet<RepoDigest>>,
    /// The manifests that an image came with, the last one last; each is a blob.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    manifests: BTreeMap<ImageId, Vec<Digest>>,
}

impl Catalog {
    /// The images, in the order of their ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ImageId> {
        self.images.keys()
    }

    /// Whether there is this image.
    pub(super) fn has(&self, id: &ImageId) -> bool {
        self.images.contains_key(id)
    }

    /// The names of an image, sorted.
    pub(super) fn references(&self, id: &ImageId) -> Vec<Reference> {
        self.images.get(id).into_iter().flatten().cloned().collect()
    }

    /// Adds an image.
    pub(super) fn add(&mut self, id: ImageId) {
        self.images.entry(id).or_default();
    }

    /// Gives an image a name, taking it from the one that had it.
    pub(super) fn name(&mut self, id: ImageId, reference: Reference) {
        self.unname(&reference);
        self.images.entry(id).or_default().insert(reference);
    }

    /// Takes a name away because it is no longer wanted. The last one of a repository takes
    /// with it what is known of the image there.
    pub(super) fn forget_name(&mut self, reference: &Reference) {
        let had = |names: &BTreeSet<Reference>| names.contains(reference);
        let Some(id) = self.images.iter().find(|(_, names)| had(names)).map(|(id, _)| *id) else {
            return;
        };
        self.unname(reference);
        let same = |other: &Reference| other.repository() == reference.repository();
        if !self.references(&id).iter().any(same)
            && let Some(digests) = self.digests.get_mut(&id)
        {
            digests.retain(|pinned| !pinned.is_in(reference));
        }
    }

    fn unname(&mut self, reference: &Reference) {
        for names in self.images.values_mut() {
            names.remove(reference);
        }
    }

    /// Forgets an image and its names.
    pub(super) fn remove(&mut self, id: &ImageId) {
        self.images.remove(id);
        self.digests.remove(id);
        self.manifests.remove(id);
    }

    /// Under which manifests registries have an image.
    pub(super) fn digests(&self, id: &ImageId) -> Vec<RepoDigest> {
        self.digests.get(id).into_iter().flatten().cloned().collect()
    }

    /// Adds that a registry has an image of the catalog.
    pub(super) fn add_digest(&mut self, id: ImageId, pinned: RepoDigest) {
        self.digests.entry(id).or_default().insert(pinned);
    }

    /// The manifests that an image came with, the last one last.
    pub(super) fn manifests(&self, id: &ImageId) -> &[Digest] {
        self.manifests.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// All manifests.
    pub(super) fn all_manifests(&self) -> impl Iterator<Item = &Digest> {
        self.manifests.values().flatten()
    }

    /// Adds a manifest that an image came with.
    pub(super) fn add_manifest(&mut self, id: ImageId, manifest: Digest) {
        let manifests = self.manifests.entry(id).or_default();
        manifests.retain(|known| *known != manifest);
        manifests.push(manifest);
    }

    /// The image that `text` names: by name, short name, id or start of an id; and the name, if
    /// it was one.
    ///
    /// # Errors
    /// Where there is none, or several images could be meant.
    pub(super) fn find(&self, text: &str) -> Result<(ImageId, Option<Reference>)> {
        if let Some(found) = self.find_name(text)? {
            return Ok(found);
        }
        if let Ok(pinned) = RepoDigest::parse(text) {
            let known = self.digests.iter().find(|(_, digests)| digests.contains(&pinned));
            let missing = || Error::NotFound { kind: "image", name: text.to_owned() };
            return known.map(|(id, _)| (*id, None)).ok_or_else(missing);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let mut ids = self.ids().filter(|id| !prefix.is_empty() && id.0.hex().starts_with(prefix));
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok((*id, None)),
            (Some(_), Some(_)) => Err(Error::Refused(format!(
                "more than one image has an id that starts with {prefix}: give more of it"
            ))),
            (None, _) => Err(Error::NotFound { kind: "image", name: text.to_owned() }),
        }
    }

    fn find_name(&self, text: &str) -> Result<Option<(ImageId, Option<Reference>)>> {
        let named =
            || self.images.iter().flat_map(|(id, names)| names.iter().map(move |name| (*id, name)));
        let exact = |wanted: &Reference| named().find(|(_, name)| *name == wanted);
        let full = [Reference::parse(text), Reference::parse_local(text)];
        if let Some((id, name)) = full.iter().flatten().find_map(exact) {
            return Ok(Some((id, Some(name.clone()))));
        }
        let mut answering = named().filter(|(_, name)| name.answers_to(text));
        match (answering.next(), answering.next()) {
            (Some((id, name)), None) => Ok(Some((id, Some(name.clone())))),
            (Some((_, one)), Some((_, other))) => {
                Err(Error::Refused(format!("{text} may mean {one} or {other}: give more of it")))
            }
            (None, _) => Ok(None),
        }
    }
}

impl Store {
    /// The catalog as it is now.
    pub(super) fn catalog(&self) -> Result<Catalog> {
        Ok(durable::read_record(&self.layout.catalog())?.unwrap_or_default())
    }

    /// Puts `catalog` in the place of the present one: the step that decides load and rmi.
    pub(super) fn commit_catalog(
        &self,
        catalog: &Catalog,
        transaction: &Transaction,
        _: &Exclusive,
    ) -> Result<()> {
        let bytes = durable::record_bytes(catalog)?;
        durable::replace(&self.layout.catalog(), &transaction.path("catalog.json"), &bytes)
    }
}
