//! podman and buildah with a storage of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PLYFS, Room, User, run, run_with, unpacked};
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

/// podman, as root or as an ordinary user.
#[derive(Debug)]
pub(crate) struct Podman<'a> {
    pub(crate) room: &'a Room,
    pub(crate) storage: Storage,
    user: Option<&'a User>,
    home: PathBuf,
}

impl<'a> Podman<'a> {
    pub(crate) fn new(room: &'a Room, storage: Storage) -> Podman<'a> {
        let home = room.dir(&format!("{storage:?}").to_lowercase());
        Podman::at(room, storage, None, home)
    }

    /// podman as `user`.
    pub(crate) fn rootless(room: &'a Room, storage: Storage, user: &'a User) -> Podman<'a> {
        let home = user.dir(&format!("{storage:?}").to_lowercase());
        Podman::at(room, storage, Some(user), home)
    }

    fn at(room: &'a Room, storage: Storage, user: Option<&'a User>, home: PathBuf) -> Podman<'a> {
        let podman = Podman { room, storage, user, home };
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
            let program = self.user.map_or(PLYFS, |_| "/usr/bin/fuse-plyfs");
            text.push_str(&format!("mount_program = \"{program}\"\n"));
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
        let mut command = match self.user {
            Some(user) => user.command(program),
            None => Command::new(program),
        };
        command.args(words).current_dir(&self.home);
        command.env("CONTAINERS_CONF", self.home.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.home.join("storage.conf"));
        command.env("BUILDAH_ISOLATION", "chroot");
        if self.user.is_none() {
            command.env_remove("XDG_RUNTIME_DIR");
        }
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
        self.mounted(&["podman", "mount", container])
    }

    /// The tree of an image.
    pub(crate) fn image_tree(&self, image: &str) -> Snapshot {
        self.mounted(&["podman", "image", "mount", image])
    }

    /// The tree that an engine mounts by `words`, and unmounts by the same with `umount`. That of
    /// an ordinary user is seen in his namespaces alone, and so comes in an archive from there.
    pub(crate) fn mounted(&self, words: &[&str]) -> Snapshot {
        let opposite = words.iter().map(|word| if *word == "mount" { "umount" } else { word });
        let opposite: Vec<&str> = opposite.collect();
        if self.user.is_none() {
            let place = run(&mut self.program(words[0], &words[1..]));
            let tree = Snapshot::of(Path::new(place.trim_end()));
            run(&mut self.program(opposite[0], &opposite[1..]));
            return tree;
        }
        // The code 1 is for the root's changed ctime: podman changes its owner, to the same, when
        // it comes to clean up behind an exec.
        let script = format!(
            "tar --create --xattrs --xattrs-include='*' --format=posix --numeric-owner \
             --file seen.tar --directory \"$({})\" . || [ $? = 1 ]; {} >/dev/null; \
             chmod 644 seen.tar",
            words.join(" "),
            opposite.join(" "),
        );
        self.ok(&["unshare", "sh", "-e", "-c", &script]);
        unpacked(&self.path("seen.tar"), &self.path("seen"))
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
