//! The records of a store: catalog, layer, container, config; damaged ones are told, not believed.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use plyfs::store::Store;

const ID: &str = "0f0e0d0c0b0a09080706050403020100ffeeddccbbaa99887766554433221100";

fuzz_target!(|input: &[u8]| {
    let place = scratch::Scratch::new();
    let root = place.dir("store");
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for part in scratch::parts(input) {
        let Some((kind, bytes)) = part.split_first() else { continue };
        match kind % 6 {
            0 => write("catalog.json", bytes),
            1 => write(&format!("layers/{ID}/layer.json"), bytes),
            2 => write(&format!("containers/{ID}/container.json"), bytes),
            3 => {
                let id = plyfs::image::Digest::of(bytes).hex();
                write(&format!("images/{id}/config.json"), bytes);
                write("catalog.json", format!("{{\"images\":{{\"sha256:{id}\":[]}}}}").as_bytes());
            }
            4 => write("format", bytes),
            _ => write(&format!("images/{ID}/config.json"), bytes),
        }
    }
    let Ok(store) = Store::open(&root) else { return };
    drop(store.images());
    drop(store.containers());
    drop(store.disk_usage());
    drop(store.inspect_image(ID));
    drop(store.inspect_container(ID));
    drop(store.history(ID));
    drop(store.check());
    drop(store.verify(&[], &plyfs::archive::watch::Unwatched));
    if store.repair().is_ok() {
        assert!(store.images().is_ok(), "what was repaired can be read");
    }
});
