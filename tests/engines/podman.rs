//! podman and buildah with a storage of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PLYFS, Room, run, run_with};
use crate::support::Snapshot;

/// What keeps the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// The driver overlay, mounted by fuse-plyfs.
    Plyfs,
    /// The driver overlay, mounted by the kernel.
    Kernel,
    /// A whole copy for each layer: what it shows is true by construction.
    Vfs,
}

impl Storage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Storage::Plyfs => "podman on PlyFS",
            Storage::Kernel => "podman on overlayfs",
            Storage::Vfs => "podman on vfs",
        }
    }
}

/// podman as root.
#[derive(Debug)]
pub(crate) struct Podman<'a> {
    pub(crate) room: &'a Room,
    pub(crate) storage: Storage,
    home: PathBuf,
}

impl<'a> Podman<'a> {
    pub(crate) fn new(room: &'a Room, storage: Storage) -> Podman<'a> {
        let home = room.dir(&format!("{storage:?}").to_lowercase());
        let podman = Podman { room, storage, home };
        podman.write_storage_conf("");
        fs::write(podman.home.join("containers.conf"), containers_conf(&podman.home)).unwrap();
        podman
    }

    /// Configures the storage; `mountopt` are further options for each mount.
    pub(crate) fn write_storage_conf(&self, mountopt: &str) {
        let home = self.home.display();
        let driver = if self.storage == Storage::Vfs { "vfs" } else { "overlay" };
        let mut text = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{home}/graph\"\n\
             runroot = \"{home}/run\"\n[storage.options.overlay]\n"
        );
        if self.storage == Storage::Plyfs {
            text.push_str(&format!("mount_program = \"{PLYFS}\"\n"));
        }
        if !mountopt.is_empty() {
            text.push_str(&format!("mountopt = \"{mountopt}\"\n"));
        }
        fs::write(self.home.join("storage.conf"), text).unwrap();
    }

    /// `podman WORDS...`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.program("podman", words)
    }

    /// podman or buildah.
    pub(crate) fn program(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.home);
        command.env("CONTAINERS_CONF", self.home.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.home.join("storage.conf"));
        command.env("BUILDAH_ISOLATION", "chroot").env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// What it prints; it must succeed.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        run(&mut self.command(words)).trim_end().to_owned()
    }

    /// As [`Podman::ok`], with a file as standard input.
    pub(crate) fn ok_with(&self, words: &[&str], input: &Path) -> String {
        run_with(&mut self.command(words), input)
    }

    /// buildah's words; it must succeed.
    pub(crate) fn buildah(&self, words: &[&str]) -> String {
        run(&mut self.program("buildah", words)).trim_end().to_owned()
    }

    /// The tree of a container, running or not.
    pub(crate) fn tree(&self, container: &str) -> Snapshot {
        let place = self.ok(&["mount", container]);
        let tree = Snapshot::of(Path::new(&place));
        self.ok(&["umount", container]);
        tree
    }

    /// The tree of an image.
    pub(crate) fn image_tree(&self, image: &str) -> Snapshot {
        let place = self.ok(&["image", "mount", image]);
        let tree = Snapshot::of(Path::new(&place));
        self.ok(&["image", "umount", image]);
        tree
    }

    /// A path of this engine's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let ended = self.command(&["rm", "--all", "--force", "--time", "0"]).output();
        if !ended.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("podman rm --all: {ended:?}");
        }
    }
}

/// What a machine without systemd and without the right to raise limits needs.
pub(crate) fn containers_conf(home: &Path) -> String {
    let home = home.display();
    format!(
        "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=4096:4096\"]\n\
         netns = \"none\"\ncgroups = \"enabled\"\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
         lock_type = \"file\"\ntmp_dir = \"{home}/tmp\"\n"
    )
}
