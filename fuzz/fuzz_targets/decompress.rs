//! What may be gzip, zstd, bzip2 or xz.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use plyfs::archive::compress;

fuzz_target!(|input: &[u8]| {
    if let Ok(plain) = compress::decompressed(input, "input") {
        let mut sink = Vec::new();
        // A bomb ends here; in the program it ends where the promised digest is not met.
        drop(plain.take(8 << 20).read_to_end(&mut sink));
    }
});
