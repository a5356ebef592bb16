//! A mistake of ours on one of the threads that load, pull or push: the command ends with one line
//! that says so, and leaves a store as it was.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod registries;
mod support;

use images::{Scratch, image, oci_files};
use plyfs::archive::compress::Compression;
use plyfs::archive::watch::{Stage, Unwatched, Watch};
use plyfs::image::{Digest, Platform, Reference, Remote};
use plyfs::registry::{Access, pull, push};
use plyfs::store::Source;
use registries::Registry;

const BELOW: images::Files<'_> = &[("etc/a", "a"), ("etc/b", "b")];
const ABOVE: images::Files<'_> = &[("etc/c", "c")];

/// Panics at a stage of the layer with this digest.
struct Panics(Stage, Digest);

impl Watch for Panics {
    fn begin(&self, stage: Stage, layer: &Digest, _: Option<u64>) {
        assert!((stage, layer) != (self.0, &self.1), "a panic that a test asked for");
    }

    fn advance(&self, _: Stage, _: &Digest, _: u64) {}

    fn end(&self, _: Stage, _: &Digest) {}
}

fn told<T: std::fmt::Debug>(outcome: Result<T, plyfs::error::Error>, what: &str) {
    let said = outcome.unwrap_err().to_string();
    let expected =
        format!("{what} ended in a panic, a bug of plyfs: please report what stands above");
    assert_eq!(said, expected);
}

#[test]
fn a_panic_while_a_layer_is_unpacked_ends_the_load_in_words() {
    let image = image("example.com/app:v1", &[BELOW, ABOVE]);
    let scratch = Scratch::new();
    let path = scratch.dir.path().join("image.tar");
    std::fs::write(&path, images::archive(&oci_files(std::slice::from_ref(&image), images::plain)))
        .unwrap();
    for layer in &image.layers {
        let watch = Panics(Stage::Unpack, Digest::of(layer));
        told(scratch.store.load_watched(Source::Path(&path), &watch), "the unpacking of a layer");
        assert!(scratch.store.images().unwrap().is_empty());
        assert!(scratch.store.check().unwrap().is_empty());
    }
    scratch.store.load(Source::Path(&path)).unwrap();
}

#[test]
fn a_panic_in_an_upload_or_a_download_is_told() {
    if !support::require("tool:docker-registry") {
        return;
    }
    let registry = Registry::start();
    let (source, access) = (Scratch::new(), Access::default());
    let image = image("example.com/app:v1", &[BELOW, ABOVE]);
    source.load_image(&image);
    let name = registry.name("app:1");
    let (to, from) = (Reference::parse(&name).unwrap(), Remote::parse(&name).unwrap());
    let outgoing = source.store.outgoing("example.com/app:v1").unwrap();
    let layer = Digest::of(image.layers.first().unwrap());

    let watch = Panics(Stage::Upload, layer);
    let sent = push(&source.store, &outgoing, &to, Compression::Plain, &access, &watch);
    told(sent, "an upload");
    push(&source.store, &outgoing, &to, Compression::Plain, &access, &Unwatched).unwrap();

    let there = Scratch::new();
    let watch = Panics(Stage::Download, layer);
    let came = pull(&there.store, &from, &Platform::host(), &access, &watch);
    told(came, "the unpacking of a layer");
    assert!(there.store.images().unwrap().is_empty());
    pull(&there.store, &from, &Platform::host(), &access, &Unwatched).unwrap();
}
