//! What is built into PlyFS comes from crates.io, under the licences that `deny.toml` allows. The
//! same as `scripts/deny` says, without a program that would have to be installed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The names between the brackets of `allow` in deny.toml.
fn allowed() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, list) = text.split_once("\nallow = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    list.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()
}

/// Whether an SPDX expression can be met with `allowed` licences.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
    return any(&mut words, allowed);

    type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

    fn any(words: &mut Words<'_>, allowed: &[String]) -> bool {
        let mut met = all(words, allowed);
        while words.next_if_eq(&"OR").is_some() {
            met |= all(words, allowed);
        }
        met
    }

    fn all(words: &mut Words<'_>, allowed: &[String]) -> bool {
        let mut met = one(words, allowed);
        while words.next_if_eq(&"AND").is_some() {
            met &= one(words, allowed);
        }
        met
    }

    fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
        let Some(word) = words.next() else { return false };
        if word == "(" {
            let met = any(words, allowed);
            return words.next() == Some(")") && met;
        }
        // An exception only permits more.
        if words.next_if_eq(&"WITH").is_some() {
            words.next();
        }
        allowed.iter().any(|name| name == word)
    }
}

#[test]
fn all_that_comes_along_is_licensed_and_from_the_registry() {
    let cargo = std::env::var("CARGO").unwrap();
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "only {} crates", packages.len());
    let allowed = allowed();
    let wrong: Vec<String> = packages
        .iter()
        .filter(|package| package["name"] != "plyfs")
        .filter(|package| {
            let licence = package["license"].as_str().unwrap_or_default();
            package["source"] != REGISTRY || !is_allowed(licence, &allowed)
        })
        .map(|package| {
            format!("{}: {}, {}", package["name"], package["license"], package["source"])
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn expressions_are_read() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for fits in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND ISC", "MIT WITH X"] {
        assert!(is_allowed(fits, &allowed), "{fits}");
    }
    for not in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "(MIT"] {
        assert!(!is_allowed(not, &allowed), "{not}");
    }
}
