//! What skopeo's `dir:` and `podman save --format docker-dir` write: `manifest.json` is the very
//! manifest of one image, and each blob a file called by the digits of its digest. The image has no
//! name in it.

use crate::error::{Error, Result};
use crate::image::Digest;
use crate::image::manifest::Document;

use super::oci::{self, Found};
use super::{Archive, ArchivedImage, docker};

/// Whether that is what `bytes`, a `manifest.json`, are: a docker-archive has a list in it.
pub(super) fn is_manifest(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// The image whose manifest `bytes` are.
pub(super) fn images(archive: &Archive, bytes: Vec<u8>) -> Result<Vec<ArchivedImage>> {
    let blob = docker::MANIFEST.to_owned();
    match oci::parse(archive, &blob, &bytes, "")? {
        Document::Image(manifest) => {
            let found = Found { manifest, bytes, blob };
            Ok(vec![oci::assemble(archive, found, Vec::new(), Digest::hex)?])
        }
        Document::Index(_) => {
            let why = "a list of images for several machines: copy it into an OCI layout (oci:)";
            Err(Error::invalid(archive.describe(&blob), why))
        }
    }
}
