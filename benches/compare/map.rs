//! A file mapped into memory.

#![expect(unsafe_code, reason = "mmap has no safe wrapper")]

use std::fs::File;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::Res;

pub(crate) struct Map {
    start: *mut std::ffi::c_void,
    length: usize,
}

impl Map {
    /// Maps the first `length` bytes of `file`, shared.
    pub(crate) fn of(file: &File, length: usize, writable: bool) -> Res<Map> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start =
            unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, file, 0) };
        let start = start.map_err(|errno| format!("mmap: {errno}"))?;
        Ok(Map { start, length })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is as long as this value lives, and nobody truncates the file.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; it was mapped for writing by those who call this.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: no slice of it outlives this value.
        if let Err(errno) = unsafe { munmap(self.start, self.length) } {
            eprintln!("munmap: {errno}");
        }
    }
}
