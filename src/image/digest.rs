//! Digests, and the three things they name, which must never be taken for one another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::ParseError;
use super::hex32::Hex32;

/// A sha256 digest. Its text form is `sha256:` and 64 lower-case hex digits; its hex form is
/// safe as a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Hex32);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest whose 64 lower-case hex digits are `text`.
    ///
    /// # Errors
    /// [`ParseError`] for anything else.
    pub fn from_hex(text: &str) -> Result<Digest, ParseError> {
        let wrong = || ParseError::new(format!("{:?} is not a sha256 digest", clipped(text)));
        Hex32::parse(text).map(Digest).ok_or_else(wrong)
    }

    /// Its 64 hex digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// Its first twelve hex digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

/// The start of a text that may be long and hostile.
fn clipped(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Digest, ParseError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Digest::from_hex(hex),
            Some((algorithm, _)) => Err(ParseError::new(format!(
                "digest algorithm {:?} is not supported, only sha256",
                clipped(algorithm)
            ))),
            None => Err(ParseError::new(format!("{:?} is not a digest", clipped(text)))),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        Digest(Hex32(self.0.finalize().into()))
    }
}

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

digest_of! {
    /// Names an image: the digest of the bytes of its config.
    ImageId
}
digest_of! {
    /// Names the content of one layer: the digest of its uncompressed tar.
    DiffId
}
digest_of! {
    /// Names a layer together with all below it; two images that share it share the tree.
    ChainId
}

impl ChainId {
    /// The chain that puts `diff` on top of `parent`, as the OCI image-spec (config.md, "Layer
    /// ChainID") defines it.
    pub fn extend(parent: Option<ChainId>, diff: DiffId) -> ChainId {
        match parent {
            None => ChainId(diff.0),
            Some(parent) => ChainId(Digest::of(format!("{parent} {diff}").as_bytes())),
        }
    }

    /// The chain of every layer of a stack, lowest first.
    pub fn stack(diffs: &[DiffId]) -> Vec<ChainId> {
        let mut below = None;
        let mut chain = Vec::with_capacity(diffs.len());
        for diff in diffs {
            let id = ChainId::extend(below, *diff);
            chain.push(id);
            below = Some(id);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_a_digest() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "sha256:", "sha256:../../x", "md5:00", &digest.hex().to_uppercase()] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
            assert!(Digest::from_hex(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn chains_follow_the_specification() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        let two = ChainId(Digest::of(format!("{a} {b}").as_bytes()));
        let three = ChainId(Digest::of(format!("{two} {a}").as_bytes()));
        assert_eq!(ChainId::stack(&[a, b, a]), [ChainId(a.0), two, three]);
    }
}
