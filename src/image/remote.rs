//! What a registry is asked for, and what it answered with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Digest, ParseError, Reference};

/// A manifest of a repository, `docker.io/library/busybox@sha256:...`. Unlike a tag it always
/// means the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoDigest {
    domain: String,
    path: String,
    digest: Digest,
}

impl RepoDigest {
    /// The manifest `digest` in the repository of `name`.
    pub fn new(name: &Reference, digest: Digest) -> RepoDigest {
        RepoDigest { domain: name.domain().to_owned(), path: name.path().to_owned(), digest }
    }

    /// Reads `name@sha256:...`; a tag in the name means nothing.
    ///
    /// # Errors
    /// [`ParseError`] where the name or the digest is none.
    pub fn parse(text: &str) -> Result<RepoDigest, ParseError> {
        let Some((name, digest)) = text.split_once('@') else {
            return Err(ParseError::new("an image name with @sha256: and 64 hex digits is needed"));
        };
        Ok(RepoDigest::new(&Reference::parse(name)?, digest.parse()?))
    }

    /// The digest of the manifest, or of an index.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether it is in the repository of `name`.
    pub fn is_in(&self, name: &Reference) -> bool {
        self.domain == name.domain() && self.path == name.path()
    }

    /// As docker shows it.
    pub fn familiar(&self) -> String {
        format!("{}@{}", self.familiar_repository(), self.digest)
    }

    /// The repository as docker shows it.
    pub fn familiar_repository(&self) -> String {
        super::reference::familiar(&self.domain, &self.path)
    }
}

impl fmt::Display for RepoDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.domain, self.path, self.digest)
    }
}

impl FromStr for RepoDigest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<RepoDigest, ParseError> {
        RepoDigest::parse(text)
    }
}

impl Serialize for RepoDigest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RepoDigest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RepoDigest, D::Error> {
        let text = String::deserialize(from)?;
        RepoDigest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// What a tag means at the moment.
    Tag(Reference),
    /// This very manifest.
    Digest(RepoDigest),
}

impl Remote {
    /// Reads a name with a tag, which may be left out, or a digest.
    ///
    /// # Errors
    /// [`ParseError`] for anything else.
    pub fn parse(text: &str) -> Result<Remote, ParseError> {
        match text.contains('@') {
            true => RepoDigest::parse(text).map(Remote::Digest),
            false => Reference::parse(text).map(Remote::Tag),
        }
    }

    /// The registry, `docker.io` or `host:port`.
    pub fn domain(&self) -> &str {
        match self {
            Remote::Tag(reference) => reference.domain(),
            Remote::Digest(pinned) => &pinned.domain,
        }
    }

    /// The repository in the registry.
    pub fn path(&self) -> &str {
        match self {
            Remote::Tag(reference) => reference.path(),
            Remote::Digest(pinned) => &pinned.path,
        }
    }

    /// What the registry's API calls it: tag or digest.
    pub fn selector(&self) -> String {
        match self {
            Remote::Tag(reference) => reference.tag().to_owned(),
            Remote::Digest(pinned) => pinned.digest.to_string(),
        }
    }

    /// The manifest `digest` of the same repository.
    pub fn pinned(&self, digest: Digest) -> RepoDigest {
        let (domain, path) = (self.domain().to_owned(), self.path().to_owned());
        RepoDigest { domain, path, digest }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remote::Tag(reference) => f.write_str(&reference.familiar()),
            Remote::Digest(pinned) => f.write_str(&pinned.familiar()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_digests_round_trip() {
        let digest = Digest::of(b"");
        let pinned = RepoDigest::parse(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(pinned.familiar(), format!("busybox@{digest}"));
        assert_eq!(pinned.to_string().parse(), Ok(pinned.clone()));
        let remote = Remote::parse(&pinned.to_string()).unwrap();
        assert_eq!((remote.domain(), remote.path()), ("docker.io", "library/busybox"));
        assert_eq!(remote.selector(), digest.to_string());
        assert_eq!(Remote::parse("h:5000/a").unwrap().selector(), "latest");
        for wrong in ["a@", "@sha256:00", "a@sha256:00", "a@b@c", "A@x"] {
            assert!(Remote::parse(wrong).is_err(), "{wrong}");
        }
    }
}
