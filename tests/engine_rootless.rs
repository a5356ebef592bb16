//! podman and buildah of an ordinary user with `mount_program = fuse-plyfs`: each step of a
//! container's life gives the tree that the kernel's driver gives this user.

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
use engines::{KERNEL, Podman, Room, Storage, User, VFS, image, podman_is_ready};

fn ready() -> bool {
    podman_is_ready(&["tool:buildah", "tool:newuidmap", "tool:useradd", "tool:setpriv"])
}

/// Plays `part` on PlyFS and on the kernel's driver, as one user.
fn expect_same_life(part: impl Fn(&Podman<'_>) -> Life) {
    if !ready() {
        return;
    }
    let room = Room::enter();
    let user = User::make(&room);
    let [ours, theirs] = [Storage::Plyfs, Storage::Kernel].map(|storage| {
        let podman = Podman::rootless(&room, storage, &user);
        podman.import_base();
        let root = podman.ok(&["run", "--rm", image::BASE, "grep", " / ", "/proc/mounts"]);
        let kind = if storage == Storage::Plyfs { " fuse.plyfs " } else { " overlay " };
        assert!(root.contains(kind), "{root}");
        part(&podman)
    });
    ours.expect_same(&theirs, KERNEL);
}

#[test]
fn a_users_containers_live_as_on_the_kernels_driver() {
    expect_same_life(life::containers);
}

#[test]
fn two_containers_of_a_user_live_as_on_the_kernels_driver() {
    expect_same_life(life::two_at_once);
}

#[test]
fn a_users_build_of_five_steps_gives_the_images_of_the_kernels_driver() {
    expect_same_life(life::build);
}

#[test]
fn what_a_user_makes_with_buildah_is_that_of_the_kernels_driver() {
    expect_same_life(life::by_hand);
}

/// `--userns=keep-id`: the user has his own id in the container, and the image's are mapped.
#[test]
fn a_users_containers_with_his_own_id_live_as_on_vfs() {
    expect_same_life_with_own_id(User::make, true);
}

/// Where the user's id is too large for one map, podman makes a layer of each image for it: it
/// mounts the layer, gives all files other owners, and has the upper as a lower from then on.
#[test]
fn containers_with_a_large_own_id_live_as_on_vfs() {
    expect_same_life_with_own_id(User::with_large_id, false);
}

fn expect_same_life_with_own_id(user: impl Fn(&Room) -> User, commit: bool) {
    if !ready() {
        return;
    }
    let room = Room::enter();
    let user = user(&room);
    let [ours, theirs] = [Storage::Plyfs, Storage::Vfs].map(|storage| {
        let podman = Podman::rootless(&room, storage, &user);
        podman.import_base();
        life::own_id(&podman, commit)
    });
    ours.expect_same(&theirs, VFS);
}

/// The commands and the file that docs/ENGINES.md gives, as this user's only configuration.
#[test]
fn the_documents_configuration_puts_a_users_podman_on_plyfs() {
    if !ready() {
        return;
    }
    let room = Room::enter();
    let base = image::base(&room);
    let user = User::make(&room);
    let conf = user.dir(".config/containers").join("storage.conf");
    std::fs::write(conf, engines::documented_block("podman rootless", "toml")).unwrap();
    let podman = Podman::rootless(&room, Storage::Plyfs, &user);
    let own = |program: &str, words: &[&str]| {
        let mut command = podman.program(program, words);
        engines::run(command.env_remove("CONTAINERS_STORAGE_CONF"))
    };
    own("podman", &["import", base.to_str().unwrap(), image::BASE]);
    let root = own("podman", &["run", "--rm", image::BASE, "grep", " / ", "/proc/mounts"]);
    assert!(root.contains(" fuse.plyfs "), "{root}");
    let place = own("podman", &["info", "--format", "{{.Store.GraphRoot}}"]);
    let expected = user.dir(".local/share/containers/storage");
    assert_eq!(std::path::Path::new(place.trim()), expected);
    let container = own("buildah", &["from", "--pull-never", image::BASE]);
    let root = own("buildah", &["run", container.trim(), "grep", " / ", "/proc/mounts"]);
    assert!(root.contains(" fuse.plyfs "), "{root}");
    own("buildah", &["rm", container.trim()]);
}
