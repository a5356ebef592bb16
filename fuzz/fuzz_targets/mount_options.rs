//! Values of -o.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use plyfs::overlay::options::Options;

fuzz_target!(|input: &[u8]| {
    let strings = scratch::parts(input).into_iter().map(OsStr::from_bytes);
    match Options::parse(strings) {
        Ok(options) => {
            assert!(!options.lowerdirs.is_empty());
            assert!(options.xattr_permissions <= 2);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
