//! podman as root with `mount_program = fuse-plyfs`: each step of a container's life gives the
//! tree that podman's kernel driver gives.

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
use engines::{Beside, KERNEL, KERNEL_MAPPED, Podman, Room, Storage, VFS, image, podman_is_ready};

/// Plays `part` on PlyFS and on other storages, each with an image to begin with.
fn expect_same_life(part: impl Fn(&Podman<'_>) -> Life, others: &[(Storage, Beside<'_>)]) {
    if !podman_is_ready(&[]) {
        return;
    }
    play_in(&Room::enter(), part, others);
}

fn play_in(room: &Room, part: impl Fn(&Podman<'_>) -> Life, others: &[(Storage, Beside<'_>)]) {
    let play = |storage| part(&Podman::with_base(room, storage));
    let ours = play(Storage::Plyfs);
    for (storage, beside) in others {
        ours.expect_same(&play(*storage), *beside);
    }
}

const BOTH: &[(Storage, Beside<'_>)] = &[(Storage::Vfs, VFS), (Storage::Kernel, KERNEL)];
const MAPPED: &[(Storage, Beside<'_>)] = &[(Storage::Vfs, VFS), (Storage::Kernel, KERNEL_MAPPED)];

#[test]
fn containers_live_as_on_the_kernels_driver() {
    expect_same_life(life::containers, BOTH);
}

#[test]
fn two_containers_of_one_image_live_as_on_the_kernels_driver() {
    expect_same_life(life::two_at_once, BOTH);
}

#[test]
fn containers_with_mapped_ids_live_as_on_the_kernels_driver() {
    expect_same_life(life::mapped, MAPPED);
}

/// `--userns=auto`, for which podman takes ids of the user `containers`.
#[test]
fn containers_with_ids_of_podmans_choice_live_as_on_the_kernels_driver() {
    if !podman_is_ready(&[]) {
        return;
    }
    let room = Room::enter();
    room.own("/etc");
    for file in ["/etc/subuid", "/etc/subgid"] {
        std::fs::write(file, "containers:2000000:65536\n").unwrap();
    }
    play_in(&room, life::chosen_ids, MAPPED);
}

/// podman gives the root of a container that it compares while it runs to 0:0, which none of the
/// ids that the mount shows is. (It then commits the host's ids, which is what the mount shows.)
#[test]
fn a_container_with_mapped_ids_is_compared_committed_and_copied_to_while_it_runs() {
    if !podman_is_ready(&[]) {
        return;
    }
    let room = Room::enter();
    let podman = Podman::with_base(&room, Storage::Plyfs);
    let maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let words = [&["run", "-d", "--name", "box"][..], &maps, &[image::BASE, "sleep", "1000"]];
    podman.ok(&words.concat());
    podman.ok(&["exec", "box", "sh", "-c", "echo x >/t/new; chown 5:6 /t/new; rm /t/b_delete"]);
    podman.ok(&["cp", image::base(&room).to_str().unwrap(), "box:/t/copied"]);
    let changes = podman.ok(&["diff", "box"]);
    for line in ["A /t/new", "A /t/copied", "D /t/b_delete"] {
        assert!(changes.lines().any(|change| change == line), "{line}: {changes}");
    }
    podman.ok(&["commit", "-q", "box", "live:1"]);
    let script = "stat -c %u:%g / /t/new /t/copied; touch /t/more";
    assert_eq!(podman.ok(&["exec", "box", "sh", "-c", script]), "0:0\n5:6\n0:0");
    // What is made from outside is the container's root's.
    let place = podman.ok(&["mount", "box"]);
    std::fs::write(std::path::Path::new(&place).join("t/outside"), "x").unwrap();
    podman.ok(&["umount", "box"]);
    assert_eq!(podman.ok(&["exec", "box", "stat", "-c", "%u:%g", "/t/outside"]), "0:0");
}

#[test]
fn a_build_of_five_steps_gives_the_images_of_the_kernels_driver() {
    expect_same_life(life::build, BOTH);
}

/// `--rm` mounts with `volatile`, and leaves nothing: no layer, no mount, no daemon.
#[test]
fn a_container_that_removes_itself_is_volatile_and_leaves_nothing() {
    if !podman_is_ready(&[]) {
        return;
    }
    let room = Room::enter();
    let podman = Podman::with_base(&room, Storage::Plyfs);
    let layers = || support::names(podman.path("graph/overlay")).len();
    let before = (layers(), room.mounts());
    let words = ["sh", "-c", "echo x >/new; echo started; exec sleep 1000"];
    podman.ok(&[&["run", "-d", "--rm", "--name", "short", image::BASE][..], &words].concat());
    let daemons = room.daemons();
    let lines: Vec<&str> = daemons.iter().map(|(_, line)| line.as_str()).collect();
    assert!(lines.len() == 1 && lines[0].contains(",volatile "), "{lines:?}");
    assert_eq!(podman.ok(&["exec", "short", "cat", "/new"]), "x");
    podman.ok(&["stop", "--time", "0", "short"]);
    engines::wait_until("the container to go", || podman.ok(&["ps", "-aq"]).is_empty());
    engines::wait_until("the daemon to end", || room.daemons().is_empty());
    assert_eq!((layers(), room.mounts()), before);
}

/// Whatever ends a daemon, the container's changes are there for the next one.
#[test]
fn a_container_starts_again_after_its_daemon_was_killed() {
    if !podman_is_ready(&[]) {
        return;
    }
    let room = Room::enter();
    let podman = Podman::with_base(&room, Storage::Plyfs);
    podman.ok(&["run", "-d", "--name", "box", image::BASE, "sleep", "1000"]);
    podman.ok(&["exec", "box", "sh", "-c", "echo kept >/t/kept && rm /t/b_delete && sync"]);
    for (pid, _) in room.daemons() {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    podman.command(&["stop", "--time", "0", "box"]).output().unwrap();
    podman.ok(&["start", "box"]);
    let look = "cat /t/kept; ls /t/b_delete 2>/dev/null || echo gone";
    assert_eq!(podman.ok(&["exec", "box", "sh", "-c", look]), "kept\ngone");
}

/// What podman is told of the driver, and what `podman info` shows of the program.
#[test]
fn podman_knows_the_program() {
    if !podman_is_ready(&[]) {
        return;
    }
    let room = Room::enter();
    let podman = Podman::new(&room, Storage::Plyfs);
    let info: serde_json::Value =
        serde_json::from_str(&podman.ok(&["info", "--format", "json"])).unwrap();
    let program = &info["store"]["graphOptions"]["overlay.mount_program"];
    assert_eq!(program["Executable"], engines::PLYFS);
    let version = program["Version"].as_str().unwrap();
    assert!(version.starts_with("fuse-plyfs: version "), "{version}");
}

/// The file that docs/ENGINES.md gives, with the program where the package has it.
#[test]
fn the_documents_configuration_puts_podman_on_plyfs() {
    if !podman_is_ready(&["tool:buildah"]) {
        return;
    }
    let room = Room::enter();
    room.own("/usr/bin");
    engines::room::install(std::path::Path::new(engines::PLYFS), "/usr/bin/fuse-plyfs");
    let podman = Podman::new(&room, Storage::Plyfs);
    let section = "podman and buildah";
    std::fs::write(podman.path("storage.conf"), engines::documented_block(section, "toml"))
        .unwrap();
    podman.import_base();
    // podman 4.3 was seen to lose what a container said that ended at once: it had succeeded, so
    // that grep had found a line, and nothing had come.
    let root = || podman.ok(&["run", "--rm", image::BASE, "grep", " / ", "/proc/mounts"]);
    let root = (0..5).map(|_| root()).find(|said| !said.is_empty()).unwrap();
    assert!(root.contains(" fuse.plyfs "), "{root}");
    let mut info = podman.program("sh", &["-c", &engines::documented_block(section, "sh")]);
    assert!(engines::run(&mut info).contains("fuse-plyfs: version "));
    // buildah has the same file and the same images.
    let container = podman.buildah(&["from", "--pull-never", image::BASE]);
    let root = podman.buildah(&["run", &container, "grep", " / ", "/proc/mounts"]);
    assert!(root.contains(" fuse.plyfs "), "{root}");
    podman.buildah(&["rm", &container]);
}
