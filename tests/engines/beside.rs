//! What another storage of podman's is known to see otherwise.

use super::{Podman, Room, Storage, image};
use crate::support::{Policy, require};

/// What a life on another storage is compared by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) name: &'a str,
    pub(crate) policy: Policy,
    /// Paths that are not compared.
    pub(crate) blind: &'a [&'a str],
    /// Steps that are not compared.
    pub(crate) other: &'a [&'a str],
}

/// The truth: each layer is a whole copy of the tree. podman compares trees by size and time
/// there, as it does where a program mounts, so that it misses the same things in a commit. The
/// mode of the root is that of the driver; and what an upper layer removed still counts as a link.
pub(crate) const VFS: Beside<'_> = Beside {
    name: "vfs",
    policy: Policy { nlink: false, ..Policy::SAME_CONTENT },
    blind: &[""],
    other: &[],
};

/// overlayfs parts the names of a hard link of a lower when it is changed (podman mounts with
/// `index=off`); and podman commits what is in the upper, where it compares trees on PlyFS and does
/// not see that `s2_dst` was replaced by a file of the same size and time. A container with other
/// ids is committed with those of the machine by podman 4.3.
pub(crate) const KERNEL: Beside<'_> = Beside {
    name: "overlayfs",
    policy: Policy { nlink: false, hard_links: false, ..Policy::SAME_CONTENT },
    blind: &["t/h2_b", "t/s2_dst"],
    other: &["list of changes", "commit with maps", "run without maps"],
};

/// As [`KERNEL`], for containers with ids of their own: podman shows their root as the machine's.
pub(crate) const KERNEL_MAPPED: Beside<'_> =
    Beside { blind: &["", "t/h2_b", "t/s2_dst"], ..KERNEL };

/// Whether everything that podman needs is there, and `more`.
pub(crate) fn podman_is_ready(more: &[&str]) -> bool {
    let needs =
        ["root", "fuse", "overlayfs", "tool:podman", "tool:runc", "tool:conmon", "tool:gcc"];
    needs.iter().chain(more).all(|need| require(need))
}

impl<'a> Podman<'a> {
    /// podman of root, which has the image to begin with.
    pub(crate) fn with_base(room: &'a Room, storage: Storage) -> Podman<'a> {
        let podman = Podman::new(room, storage);
        podman.import_base();
        podman
    }

    pub(crate) fn import_base(&self) {
        let base = image::base(self.room);
        self.ok(&["import", base.to_str().unwrap(), image::BASE]);
    }
}
