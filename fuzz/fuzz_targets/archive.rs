//! An archive of images as a whole: the outer tar, then manifests, configs and layers in it.
#![no_main]

use std::fs::{self, File};

use libfuzzer_sys::fuzz_target;
use plyfs::archive::watch::Unwatched;
use plyfs::archive::{Archive, LayerSource};

fuzz_target!(|input: &[u8]| {
    let Some(tar) = scratch::tar_of(input) else { return };
    let place = scratch::Scratch::new();
    let path = place.path().join("archive");
    fs::write(&path, &tar).unwrap();
    let Ok(archive) = Archive::open(File::open(&path).unwrap(), "input") else { return };
    let Ok(images) = archive.images() else { return };
    for (i, image) in images.iter().enumerate() {
        assert_eq!(image.layers.len(), image.config.diff_ids().len());
        for (j, layer) in image.layers.iter().enumerate().take(4) {
            let keep = place.path().join(format!("blob-{i}-{j}"));
            let into = place.dir(&format!("tree-{i}-{j}"));
            if let Ok((_, blob)) = layer.unpack(&into, &keep, &Unwatched) {
                assert_eq!(blob.size, fs::metadata(&keep).unwrap().len());
            }
        }
    }
});
