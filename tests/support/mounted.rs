//! A mounted stack, by PlyFS or by the kernel's overlayfs.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::require::rootless;
use super::scene::Scene;
use super::snapshot::Snapshot;

/// Who mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    Plyfs,
    Kernel,
    /// fuse-overlayfs from PATH, or the program that `PLYFS_TEST_FUSE_OVERLAYFS` names.
    FuseOverlayfs,
}

impl Driver {
    /// PlyFS, unless `PLYFS_TEST_DRIVER=kernel` asks for the kernel's overlayfs: that shows that
    /// a test measures what it says it does.
    pub(crate) fn under_test() -> Driver {
        match std::env::var("PLYFS_TEST_DRIVER").as_deref() {
            Ok("kernel") => Driver::Kernel,
            Ok("plyfs") | Err(_) => Driver::Plyfs,
            Ok(other) => panic!("PLYFS_TEST_DRIVER is plyfs or kernel, not {other}"),
        }
    }

    /// Whether the driver under test is overlayfs, which is known to give another answer; says so.
    pub(crate) fn kernel_differs(statement: &str) -> bool {
        let differs = Driver::under_test() == Driver::Kernel;
        if differs {
            println!("overlayfs does not keep this: {statement}");
        }
        differs
    }

    /// Whether requests pass through FUSE, which does not let all through.
    pub(crate) fn is_fuse(self) -> bool {
        !matches!(self, Driver::Kernel)
    }

    /// The name for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Driver::Plyfs => "PlyFS",
            Driver::Kernel => "overlayfs",
            Driver::FuseOverlayfs => "fuse-overlayfs",
        }
    }

    /// The program that serves a mount of this driver; the kernel needs none.
    fn program(self) -> Option<OsString> {
        match self {
            // Another build than the one beside the tests, for long runs.
            Driver::Plyfs => Some(
                std::env::var_os("PLYFS_TEST_DAEMON")
                    .unwrap_or_else(|| env!("CARGO_BIN_EXE_fuse-plyfs").into()),
            ),
            Driver::Kernel => None,
            Driver::FuseOverlayfs => Some(
                std::env::var_os("PLYFS_TEST_FUSE_OVERLAYFS")
                    .unwrap_or_else(|| "fuse-overlayfs".into()),
            ),
        }
    }
}

/// How to mount.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Without an upper.
    pub(crate) read_only: bool,
    /// Further options, as `-o` takes them: `["redirect_dir=off"]`. They replace the defaults,
    /// which are `redirect_dir=on,index=on,xino=on` for the kernel and none for PlyFS. In a user
    /// namespace the kernel is given `userxattr`, and not what that forbids.
    pub(crate) extra: Vec<String>,
}

impl Options {
    /// With these options.
    pub(crate) fn with(extra: &[&str]) -> Options {
        let extra = extra.iter().map(|option| (*option).to_owned()).collect();
        Options { extra, ..Options::default() }
    }

    /// With `userxattr` overlayfs takes no word about redirects and metacopies: it has none.
    fn extra_for(&self, driver: Driver) -> Vec<String> {
        let mut extra = self.extra.clone();
        if driver == Driver::Kernel && !self.read_only && extra.is_empty() {
            extra = ["redirect_dir=on", "index=on", "xino=on"].map(str::to_owned).to_vec();
        }
        if driver == Driver::Kernel && rootless() {
            extra.retain(|option| {
                !["redirect_dir=", "metacopy="].iter().any(|o| option.starts_with(o))
            });
            extra.push("userxattr".to_owned());
        }
        extra
    }

    fn text(&self, scene: &Scene, driver: Driver) -> OsString {
        let mut text = OsString::from("lowerdir=");
        text.push(scene.lowerdir());
        if !self.read_only {
            for (key, path) in [(",upperdir=", &scene.upper), (",workdir=", &scene.work)] {
                text.push(key);
                text.push(path);
            }
        }
        for option in self.extra_for(driver) {
            text.push(",");
            text.push(option);
        }
        text
    }
}

/// A mount that ends with its value; its daemon's end is waited for.
#[derive(Debug)]
pub(crate) struct MountedOverlay<'a> {
    scene: &'a Scene,
    driver: Driver,
    options: Options,
    daemon: Option<Child>,
    mounted: bool,
}

/// Only a fault uses it up: under a load of 25 and with the lowest priority, a child between its
/// fork and its exec was seen to hold a mount for 20 s.
const PATIENCE: Duration = Duration::from_secs(180);

impl<'a> MountedOverlay<'a> {
    pub(super) fn new(scene: &'a Scene, driver: Driver, options: &Options) -> Self {
        let options = options.clone();
        let mut mount = MountedOverlay { scene, driver, options, daemon: None, mounted: false };
        mount.mount();
        mount
    }

    /// The root of the merged tree.
    pub(crate) fn root(&self) -> &Path {
        &self.scene.mountpoint
    }

    /// A path in the merged tree.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.scene.mountpoint.join(path)
    }

    /// Who mounted it.
    pub(crate) fn driver(&self) -> Driver {
        self.driver
    }

    /// The layers.
    pub(crate) fn scene(&self) -> &'a Scene {
        self.scene
    }

    /// The daemon's process id, where there is a daemon.
    pub(crate) fn daemon_id(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Everything that the mount shows.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.root())
    }

    /// Unmounts and mounts again: nothing that was only in memory is left.
    pub(crate) fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    /// Unmounts, and waits until the daemon has ended.
    pub(crate) fn unmount(&mut self) {
        if let Err(problem) = self.try_unmount() {
            panic!("{problem}");
        }
    }

    /// Kills the daemon, which can clean nothing up, and takes the dead mount away.
    pub(crate) fn kill(&mut self) {
        self.kill_daemon();
        rustix::mount::unmount(self.root(), UnmountFlags::DETACH).unwrap();
        self.mounted = false;
    }

    /// Kills the daemon and leaves the dead mount where it is.
    pub(crate) fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("a mount by PlyFS");
        daemon.kill().and_then(|()| daemon.wait()).expect("our own child");
    }

    /// Takes the dead mount away as a user does.
    pub(crate) fn take_off_dead(&mut self) {
        let output = Command::new("fusermount3").arg("-u").arg(self.root()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fusermount3 -u: {said}");
        self.mounted = false;
    }

    /// Takes note that the test itself has unmounted it; waits until the daemon has ended.
    pub(crate) fn was_unmounted(&mut self) {
        self.mounted = false;
        if let Some(mut daemon) = self.daemon.take()
            && let Err(problem) = wait_for(&mut daemon, self.scene)
        {
            panic!("{problem}");
        }
    }

    fn mount(&mut self) {
        let text = self.options.text(self.scene, self.driver);
        match self.driver.program() {
            None => mount_kernel(&text, self.root()),
            Some(program) => self.daemon = Some(start_daemon(&program, &text, self.scene)),
        }
        self.mounted = true;
    }

    fn try_unmount(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        let unmounted = unmount_patiently(self.root());
        let Some(mut daemon) = self.daemon.take() else { return unmounted };
        let ended = wait_for(&mut daemon, self.scene);
        unmounted.and(ended)
    }
}

impl Drop for MountedOverlay<'_> {
    fn drop(&mut self) {
        match self.try_unmount() {
            Err(problem) if !std::thread::panicking() => panic!("{problem}"),
            Err(problem) => eprintln!("{problem}"),
            Ok(()) => {}
        }
    }
}

/// `mount -t overlay`. A process that has just been given a copy of this mount namespace may hold
/// the layers' last mount for a moment: EBUSY is waited for.
fn mount_kernel(options: &OsString, root: &Path) {
    let start = Instant::now();
    loop {
        let output = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o"])
            .arg(options)
            .arg(root)
            .output()
            .expect("mount(8) is there");
        if output.status.success() {
            return;
        }
        let error = String::from_utf8_lossy(&output.stderr);
        let busy = error.contains("busy") || error.contains("already mounted");
        if !busy || start.elapsed() > PATIENCE {
            panic!("overlayfs does not mount {options:?}: {error}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Starts the daemon in the foreground, so that it is our child, and waits until it has mounted.
fn start_daemon(program: &OsString, options: &OsString, scene: &Scene) -> Child {
    let log = File::create(scene.place("daemon.log")).unwrap();
    let before = std::fs::metadata(&scene.mountpoint).unwrap().dev();
    let mut daemon = Command::new(program)
        .arg("-f")
        .arg("-o")
        .arg(options)
        .arg(&scene.mountpoint)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
    let start = Instant::now();
    while !std::fs::metadata(&scene.mountpoint).is_ok_and(|now| now.dev() != before) {
        if let Some(status) = daemon.try_wait().unwrap() {
            panic!("{program:?} -o {options:?} ended with {status}: {}", log_text(scene));
        }
        if start.elapsed() > PATIENCE {
            daemon.kill().expect("our own child");
            daemon.wait().expect("our own child");
            panic!("{program:?} -o {options:?} does not mount: {}", log_text(scene));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon
}

fn log_text(scene: &Scene) -> String {
    std::fs::read_to_string(scene.place("daemon.log")).unwrap_or_default()
}

/// Unmounts; a file that another thread's just forked child still holds is waited for.
pub(crate) fn unmount_patiently(root: &Path) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match rustix::mount::unmount(root, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(errno) => {
                let users = users_of(root);
                let detached = rustix::mount::unmount(root, UnmountFlags::DETACH);
                let root = root.display();
                return Err(format!(
                    "cannot unmount {root}: {errno}, used by {users:?} (detached: {detached:?})"
                ));
            }
        }
    }
}

/// What processes have below a path: their working directories, roots, descriptors and mappings.
fn users_of(root: &Path) -> Vec<String> {
    let below = |entry: PathBuf| -> Vec<String> {
        let links = std::fs::read_dir(entry).into_iter().flatten().flatten();
        let targets = links.filter_map(|link| Some((link.path(), link.path().read_link().ok()?)));
        let ours = targets.filter(|(_, target)| target.starts_with(root));
        ours.map(|(link, target)| format!("{} -> {}", link.display(), target.display())).collect()
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter(|p| p.file_name().as_encoded_bytes()[0].is_ascii_digit());
    let of = |process: PathBuf| ["", "fd", "map_files"].map(|kind| below(process.join(kind)));
    processes.flat_map(|process| of(process.path()).concat()).collect()
}

/// A daemon that outlives its mount, or ends with a failure, is a fault of its own.
fn wait_for(daemon: &mut Child, scene: &Scene) -> Result<(), String> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match daemon.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                return Err(format!("the daemon ended with {status}: {}", log_text(scene)));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(format!("cannot wait for the daemon: {error}")),
        }
    }
    let killed = daemon.kill().and_then(|()| daemon.wait());
    Err(format!("the daemon was there {PATIENCE:?} after its unmount (killed: {killed:?})"))
}
