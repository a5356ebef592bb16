//! What fuzzing found, each with the input that showed it; see `docs/FUZZING.md`.

#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use plyfs::image::{Derivation, DiffId, Digest, ImageConfig, Reference, Timestamp};

#[test]
fn a_config_that_loads_can_be_taken_in_as_a_whole() {
    let config = |extra: &[u8]| {
        let start = b"{\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]},\"x\":";
        [&start[..], extra, b"}"].concat()
    };
    assert!(ImageConfig::parse(&config(b"\"text\"")).is_ok());
    // Skipped by whoever reads only the known fields: not UTF-8, and nested without end.
    assert!(ImageConfig::parse(&config(b"\"\xd3\xd3\"")).is_err());
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    assert!(ImageConfig::parse(&config(&deep)).is_err());
}

#[test]
fn an_image_without_layers_can_be_committed() {
    let base: serde_json::Value =
        serde_json::from_str(r#"{"os":"linux","rootfs":{"type":"layers"}}"#).unwrap();
    let derivation = Derivation {
        created: Timestamp::from_unix(0).unwrap(),
        created_by: "test",
        author: None,
        comment: None,
        layer: Some(DiffId(Digest::of(b""))),
        squash: false,
        changes: &[],
    };
    let (_, config) = ImageConfig::parse(&derivation.config(base).unwrap()).unwrap();
    assert_eq!(config.diff_ids().len(), 1);
}

#[test]
fn what_people_see_of_a_name_means_that_name() {
    for text in [
        "docker.io/library/5/t/59aaxx/ls",
        "library/a/b:1",
        "library/a",
        "a/library/b",
        "docker.io/0r.io/0",
    ] {
        let reference = Reference::parse(text).unwrap();
        assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
    }
}

/// It was kept in the store as a name that could not be read again.
#[test]
fn a_name_that_gets_too_long_by_what_is_added_is_refused() {
    let name = |length: usize| Reference::parse(&"a".repeat(length));
    // With `docker.io/library/` before it.
    let longest = name(255 - 18).unwrap();
    assert_eq!(Reference::parse(&longest.to_string()), Ok(longest));
    assert!(name(255 - 17).is_err());
}
