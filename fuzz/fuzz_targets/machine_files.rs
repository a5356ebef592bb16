//! Files of the machine that others write: the table of mounts, in which anybody who may mount
//! chooses names, and docker's and podman's files with credentials.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plyfs::sys::mountinfo;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind % 2 == 0 {
        let lines = bytes.split(|byte| *byte == b'\n').count();
        assert!(mountinfo::parse_table(bytes).len() <= lines);
    } else if let [file, name] = scratch::parts(bytes)[..]
        && let Ok(name) = std::str::from_utf8(name)
    {
        plyfs::registry::fuzz_credentials(file, name);
    }
});
