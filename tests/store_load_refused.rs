//! `load` refuses archives that are not what they claim to be, says why, and leaves nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;

use images::{Image, Scratch, docker_files, image, oci_files};
use plyfs::image::Digest;
use plyfs::store::Source;
use serde_json::{Value, json};

type Archive = Vec<(String, Vec<u8>)>;

fn sample() -> Image {
    image("app", &[&[("a", "lower")], &[("b", "upper")]])
}

fn oci() -> Archive {
    oci_files(&[sample()], images::gzip)
}

fn docker() -> Archive {
    docker_files(&[sample()])
}

/// The file called `name` in `files`.
fn file<'a>(files: &'a mut Archive, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(known, _)| known == name).unwrap().1
}

fn edit_json(files: &mut Archive, name: &str, edit: impl FnOnce(&mut Value)) {
    let bytes = file(files, name);
    let mut value = serde_json::from_slice(bytes).unwrap();
    edit(&mut value);
    *bytes = value.to_string().into_bytes();
}

/// Loads `files` on top of an image that is there, and holds that only the error is left.
fn assert_refused(files: &Archive, expected: &str) {
    assert_bytes_refused(&images::archive(files), expected);
}

fn assert_bytes_refused(bytes: &[u8], expected: &str) {
    let scratch = Scratch::new();
    scratch.load_image(&image("other", &[&[("c", "there before")]]));
    let state = || (scratch.list("layers"), scratch.list("images"), scratch.store.images());
    let before = format!("{:?}", state());
    let error = scratch.store.load(Source::Path(&scratch.write(bytes))).unwrap_err().to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    assert!(!error.contains('\n'), "{error:?}");
    assert_eq!(format!("{:?}", state()), before);
    assert!(scratch.list("staging").is_empty());
}

/// The name of the blob of the topmost layer.
fn top_blob() -> String {
    images::blob(&images::gzip(&sample().layers[1])).0
}

#[test]
fn a_layer_blob_that_was_tampered_with() {
    let mut files = oci();
    let other = images::gzip(&images::layer(&[("b", "forged")]));
    let length = file(&mut files, &top_blob()).len();
    *file(&mut files, &top_blob()) = other;
    // First by its size, which differs, then with the size made right.
    assert_refused(&files, "expected");
    let bytes = file(&mut files, &top_blob());
    bytes.resize(length, 0);
    assert_refused(&files, &Digest::of(&images::gzip(&sample().layers[1])).to_string());
}

#[test]
fn every_single_wrong_byte_of_a_layer_is_noticed() {
    let blob = top_blob();
    let length = file(&mut oci(), &blob).len();
    for at in (0..length).step_by(7) {
        let mut files = oci();
        file(&mut files, &blob)[at] ^= 0x40;
        assert_refused(&files, "expected sha256:");
    }
}

#[test]
fn a_docker_layer_that_is_not_what_the_config_says() {
    let mut files = docker();
    let name = format!("{}.tar", Digest::of(&sample().layers[1]).hex());
    *file(&mut files, &name) = images::layer(&[("b", "forged")]);
    assert_refused(&files, "expected sha256:");
    // Bytes after the end of the tar count, too.
    *file(&mut files, &name) = [sample().layers[1].as_slice(), b"more"].concat();
    assert_refused(&files, "expected sha256:");
}

#[test]
fn an_oci_layer_whose_diff_id_is_another() {
    let mut image = sample();
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    config["rootfs"]["diff_ids"][1] = Digest::of(b"something else").to_string().into();
    image.config = config.to_string().into_bytes();
    assert_refused(&oci_files(&[image], images::gzip), "expected sha256:");
}

#[test]
fn configs_and_manifests_that_were_tampered_with() {
    let config = format!("{}.json", Digest::of(&sample().config).hex());
    let mut files = docker();
    file(&mut files, &config).push(b' ');
    assert_refused(&files, "expected sha256:");

    let config = images::blob(&sample().config).0;
    let mut files = oci();
    file(&mut files, &config)[20] ^= 1;
    assert_refused(&files, "expected sha256:");
    file(&mut files, &config).push(b' ');
    assert_refused(&files, "bytes");

    let manifest = images::blob(&images::oci_manifest(&sample(), images::gzip)).0;
    let mut files = oci();
    file(&mut files, &manifest)[20] ^= 1;
    assert_refused(&files, "expected sha256:");
}

#[test]
fn parts_that_are_missing() {
    for name in [top_blob(), images::blob(&sample().config).0] {
        let mut files = oci();
        files.retain(|(known, _)| *known != name);
        assert_refused(&files, "missing");
    }
    let mut files = docker();
    edit_json(&mut files, "manifest.json", |value| value[0]["Layers"] = json!(["a.tar"]));
    assert_refused(&files, "names 2 layers, its manifest 1");
    assert_refused(&vec![("x".to_owned(), vec![])], "neither a docker-archive");
    assert_refused(&vec![("repositories".to_owned(), b"{}".to_vec())], "docker before 1.10");
}

#[test]
fn digests_that_are_paths() {
    let mut files = oci();
    edit_json(&mut files, "index.json", |value| {
        value["manifests"][0]["digest"] = "sha256:../../../../etc/passwd".into();
    });
    assert_refused(&files, "not a sha256 digest");
    edit_json(&mut files, "index.json", |value| {
        value["manifests"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into();
    });
    assert_refused(&files, "only sha256");
}

#[test]
fn names_that_leave_the_archive() {
    for name in ["../../etc/passwd", "/etc/passwd", "a/../../etc/passwd"] {
        let mut files = docker();
        edit_json(&mut files, "manifest.json", |value| value[0]["Layers"][0] = name.into());
        assert_refused(&files, "missing");
        let mut files = docker();
        edit_json(&mut files, "manifest.json", |value| value[0]["Config"] = name.into());
        assert_refused(&files, "missing");
    }
}

#[test]
fn documents_that_are_not_what_they_should_be() {
    let index = |edit: fn(&mut Value)| {
        let mut files = oci();
        edit_json(&mut files, "index.json", edit);
        files
    };
    assert_refused(&index(|value| value["schemaVersion"] = 1.into()), "schema version 1");
    assert_refused(&index(|value| value["config"] = json!({})), "neither an image manifest");
    assert_refused(&index(|value| value["manifests"] = json!([])), "no images");
    assert_refused(
        &index(|value| value["manifests"][0]["mediaType"] = images::INDEX.into()),
        "media type",
    );
    let mut files = docker();
    *file(&mut files, "manifest.json") = [b"[".repeat(100_000), vec![]].concat();
    assert_refused(&files, "JSON");
    *file(&mut files, "manifest.json") = vec![b' '; (4 << 20) + 1];
    assert_refused(&files, "larger than");
    files.push(("manifest.json".to_owned(), b"[]".to_vec()));
    assert_refused(&files, "a second manifest.json");
}

#[test]
fn an_image_for_another_system_and_a_name_that_is_none() {
    let mut image = sample();
    let mut config: Value = serde_json::from_slice(&image.config).unwrap();
    config["os"] = "windows".into();
    image.config = config.to_string().into_bytes();
    assert_refused(&docker_files(&[image]), "windows");
    let mut files = docker();
    edit_json(&mut files, "manifest.json", |value| value[0]["RepoTags"][0] = "../x:y".into());
    assert_refused(&files, "not an image name");
}

/// Whatever of them is in the store already: nothing of such an image can be checked.
#[test]
fn an_image_whose_layers_are_encrypted() {
    let mut files = images::plain_dir_files(&sample(), images::gzip);
    edit_json(&mut files, "manifest.json", |value| {
        value["layers"][1]["mediaType"] =
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
    });
    assert_refused(&files, "manifest.json: its layers are encrypted: skopeo copy --decryption-key");
}

#[test]
fn a_plain_directory_that_is_not_what_it_claims() {
    let plain = || images::plain_dir_files(&sample(), images::gzip);
    let mut files = plain();
    let blob = Digest::of(&images::gzip(&sample().layers[1])).hex();
    *file(&mut files, &blob).last_mut().unwrap() ^= 1;
    assert_refused(&files, &format!("{blob}: expected sha256:{blob}, found"));
    let mut files = plain();
    let config = Digest::of(&sample().config).hex();
    *file(&mut files, &config).last_mut().unwrap() = b' ';
    assert_refused(&files, &format!("{config}: expected sha256:{config}, found"));
    let mut files = plain();
    files.retain(|(name, _)| *name != blob);
    assert_refused(&files, "is missing");
    let index = json!({ "schemaVersion": 2, "manifests": [] });
    let files = vec![("manifest.json".to_owned(), index.to_string().into_bytes())];
    assert_refused(&files, "a list of images for several machines");
}

#[test]
fn more_layers_than_can_be_mounted() {
    let many: Vec<images::Files<'_>> = vec![&[]; 501];
    assert_refused(&docker_files(&[image("many", &many)]), "501 layers");
}

#[test]
fn compression_that_is_damaged_or_cut_off() {
    fn damaged_xz(bytes: &[u8]) -> Vec<u8> {
        [b"\xfd7zXZ\0".as_slice(), bytes].concat()
    }
    fn cut(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = images::gzip(bytes);
        bytes.truncate(bytes.len() / 2);
        bytes
    }
    assert_refused(&oci_files(&[sample()], damaged_xz), "XZ stream header");
    assert_refused(&oci_files(&[sample()], cut), "incomplete deflate stream");
}

#[test]
fn an_archive_that_is_cut_off_or_no_tar() {
    let whole = images::archive(&oci());
    for length in [700, 1024, 5000] {
        assert_bytes_refused(&whole[..length], "");
    }
    assert_bytes_refused(b"", "no tar archive");
    assert_bytes_refused(&[b'x'; 4096], "not a tar header");
    // A header that promises more than there is.
    let mut header = tar::Header::new_gnu();
    header.set_path("manifest.json").unwrap();
    header.set_size(u64::MAX / 2);
    header.set_cksum();
    assert_bytes_refused(header.as_bytes(), "cut off");
    header.set_size(1 << 30);
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_cksum();
    assert_bytes_refused(header.as_bytes(), "oversized header");
}
