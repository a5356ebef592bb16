//! The archives in `fixtures/` are what `fixtures/README.md` says: two forms of one image.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

type Files = BTreeMap<String, Vec<u8>>;

fn fixture(name: &str) -> Files {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives").join(name);
    files(&std::fs::read(path).unwrap())
}

/// The entries of a tar, directories with a trailing slash.
fn files(tar: &[u8]) -> Files {
    let mut archive = tar::Archive::new(tar);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    archive.entries().unwrap().map(entry).collect()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn blob<'a>(files: &'a Files, descriptor: &Value) -> &'a [u8] {
    let promised = descriptor["digest"].as_str().unwrap();
    let content = &files[&format!("blobs/sha256/{}", promised.strip_prefix("sha256:").unwrap())];
    assert_eq!(digest(content), promised);
    assert_eq!(descriptor["size"], content.len());
    content
}

/// The config and the unpacked layers, lowest first.
fn oci() -> (Vec<u8>, Vec<Vec<u8>>) {
    let files = fixture("busybox-oci.tar");
    let index = json(&files["index.json"]);
    let manifest = json(blob(&files, &index["manifests"][0]));
    let gunzip = |descriptor: &Value| {
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(blob(&files, descriptor)).read_to_end(&mut layer).unwrap();
        layer
    };
    let layers = manifest["layers"].as_array().unwrap().iter().map(gunzip).collect();
    (blob(&files, &manifest["config"]).to_vec(), layers)
}

fn docker() -> (Vec<u8>, Vec<Vec<u8>>) {
    let files = fixture("busybox-docker.tar");
    let manifest = &json(&files["manifest.json"])[0];
    let layers = manifest["Layers"].as_array().unwrap();
    let layers = layers.iter().map(|path| files[path.as_str().unwrap()].clone()).collect();
    (files[manifest["Config"].as_str().unwrap()].clone(), layers)
}

#[test]
fn both_archives_hold_one_image() {
    assert_eq!(oci(), docker());
}

#[test]
fn the_config_promises_what_the_layers_are() {
    let (config, layers) = oci();
    let config = json(&config);
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["/bin/sh"]));
    let found: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(found));
}

#[test]
fn the_layers_have_a_whiteout_an_opaque_directory_and_hard_links() {
    let (_, layers) = oci();
    assert_eq!(layers.len(), 3);
    assert!(files(&layers[0]).contains_key("etc/motd"));
    assert!(files(&layers[2]).contains_key("etc/.wh.motd"));
    assert!(files(&layers[0]).contains_key("srv/www/old/page1.html"));
    assert!(files(&layers[2]).contains_key("srv/www/.wh..wh..opq"));
    let mut base = tar::Archive::new(layers[0].as_slice());
    let links = base
        .entries()
        .unwrap()
        .filter(|e| e.as_ref().unwrap().header().entry_type().is_hard_link());
    assert!(links.count() > 200, "busybox has its applets as hard links");
}
