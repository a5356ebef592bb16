//! The walls of the house: which module may use which, and where certain crates may appear. The
//! map is in `src/lib.rs` and `docs/ARCHITECTURE.md`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

use std::fs;
use std::path::{Path, PathBuf};

/// A module, and the modules that it may use.
const WALLS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("image", &[]),
    ("sys", &["error"]),
    ("layer", &["error", "sys"]),
    ("overlay", &["error", "sys", "layer"]),
    ("changeset", &["error", "sys", "layer"]),
    ("fuse", &["error", "sys", "layer", "overlay"]),
    ("archive", &["error", "image", "sys", "layer", "changeset"]),
    ("store", &["error", "image", "sys", "layer", "changeset", "archive"]),
    ("registry", &["error", "image", "archive", "store"]),
    ("snapshotter", &["error", "image", "sys", "layer", "changeset", "archive", "store"]),
];

/// A crate or word, and the modules (or files) that alone may use it.
const ROOMS: &[(&str, &[&str])] = &[
    ("libc::", &["sys"]),
    ("unsafe {", &["sys"]),
    ("tar::", &["archive"]),
    ("flate2::", &["archive"]),
    ("zstd::", &["archive"]),
    ("bzip2::", &["archive"]),
    ("lzma_rust2::", &["archive"]),
    ("oci_client::", &["registry"]),
    ("rustls::", &["registry"]),
    ("base64::", &["registry"]),
    ("clap::", &["cli", "main.rs", "bin"]),
    ("clap_complete::", &["cli"]),
    ("clap_mangen::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("tonic::", &["snapshotter"]),
    ("tonic_prost::", &["snapshotter"]),
    ("prost::", &["snapshotter"]),
    ("println!", &["cli", "main.rs", "bin"]),
];

/// The source files with their place below `src`, without comments.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<&str> =
                    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                found.push((path.strip_prefix(&root).unwrap().to_path_buf(), code.join("\n")));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "the sources are not found");
    found
}

/// The first component of a source's path: `layer/mod.rs` is in `layer`, `error.rs` in `error`.
fn module_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    match path.components().count() {
        1 if first != "main.rs" => first.trim_end_matches(".rs").to_owned(),
        _ => first.to_owned(),
    }
}

/// The modules of this crate that `code` names, as `crate::NAME` or in `use crate::{NAME, ..}`.
fn used_modules(code: &str) -> Vec<String> {
    let names = WALLS.iter().map(|(name, _)| *name).chain(["cli"]);
    let groups: Vec<&str> = code.split("crate::{").skip(1).map(group).collect();
    names
        .filter(|name| {
            let direct = code.split("crate::").skip(1).any(|rest| starts_with_word(rest, name));
            let grouped = groups.iter().any(|group| {
                top_level_items(group).iter().any(|item| starts_with_word(item.trim_start(), name))
            });
            direct || grouped
        })
        .map(str::to_owned)
        .collect()
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// The text up to the brace that closes a group whose opening one was just passed.
fn group(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

/// The parts of a group between its own commas.
fn top_level_items(group: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ if depth == 0 => items.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    items
}

#[test]
fn no_module_uses_one_above_it() {
    let mut breaches = Vec::new();
    for (path, code) in sources() {
        let module = module_of(&path);
        let Some((_, allowed)) = WALLS.iter().find(|(name, _)| *name == module) else { continue };
        for used in used_modules(&code) {
            if used != module && !allowed.contains(&used.as_str()) {
                breaches.push(format!("src/{}: {module} uses {used}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut breaches = Vec::new();
    for (path, code) in sources() {
        let module = module_of(&path);
        for (word, rooms) in ROOMS {
            let word_found = code
                .match_indices(word)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if word_found && !rooms.contains(&module.as_str()) {
                breaches.push(format!("src/{}: {word} belongs in {rooms:?}", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn a_breach_is_seen() {
    assert_eq!(used_modules("use crate::error::{Errno, FsResult};"), ["error"]);
    assert_eq!(used_modules("use crate::{error::Errno, sys::{file, node}};"), ["error", "sys"]);
    assert_eq!(used_modules("let x = crate::store::open(); use crate::layers;"), ["store"]);
    assert_eq!(used_modules("use super::fault; use std::fs;"), [""; 0]);
    assert_eq!(module_of(Path::new("error.rs")), "error");
    assert_eq!(module_of(Path::new("main.rs")), "main.rs");
    assert_eq!(module_of(Path::new("bin/fuse-plyfs.rs")), "bin");
}
