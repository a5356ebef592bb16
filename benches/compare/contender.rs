//! The filesystems that are compared: how each mounts a stack of layers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Res;
use crate::shell::{call, make_dir, on, run};

/// What kind of filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The layers copied together into a plain directory.
    Native,
    Overlayfs,
    /// PlyFS: this build, or the fuse-plyfs at this path.
    Plyfs(PathBuf),
    /// PlyFS without privilege: in a user namespace of its own, with the work done there too.
    PlyfsRootless(PathBuf),
    /// The program at this path.
    FuseOverlayfs(PathBuf),
    UnionfsFuse,
    /// A snapshot of a subvolume that has the layers copied together.
    Btrfs,
}

#[derive(Debug, Clone)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// Where the parts of one mount lie.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The directory with the layers: `0` is the topmost.
    pub(crate) stack: PathBuf,
    pub(crate) layers: u32,
    /// Holds `upper`, `work` and `merged`.
    pub(crate) own: PathBuf,
    /// The subvolume that a btrfs mount is a snapshot of.
    pub(crate) subvolume: PathBuf,
}

impl Place {
    pub(crate) fn merged(&self) -> PathBuf {
        self.own.join("merged")
    }
}

/// How long a daemon may take to mount or to end.
const PATIENCE: Duration = Duration::from_secs(20);

impl Contender {
    /// Whether a daemon serves it.
    pub(crate) fn has_daemon(&self) -> bool {
        !matches!(self.kind, Kind::Native | Kind::Overlayfs | Kind::Btrfs)
    }

    /// Whether it is mounted in the namespace, so that the work is done there as well.
    pub(crate) fn is_rootless(&self) -> bool {
        matches!(self.kind, Kind::PlyfsRootless(_))
    }

    /// Mounts; what was changed in an earlier mount of the same place is still there.
    pub(crate) fn mount(&self, place: &Place, namespace: Option<&Namespace>) -> Res<()> {
        let merged = place.merged();
        if !matches!(self.kind, Kind::Native | Kind::Btrfs) {
            for name in ["upper", "work"] {
                make_dir(&place.own.join(name))?;
            }
        }
        let lowers = |one: &dyn Fn(u32) -> String, joint: &str| {
            (0..place.layers).map(one).collect::<Vec<_>>().join(joint)
        };
        let own = place.own.display();
        let overlay_options = format!(
            "lowerdir={},upperdir={own}/upper,workdir={own}/work",
            lowers(&|n| n.to_string(), ":")
        );
        let mut command = match &self.kind {
            Kind::Native => return Ok(()),
            Kind::Btrfs if merged.exists() => return Ok(()),
            Kind::Btrfs => {
                make_dir(&place.own)?;
                let (from, to) =
                    (place.subvolume.display().to_string(), merged.display().to_string());
                return call("btrfs", &["-q", "subvolume", "snapshot", &from, &to]).map(drop);
            }
            Kind::Overlayfs => {
                let mut mount = Command::new("mount");
                mount.args(["-t", "overlay", "overlay", "-o", &overlay_options]);
                mount
            }
            Kind::Plyfs(path) => daemon(path, &overlay_options),
            Kind::PlyfsRootless(path) => {
                let namespace = namespace.ok_or("a rootless mount needs its namespace")?;
                let mut enter = namespace.enter(&place.stack);
                // The user that root becomes here owns a device that other users may not open.
                let options = format!("{overlay_options},cpu_latency=off");
                enter.arg(path).args(["-o", &options]);
                enter
            }
            Kind::FuseOverlayfs(path) => daemon(path, &overlay_options),
            Kind::UnionfsFuse => {
                let stack = place.stack.display();
                let branches =
                    format!("{own}/upper=RW:{}", lowers(&|n| format!("{stack}/{n}=RO"), ":"));
                let mut unionfs = Command::new("unionfs");
                unionfs.args(["-o", "cow,allow_other", &branches]);
                unionfs
            }
        };
        make_dir(&merged)?;
        // Their standard error stays with the daemon, so that its end cannot be waited for.
        command.arg(&merged).current_dir(&place.stack).stdin(Stdio::null()).stdout(Stdio::null());
        let log = on(&place.own, std::fs::File::create(place.own.join("log")))?;
        let status = command.stderr(log).status();
        let status =
            status.map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
        if status.success() {
            return Ok(());
        }
        let said = std::fs::read_to_string(place.own.join("log")).unwrap_or_default();
        Err(format!("does not mount: {}", said.trim().lines().last().unwrap_or("no reason given")))
    }

    /// Unmounts, and waits for the daemon's end.
    pub(crate) fn unmount(&self, place: &Place, namespace: Option<&Namespace>) -> Res<()> {
        let merged = place.merged();
        if matches!(self.kind, Kind::Native | Kind::Btrfs) {
            return Ok(());
        }
        let daemon = if self.has_daemon() { self.daemon(place) } else { None };
        let start = Instant::now();
        loop {
            let mut command = match namespace.filter(|_| self.is_rootless()) {
                Some(namespace) => {
                    let mut enter = namespace.enter(Path::new("/"));
                    enter.arg("umount");
                    enter
                }
                None => Command::new("umount"),
            };
            match run(command.arg(&merged)) {
                Ok(_) => break,
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        let Some(daemon) = daemon else { return Ok(()) };
        while PathBuf::from(format!("/proc/{daemon}/exe")).exists() {
            if start.elapsed() > PATIENCE {
                return Err(format!("its daemon {daemon} does not end"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Takes everything away that a mount of `place` left behind, so that the next one is fresh.
    pub(crate) fn forget(&self, place: &Place) -> Res<()> {
        match self.kind {
            Kind::Native => Ok(()),
            Kind::Btrfs if place.merged().exists() => {
                let merged = place.merged().display().to_string();
                call("btrfs", &["-q", "subvolume", "delete", &merged]).map(drop)
            }
            _ if place.own.exists() => on(&place.own, std::fs::remove_dir_all(&place.own)),
            _ => Ok(()),
        }
    }

    /// The process that serves a mount: it has the place in its arguments.
    pub(crate) fn daemon(&self, place: &Place) -> Option<u32> {
        let merged = place.merged();
        let merged = merged.as_os_str().as_encoded_bytes();
        let processes = std::fs::read_dir("/proc").ok()?;
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter(|id: &u32| *id != std::process::id()).find(|id| {
            let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == merged)
        })
    }
}

fn daemon(program: &Path, options: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-o", options]);
    command
}

/// A user namespace with one user, who is root in it, and a mount namespace of its own.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    pub(crate) fn new() -> Res<Namespace> {
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run unshare: {error}"))?;
        let namespace = Namespace { holder };
        let start = Instant::now();
        let exe = format!("/proc/{}/exe", namespace.holder.id());
        while !std::fs::read_link(&exe)
            .is_ok_and(|exe| exe.ends_with("sleep") || exe.ends_with("coreutils"))
        {
            if start.elapsed() > PATIENCE {
                return Err("unshare makes no namespace".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(namespace)
    }

    /// A command that runs what follows in it, from the directory `from`.
    pub(crate) fn enter(&self, from: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let id = self.holder.id().to_string();
        command.args(["--user", "--mount", "--preserve-credentials", "--target", &id]);
        command.arg(format!("--wdns={}", from.display())).arg("--");
        command
    }

    pub(crate) fn end(mut self) -> Res<()> {
        self.holder.kill().and_then(|()| self.holder.wait()).map(drop).map_err(|e| e.to_string())
    }
}

/// Has the kernel forget names and inodes, but not what is on disk.
pub(crate) fn drop_names() -> Res<()> {
    let path = Path::new("/proc/sys/vm/drop_caches");
    crate::shell::write(path, "2")
}
