//! What several targets need: a directory for one input, and tars with checksums that are right.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// An empty directory that is gone with everything in it when dropped. On tmpfs, because each
/// input gets its own.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let base = std::env::var_os("PLYFS_FUZZ_DIR").map_or("/dev/shm".into(), PathBuf::from);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("plyfs-fuzz-{}-{count}", std::process::id()));
        fs::create_dir(&dir).expect("a directory for the input");
        Scratch(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A new directory in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        fs::create_dir_all(&dir).expect("a directory in it");
        dir
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("what an input made can be removed");
    }
}

/// The first byte says whether the checksums of the headers in the rest are to be made right: a
/// mutation nearly always breaks one, and nothing behind it would ever be reached.
pub fn tar_of(input: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = input.split_first()?;
    let mut tar = rest.to_vec();
    if first % 4 != 0 {
        set_checksums(&mut tar);
    }
    Some(tar)
}

fn set_checksums(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            at += 512;
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = header[124..135].iter().take_while(|byte| (b'0'..=b'7').contains(*byte));
        let size = size.fold(0usize, |size, digit| size * 8 + usize::from(digit - b'0'));
        at += 512 + size.min(tar.len()).next_multiple_of(512);
    }
}

/// The parts of an input, which are separated by a byte that JSON and names do not have.
pub fn parts(input: &[u8]) -> Vec<&[u8]> {
    input.split(|byte| *byte == 0xff).collect()
}
