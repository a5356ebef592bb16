//! Kinds of machines.

use std::fmt;

use serde::Deserialize;

use super::ParseError;

/// A kind of machine, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`; `unknown` for an attestation that is no image.
    #[serde(default)]
    pub os: String,
    /// `v7` of `arm`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// The machine this program runs on.
    pub fn host() -> Platform {
        Platform::linux(architecture(std::env::consts::ARCH))
    }

    fn linux(architecture: &str) -> Platform {
        Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Reads `linux/arm64`, `arm64` or `linux/arm/v7`.
    ///
    /// # Errors
    /// [`ParseError`] for anything else, and for another system than Linux.
    pub fn parse(text: &str) -> Result<Platform, ParseError> {
        let parts: Vec<_> = text.split('/').collect();
        let (machine, variant) = match parts.as_slice() {
            ["linux", machine] => (*machine, None),
            ["linux", machine, variant] => (*machine, Some((*variant).to_owned())),
            [machine] if *machine != "linux" => (*machine, None),
            _ => return Err(wrong(text)),
        };
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
        if !word(machine) && machine != "x86_64" || !variant.as_deref().is_none_or(word) {
            return Err(wrong(text));
        }
        Ok(Platform { variant, ..Platform::linux(architecture(machine)) })
    }

    /// Whether both mean the very same.
    pub(super) fn is(&self, other: &Platform) -> bool {
        self.may_be(other) && self.full_variant() == other.full_variant()
    }

    /// Whether both are of one kind; a variant that was asked for must be given.
    pub(super) fn may_be(&self, wanted: &Platform) -> bool {
        let same = self.os == wanted.os && self.architecture == wanted.architecture;
        same && (wanted.variant.is_none() || self.full_variant() == wanted.full_variant())
    }

    /// What is meant where no variant is said.
    fn full_variant(&self) -> &str {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm", None | Some("")) => "v7",
            ("arm64", None | Some("")) => "v8",
            ("amd64", None | Some("")) => "v1",
            (_, variant) => variant.unwrap_or_default(),
        }
    }
}

fn wrong(text: &str) -> ParseError {
    let shown: String = text.chars().take(100).collect();
    ParseError::new(format!("{shown:?} is no platform such as linux/amd64 or linux/arm/v7"))
}

/// Go's word for a machine that uname or Rust call otherwise.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_apart_by_what_they_mean() {
        let parse = |text: &str| Platform::parse(text).unwrap();
        assert!(parse("arm64").is(&parse("linux/arm64/v8")));
        assert!(parse("x86_64").is(&parse("linux/amd64")));
        assert!(parse("linux/arm/v6").may_be(&parse("arm")));
        assert!(!parse("linux/arm").may_be(&parse("linux/arm/v6")));
        assert_eq!(parse("linux/arm/v6").to_string(), "linux/arm/v6");
        for wrong in ["", "linux", "linux/", "windows/amd64", "a/b/c/d", "linux/a b"] {
            assert!(Platform::parse(wrong).is_err(), "{wrong}");
        }
    }
}
