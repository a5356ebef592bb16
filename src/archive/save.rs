//! From images to archives of images: docker-archive, OCI archive, OCI layout directory.
//!
//! Equal images give equal bytes: everything is in a fixed order and nothing has a time.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::blob::{Blob, KeptLayer};
use super::tar_sink::{Head, TarSink};
use super::tar_stream::Kind;
use super::verify::read_error;
use super::watch::{Stage, Telling, Watch};
use crate::error::{Error, Result};
use crate::image::manifest::{self, Document, media_type};
use crate::image::{Digest, Reference};
use crate::sys::stat::Time;

/// An image to be written.
#[derive(Debug, Clone)]
pub struct SavedImage {
    /// The very bytes of its config.
    pub config: Vec<u8>,
    /// The very bytes of the manifest that it came with and that is true of its layers.
    pub manifest: Option<Vec<u8>>,
    /// The names to give it.
    pub references: Vec<Reference>,
    /// Its layers, lowest first.
    pub layers: Vec<KeptLayer>,
}

impl SavedImage {
    /// The OCI manifest: the one that it came with, where that is one, so that its digest stays;
    /// else one that is made of what is known. One of docker's cannot stand in an OCI layout.
    fn oci_manifest(&self) -> Vec<u8> {
        let kept = self.manifest.as_deref().filter(|bytes| {
            let parsed = Document::parse(bytes, "");
            matches!(parsed, Ok(Document::Image(kept)) if kept.media_type() == media_type::MANIFEST)
        });
        let layers: Vec<_> = self.layers.iter().map(|layer| &layer.blob).collect();
        kept.map_or_else(|| oci_manifest(&self.config, &layers), <[u8]>::to_vec)
    }
}

/// Writes a docker-archive, as `docker save` and `podman save` do: layers uncompressed.
///
/// # Errors
/// Where a layer is not what it was, or `out` cannot be written.
pub fn docker_archive(images: &[SavedImage], out: &mut dyn Write, watch: &dyn Watch) -> Result<()> {
    let telling = Telling { watch, stage: Stage::Save };
    let mut tar = Tar(TarSink::new(out)?);
    let mut written = BTreeSet::new();
    let mut entries = Vec::new();
    for image in images {
        let mut names = Vec::new();
        for layer in &image.layers {
            let name = format!("{}.tar", layer.diff_id.0.hex());
            if written.insert(name.clone()) {
                let size = layer.blob.plain_size;
                layer.read_plain(telling, |content| tar.put(&name, size, content))?;
            }
            names.push(name);
        }
        let config = format!("{}.json", Digest::of(&image.config).hex());
        if written.insert(config.clone()) {
            tar.put_bytes(&config, &image.config)?;
        }
        let tags: Vec<_> = image.references.iter().map(Reference::to_string).collect();
        let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
        entries.push(json!({ "Config": config, "RepoTags": tags, "Layers": names }));
    }
    tar.put_bytes("manifest.json", Value::from(entries).to_string().as_bytes())?;
    tar.0.finish()
}

/// Writes an OCI archive: a tar of an OCI layout, layers as they are kept.
///
/// # Errors
/// As [`docker_archive`].
pub fn oci_archive(images: &[SavedImage], out: &mut dyn Write, watch: &dyn Watch) -> Result<()> {
    let mut tar = Tar(TarSink::new(out)?);
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    oci_layout(images, &mut tar, watch)?;
    tar.0.finish()
}

/// Writes an OCI layout into the directory `dir`, which must be empty.
///
/// # Errors
/// As [`docker_archive`]; `dir` then holds a part.
pub fn oci_directory(images: &[SavedImage], dir: &Path, watch: &dyn Watch) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|e| Error::std_io("create directory", &blobs, &e))?;
    oci_layout(images, &mut Directory(dir.to_path_buf()), watch)
}

/// Where the files of an archive go.
trait Place {
    /// Writes the file `name`, whose content has exactly `size` bytes.
    fn put(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()>;

    fn put_bytes(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.put(name, content.len() as u64, &mut &*content)
    }
}

fn oci_layout(images: &[SavedImage], to: &mut dyn Place, watch: &dyn Watch) -> Result<()> {
    let telling = Telling { watch, stage: Stage::Save };
    to.put_bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut written = BTreeSet::new();
    let mut entries = Vec::new();
    for image in images {
        for layer in &image.layers {
            if written.insert(layer.blob.digest) {
                let name = blob_name(&layer.blob.digest);
                layer.read(telling, |content| to.put(&name, layer.blob.size, content))?;
            }
        }
        let manifest = image.oci_manifest();
        for bytes in [&image.config, &manifest] {
            if written.insert(Digest::of(bytes)) {
                to.put_bytes(&blob_name(&Digest::of(bytes)), bytes)?;
            }
        }
        entries.extend(index_entries(&manifest, &image.references));
    }
    // Last: whoever finds an index finds all that it leads to.
    to.put_bytes(super::oci::INDEX, &oci_index(entries))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The OCI manifest of an image with this config and these layers.
pub fn oci_manifest(config: &[u8], layers: &[&Blob]) -> Vec<u8> {
    let layers = layers.iter().map(|blob| {
        let kind = format!("{}{}", media_type::LAYER, blob.compression.suffix());
        json!({ "mediaType": kind, "digest": blob.digest, "size": blob.size })
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": descriptor(media_type::CONFIG, config),
        "layers": layers.collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(content), "size": content.len() })
}

/// One entry for each name; podman and skopeo read the one annotation, containerd the other.
fn index_entries(manifest: &[u8], references: &[Reference]) -> Vec<Value> {
    let entry = descriptor(media_type::MANIFEST, manifest);
    let named = |reference: &Reference| {
        let mut entry = entry.clone();
        let name = reference.to_string();
        let annotations = json!({ manifest::REF_NAME: name, manifest::IMAGE_NAME: name });
        if let Some(fields) = entry.as_object_mut() {
            fields.insert("annotations".to_owned(), annotations);
        }
        entry
    };
    match references {
        [] => vec![entry],
        references => references.iter().map(named).collect(),
    }
}

fn oci_index(entries: Vec<Value>) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": entries,
    });
    index.to_string().into_bytes()
}

struct Tar<'a>(TarSink<'a>);

impl Tar<'_> {
    fn directory(&mut self, name: &str) -> Result<()> {
        self.0.begin(&head(name, Kind::Directory, 0o755, 0))
    }
}

impl Place for Tar<'_> {
    fn put(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        self.0.begin(&head(name, Kind::File, 0o644, size))?;
        each_part(content, name, size, |part| self.0.data(part))?;
        self.0.end()
    }
}

fn head(name: &str, kind: Kind, mode: u32, size: u64) -> Head<'_> {
    let (path, mtime) = (name.as_bytes(), Time::default());
    Head { path, kind, mode, uid: 0, gid: 0, mtime, rdev: 0, size, xattrs: &[] }
}

struct Directory(PathBuf);

impl Place for Directory {
    fn put(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let path = self.0.join(name);
        let failed = |error: &io::Error| Error::std_io("write", &path, error);
        let mut file = fs::File::create_new(&path).map_err(|error| failed(&error))?;
        each_part(content, name, size, |part| file.write_all(part).map_err(|error| failed(&error)))
    }
}

/// Hands over `content`, which must have `size` bytes, part by part.
fn each_part(
    content: &mut dyn Read,
    name: &str,
    size: u64,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    loop {
        let n = match content.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(name, &error)),
        };
        count += n as u64;
        if count > size || (n == 0 && count < size) {
            let found = if n == 0 { format!("{count}") } else { "more".to_owned() };
            let expected = format!("{size} bytes");
            return Err(Error::Mismatch { what: name.to_owned(), expected, found });
        }
        if n == 0 {
            return Ok(());
        }
        write(buffer.get(..n).unwrap_or_default())?;
    }
}
