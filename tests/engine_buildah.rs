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

use engines::life::{self, Life};
use engines::{KERNEL, Podman, Room, Storage, podman_is_ready};

fn expect_same_life(part: impl Fn(&Podman<'_>) -> Life) {
    if !podman_is_ready(&["tool:buildah"]) {
        return;
    }
    let room = Room::enter();
    let [ours, theirs] =
        [Storage::Plyfs, Storage::Kernel].map(|storage| part(&Podman::with_base(&room, storage)));
    ours.expect_same(&theirs, KERNEL);
}

#[test]
fn what_buildah_makes_step_by_step_is_that_of_the_kernels_driver() {
    expect_same_life(life::by_hand);
}

#[test]
fn a_build_of_five_steps_by_buildah_gives_the_images_of_the_kernels_driver() {
    expect_same_life(life::build_by_buildah);
}
