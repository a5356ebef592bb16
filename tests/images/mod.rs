//! Archives of images, made in the test: every digest is right unless a test makes it wrong.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as expected")]

use std::io::Write;
use std::path::{Path, PathBuf};

use plyfs::image::Digest;
use plyfs::store::Store;
use serde_json::{Value, json};

/// The content of one layer: paths and what the files hold.
pub(crate) type Files<'a> = &'a [(&'a str, &'a str)];

/// An image to be archived.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) name: Option<String>,
}

/// The tar of a layer.
pub(crate) fn layer(files: Files<'_>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An image of these layers, lowest first.
pub(crate) fn image(name: &str, layers: &[Files<'_>]) -> Image {
    let layers: Vec<_> = layers.iter().map(|files| layer(files)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    Image { config: config.to_string().into_bytes(), layers, name: Some(name.to_owned()) }
}

impl Image {
    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }
}

/// A tar of files, in this order.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The files of a docker-archive as skopeo writes it.
pub(crate) fn docker_files(images: &[Image]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut manifest = Vec::new();
    for image in images {
        let config = format!("{}.json", Digest::of(&image.config).hex());
        let mut names = Vec::new();
        for layer in &image.layers {
            let name = format!("{}.tar", Digest::of(layer).hex());
            names.push(name.clone());
            if !files.iter().any(|(known, _)| *known == name) {
                files.push((name, layer.clone()));
            }
        }
        manifest.push(json!({
            "Config": config,
            "RepoTags": image.name.iter().collect::<Vec<_>>(),
            "Layers": names,
        }));
        files.push((config, image.config.clone()));
    }
    files.push(("manifest.json".to_owned(), Value::from(manifest).to_string().into_bytes()));
    files
}

/// A blob of an OCI layout.
pub(crate) fn blob(content: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", Digest::of(content).hex()), content.to_vec())
}

/// A descriptor of `content`.
pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    let digest = Digest::of(content).to_string();
    json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
}

/// The files of what skopeo's `dir:` writes: the manifest, and blobs called by their digits.
pub(crate) fn plain_dir_files(
    image: &Image,
    compress: fn(&[u8]) -> Vec<u8>,
) -> Vec<(String, Vec<u8>)> {
    let hex = |content: &[u8]| (Digest::of(content).hex(), content.to_vec());
    let mut files = vec![
        ("version".to_owned(), b"Directory Transport Version: 1.1\n".to_vec()),
        ("manifest.json".to_owned(), oci_manifest(image, compress)),
        hex(&image.config),
    ];
    files.extend(image.layers.iter().map(|layer| hex(&compress(layer))));
    files
}

/// The manifest of `image`, whose layers are compressed by `compress`.
pub(crate) fn oci_manifest(image: &Image, compress: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let layers = image
        .layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", &compress(layer)));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &image.config),
        "layers": layers.collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The files of an OCI archive.
pub(crate) fn oci_files(
    images: &[Image],
    compress: fn(&[u8]) -> Vec<u8>,
) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut entries = Vec::new();
    for image in images {
        let manifest = oci_manifest(image, compress);
        files.push(blob(&image.config));
        files.extend(image.layers.iter().map(|layer| blob(&compress(layer))));
        let mut entry = descriptor(MANIFEST, &manifest);
        if let Some(name) = &image.name {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        entries.push(entry);
        files.push(blob(&manifest));
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files
}

pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// gzip in two members, as parallel compressors write it.
pub(crate) fn gzip_members(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [gzip(first), gzip(second)].concat()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

/// An empty store in a directory of its own, removed at the end.
pub(crate) struct Scratch {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root")).unwrap();
        Scratch { dir, store }
    }

    /// Writes an archive beside the store.
    pub(crate) fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(format!("{}.tar", Digest::of(bytes).short()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Loads an archive of these files.
    pub(crate) fn load(
        &self,
        files: &[(String, Vec<u8>)],
    ) -> plyfs::error::Result<Vec<plyfs::store::Loaded>> {
        let path = self.write(&archive(files));
        self.store.load(plyfs::store::Source::Path(&path))
    }

    /// Loads an image that must load.
    pub(crate) fn load_image(&self, image: &Image) {
        self.load(&docker_files(std::slice::from_ref(image))).unwrap();
    }

    /// The entries of a directory of the store, sorted.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        list(&self.store.root().join(name))
    }
}

/// The names in a directory, sorted.
pub(crate) fn list(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A fixture archive of the repository.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives").join(name)
}
