//! For tests of archives and changesets: archives written byte by byte.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

use std::path::Path;
use std::process::Command;

/// A tar archive under construction, which nothing checks.
#[derive(Default)]
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// One entry of type `kind` with everything ordinary.
    pub(crate) fn entry(mut self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
        self.bytes.extend(header(kind, path, link, data.len() as u64, 0o644, (0, 0)).as_bytes());
        self.data(data)
    }

    pub(crate) fn file(self, path: &str, data: &str) -> Self {
        self.entry(b'0', path, "", data.as_bytes())
    }

    pub(crate) fn dir(mut self, path: &str) -> Self {
        self.bytes.extend(header(b'5', path, "", 0, 0o755, (0, 0)).as_bytes());
        self
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    pub(crate) fn device(mut self, kind: u8, path: &str, major: u32, minor: u32) -> Self {
        self.bytes.extend(header(kind, path, "", 0, 0o600, (major, minor)).as_bytes());
        self
    }

    /// PAX records for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut block = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let length =
                (1..7).map(|d| body.len() + d).find(|n| n.to_string().len() + body.len() == *n);
            block.extend(length.expect("a record has a length").to_string().bytes());
            block.extend(body);
        }
        self.entry(b'x', "pax", "", &block)
    }

    /// A header whose claimed size nothing follows.
    pub(crate) fn header_only(mut self, kind: u8, path: &str, size: u64) -> Self {
        self.bytes.extend(header(kind, path, "", size, 0o644, (0, 0)).as_bytes());
        self
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

pub(crate) fn header(
    kind: u8,
    path: &str,
    link: &str,
    size: u64,
    mode: u32,
    device: (u32, u32),
) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    header.set_entry_type(tar::EntryType::new(kind));
    header.as_old_mut().linkflag = [kind];
    header.set_device_major(device.0).expect("ustar has devices");
    header.set_device_minor(device.1).expect("ustar has devices");
    header.set_cksum();
    header
}

/// Runs a shell script in `dir`; fails with its output where it fails.
pub(crate) fn shell(dir: &Path, script: &str) -> Vec<u8> {
    let output =
        Command::new("bash").args(["-euc", script]).current_dir(dir).output().expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\nfailed: {stderr}");
    output.stdout
}
