//! References: how images are named.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ParseError;

/// The registry that names without one belong to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The place of images that were only ever on this machine.
pub const LOCAL_DOMAIN: &str = "localhost";

/// A full reference, `docker.io/library/busybox:latest`. Its text form is always full;
/// [`familiar_repository`](Reference::familiar_repository) is what people see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: String,
}

impl Reference {
    /// Reads a name as a person writes it; what has no domain belongs to docker.io, what has no
    /// tag gets `latest`.
    ///
    /// # Errors
    /// [`ParseError`] where it breaks the grammar, or pins a digest (`name@sha256:...`), which
    /// names a manifest and not an image of a store.
    pub fn parse(text: &str) -> Result<Reference, ParseError> {
        Reference::parse_in(text, DEFAULT_DOMAIN)
    }

    /// Reads a name; what has no domain belongs to `localhost`. That is how names in OCI
    /// archives, which may be bare tags, are taken: they claim no registry.
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn parse_local(text: &str) -> Result<Reference, ParseError> {
        Reference::parse_in(text, LOCAL_DOMAIN)
    }

    fn parse_in(text: &str, default: &str) -> Result<Reference, ParseError> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(300).collect();
            Err(ParseError::new(format!("{shown:?} is not an image name: {why}")))
        };
        if text.contains('@') {
            return wrong("a manifest digest cannot be used here, give a tag or an image id");
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return wrong("64 hex digits are an image id");
        }
        let (name, tag) = split_tag(text);
        let (domain, path) = split_domain(name, default);
        if !is_tag(tag) {
            return wrong("its tag may have letters, digits, _ . - and 128 characters");
        }
        if !path.split('/').all(is_component) {
            return wrong("its parts may have lower-case letters and digits, joined by . _ __ -");
        }
        if !is_domain(domain) {
            return wrong("its registry is not a host name");
        }
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = match (domain, path.contains('/')) {
            (DEFAULT_DOMAIN, false) => format!("library/{path}"),
            _ => path.to_owned(),
        };
        // With what was added: the whole name must be one that can be read again.
        if domain.len() + 1 + path.len() > 255 {
            return wrong("longer than 255 characters");
        }
        Ok(Reference { domain: domain.to_owned(), path, tag: tag.to_owned() })
    }

    /// Registry and path, in full.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The registry.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The repository as docker shows it: without docker.io and its `library/`.
    pub fn familiar_repository(&self) -> String {
        familiar(&self.domain, &self.path)
    }

    /// The whole name as docker shows it.
    pub fn familiar(&self) -> String {
        format!("{}:{}", self.familiar_repository(), self.tag)
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether `text`, a name without a registry, may mean this reference: its tag is the same
    /// and its path is the end of this one's, from one slash on.
    pub fn answers_to(&self, text: &str) -> bool {
        let (name, tag) = split_tag(text);
        let full = self.repository();
        tag == self.tag
            && full.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    }
}

/// A repository as docker shows it.
pub(super) fn familiar(domain: &str, path: &str) -> String {
    match domain {
        DEFAULT_DOMAIN => match path.strip_prefix("library/") {
            Some(official) if !official.contains('/') => official.to_owned(),
            // Short it would be another registry's.
            _ if split_domain(path, DEFAULT_DOMAIN).1 != path => format!("{domain}/{path}"),
            _ => path.to_owned(),
        },
        domain => format!("{domain}/{path}"),
    }
}

/// Splits off the tag; a colon before a slash belongs to a port.
fn split_tag(text: &str) -> (&str, &str) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "latest"),
    }
}

/// Splits off the registry: the first part, where it looks like a host.
fn split_domain<'a>(name: &'a str, default: &'a str) -> (&'a str, &'a str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == LOCAL_DOMAIN
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (default, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().all(allowed) && !tag.starts_with(['.', '-'])
}

/// One part of a path: runs of lower-case letters and digits, joined by `.`, `_`, `__` or any
/// number of `-`.
fn is_component(part: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    let joints = bytes.split(plain).filter(|joint| !joint.is_empty());
    ends && joints
        .into_iter()
        .all(|joint| matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').unwrap_or((domain, "0"));
    let label = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    host.split('.').all(label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.domain, self.path, self.tag)
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Reference, ParseError> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Reference, D::Error> {
        let text = String::deserialize(from)?;
        Reference::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_full() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("docker.io/a", "docker.io/library/a:latest", "a:latest"),
            ("localhost/a:x", "localhost/a:x", "localhost/a:x"),
            ("h:5000/a", "h:5000/a:latest", "h:5000/a:latest"),
            ("quay.io/a/b__c:v1.2-3", "quay.io/a/b__c:v1.2-3", "quay.io/a/b__c:v1.2-3"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(Reference::parse(full), Ok(reference));
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let long = "a".repeat(300);
        for text in
            ["", ":x", "A", "a//b", "../a", "a:", "a:-x", "a_", "a___b", "a@sha256:0", &long]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn short_names_answer() {
        let reference = Reference::parse("localhost/team/app:v1").unwrap();
        assert!(reference.answers_to("app:v1") && reference.answers_to("team/app:v1"));
        assert!(!reference.answers_to("app") && !reference.answers_to("pp:v1"));
    }
}
