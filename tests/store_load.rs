//! `load`: what it takes, and that names, layers and loads at once come out right.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;

use std::fs::{self, File};
use std::io::Write;

use images::{Scratch, docker_files, fixture, image, oci_files};
use plyfs::image::{ChainId, DiffId, Digest};
use plyfs::store::{Source, Store};
use serde_json::json;

const BASE: images::Files<'_> = &[("etc/os-release", "ID=test\n"), ("bin/tool", "one")];
const TOP: images::Files<'_> = &[("bin/tool", "two"), ("srv/data", "x")];

fn chain(image: &images::Image) -> Vec<ChainId> {
    let diffs: Vec<_> = image.layers.iter().map(|layer| DiffId(Digest::of(layer))).collect();
    ChainId::stack(&diffs)
}

fn content(scratch: &Scratch, chain: &ChainId, path: &str) -> String {
    let layer = scratch.store.root().join("layers").join(chain.0.hex());
    fs::read_to_string(layer.join("diff").join(path)).unwrap()
}

#[test]
fn every_form_of_an_archive_gives_the_same_image() {
    let image = image("example.com/app:v1", &[BASE, TOP]);
    let images = std::slice::from_ref(&image);
    let forms = [
        docker_files(images),
        oci_files(images, images::plain),
        oci_files(images, images::gzip),
        oci_files(images, images::gzip_members),
        oci_files(images, images::zstd),
    ];
    for files in forms {
        let scratch = Scratch::new();
        let loaded = scratch.load(&files).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].id.to_string(), image.id());
        let [listed] = scratch.store.images().unwrap().try_into().unwrap();
        assert_eq!(listed.layers, chain(&image));
        assert_eq!(listed.references[0].to_string(), "example.com/app:v1");
        assert_eq!(listed.created.as_deref(), Some("2024-05-06T07:08:09.123456789Z"));
        assert_eq!(content(&scratch, &listed.layers[0], "bin/tool"), "one");
        assert_eq!(content(&scratch, &listed.layers[1], "bin/tool"), "two");
        let stored = scratch.store.root().join("images").join(listed.id.0.hex());
        assert_eq!(fs::read(stored.join("config.json")).unwrap(), image.config);
        assert!(scratch.list("staging").is_empty());
    }
}

/// As skopeo's `dir:` and `podman save --format docker-dir` write it.
#[test]
fn a_plain_directory_gives_its_image_without_a_name() {
    let image = image("app", &[BASE, TOP]);
    let scratch = Scratch::new();
    let dir = scratch.dir.path().join("plain");
    fs::create_dir(&dir).unwrap();
    for (name, bytes) in images::plain_dir_files(&image, images::gzip) {
        fs::write(dir.join(name), bytes).unwrap();
    }
    let loaded = scratch.store.load(Source::Path(&dir)).unwrap();
    assert_eq!((loaded.len(), loaded[0].id.to_string()), (1, image.id()));
    assert!(loaded[0].references.is_empty());
    let [listed] = scratch.store.images().unwrap().try_into().unwrap();
    assert_eq!(content(&scratch, &listed.layers[1], "bin/tool"), "two");
}

#[test]
fn both_fixtures_are_one_image_and_loading_again_changes_nothing() {
    let scratch = Scratch::new();
    let snapshot = || {
        let catalog = fs::read(scratch.store.root().join("catalog.json")).unwrap();
        (catalog, scratch.list("layers"), scratch.list("images"))
    };
    scratch.store.load(Source::Path(&fixture("busybox-oci.tar"))).unwrap();
    let first = snapshot();
    scratch.store.load(Source::Path(&fixture("busybox-docker.tar"))).unwrap();
    assert_eq!(snapshot(), first);
    let [image] = scratch.store.images().unwrap().try_into().unwrap();
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.references[0].to_string(), "localhost/plyfs/busybox:1.35");
    assert!(image.size > 1_000_000, "{}", image.size);
}

#[test]
fn a_layer_that_two_images_share_exists_once() {
    let scratch = Scratch::new();
    let (one, two) = (image("one", &[BASE, TOP]), image("two", &[BASE, &[("other", "y")]]));
    let loaded = scratch.load(&oci_files(&[one.clone(), two.clone()], images::gzip)).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(scratch.list("layers").len(), 3);
    assert_eq!(chain(&one)[0], chain(&two)[0]);
}

#[test]
fn one_layer_on_two_parents_is_two_trees() {
    let scratch = Scratch::new();
    scratch.load_image(&image("one", &[BASE, TOP]));
    scratch.load_image(&image("two", &[TOP, BASE]));
    assert_eq!(scratch.list("layers").len(), 4);
}

#[test]
fn a_name_moves_to_the_image_loaded_last() {
    let scratch = Scratch::new();
    scratch.load_image(&image("app", &[BASE]));
    scratch.load_image(&image("app", &[TOP]));
    let images = scratch.store.images().unwrap();
    let names: Vec<_> = images.iter().map(|image| image.references.len()).collect();
    assert_eq!(names.iter().sum::<usize>(), 1, "{images:?}");
    let container = scratch.store.create("app", None).unwrap();
    assert_eq!(container.image.to_string(), image("app", &[TOP]).id());
}

#[test]
fn archives_come_from_pipes_and_compressed_as_a_whole_and_from_directories() {
    let image = image("app", &[BASE, TOP]);
    let files = oci_files(std::slice::from_ref(&image), images::gzip);
    let tar = images::archive(&files);
    for bytes in [tar.clone(), images::gzip(&tar), images::zstd(&tar)] {
        let scratch = Scratch::new();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let stream = File::from(std::os::fd::OwnedFd::from(reader));
        let loaded = scratch.store.load(Source::Stream(stream)).unwrap();
        sender.join().unwrap();
        assert_eq!(loaded[0].id.to_string(), image.id());
        assert!(scratch.list("staging").is_empty());
    }

    let scratch = Scratch::new();
    let layout = scratch.dir.path().join("layout");
    for (name, bytes) in &files {
        let path = layout.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let loaded = scratch.store.load(Source::Path(&layout)).unwrap();
    assert_eq!(loaded[0].id.to_string(), image.id());
}

#[test]
fn layers_behind_symlinks_and_long_names_are_found() {
    let image = image("app", &[BASE, TOP]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut names = Vec::new();
    let add = |tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    for (i, layer) in image.layers.iter().enumerate() {
        let long = format!("{}/{i}.tar", "directory".repeat(20));
        add(&mut tar, &long, layer);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("{i}/layer.tar"), format!("../{long}")).unwrap();
        names.push(format!("{i}/layer.tar"));
    }
    add(&mut tar, "config", &image.config);
    let manifest = json!([{ "Config": "config", "RepoTags": null, "Layers": names }]);
    add(&mut tar, "./manifest.json", manifest.to_string().as_bytes());

    let scratch = Scratch::new();
    let path = scratch.write(&tar.into_inner().unwrap());
    let loaded = scratch.store.load(Source::Path(&path)).unwrap();
    assert_eq!(loaded[0].id.to_string(), image.id());
    assert!(loaded[0].references.is_empty());
}

#[test]
fn an_archive_of_docker_25_is_read_by_its_manifest_json() {
    let image = image("app", &[BASE, TOP]);
    let mut files = oci_files(std::slice::from_ref(&image), images::gzip);
    let layers = image.layers.iter().map(|layer| images::blob(&images::gzip(layer)).0);
    let manifest = json!([{
        "Config": images::blob(&image.config).0,
        "RepoTags": ["app:v25"],
        "Layers": layers.collect::<Vec<_>>(),
    }]);
    files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    let scratch = Scratch::new();
    let loaded = scratch.load(&files).unwrap();
    assert_eq!(loaded[0].id.to_string(), image.id());
    assert_eq!(loaded[0].references[0].familiar(), "app:v25");

    // There the names of blobs are promises.
    let wrong = images::blob(&images::gzip(&image.layers[0])).0;
    let blob = files.iter_mut().find(|(name, _)| *name == wrong).unwrap();
    blob.1 = images::zstd(&image.layers[0]);
    let refusal = Scratch::new().load(&files).unwrap_err().to_string();
    assert!(refusal.contains("expected sha256:"), "{refusal}");
}

#[test]
fn of_an_index_the_image_for_this_machine_is_taken() {
    let host = plyfs::image::manifest::Platform::host();
    let (other, own) = (image("other", &[TOP]), image("own", &[BASE]));
    let mut files = vec![("oci-layout".to_owned(), b"{}".to_vec())];
    let mut entries = Vec::new();
    let platforms = [("unknown", "unknown"), ("s390x", "linux"), (&host.architecture, "linux")];
    for (image, (architecture, os)) in [&other, &other, &own].into_iter().zip(platforms) {
        let manifest = images::oci_manifest(image, images::plain);
        files.extend([images::blob(&manifest), images::blob(&image.config)]);
        files.extend(image.layers.iter().map(|layer| images::blob(layer)));
        let mut entry = images::descriptor(images::MANIFEST, &manifest);
        entry["platform"] = json!({ "architecture": architecture, "os": os });
        entries.push(entry);
    }
    let nested = json!({ "schemaVersion": 2, "mediaType": images::INDEX, "manifests": entries });
    let nested = nested.to_string().into_bytes();
    let mut entry = images::descriptor(images::INDEX, &nested);
    entry["annotations"] = json!({
        "io.containerd.image.name": "quay.io/some/app:v2",
        "org.opencontainers.image.ref.name": "v2",
    });
    files.push(images::blob(&nested));
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));

    let scratch = Scratch::new();
    let loaded = scratch.load(&files).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id.to_string(), own.id());
    assert_eq!(loaded[0].references[0].to_string(), "quay.io/some/app:v2");
}

#[test]
fn loads_at_once_all_succeed() {
    let scratch = Scratch::new();
    let images: Vec<_> = ["a", "b"].map(|name| image(name, &[BASE, TOP])).into();
    let path = scratch.write(&images::archive(&oci_files(&images, images::gzip)));
    let root = scratch.store.root();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| Store::open(root).unwrap().load(Source::Path(&path)).unwrap());
        }
    });
    assert_eq!(scratch.list("layers").len(), 2);
    assert_eq!(scratch.store.images().unwrap().len(), 1);
    assert!(scratch.list("staging").is_empty());
}

#[test]
fn what_a_dead_load_left_is_swept() {
    let scratch = Scratch::new();
    scratch.load_image(&image("app", &[BASE]));
    let root = scratch.store.root();
    let before = (scratch.list("layers"), scratch.list("images"));
    // A load that died after it had moved its layers and its image in, before the catalog.
    for dir in ["staging/dead/layer-x/diff", "layers/orphan/diff", "images/orphan"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    // One that lives is left alone.
    fs::create_dir(root.join("staging/alive")).unwrap();
    let lock = File::open(root.join("staging/alive")).unwrap();
    lock.lock().unwrap();

    scratch.store.create("app", None).unwrap();
    assert_eq!((scratch.list("layers"), scratch.list("images")), before);
    assert_eq!(scratch.list("staging"), ["alive"]);
}
