//! Names of images, Dockerfile instructions, times and digests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plyfs::image::{Digest, Instruction, Reference, Timestamp};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let full = reference.to_string();
        assert_eq!(Reference::parse(&full).as_ref(), Ok(&reference));
        assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(at) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&at.to_string()), Ok(at));
    }
    drop(Instruction::parse(text));
});
