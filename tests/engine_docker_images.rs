//! Images between PlyFS and Debian's dockerd, whose overlay2 layers are mounted by the kernel
//! here: whichever made an image, the other has its tree.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod engines;
mod shell;
mod support;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use engines::{Room, run, wait_until};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal};
use shell::Shell;
use support::{Kind, Policy, Snapshot, assert_same, require};

/// Debian's: another client may come first in PATH, and speak a protocol that is too new.
const CLIENT: &str = "/usr/bin/docker";

const NEEDS: &[&str] = &[
    "root",
    "fuse",
    "overlayfs",
    "tool:dockerd",
    "tool:docker",
    "tool:containerd",
    "tool:runc",
    "tool:setfattr",
    "tool:tar",
];

/// How many names a file has is what an upper layer left of them; overlayfs counts the lower's.
const SAME: Policy = Policy { nlink: false, ..Policy::SAME_TREE };

/// Beside the tree of `docker diff`: what a lower layer may hold, too.
const MORE: &str = "cd t
    mknod base_block b 7 200; mknod base_char c 1 5; mkfifo base_fifo
    echo c >base_cap; chown 5:6 base_cap
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 base_cap
    dd if=/dev/zero of=base_sparse bs=1 count=1 seek=3000000 status=none
    echo s >base_suid; chown 1000:3000000 base_suid; chmod 6711 base_suid
    ln -s nowhere base_link; chown -h 7:8 base_link
    touch -h -d '2001-02-03 04:05:06' base_*";

/// A dockerd with everything of its own.
struct Docker<'a> {
    daemon: Child,
    room: &'a Room,
}

impl<'a> Docker<'a> {
    fn start(room: &'a Room) -> Docker<'a> {
        fs::write(room.path("daemon.json"), "{}").unwrap();
        let log = fs::File::create(room.path("dockerd.log")).unwrap();
        let mut command = Command::new("dockerd");
        for no in ["iptables", "ip6tables", "ip-forward", "ip-masq"] {
            command.arg(format!("--{no}=false"));
        }
        command.args(["--bridge=none", "--storage-driver=overlay2", "--config-file"]);
        command.arg(room.path("daemon.json"));
        command.arg("--data-root").arg(room.dir("data")).arg("--exec-root").arg(room.dir("exec"));
        command.arg("--pidfile").arg(room.path("pid")).arg("-H").arg(address(room));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let docker = Docker { daemon: command.spawn().unwrap(), room };
        wait_until("dockerd", || docker.command(&["version"]).output().unwrap().status.success());
        docker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        command.env_remove("DOCKER_CONTEXT").env("DOCKER_CONFIG", self.room.dir("client"));
        command.arg("-H").arg(address(self.room)).args(arguments);
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments)).trim_end().to_owned()
    }

    /// A directory that overlay2 has for an image or container.
    fn dirs(&self, name: &str, which: &str) -> Option<String> {
        let format = format!("{{{{ index .GraphDriver.Data \"{which}\" }}}}");
        let said = self.ok(&["inspect", "--format", &format, name]);
        Some(said).filter(|said| !said.is_empty() && said != "<no value>")
    }

    /// The tree of an image, as the kernel shows the layers that docker has of it.
    fn tree(&self, image: &str) -> Snapshot {
        let upper = self.dirs(image, "UpperDir").unwrap();
        let lower =
            self.dirs(image, "LowerDir").map_or_else(String::new, |dirs| format!(":{dirs}"));
        let empty = self.room.dir("empty");
        let options = format!("lowerdir={upper}{lower}:{}", empty.display());
        self.mounted(&options, seen)
    }

    fn mounted<T>(&self, options: &str, look: impl Fn(&Path) -> T) -> T {
        let place = self.room.dir("seen");
        let options = CString::new(options).unwrap();
        rustix::mount::mount("overlay", &place, "overlay", MountFlags::empty(), Some(&*options))
            .unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let seen = look(&place);
        support::unmount_patiently(&place).unwrap();
        seen
    }

    /// Saves an image; gives the archive's path.
    fn saved(&self, image: &str) -> PathBuf {
        let path = self.room.path("docker-save.tar");
        self.ok(&["save", "-o", path.to_str().unwrap(), image]);
        path
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.room.path("dockerd.log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(15).collect::<Vec<_>>().join("\n"));
        }
        // It ends its containerd, too; killed, it could not.
        let pid = Pid::from_raw(self.daemon.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).ok();
        self.daemon.wait().ok();
    }
}

fn address(room: &Room) -> String {
    format!("unix://{}", room.path("docker.sock").display())
}

fn script(name: &str, dir: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/docker-diff").join(name);
    run(Command::new(path).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C.UTF-8"));
}

/// An archive of the tree to begin with, for `import`.
fn base(room: &Room) -> PathBuf {
    let (dir, tar) = (room.dir("base"), room.path("base.tar"));
    script("base.sh", &dir);
    run(Command::new("sh").args(["-euc", MORE]).current_dir(&dir).env("TZ", "UTC"));
    let mut command = Command::new("tar");
    command.args(["--xattrs", "--xattrs-include=*", "--format=posix", "--numeric-owner", "-cf"]);
    run(command.arg(&tar).arg("-C").arg(&dir).arg("t"));
    tar
}

/// A tree without its root, of which no archive here says anything.
fn seen(root: &Path) -> Snapshot {
    let mut tree = Snapshot::of(root);
    tree.entries.remove(Path::new(""));
    tree
}

/// The tree of an image, as PlyFS mounts a container of it.
fn tree(shell: &Shell, image: &str) -> Snapshot {
    shell.ok(&["create", "--name", "look", image]);
    let place = shell.ok(&["mount", "look"]);
    let shown = seen(Path::new(place.trim_end()));
    shell.ok(&["umount", "look"]);
    shell.ok(&["rm", "look"]);
    shown
}

fn load(shell: &Shell, archive: &Path) {
    shell.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
}

/// That the tree has what it is about: else equal trees would say little.
fn expect_everything(tree: &Snapshot) {
    let entry = |path: &str| &tree.entries[Path::new(path)];
    assert_eq!(entry("t/base_block").kind, Kind::Block(7, 200));
    assert_eq!(entry("t/u_chr").kind, Kind::Char(1, 3));
    assert_eq!(entry("t/t_fifo").kind, Kind::Fifo);
    assert!(matches!(entry("t/sparse").kind, Kind::File { size: 1_048_576, .. }));
    assert_eq!(entry("t/suid").mode, 0o4755);
    assert_eq!(entry("t/h1_orig").same_as, Some("t/h1_newlink".into()));
    assert_eq!((entry("t/base_suid").uid, entry("t/base_suid").gid), (1000, 3_000_000));
    for name in ["t/filecap", "t/base_cap"] {
        assert!(
            entry(name).xattrs.contains_key(std::ffi::OsStr::new("security.capability")),
            "{name}"
        );
    }
    assert!(!tree.entries.contains_key(Path::new("t/o_opaque/1")));
    assert!(!tree.entries.contains_key(Path::new("t/b_delete")));
}

#[test]
fn what_plyfs_commits_on_dockers_image_comes_back_from_docker() {
    if !NEEDS.iter().all(|need| require(need)) {
        return;
    }
    let room = Room::enter();
    let docker = Docker::start(&room);
    docker.ok(&["import", base(&room).to_str().unwrap(), "base:1"]);
    let shell = Shell::new();
    load(&shell, &docker.saved("base:1"));
    assert_same("docker", &docker.tree("base:1"), "PlyFS", &tree(&shell, "base:1"), SAME);

    shell.ok(&["create", "--name", "box", "base:1"]);
    let place = shell.ok(&["mount", "box"]);
    let place = Path::new(place.trim_end());
    script("changes.sh", place);
    let changed = seen(place);
    shell.ok(&["umount", "box"]);
    shell.ok(&["commit", "box", "mine:1"]);
    let archive = room.path("plyfs-save.tar");
    shell.ok(&["save", "-o", archive.to_str().unwrap(), "mine:1"]);
    docker.ok(&["load", "-i", archive.to_str().unwrap()]);
    let loaded = docker.tree("mine:1");
    expect_everything(&loaded);
    assert_same("the container", &changed, "docker's image of it", &loaded, SAME);

    let other = Shell::new();
    load(&other, &docker.saved("mine:1"));
    let id = |shell: &Shell| shell.ok(&["images", "-q", "--no-trunc", "mine:1"]);
    assert_eq!(id(&other), id(&shell), "config and layers are the same bytes");
    assert_eq!(id(&shell).trim_end(), docker.ok(&["images", "-q", "--no-trunc", "mine:1"]));
    assert_same("the container", &changed, "what came back", &tree(&other, "mine:1"), SAME);
}

#[test]
fn what_docker_commits_and_builds_has_dockers_tree() {
    if !NEEDS.iter().all(|need| require(need)) {
        return;
    }
    let room = Room::enter();
    let docker = Docker::start(&room);
    docker.ok(&["import", base(&room).to_str().unwrap(), "base:1"]);
    docker.ok(&["create", "--name", "box", "base:1", "/none"]);
    // What a process in the container would do: its upper is written through an overlayfs.
    let dir = |which| docker.dirs("box", which).unwrap();
    let (lower, upper, work) = (dir("LowerDir"), dir("UpperDir"), dir("WorkDir"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},index=off");
    docker.mounted(&options, |place| script("changes.sh", place));
    docker.ok(&["commit", "box", "theirs:1"]);
    let context = room.dir("context");
    fs::write(context.join("new"), "new").unwrap();
    fs::write(context.join("Dockerfile"), "FROM theirs:1\nCOPY new /t/a_modify\nCOPY new /n\n")
        .unwrap();
    let mut build = docker.command(&["build", "-q", "-t", "built:1"]);
    run(build.arg(&context).env("DOCKER_BUILDKIT", "0"));
    for image in ["theirs:1", "built:1"] {
        let shell = Shell::new();
        load(&shell, &docker.saved(image));
        let expected = docker.tree(image);
        expect_everything(&expected);
        assert_same("docker", &expected, "PlyFS", &tree(&shell, image), SAME);
    }
}
