//! Manifests: the OCI index and manifest, docker's schema 2 of both, and the `manifest.json` of
//! a docker-archive.

use std::collections::BTreeMap;

use serde::Deserialize;

pub use super::platform::Platform;
use super::{Digest, ParseError};

/// The most bytes of a manifest, an index or a config, as registries limit them too.
pub const MAX_BYTES: u64 = 4 << 20;

/// The annotation of an index entry that holds a tag or a whole reference.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation in which containerd and docker put the whole reference.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// The media types that PlyFS writes, those of the OCI image-spec.
pub mod media_type {
    /// The manifest of one image.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// A list of manifests.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer, uncompressed; `+gzip` and `+zstd` follow where it is.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
}

use media_type::{CONFIG as OCI_CONFIG, INDEX as OCI_INDEX, MANIFEST as OCI_MANIFEST};

/// Docker's manifest of one image, schema 2.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's list of manifests.
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// All that a registry may answer with where a manifest is asked for.
pub const ACCEPTED: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Points to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// What else is said of it.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What machine it is for, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Whether it leads to a build attestation. They stand among the images of an index, for a
    /// machine that does not exist.
    pub fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }

    /// The annotation `key`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// What a blob of manifests holds.
#[derive(Debug, Clone)]
pub enum Document {
    /// The manifest of one image.
    Image(Manifest),
    /// A list of manifests, or of further lists.
    Index(Index),
}

/// The manifest of one image.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// What it says that it is; OCI manifests need not.
    #[serde(default)]
    media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A list of manifests.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// The entries.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// The entries that are images.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| !entry.is_attestation())
    }

    /// The image for `wanted`: the one that is for just this machine, else the first one that is
    /// for its kind.
    pub fn for_platform(&self, wanted: &Platform) -> Option<&Descriptor> {
        let is_for = |entry: &&Descriptor, fits: &dyn Fn(&Platform) -> bool| {
            entry.platform.as_ref().is_some_and(fits)
        };
        let exact = self.images().find(|entry| is_for(entry, &|for_| for_.is(wanted)));
        exact.or_else(|| self.images().find(|entry| is_for(entry, &|for_| for_.may_be(wanted))))
    }
}

/// The fields by which documents are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<serde_json::Value>,
    #[serde(default)]
    manifests: Option<serde_json::Value>,
}

impl Document {
    /// Reads a manifest or an index. A document that could be taken for both is refused, and so
    /// is one that says to be something else than `expected`, the media type of its descriptor
    /// (empty where there is none): what was checked must be what is used (CVE-2021-41190).
    ///
    /// # Errors
    /// [`ParseError`] for anything else, docker's schema 1 included.
    pub fn parse(bytes: &[u8], expected: &str) -> Result<Document, ParseError> {
        let header: Header = serde_json::from_slice(bytes).map_err(|e| ParseError::json(&e))?;
        if header.schema_version != 2 {
            let version = header.schema_version;
            return Err(ParseError::new(format!("schema version {version}; only 2 is supported")));
        }
        if let Some(own) = &header.media_type
            && !expected.is_empty()
            && own != expected
        {
            return Err(ParseError::new(format!("media type {own:?}, promised {expected:?}")));
        }
        let kind = header.media_type.as_deref().unwrap_or(expected);
        match (header.config.is_some(), header.manifests.is_some(), kind) {
            (true, false, "" | OCI_MANIFEST | DOCKER_MANIFEST) => {
                serde_json::from_slice(bytes).map(Document::Image).map_err(|e| ParseError::json(&e))
            }
            (false, true, "" | OCI_INDEX | DOCKER_INDEX) => {
                serde_json::from_slice(bytes).map(Document::Index).map_err(|e| ParseError::json(&e))
            }
            _ => Err(ParseError::new(format!("neither an image manifest nor an index ({kind})"))),
        }
    }
}

impl Manifest {
    /// What it is to be called: a type of the OCI image-spec, or docker's.
    pub fn media_type(&self) -> &str {
        match self.media_type.as_deref() {
            None | Some("") => OCI_MANIFEST,
            Some(kind) => kind,
        }
    }

    /// Why it is of no use here: some other artifact in the clothes of an image, or one whose
    /// layers nobody can read without a key.
    pub fn refusal(&self) -> Option<String> {
        let kind = self.config.media_type.as_str();
        if !matches!(kind, "" | OCI_CONFIG | DOCKER_CONFIG) {
            return Some(format!("holds {kind:?}, which is not a container image"));
        }
        let encrypted = |layer: &Descriptor| layer.media_type.ends_with("+encrypted");
        self.layers.iter().any(encrypted).then(|| {
            "its layers are encrypted: skopeo copy --decryption-key makes an image that can be read"
                .to_owned()
        })
    }
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveEntry {
    /// The name of the config in the archive.
    pub config: String,
    /// References of the image.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The names of the layers in the archive, lowest first.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

impl ArchiveEntry {
    /// Reads a docker-archive's `manifest.json`.
    ///
    /// # Errors
    /// [`ParseError`] where it is not one.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<ArchiveEntry>, ParseError> {
        serde_json::from_slice(bytes).map_err(|e| ParseError::json(&e))
    }
}
