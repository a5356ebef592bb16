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

use engines::life::Life;
use engines::{Beside, PLYFS, Room, image, run, run_with, wait_until};
use rustix::process::{Pid, Signal};
use support::{Policy, Snapshot, names, require};

/// The driver that runs what stands under that name in PATH: PlyFS here.
const PLYFS_DRIVER: &str = "fuse-overlayfs";

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
            PLYFS_DRIVER => engines::documented_block("docker", "json"),
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
    other: &[],
};

/// What only a driver lists on which the names of a hard link stay together.
const OTHER_NAME: &str = "C /t/h2_b";

#[test]
fn images_and_containers_live_as_on_overlay2() {
    let Some(room) = room() else { return };
    let [ours, theirs] = [PLYFS_DRIVER, "overlay2"].map(|driver| {
        let docker = Docker::start(&room, driver);
        life(&docker)
    });
    ours.expect_same(&theirs, OVERLAY2);
}

/// Containers of one image at once, and what is left of them.
#[test]
fn docker_runs_on_plyfs_and_leaves_nothing() {
    let Some(room) = room() else { return };
    let mut docker = Docker::start(&room, PLYFS_DRIVER);
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

/// A build by docker's own builder: RUN, COPY and deletions.
#[test]
fn a_build_gives_the_images_of_overlay2() {
    let Some(room) = room() else { return };
    let [ours, theirs] = [PLYFS_DRIVER, "overlay2"].map(|driver| {
        let docker = Docker::start(&room, driver);
        let mut life = Life::default();
        docker.ok(&["import", image::base(&room).to_str().unwrap(), image::BASE]);
        let context = image::build_context(&room);
        let context = context.to_str().unwrap();
        let file = format!("{context}/Containerfile");
        let build = ["--network", "none", "--ulimit", "nofile=20000:20000", "-f", &file];
        let words = [&["build", "-t", "built:1"][..], &build, &[context]].concat();
        let said = docker.ok(&words);
        let layers: Vec<&str> = said.lines().filter_map(|l| l.strip_prefix(" ---> ")).collect();
        let images = layers.iter().filter(|line| line.len() == 12).skip(1);
        let images: Vec<&&str> = images.collect();
        assert_eq!(images.len(), 5, "{said}");
        for (step, image) in images.iter().enumerate() {
            life.tree(&format!("build step {}", step + 1), docker.image_tree(image));
        }
        let again = docker.ok(&words);
        assert_eq!(again.matches("Using cache").count(), 5, "{again}");
        // Without times, for the two builds are made one after the other, and without a directory's
        // links, which tell of how many layers it is made.
        let look = "find /home /srv -type d -exec stat -c '%A %u %g %n' {} + \
                    -o -exec stat -c '%A %h %u %g %s %n' {} +";
        life.words("a run", &docker.run(&["--rm", "built:1", "sh", "-c", look]));
        life
    });
    ours.expect_same(&theirs, OVERLAY2);
}

/// `live-restore`: dockerd is restarted under a container that runs on, and stopped ones are kept.
#[test]
fn containers_are_kept_over_a_restart_of_dockerd() {
    let Some(room) = room() else { return };
    let mut docker = Docker::start(&room, PLYFS_DRIVER);
    docker.stop_daemon();
    let config = engines::documented_block("docker", "json");
    let config = config.replacen('{', "{\n  \"live-restore\": true,", 1);
    fs::write(docker.home.join("daemon.json"), config).unwrap();
    docker.start_daemon();
    docker.ok(&["import", image::base(&room).to_str().unwrap(), "base:1"]);
    docker.run(&["--name", "stopped", "base:1", "sh", "-c", "echo kept >/t/kept; rm /t/b_delete"]);
    docker.run(&["-d", "--name", "running", "base:1", "sleep", "1000"]);
    docker.ok(&["exec", "running", "sh", "-c", "echo one >/t/new"]);
    let daemons = room.daemons();
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    docker.stop_daemon();
    assert_eq!(room.daemons(), daemons, "the mount goes on without dockerd");
    docker.start_daemon();
    assert_eq!(docker.ok(&["inspect", "--format", "{{.State.Running}}", "running"]), "true");
    let more = "echo two >>/t/new; cat /t/new";
    assert_eq!(docker.ok(&["exec", "running", "sh", "-c", more]), "one\ntwo");
    assert_eq!(docker.ok(&["diff", "running"]).trim(), "C /t\nA /t/new");
    docker.ok(&["start", "stopped"]);
    let changes = engines::sorted(&docker.ok(&["diff", "stopped"]));
    assert_eq!(changes, ["A /t/kept", "C /t", "D /t/b_delete"]);
    docker.ok(&["commit", "running", "committed:1"]);
    assert_eq!(docker.run(&["--rm", "committed:1", "cat", "/t/new"]), "one\ntwo");
    docker.ok(&["rm", "--force", "running", "stopped"]);
    wait_until("the daemons to end", || room.daemons().is_empty());
}

/// Files go in and out of containers, running or not; what is not needed any more is counted and
/// goes.
#[test]
fn files_are_copied_and_what_is_left_over_goes() {
    let Some(room) = room() else { return };
    let docker = Docker::start(&room, PLYFS_DRIVER);
    docker.ok(&["import", image::base(&room).to_str().unwrap(), "base:1"]);
    let layers = || names(docker.home.join("root/fuse-overlayfs")).len();
    let before = layers();
    docker.run(&["-d", "--name", "running", "base:1", "sleep", "1000"]);
    docker.ok(&["create", "--network", "none", "--name", "created", "base:1", "true"]);
    let source = room.dir("source/sub");
    fs::write(source.join("file"), "copied\n").unwrap();
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    let source = source.parent().unwrap().to_str().unwrap().to_owned();
    for name in ["running", "created"] {
        docker.ok(&["cp", &source, &format!("{name}:/t/copied")]);
        let out = docker.home.join(name);
        docker.ok(&["cp", &format!("{name}:/t/copied"), out.to_str().unwrap()]);
        support::assert_same(
            "what was copied out",
            &Snapshot::of(&out),
            "the source",
            &Snapshot::of(Path::new(&source)),
            Policy { ino: false, ..Policy::SAME_CONTENT },
        );
    }
    assert_eq!(docker.ok(&["exec", "running", "cat", "/t/copied/sub/link"]), "copied");
    docker.ok(&["exec", "running", "dd", "if=/dev/zero", "of=/t/large", "bs=1M", "count=5"]);
    let rows = docker.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"]);
    let row = |kind: &str| {
        let found = rows.lines().find_map(|line| line.strip_prefix(kind));
        found.unwrap_or_else(|| panic!("no {kind} in {rows}")).trim().to_owned()
    };
    assert!(row("Images").starts_with("1 "), "{rows}");
    assert!(row("Containers").starts_with("2 5.2"), "{rows}");
    docker.ok(&["stop", "--time", "0", "running"]);
    docker.ok(&["system", "prune", "--all", "--force"]);
    assert_eq!(docker.ok(&["ps", "--all", "--quiet"]), "");
    assert_eq!(docker.ok(&["images", "--quiet"]), "");
    assert_eq!(layers(), before - 1, "the layer of the image went, too");
}

/// The table of what docker was observed to list on overlay2 (see fixtures/README.md): the same on
/// PlyFS, but for the other name of a changed hard link, which stays one file here.
#[test]
fn the_observed_changes_are_listed_as_on_overlay2() {
    let Some(room) = room() else { return };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/docker-diff");
    let script = |name: &str, dir: &Path| {
        let mut command = Command::new(fixtures.join(name));
        run(command.current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C.UTF-8"));
    };
    let base = room.dir("base");
    script("base.sh", &base);
    fs::create_dir(base.join("bin")).unwrap();
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    let archive = room.path("reference.tar");
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--format=posix", "--create", "--file"]).arg(&archive);
    run(tar.arg("--directory").arg(&base).arg("."));

    let docker = Docker::start(&room, PLYFS_DRIVER);
    docker.ok(&["import", archive.to_str().unwrap(), "reference:1"]);
    docker.run(&["-d", "--name", "box", "reference:1", "/bin/busybox", "sleep", "1000"]);
    let mounts = room.mounts();
    let mut merged = mounts.iter().filter_map(|line| line.split(' ').nth(1));
    let merged = merged.rfind(|place| place.ends_with("/merged")).unwrap();
    script("changes.sh", Path::new(merged));
    let table = fs::read_to_string(fixtures.join("overlay2.tsv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let rows = rows.map(|line| line.split_once('\t').unwrap());
    let expected =
        rows.filter(|(_, kind)| *kind != "-").map(|(path, kind)| format!("{kind} {path}"));
    let expected: Vec<String> = expected.chain([OTHER_NAME.to_owned()]).collect();
    assert_eq!(
        engines::sorted(&docker.ok(&["diff", "box"])),
        engines::sorted(&expected.join("\n"))
    );
}
