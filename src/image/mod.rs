//! Pure data of images: digests, references, configs and manifests. Nothing here reads a file.
//!
//! Everything is parsed from input that others wrote, so parsing is strict and fails with
//! [`ParseError`]; whoever read the input says which object it was.

pub mod config;
pub mod derive;
pub mod digest;
pub mod hex32;
pub mod instruction;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod remote;
pub mod timestamp;
mod word;

pub use config::ImageConfig;
pub use derive::Derivation;
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use instruction::{Command, Instruction};
pub use platform::Platform;
pub use reference::Reference;
pub use remote::{Remote, RepoDigest};
pub use timestamp::Timestamp;

/// The most layers an image may have. Kernel overlayfs stops at 500 lower layers, so an image
/// with more could not be mounted by it.
pub const MAX_LAYERS: usize = 500;

/// Why a text is not what it should be; one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

impl ParseError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        ParseError(reason.into())
    }

    pub(crate) fn json(error: &serde_json::Error) -> Self {
        ParseError(format!("not valid JSON of its kind: {error}"))
    }
}
