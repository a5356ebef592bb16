//! A filesystem that tells nonsense of its directories, for layers that lie on one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags};

/// An entry as `getdents` gives it: its name, inode number and type; and whether a lookup finds
/// anything: a directory (4), a file (8), or nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) name: &'static [u8],
    pub(crate) ino: u64,
    pub(crate) kind: u32,
    pub(crate) is: Option<u32>,
}

/// The mounted filesystem; goes with the value.
#[derive(Debug)]
pub(crate) struct Strange {
    place: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Strange {
    /// One whose root has these entries, on the new directory `place`.
    pub(crate) fn new(place: &Path, entries: Vec<Said>) -> Strange {
        std::fs::create_dir_all(place).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("plyfs-test-strange", place, "fuse", flags, &*options).unwrap();
        let server = std::thread::spawn(move || serve(device, &entries));
        Strange { place: place.to_path_buf(), server: Some(server) }
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        if let Err(errno) = rustix::mount::unmount(&self.place, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {errno}", self.place.display());
        }
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

const ROOT: u64 = 1;
const HEADER: usize = 40;

/// Answers until the filesystem is unmounted. Numbers are those of `include/uapi/linux/fuse.h`.
fn serve(mut device: File, entries: &[Said]) {
    let mut buffer = vec![0_u8; 1 << 18];
    while let Ok(n) = device.read(&mut buffer) {
        let request = &buffer[..n];
        let number = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        let operation = u32::from_ne_bytes(request[4..8].try_into().unwrap());
        let answer = match operation {
            1 => look_up(entries, &request[HEADER..n - 1]),
            2 | 36 | 42 => continue,
            3 => Ok([numbers(&[3600, 0]), attributes(number(16), entries)].concat()),
            14 | 27 => Ok(numbers(&[number(16), 0])),
            15 => Ok(Vec::new()),
            // The root has everything at once, and nothing from any later place.
            28 if number(16) == ROOT && number(HEADER + 8) == 0 => Ok(listing(entries)),
            28 => Ok(Vec::new()),
            18 | 25 | 29 => Ok(Vec::new()),
            26 => {
                let words = [7_u32, 31, 0, 0, 12 | 8 << 16, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
            }
            _ => Err(libc::ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = (16 + body.len() as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(number(8).to_ne_bytes());
        reply.extend(body);
        // A request that was given up has nobody who waits.
        drop(device.write_all(&reply));
    }
}

fn numbers(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// The n-th entry is node n + 2.
fn look_up(entries: &[Said], name: &[u8]) -> Result<Vec<u8>, i32> {
    let found = entries.iter().position(|said| said.name == name && said.is.is_some());
    let node = found.ok_or(libc::ENOENT)? as u64 + 2;
    Ok([numbers(&[node, 0, 0, 0, 0]), attributes(node, entries)].concat())
}

/// `struct fuse_attr`.
fn attributes(node: u64, entries: &[Said]) -> Vec<u8> {
    let said = (node as usize).checked_sub(2).and_then(|n| entries.get(n));
    let is_file = said.is_some_and(|said| said.is == Some(8));
    let mode = if is_file { 0o100_644 } else { 0o040_755_u32 };
    let mut bytes = numbers(&[node, 0, 0, 0, 0, 0]);
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// Each as `struct fuse_dirent`.
fn listing(entries: &[Said]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, said) in entries.iter().enumerate() {
        bytes.extend(numbers(&[said.ino, n as u64 + 1]));
        bytes.extend((said.name.len() as u32).to_ne_bytes());
        bytes.extend(said.kind.to_ne_bytes());
        bytes.extend(said.name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}
