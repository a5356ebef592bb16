//! A shared mapping of a file.

#![expect(unsafe_code, reason = "mmap has no safe wrapper")]

use std::fs::File;

use rustix::mm::{MapFlags, ProtFlags};

/// The first bytes of a file, mapped MAP_SHARED.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes, for writing too where `write` says so.
    pub(crate) fn new(file: &File, length: usize, write: bool) -> Mapping {
        let access = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let nowhere = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { rustix::mm::mmap(nowhere, length, access, MapFlags::SHARED, file, 0) };
        Mapping { start: start.expect("the file maps").cast(), length }
    }

    /// What the mapping shows now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: each byte lies in the mapping, which lives as long as `self`; read volatile, as
        // others change it.
        (0..self.length).map(|at| unsafe { self.start.add(at).read_volatile() }).collect()
    }

    /// Writes from the start; the mapping was made for writing.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.write_at(0, bytes);
    }

    /// Writes from `offset` on; the mapping was made for writing.
    pub(crate) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        for (at, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `bytes`.
            unsafe { self.start.add(offset + at).write_volatile(*byte) };
        }
    }

    /// Waits until what was written is the file's.
    pub(crate) fn sync(&self) {
        let how = rustix::mm::MsyncFlags::SYNC;
        // SAFETY: the range is the mapping's own.
        unsafe { rustix::mm::msync(self.start.cast(), self.length, how) }.expect("it is written");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { rustix::mm::munmap(self.start.cast(), self.length) }.expect("it was mapped");
    }
}
