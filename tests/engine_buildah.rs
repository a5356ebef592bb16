//! buildah with `mount_program = fuse-plyfs`: from, copy, add, run, commit, and a build by file,
//! give the trees of the kernel's driver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod engines;
mod support;

use engines::life::{self, Beside};
use engines::{Podman, Room, Storage, image};
use support::{Policy, require};

const NEEDS: &[&str] =
    &["root", "fuse", "overlayfs", "tool:podman", "tool:buildah", "tool:runc", "tool:gcc"];

/// See `engine_podman.rs`: hard links are parted there, and commits are not made by comparing.
const KERNEL: Beside<'_> = Beside {
    name: "overlayfs",
    policy: Policy { nlink: false, hard_links: false, ..Policy::SAME_CONTENT },
    blind: &["t/h2_b", "t/s2_dst"],
};

#[test]
fn what_buildah_makes_step_by_step_is_that_of_the_kernels_driver() {
    if !NEEDS.iter().all(|need| require(need)) {
        return;
    }
    let room = Room::enter();
    let base = image::base(&room);
    let [ours, theirs] = [Storage::Plyfs, Storage::Kernel].map(|storage| {
        let podman = Podman::new(&room, storage);
        podman.ok(&["import", base.to_str().unwrap(), image::BASE]);
        life::by_hand(&podman)
    });
    ours.expect_same(&theirs, KERNEL);
}
