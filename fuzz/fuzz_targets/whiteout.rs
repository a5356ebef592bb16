//! Names in archives and layers, and what they hide: the two ways are inverses of each other.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use plyfs::archive::oci_whiteout::{Meaning, meaning, whiteout_of};
use plyfs::layer::whiteout;

fuzz_target!(|name: &[u8]| {
    match meaning(name) {
        Ok(Meaning::Whiteout(hidden)) => {
            assert!(!hidden.is_empty() && hidden != b"." && hidden != b"..");
            assert_eq!(whiteout_of(hidden), name);
        }
        Ok(Meaning::File) => assert!(!name.starts_with(b".wh.")),
        Ok(Meaning::Opaque | Meaning::Bookkeeping) | Err(_) => assert!(name.starts_with(b".wh.")),
    }
    // No filesystem has longer names.
    let name = OsStr::from_bytes(name.get(..255).unwrap_or(name));
    if let Some(hidden) = whiteout::hidden_name(name) {
        assert!(whiteout::is_reserved_name(name));
        assert_eq!(whiteout::file_name(hidden).as_deref(), Some(name));
    }
});
