//! An image's config: what its layers are and how they came about.

use serde::Deserialize;

use super::{ChainId, DiffId, Digest, ImageId, MAX_LAYERS, ParseError};

/// The parts of an image config (OCI image-spec config.md; docker's is alike) that PlyFS reads.
/// The bytes themselves are kept beside it wherever one is stored, for they give the image id.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// The processor it is for, in Go's words: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, in Go's words: `linux`.
    #[serde(default)]
    pub os: String,
    /// The layers.
    pub rootfs: RootFs,
    /// How each layer was made, lowest first; steps without a layer are among them.
    #[serde(default)]
    pub history: Option<Vec<History>>,
}

/// The layers of an image.
#[derive(Debug, Clone, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed layers, lowest first. Docker writes `null` for none.
    #[serde(default)]
    diff_ids: Option<Vec<DiffId>>,
}

/// One step of how an image was made.
#[derive(Debug, Clone, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// By which command.
    #[serde(default)]
    pub created_by: Option<String>,
    /// What its author says of it.
    #[serde(default)]
    pub comment: Option<String>,
    /// Whether the step added no layer.
    #[serde(default)]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a config and computes the id of its image.
    ///
    /// # Errors
    /// [`ParseError`] where it is not a config of a Linux image with at most [`MAX_LAYERS`]
    /// layers.
    pub fn parse(bytes: &[u8]) -> Result<(ImageId, ImageConfig), ParseError> {
        let config: ImageConfig =
            serde_json::from_slice(bytes).map_err(|e| ParseError::json(&e))?;
        // In what is skipped above, text may be no UTF-8 and nesting have no bound; whoever
        // takes the whole in later would stumble over it.
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(|e| ParseError::json(&e))?;
        if config.rootfs.kind != "layers" {
            return Err(ParseError::new("rootfs.type is not \"layers\""));
        }
        if !matches!(config.os.as_str(), "" | "linux") {
            return Err(ParseError::new(format!("the image is for {:?}, not linux", config.os)));
        }
        let layers = config.diff_ids().len();
        if layers > MAX_LAYERS {
            return Err(ParseError::new(format!("{layers} layers; at most {MAX_LAYERS} can be")));
        }
        Ok((ImageId(Digest::of(bytes)), config))
    }

    /// The digests of the uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> &[DiffId] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// The chain ids of the layers, lowest first.
    pub fn chain(&self) -> Vec<ChainId> {
        ChainId::stack(self.diff_ids())
    }
}
