//! Filesystems on a disk whose power can go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub(crate) mod disk;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;

/// A kind of filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filesystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl Filesystem {
    /// The type's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
            Filesystem::Btrfs => "btrfs",
        }
    }

    /// The size in bytes of a small one.
    pub(crate) fn size(self) -> u64 {
        match self {
            Filesystem::Ext4 => 96 << 20,
            Filesystem::Xfs => 320 << 20,
            Filesystem::Btrfs => 192 << 20,
        }
    }

    /// Makes one on a device.
    pub(crate) fn make(self, device: &str) {
        self.make_with(device, &[]);
    }

    /// As [`Filesystem::make`], with more arguments for its `mkfs`.
    pub(crate) fn make_with(self, device: &str, more: &[&str]) {
        let arguments: &[&str] = match self {
            Filesystem::Ext4 => &["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0"],
            Filesystem::Xfs => &["mkfs.xfs", "-q", "-K"],
            Filesystem::Btrfs => &["mkfs.btrfs", "-q", "-K", "-m", "single"],
        };
        run(Command::new(arguments[0]).args(&arguments[1..]).args(more).arg(device));
    }

    /// Whether it is sound after it was mounted and unmounted; else what is not.
    pub(crate) fn check(self, device: &str) -> Result<(), String> {
        let arguments: &[&str] = match self {
            Filesystem::Ext4 => &["e2fsck", "-f", "-n"],
            Filesystem::Xfs => &["xfs_repair", "-n"],
            Filesystem::Btrfs => &["btrfs", "check", "--readonly"],
        };
        released(device);
        let output = Command::new(arguments[0]).args(&arguments[1..]).arg(device).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&said).into_owned()),
        }
    }

    /// What it needs, as `support::require` takes them.
    pub(crate) fn needs(self) -> [&'static str; 3] {
        match self {
            Filesystem::Ext4 => ["filesystem:ext4", "tool:mkfs.ext4", "tool:e2fsck"],
            Filesystem::Xfs => ["filesystem:xfs", "tool:mkfs.xfs", "tool:xfs_repair"],
            Filesystem::Btrfs => ["filesystem:btrfs", "tool:mkfs.btrfs", "tool:btrfs"],
        }
    }
}

/// Waits until no filesystem has `device` any more: after the unmount, a child that another thread has
/// forked and that did not yet exec may hold the mount, and the last is written only then. `O_EXCL` is
/// refused until then.
fn released(device: &str) {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC;
    let start = std::time::Instant::now();
    while let Err(errno) = rustix::fs::open(device, flags, rustix::fs::Mode::empty()) {
        assert!(errno == rustix::io::Errno::BUSY, "{device}: {errno}");
        assert!(start.elapsed().as_secs() < 180, "{device} stays in use");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A mounted filesystem; goes with the value.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(
        filesystem: Filesystem,
        device: &str,
        place: &Path,
        options: &str,
    ) -> Mounted {
        std::fs::create_dir_all(place).unwrap();
        run(Command::new("mount")
            .args(["-t", filesystem.name(), "-o", options, device])
            .arg(place));
        Mounted(place.to_path_buf())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let start = std::time::Instant::now();
        while let Err(errno) = rustix::mount::unmount(&self.0, UnmountFlags::empty()) {
            if errno != rustix::io::Errno::BUSY || start.elapsed().as_secs() > 20 {
                eprintln!("{} stays mounted: {errno}", self.0.display());
                if let Err(errno) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
                    eprintln!("nor is it detached: {errno}");
                }
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
}
