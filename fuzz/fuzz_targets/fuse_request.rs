//! What the kernel writes to /dev/fuse: headers and bodies of every operation.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // In words, because the device's buffers are aligned. The first byte says whether the length in
    // the header is to be made right: nothing behind a wrong one would be reached.
    let Some((first, message)) = input.split_first() else { return };
    let mut words = vec![0u64; message.len().div_ceil(8)];
    // SAFETY: any bytes are words and any words are bytes.
    let (_, bytes, _) = unsafe { words.align_to_mut::<u8>() };
    bytes[..message.len()].copy_from_slice(message);
    if first % 4 != 0 && message.len() >= 40 {
        bytes[..4].copy_from_slice(&(message.len() as u32).to_ne_bytes());
        bytes[36..38].fill(0);
    }
    plyfs::fuse::fuzz_request(&bytes[..message.len()]);
});
