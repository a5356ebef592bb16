//! A layer's tar: whatever it says, nothing outside the directory is touched, and what could be
//! unpacked can be exported, unpacked again and exported again with the same bytes.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use plyfs::archive::{tar_read, tar_write};

fuzz_target!(|input: &[u8]| {
    let Some(tar) = scratch::tar_of(input) else { return };
    let place = scratch::Scratch::new();
    fs::write(place.path().join("outside"), b"untouched").unwrap();
    let first = place.dir("first");
    let unpacked = tar_read::unpack_layer(&mut tar.as_slice(), &first, "input");
    assert_eq!(fs::read(place.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    let Ok(unpacked) = unpacked else { return };
    assert!(unpacked.bytes <= tar.len() as u64 * 2);
    let mut exported = Vec::new();
    if tar_write::export(&[first], None, &mut exported).is_err() {
        return;
    }
    let second = place.dir("second");
    tar_read::unpack_layer(&mut exported.as_slice(), &second, "export").expect("own archive");
    let mut again = Vec::new();
    tar_write::export(&[second], None, &mut again).expect("own tree");
    assert!(exported == again, "an export changed on its way through a directory");
});
