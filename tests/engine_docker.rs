//! docker 20.10 on `fuse-plyfs`, by its driver `fuse-overlayfs` and a link of that name, as
//! docs/ENGINES.md says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod engines;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use engines::life::{Beside, Life};
use engines::{PLYFS, Room, image, run, run_with, wait_until};
use rustix::process::{Pid, Signal};
use support::{Policy, Snapshot, names, require};

/// Debian's: newer clients do not speak to it.
const DOCKER: &str = "/usr/bin/docker";

/// dockerd with one storage driver.
struct Docker<'a> {
    room: &'a Room,
    driver: &'static str,
    home: PathBuf,
    daemon: Option<Child>,
}

impl<'a> Docker<'a> {
    fn start(room: &'a Room, driver: &'static str) -> Docker<'a> {
        let home = room.dir(driver);
        let config = match driver {
            "fuse-overlayfs" => engines::documented_block("docker", "json"),
            other => format!("{{\"storage-driver\": \"{other}\"}}"),
        };
        fs::write(home.join("daemon.json"), config).unwrap();
        let mut docker = Docker { room, driver, home, daemon: None };
        docker.start_daemon();
        docker
    }

    fn start_daemon(&mut self) {
        let [root, exec, log] = ["root", "exec", "log"].map(|name| self.home.join(name));
        let mut command = Command::new("dockerd");
        // No network is set up, so that none of the machine's own is touched.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--ip-forward=false", "--ip-masq=false", "--config-file"]);
        command.arg(self.home.join("daemon.json"));
        command.arg("--data-root").arg(root).arg("--exec-root").arg(exec);
        command.arg("--pidfile").arg(self.home.join("pid")).arg("--host").arg(self.host());
        // As systemd has it.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        wait_until("dockerd", || {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "dockerd ended: {}", self.log());
            self.command(&["version"]).output().unwrap().status.success()
        });
    }

    fn stop_daemon(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = Pid::from_raw(daemon.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        daemon.wait().unwrap();
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        log.lines().rev().take(15).collect::<Vec<_>>().join("\n")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.home.join("sock").display())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(DOCKER);
        command.env("DOCKER_CONFIG", &self.home).env_remove("DOCKER_CONTEXT");
        command.arg("--host").arg(self.host()).args(words).stdin(Stdio::null());
        command
    }

    fn ok(&self, words: &[&str]) -> String {
        run(&mut self.command(words)).trim_end().to_owned()
    }

    /// `docker run` with what a machine without a network and without the right to raise limits
    /// needs.
    fn run_words<'w>(&self, words: &[&'w str]) -> Vec<&'w str> {
        let first = ["run", "--network", "none", "--ulimit", "nofile=20000:20000"];
        [&first, words].concat()
    }

    fn run(&self, words: &[&str]) -> String {
        self.ok(&self.run_words(words))
    }

    /// The tree of a container by its export, without what docker puts over it.
    fn tree(&self, container: &str) -> Snapshot {
        let archive = self.home.join("export.tar");
        self.ok(&["export", "--output", archive.to_str().unwrap(), container]);
        engines::unpacked(&archive, &self.home.join("unpacked"))
    }

    /// The tree of an image.
    fn image_tree(&self, image: &str) -> Snapshot {
        let container = self.ok(&["create", "--network", "none", image, "true"]);
        let tree = self.tree(&container);
        self.ok(&["rm", &container]);
        tree
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let list = self.command(&["ps", "--all", "--quiet"]).output().unwrap();
        for container in String::from_utf8_lossy(&list.stdout).lines() {
            self.command(&["rm", "--force", container]).output().ok();
        }
        self.stop_daemon();
    }
}

fn room() -> Option<Room> {
    let needs = ["root", "fuse", "overlayfs", "tool:dockerd", "tool:containerd", "tool:runc"];
    if !needs.into_iter().chain(["tool:gcc"]).all(require) {
        return None;
    }
    let room = Room::enter();
    for place in ["/usr/bin", "/usr/local/bin"] {
        room.own(place);
    }
    engines::room::install(Path::new(PLYFS), "/usr/bin/fuse-plyfs");
    run(Command::new("sh").args(["-e", "-c", &engines::documented_block("docker", "sh")]));
    Some(room)
}

/// A life of an image and its containers.
fn life(docker: &Docker<'_>) -> Life {
    let mut life = Life::default();
    let base = image::base(docker.room);
    docker.ok(&["import", base.to_str().unwrap(), "base:1"]);
    life.tree("import", docker.image_tree("base:1"));
    let words = docker.run_words(&["-i", "--name", "changed", "base:1", "sh", "-s"]);
    run_with(&mut docker.command(&words), &engines::fixture("changes.sh"));
    life.tree("run", docker.tree("changed"));
    let changes = docker.ok(&["diff", "changed"]);
    assert!(changes.lines().count() > 40, "{changes}");
    let seen = changes.lines().filter(|line| *line != OTHER_NAME);
    life.words("diff", &seen.collect::<Vec<_>>().join("\n"));
    let other_changed = changes.lines().any(|line| line == OTHER_NAME);
    assert_eq!(other_changed, docker.driver != "overlay2", "{changes}");
    docker.ok(&["commit", "changed", "committed:1"]);
    life.tree("commit", docker.image_tree("committed:1"));
    let look = "cd /t; cat a_modify 00_add o_opaque/* 'sp ace/'*; ls . o_opaque g_dir_renamed";
    life.words(
        "a run of what was committed",
        &docker.run(&["--rm", "committed:1", "sh", "-c", look]),
    );
    let archive = docker.home.join("saved.tar");
    docker.ok(&["save", "--output", archive.to_str().unwrap(), "committed:1"]);
    docker.ok(&["rmi", "committed:1"]);
    docker.ok(&["load", "--input", archive.to_str().unwrap()]);
    life.tree("save and load", docker.image_tree("committed:1"));
    docker.ok(&["rm", "changed"]);
    life
}

/// docker compares trees by size and time where a program mounts: it does not see that a file was
/// replaced by one of the same size and time. On overlayfs it lists what is in the upper, and the
/// names of a hard link of a lower come apart when it is changed.
const OVERLAY2: Beside<'_> = Beside {
    name: "overlay2",
    policy: Policy { nlink: false, hard_links: false, ..Policy::SAME_CONTENT },
    blind: &["t/h2_b", "t/s2_dst"],
};

/// What only a driver lists on which the names of a hard link stay together.
const OTHER_NAME: &str = "C /t/h2_b";

#[test]
fn images_and_containers_live_as_on_overlay2() {
    let Some(room) = room() else { return };
    let [ours, theirs] = ["fuse-overlayfs", "overlay2"].map(|driver| {
        let docker = Docker::start(&room, driver);
        life(&docker)
    });
    ours.expect_same(&theirs, OVERLAY2);
}

/// Containers of one image at once, and what is left of them.
#[test]
fn docker_runs_on_plyfs_and_leaves_nothing() {
    let Some(room) = room() else { return };
    let mut docker = Docker::start(&room, "fuse-overlayfs");
    assert_eq!(docker.ok(&["info", "--format", "{{.Driver}}"]), "fuse-overlayfs");
    docker.ok(&["import", image::base(&room).to_str().unwrap(), "base:1"]);
    let layers = |docker: &Docker<'_>| names(docker.home.join("root/fuse-overlayfs")).len();
    let before = layers(&docker);
    for name in ["one", "two"] {
        docker.run(&["-d", "--name", name, "base:1", "sleep", "1000"]);
        let kind = docker.ok(&["exec", name, "grep", " / ", "/proc/mounts"]);
        assert!(kind.contains(" fuse.plyfs "), "{kind}");
        docker.ok(&[
            "exec",
            name,
            "sh",
            "-c",
            &format!("echo {name} >/t/a_modify; rm /t/b_delete"),
        ]);
    }
    for name in ["one", "two"] {
        assert_eq!(docker.ok(&["exec", name, "cat", "/t/a_modify"]), name);
        let changes = docker.ok(&["diff", name]);
        assert!(
            changes.contains("C /t/a_modify") && changes.contains("D /t/b_delete"),
            "{changes}"
        );
    }
    let archive = docker.home.join("file");
    docker.ok(&["cp", "one:/t/a_modify", archive.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&archive).unwrap(), "one\n");
    docker.ok(&["stop", "--time", "0", "one"]);
    docker.ok(&["start", "one"]);
    assert_eq!(docker.ok(&["exec", "one", "cat", "/t/a_modify"]), "one");
    docker.ok(&["rm", "--force", "one", "two"]);
    assert_eq!(layers(&docker), before);
    wait_until("the daemons to end", || room.daemons().is_empty());
    docker.ok(&["rmi", "base:1"]);
    docker.stop_daemon();
    let left = room.mounts().into_iter().filter(|line| line.contains("/fuse-overlayfs/"));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}
