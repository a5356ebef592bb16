//! manifest.json, OCI indexes and manifests, image configs, and configs derived from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plyfs::image::manifest::{ArchiveEntry, Document, Platform};
use plyfs::image::{Derivation, DiffId, Digest, ImageConfig, Instruction, Timestamp};

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 3 {
        0 => drop(ArchiveEntry::parse_all(bytes)),
        1 => {
            let parts = scratch::parts(bytes);
            let media_type = parts.get(1).map(|part| String::from_utf8_lossy(part));
            match Document::parse(parts[0], media_type.as_deref().unwrap_or_default()) {
                Ok(Document::Image(manifest)) => {
                    assert!(manifest.is_image() || !manifest.config.media_type.is_empty())
                }
                Ok(Document::Index(index)) => {
                    drop(
                        index
                            .manifests
                            .iter()
                            .find(|entry| entry.platform == Some(Platform::host())),
                    );
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        _ => config(bytes),
    }
});

/// What is a config gives one with a layer more.
fn config(bytes: &[u8]) {
    let parts = scratch::parts(bytes);
    let Ok((id, config)) = ImageConfig::parse(parts[0]) else { return };
    assert_eq!(id.0, Digest::of(parts[0]));
    let changes: Vec<_> = parts[1..]
        .iter()
        .filter_map(|text| Instruction::parse(&String::from_utf8_lossy(text)).ok())
        .collect();
    let derivation = Derivation {
        created: Timestamp::from_unix(0).unwrap(),
        created_by: "fuzz",
        author: None,
        comment: Some("comment"),
        layer: Some(DiffId(id.0)),
        squash: false,
        changes: &changes,
    };
    let base = serde_json::from_slice(parts[0]).unwrap();
    let derived = derivation.config(base).expect("a config gives a config");
    match ImageConfig::parse(&derived) {
        Ok((_, derived)) => assert_eq!(derived.diff_ids().len(), config.diff_ids().len() + 1),
        Err(error) => assert!(config.diff_ids().len() >= 500, "{error}"),
    }
}
