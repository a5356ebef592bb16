//! containerd with `ctr` and runc on `plyfs snapshotter`, configured as docs/ENGINES.md says.

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

use engines::{Room, run, wait_until};
use rustix::process::{Pid, Signal};
use support::require;

const SOCKET: &str = "/run/plyfs/snapshotter.sock";
const IMAGE: &str = "localhost/plyfs/busybox:1.35";

/// containerd and the snapshotter in a room of their own.
struct Engine {
    snapshotter: Option<Child>,
    containerd: Option<Child>,
    driver: &'static str,
    /// Last, so that everything in it has ended when it goes.
    room: Room,
}

impl Engine {
    fn start(driver: &'static str) -> Option<Engine> {
        let needs =
            ["root", "fuse", "tool:containerd", "tool:ctr", "tool:runc", "tool:mount.fuse3"];
        if !needs.into_iter().all(require) {
            return None;
        }
        let room = Room::enter();
        let mut engine = Engine { snapshotter: None, containerd: None, driver, room };
        engine.start_snapshotter();
        engine.start_containerd();
        let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/busybox-oci.tar");
        engine.ctr(&["images", "import", "--snapshotter", "plyfs", archive]);
        Some(engine)
    }

    fn log(&self, name: &str) -> fs::File {
        fs::File::options().create(true).append(true).open(self.room.path(name)).unwrap()
    }

    fn start_snapshotter(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.arg("--root").arg(self.room.dir("store")).args(["snapshotter", "--driver"]);
        command.arg(self.driver).stdin(Stdio::null()).stderr(self.log("snapshotter.log"));
        self.snapshotter = Some(command.spawn().unwrap());
        wait_until("the snapshotter", || std::os::unix::net::UnixStream::connect(SOCKET).is_ok());
    }

    fn start_containerd(&mut self) {
        let config = self.room.path("config.toml");
        // The plugin for Kubernetes wants a network of its own.
        let more = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(
            &config,
            engines::documented_block("containerd", "toml").replacen("version = 2\n", more, 1),
        )
        .unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config).arg("--root").arg(self.room.dir("root"));
        command.arg("--state").arg(self.room.dir("state")).arg("--address").arg(self.address());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.log("containerd.log"));
        self.containerd = Some(command.spawn().unwrap());
        wait_until("containerd", || self.command(&["version"]).output().unwrap().status.success());
    }

    fn stop_snapshotter(&mut self) {
        stop(self.snapshotter.take());
        assert!(!Path::new(SOCKET).exists());
    }

    fn address(&self) -> PathBuf {
        self.room.path("containerd.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.address()).args(arguments).stdin(Stdio::null());
        command.env("CONTAINERD_SNAPSHOTTER", "plyfs");
        command
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    /// A view called `look`, and how to mount it. `ctr` gives views no label that keeps them, and
    /// containerd collects when it likes: one that went before it had its label is made again.
    fn kept_view(&self, place: &str, parent: &str) -> String {
        loop {
            let mount = self.snapshots(&["view", "--target", place, "look", parent]);
            let keep = ["label", "look", "containerd.io/gc.root=test"];
            let command = [&["snapshots", "--snapshotter", "plyfs"][..], &keep].concat();
            let kept = self.command(&command).output().unwrap();
            let said = String::from_utf8_lossy(&kept.stderr);
            if kept.status.success() {
                return mount;
            }
            assert!(said.contains("not found"), "{said}");
        }
    }

    fn snapshots(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> =
            ["snapshots", "--snapshotter", "plyfs"].iter().chain(arguments).copied().collect();
        self.ctr(&all)
    }

    /// Starts a container in the background that first runs `script`, and waits for that.
    fn start_box(&self, name: &str, more: &[&str], script: &str) {
        let script = format!("{script}; echo done >/ready; while :; do sleep 1; done");
        let mut arguments = vec!["run", "-d", "--snapshotter", "plyfs"];
        arguments.extend(more);
        arguments.extend([IMAGE, name, "/bin/sh", "-c", &script]);
        self.ctr(&arguments);
        wait_until("the container", || self.exec(name, "cat /ready 2>/dev/null || :") == "done\n");
    }

    fn exec(&self, name: &str, script: &str) -> String {
        self.ctr(&["tasks", "exec", "--exec-id", "x", name, "/bin/sh", "-c", script])
    }

    /// Ends a container; its snapshot goes with it.
    fn end_box(&self, name: &str) {
        self.ctr(&["tasks", "kill", "--signal", "KILL", name]);
        wait_until("the task's end", || !self.ctr(&["tasks", "ls"]).contains("RUNNING"));
        self.ctr(&["tasks", "rm", "--force", name]);
        self.ctr(&["containers", "rm", name]);
    }

    /// The names in the changes of an active snapshot, as containerd tells them.
    fn changes(&self, key: &str) -> Vec<String> {
        let tar = self.room.path("changes.tar");
        let media = "application/vnd.oci.image.layer.v1.tar";
        let mut diff = self.command(&[
            "snapshots",
            "--snapshotter",
            "plyfs",
            "diff",
            "--media-type",
            media,
            key,
        ]);
        let status = diff.stdout(fs::File::create(&tar).unwrap()).status().unwrap();
        assert!(status.success());
        engines::sorted(&run(Command::new("tar").arg("--list").arg("--file").arg(&tar)))
    }

    fn stored(&self) -> usize {
        fs::read_dir(self.room.path("store/snapshots")).unwrap().count()
    }
}

fn stop(child: Option<Child>) {
    let Some(mut child) = child else { return };
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

impl Drop for Engine {
    fn drop(&mut self) {
        for mut child in [self.containerd.take(), self.snapshotter.take()].into_iter().flatten() {
            if std::thread::panicking() {
                let log = fs::read_to_string(self.room.path("containerd.log")).unwrap_or_default();
                eprintln!("{}", log.lines().rev().take(15).collect::<Vec<_>>().join("\n"));
            }
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
fn images_run_and_go() {
    image_runs_and_goes("fuse");
}

#[test]
fn images_run_and_go_by_the_kernel() {
    image_runs_and_goes("kernel");
}

fn image_runs_and_goes(driver: &'static str) {
    let Some(engine) = Engine::start(driver) else { return };
    // Their cgroups are seen from all rooms.
    let [life, short] = ["life", "short"].map(|name| format!("{name}-{driver}"));
    assert_eq!(engine.stored(), 3, "one for each layer");
    let said = engine.ctr(&[
        "run",
        "--rm",
        "--snapshotter",
        "plyfs",
        IMAGE,
        &short,
        "/bin/sh",
        "-c",
        "echo x >/new; cat /new; mount | grep ' on / '",
    ]);
    let kind = if driver == "fuse" { "type fuse.plyfs" } else { "type overlay" };
    assert!(said.starts_with("x\n") && said.contains(kind), "{said}");
    wait_until("the snapshot's end", || engine.stored() == 3);

    engine.start_box(&life, &[], "echo x >/new; rm -r /home");
    let changes = engine.changes(&life);
    assert!(changes.contains(&"new".to_owned()), "{changes:?}");
    assert!(changes.contains(&".wh.home".to_owned()), "{changes:?}");
    // The second mount of the live upper has disturbed nothing.
    assert_eq!(engine.exec(&life, "echo y >>/new; cat /new"), "x\ny\n");

    assert!(engine.snapshots(&["ls"]).contains(&life));
    assert!(engine.snapshots(&["tree"]).contains(&format!("\\_ {life}")));
    let info: serde_json::Value =
        serde_json::from_str(&engine.snapshots(&["info", &life])).unwrap();
    assert_eq!(info["Kind"], "Active");
    assert!(engine.snapshots(&["usage", &life]).contains(&life));
    engine.snapshots(&["label", &life, "containerd.io/snapshot/note=kept"]);
    assert!(engine.snapshots(&["info", &life]).contains("containerd.io/snapshot/note"));
    engine.end_box(&life);

    // What was mounted is nowhere any more, and with the image all of it goes.
    engine.ctr(&["images", "rm", "--sync", IMAGE]);
    wait_until("garbage collection", || engine.stored() == 0);
    assert!(engine.snapshots(&["ls"]).lines().count() <= 1);
}

/// The commands that `ctr` prints mount by mount(8).
#[test]
fn ctr_prepares_commits_and_views() {
    let Some(engine) = Engine::start("fuse") else { return };
    let list = engine.snapshots(&["ls"]);
    let top = engine.ctr(&["images", "ls", "-q"]);
    assert_eq!(top.trim(), IMAGE);
    let parents: Vec<&str> =
        list.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let key = |line: &&str| {
        line.starts_with("sha256:") && !parents.contains(&line.split_whitespace().next().unwrap())
    };
    let top = list.lines().find(key).unwrap().split_whitespace().next().unwrap().to_owned();
    let target = engine.room.dir("target");
    let place = target.to_str().unwrap();
    let mount = engine.snapshots(&["prepare", "--target", place, "mine", &top]);
    run(Command::new("sh").args(["-c", &mount]));
    assert!(target.join("bin/busybox").exists());
    fs::write(target.join("by-hand"), "x").unwrap();
    let refused =
        engine.command(&["snapshots", "--snapshotter", "plyfs", "prepare", "mine", &top]).output();
    assert!(String::from_utf8_lossy(&refused.unwrap().stderr).contains("already exists"));
    run(Command::new("umount").arg(&target));
    engine.snapshots(&["commit", "made", "mine"]);
    let mount = engine.kept_view(place, "made");
    run(Command::new("sh").args(["-c", &mount]));
    assert_eq!(fs::read_to_string(target.join("by-hand")).unwrap(), "x");
    assert!(fs::write(target.join("more"), "").is_err());
    run(Command::new("umount").arg(&target));
    // What `prepare` and `view` printed can be asked for again.
    assert_eq!(engine.snapshots(&["mounts", place, "look"]), mount);
    let refused = engine.command(&["snapshots", "--snapshotter", "plyfs", "rm", "made"]).output();
    assert!(
        String::from_utf8_lossy(&refused.unwrap().stderr)
            .contains("cannot remove snapshot with child")
    );
    engine.snapshots(&["rm", "look"]);
    engine.snapshots(&["rm", "made"]);
    // containerd collects after so many changes, or when a removal asks for it.
    engine.ctr(&["images", "tag", IMAGE, "to/be:removed"]);
    engine.ctr(&["images", "rm", "--sync", "to/be:removed"]);
    wait_until("garbage collection", || engine.stored() == 3);

    // The layers come again from containerd's blobs.
    let (mut key, mut chain) = (top.clone(), Vec::new());
    while !key.is_empty() {
        let info: serde_json::Value =
            serde_json::from_str(&engine.snapshots(&["info", &key])).unwrap();
        chain.push(std::mem::take(&mut key));
        key = info["Parent"].as_str().unwrap_or_default().to_owned();
    }
    engine.snapshots(&["rm", &top]);
    for key in chain.iter().skip(1) {
        // Without the one above it nothing needs it any more, and containerd may collect it first.
        let command = ["snapshots", "--snapshotter", "plyfs", "rm", key];
        let removed = engine.command(&command).output().unwrap();
        let said = String::from_utf8_lossy(&removed.stderr);
        assert!(removed.status.success() || said.contains("not found"), "{said}");
    }
    assert!(engine.snapshots(&["ls"]).lines().count() <= 1);
    let images = engine.ctr(&["images", "ls"]);
    let digest = images.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    engine.snapshots(&["unpack", digest]);
    let mount = engine.kept_view(place, &top);
    run(Command::new("sh").args(["-c", &mount]));
    assert!(target.join("bin/busybox").exists());
    run(Command::new("umount").arg(&target));
}

/// A container goes on under restarts of the snapshotter and of containerd.
#[test]
fn restarts_leave_containers_alone() {
    let Some(mut engine) = Engine::start("fuse") else { return };
    engine.start_box("steady", &[], "echo x >/new");
    engine.stop_snapshotter();
    assert_eq!(engine.exec("steady", "echo y >>/new; cat /new"), "x\ny\n");
    engine.start_snapshotter();
    wait_until("the connection", || {
        engine
            .command(&["snapshots", "--snapshotter", "plyfs", "ls"])
            .output()
            .unwrap()
            .status
            .success()
    });
    assert!(engine.changes("steady").contains(&"new".to_owned()));
    stop(engine.containerd.take());
    engine.start_containerd();
    assert!(engine.ctr(&["tasks", "ls"]).contains("RUNNING"));
    assert_eq!(engine.exec("steady", "echo z >>/new; cat /new"), "x\ny\nz\n");
    assert!(engine.changes("steady").contains(&"new".to_owned()));

    // Its snapshot cannot be pulled away from under it.
    engine.snapshots(&["rm", "steady"]);
    assert_eq!(engine.exec("steady", "cat /new"), "x\ny\nz\n");
    engine.end_box("steady");
}

/// Owners are mapped by the mount: the layers stay as they are, and are shared.
#[test]
fn ids_are_mapped_by_labels() {
    let Some(engine) = Engine::start("fuse") else { return };
    let before = engine.stored();
    let maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--remap-labels"];
    engine.start_box("mapped", &maps, "touch /new");
    assert_eq!(engine.stored(), before + 1, "no copy of the image was made");
    assert_eq!(engine.exec("mapped", "stat -c %u:%g /new /bin/busybox; id -u"), "0:0\n0:0\n0\n");
    let rootfs = engine.room.path("state/io.containerd.runtime.v2.task/default/mapped/rootfs/new");
    let seen = fs::metadata(rootfs).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&seen), 100_000);
    engine.end_box("mapped");
}
