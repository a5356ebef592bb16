//! `fuse-plyfs` as a program: both orders of its arguments, background and foreground, every way
//! to end it, and what it says when it cannot mount.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use support::require;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fuse-plyfs");
const PATIENCE: Duration = Duration::from_secs(20);

/// A lower with one file, an upper, a workdir and a mountpoint.
struct Place {
    base: tempfile::TempDir,
    /// The daemon of the last mount that went to the background.
    daemon: Option<i32>,
}

impl Place {
    /// `None` where the caller skips tests that need root and FUSE.
    fn new() -> Option<Place> {
        if !(require("root") && require("fuse")) {
            return None;
        }
        let base = support::scratch();
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        fs::write(base.path().join("lower/from-lower"), "lower\n").unwrap();
        Some(Place { base, daemon: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn merged(&self) -> PathBuf {
        self.path("merged")
    }

    /// The program in this place's directory, so that relative paths are meant there.
    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(self.base.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program until it has gone to the background and its output ended.
    fn run(&mut self, arguments: &[&str]) -> Output {
        let start = Instant::now();
        let output = self.program(arguments).output().unwrap();
        assert!(start.elapsed() < PATIENCE, "{arguments:?} kept its caller waiting");
        self.daemon = self.find_daemon();
        output
    }

    fn mount(&mut self, arguments: &[&str]) {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        assert!(self.mount_line().is_some(), "{arguments:?} left nothing mounted");
        assert!(self.daemon.is_some(), "{arguments:?} left no daemon");
    }

    /// The line of the mount table for the mountpoint.
    fn mount_line(&self) -> Option<String> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let merged = format!(" {} ", self.merged().display());
        table.lines().find(|line| line.contains(&merged)).map(str::to_owned)
    }

    /// The process that serves the mountpoint: a daemon with our arguments in the session of its
    /// own, whose command line ends in what this place's mounts end in.
    fn find_daemon(&self) -> Option<i32> {
        let key = self.merged().into_os_string().into_string().unwrap();
        let is_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("fuse-plyfs") && line.contains(&key)
        };
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).find(is_ours)
    }

    /// Waits until the daemon is gone (a process that nobody has waited for yet counts as gone),
    /// and checks what it leaves.
    fn expect_end(&mut self) {
        let pid = self.daemon.take().expect("a daemon");
        wait_until("the daemon to end", || has_ended(pid));
        assert_eq!(self.mount_line(), None, "still mounted");
        self.expect_empty_workdir();
    }

    fn expect_empty_workdir(&self) {
        let left: Vec<_> = fs::read_dir(self.path("work")).unwrap().collect();
        assert!(left.is_empty(), "the workdir holds {left:?}");
    }

    /// The options of a writable mount, with absolute paths.
    fn writable(&self) -> String {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| self.path(name));
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        format!("lowerdir={lower},upperdir={upper},workdir={work}")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.mount_line().is_some() {
            rustix::mount::unmount(self.merged(), UnmountFlags::DETACH).unwrap();
        }
        if let Some(pid) = self.daemon.filter(|pid| !has_ended(*pid)) {
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).ok();
        }
    }
}

fn has_ended(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that succeeds. What another test's child holds between its fork and its exec
/// makes a mount busy: that is waited for.
fn run(program: &str, arguments: &[&str], place: &Path) {
    let start = Instant::now();
    loop {
        let output = Command::new(program).args(arguments).arg(place).output().unwrap();
        if output.status.success() {
            return;
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let waits = words.contains("busy") && start.elapsed() < PATIENCE;
        assert!(waits, "{program} {arguments:?}: {words}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn version_and_help_go_to_stdout() {
    for (option, words) in [
        ("--version", concat!("fuse-plyfs: version ", env!("CARGO_PKG_VERSION"))),
        ("-V", "fuse-plyfs: version "),
        ("--help", "lowerdir="),
        ("-h", "Usage: fuse-plyfs"),
    ] {
        let output = Command::new(PROGRAM).arg(option).output().unwrap();
        assert!(output.status.success(), "{option}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(words), "{option}");
        assert!(output.stderr.is_empty(), "{option}");
    }
}

/// podman's order; the output's end is waited for, as podman does.
#[test]
fn it_mounts_in_the_background_and_lets_go_of_its_caller() {
    let Some(mut place) = Place::new() else { return };
    let options = format!("{},,volatile", place.writable());
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["-o", &options, &merged]);
    assert_eq!(fs::read(place.path("merged/from-lower")).unwrap(), b"lower\n");
    fs::write(place.path("merged/new"), "new\n").unwrap();
    assert_eq!(fs::read(place.path("upper/new")).unwrap(), b"new\n");

    let pid = place.daemon.unwrap();
    for stream in 0..=2 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "stream {stream}");
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    // A table of descriptors that grows has whoever needs it wait for milliseconds.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let room = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    assert!(room.trim().parse::<u64>().unwrap() >= limit.unwrap_or(u64::MAX).min(8192), "{room}");
    let line = place.mount_line().unwrap();
    assert!(line.starts_with("plyfs "), "{line}");
    assert!(line.contains(" fuse.plyfs rw,"), "{line}");
    assert!(line.contains("default_permissions,allow_other"), "{line}");
    run("umount", &[], &place.merged());
    place.expect_end();
}

/// mount(8)'s order: the source becomes the name in the mount table.
#[test]
fn mount8s_order_of_arguments_works() {
    let Some(mut place) = Place::new() else { return };
    let options = format!("rw,{},nodev,dev,suid", place.writable());
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["the source", &merged, "-o", &options]);
    let line = place.mount_line().unwrap();
    assert!(line.starts_with(r"the\040source "), "{line}");
    assert!(!line.contains("nodev") && !line.contains("nosuid"), "{line}");
    assert!(place.path("merged/from-lower").exists());
    run("umount", &[], &place.merged());
    place.expect_end();

    let options = format!("-o{},fsname=named,nosuid", place.writable());
    place.mount(&["ignored", &merged, &options, "-t", "plyfs", "-n"]);
    let line = place.mount_line().unwrap();
    assert!(line.starts_with("named ") && line.contains("nosuid"), "{line}");
    run("umount", &[], &place.merged());
    place.expect_end();
}

#[test]
fn without_an_upper_nothing_can_be_changed() {
    let Some(mut place) = Place::new() else { return };
    let options = format!("lowerdir={}", place.path("lower").display());
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["-o", &options, &merged]);
    assert!(place.mount_line().unwrap().contains(" ro,"));
    assert_eq!(fs::read(place.path("merged/from-lower")).unwrap(), b"lower\n");
    let refused = fs::write(place.path("merged/new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    run("umount", &[], &place.merged());
    place.expect_end();
}

/// docker calls it so: everything relative to the directory it starts the program in.
#[test]
fn relative_paths_are_those_of_the_caller() {
    let Some(place) = Place::new() else { return };
    let options = "lowerdir=lower,upperdir=upper,workdir=work";
    let output = place.program(&["-o", options, "merged"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(place.path("merged/new"), "").unwrap();
    assert!(place.path("upper/new").exists());
    run("umount", &[], &place.merged());
    wait_until("an empty workdir", || fs::read_dir(place.path("work")).unwrap().count() == 0);
}

/// A layer holds the container's ids; the mount shows the host's. What the host's user makes is
/// kept as the container's.
#[test]
fn id_maps_show_the_ids_of_the_host() {
    let Some(mut place) = Place::new() else { return };
    for name in ["lower", "lower/from-lower", "upper"] {
        std::os::unix::fs::chown(place.path(name), Some(5), Some(7)).unwrap();
    }
    let maps = "uidmapping=:0:10000:1000,gidmapping=:0:20000:1000";
    let options = format!("{},{maps}", place.writable());
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["-o", &options, &merged]);
    let shown = fs::metadata(place.path("merged/from-lower")).unwrap();
    assert_eq!((shown.uid(), shown.gid()), (10_005, 20_007));
    let new = place.path("merged/new");
    let ids = ["--reuid=10005", "--regid=20007", "--clear-groups", "touch"];
    run("setpriv", &ids, &new);
    let kept = fs::metadata(place.path("upper/new")).unwrap();
    assert_eq!((kept.uid(), kept.gid()), (5, 7));
    std::os::unix::fs::chown(&new, Some(10_000), Some(20_000)).unwrap();
    let kept = fs::metadata(place.path("upper/new")).unwrap();
    assert_eq!((kept.uid(), kept.gid()), (0, 0));
    // An engine works on it from outside: what it makes is the container's root's, what it gives
    // away by the container's ids is theirs, and it can give nothing to whom the container has not.
    fs::write(place.path("merged/from-outside"), "x").unwrap();
    for (shown, on_disk) in [("merged", "upper"), ("merged/from-outside", "upper/from-outside")] {
        std::os::unix::fs::chown(place.path(shown), Some(0), Some(0)).unwrap();
        let kept = fs::metadata(place.path(on_disk)).unwrap();
        assert_eq!((kept.uid(), kept.gid()), (0, 0));
        let seen = fs::metadata(place.path(shown)).unwrap();
        assert_eq!((seen.uid(), seen.gid()), (10_000, 20_000));
    }
    let refused = std::os::unix::fs::chown(place.path("merged/from-outside"), Some(5000), None);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()));
    run("umount", &[], &place.merged());
    place.expect_end();
}

#[test]
fn an_unknown_option_warns_and_mounts() {
    let Some(mut place) = Place::new() else { return };
    let options = format!("{},frobnicate=7", place.writable());
    let merged = place.merged().into_os_string().into_string().unwrap();
    let output = place.run(&["-o", &options, &merged]);
    assert!(output.status.success());
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("frobnicate") && words.lines().count() == 1, "{words}");
    run("umount", &[], &place.merged());
    place.expect_end();
}

/// Each failure: one line that names what is wrong, a failing exit code, nothing mounted.
#[test]
fn failures_are_one_line_and_leave_nothing() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    let good = place.writable();
    let lost = good.replace("/lower,", "/lost,");
    let no_upper = good.replace("/upper,", "/lost,");
    let bad = format!("{good},timeout=soon");
    let half = "lowerdir=/,upperdir=/tmp".to_owned();
    let file = place.path("lower/from-lower").into_os_string().into_string().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["-o", &lost, &merged], "/lost: no such file or directory"),
        (&["-o", &no_upper, &merged], "/lost: no such file or directory"),
        (&["-o", &bad, &merged], "option timeout: "),
        (&["-o", &half, &merged], "option workdir: "),
        (&["-o", "ro", &merged], "option lowerdir: "),
        (&["-o", &good, "/no/such/place"], "/no/such/place: no such file or directory"),
        (&["-o", &good, &file], "from-lower: not a directory"),
        (&["-o", &good], "no mountpoint"),
        (&["-o", &good, "a", "b", "c"], "c: "),
        (&["--frob", &merged], "option --frob: "),
        (&[&merged, "-o"], "option -o: "),
    ];
    for foreground in [false, true] {
        for (arguments, expected) in cases {
            let mut arguments = arguments.to_vec();
            if foreground {
                arguments.insert(0, "-f");
            }
            let output = place.run(&arguments);
            let words = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{arguments:?} succeeded");
            assert_eq!(words.lines().count(), 1, "{arguments:?}: {words}");
            assert!(words.starts_with("fuse-plyfs: "), "{arguments:?}: {words}");
            assert!(words.contains(expected), "{arguments:?}: {words}");
            assert!(output.stdout.is_empty(), "{arguments:?}");
            assert_eq!(place.mount_line(), None, "{arguments:?}");
            place.expect_empty_workdir();
        }
    }
}

#[test]
fn each_way_to_unmount_ends_the_daemon() {
    let Some(mut place) = Place::new() else { return };
    if !require("tool:fusermount3") {
        return;
    }
    let merged = place.merged().into_os_string().into_string().unwrap();
    let ways: &[(&str, &[&str])] = &[
        ("umount", &[]),
        ("umount", &["-l"]),
        ("fusermount3", &["-u"]),
        ("fusermount3", &["-u", "-z"]),
    ];
    for (program, arguments) in ways {
        place.mount(&["-o", &place.writable(), &merged]);
        fs::write(place.path("merged/new"), program).unwrap();
        run(program, arguments, &place.merged());
        place.expect_end();
        assert_eq!(fs::read_to_string(place.path("upper/new")).unwrap(), *program);
    }
}

/// umount(2) does not wait for the daemon: the next mount of the same layers does.
#[test]
fn the_same_layers_can_be_mounted_again_at_once() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    for round in 0..40 {
        place.mount(&["-o", &place.writable(), &merged]);
        fs::write(place.path(&format!("merged/{round}")), "").unwrap();
        run("umount", &[], &place.merged());
    }
    assert_eq!(fs::read_dir(place.path("upper")).unwrap().count(), 40);
    wait_until("an empty workdir", || fs::read_dir(place.path("work")).unwrap().count() == 0);
}

/// But layers that a live mount holds are refused, and that mount goes on.
#[test]
fn layers_of_a_live_mount_are_refused() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["-o", &place.writable(), &merged]);
    fs::create_dir(place.path("second")).unwrap();
    let output = place.program(&["-o", &place.writable(), "second"]).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(words.contains("in use") && words.lines().count() == 1, "{words}");
    fs::write(place.path("merged/new"), "").unwrap();
    run("umount", &[], &place.merged());
    place.expect_end();
}

/// With `join` the second mount of a live upper is the first one, in a second place: both show
/// what either writes, and the daemon ends with the last of them.
#[test]
fn a_live_mount_is_joined_where_that_is_asked_for() {
    let Some(mut place) = Place::new() else { return };
    fs::create_dir(place.path("second")).unwrap();
    let merged = place.merged().into_os_string().into_string().unwrap();
    let options = format!("{},join", place.writable());
    place.mount(&["source-of-both", &merged, "-o", &options]);
    let first = place.daemon.unwrap();
    for last in ["second", "merged"] {
        let other = if last == "second" { "merged" } else { "second" };
        let missing = if last == "second" { "second" } else { "merged" };
        let output = place.program(&["source-of-both", missing, "-o", &options]).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
        fs::write(place.path(&format!("{missing}/by-{missing}")), "x").unwrap();
        assert!(place.path(&format!("{other}/by-{missing}")).exists());
        run("umount", &[], &place.path(other));
        assert!(!has_ended(first), "the daemon ended under {last}");
        assert!(place.path(&format!("{last}/from-lower")).exists());
    }
    run("umount", &[], &place.merged());
    wait_until("the daemon to end", || has_ended(first));
    place.daemon = None;
    place.expect_empty_workdir();
}

/// containerd asks for that to tell what a running container changed.
#[test]
fn a_live_mount_is_joined_read_only() {
    let Some(mut place) = Place::new() else { return };
    fs::create_dir(place.path("second")).unwrap();
    let merged = place.merged().into_os_string().into_string().unwrap();
    let options = format!("{},join", place.writable());
    place.mount(&["both", &merged, "-o", &options]);
    fs::write(place.path("merged/new"), "x").unwrap();
    fs::remove_file(place.path("merged/from-lower")).unwrap();
    let read_only = format!("{options},ro");
    let output = place.program(&["both", "second", "-o", &read_only]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(support::names(place.path("second")), ["new"]);
    let refused = fs::write(place.path("second/more"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write(place.path("merged/more"), "").unwrap();
    assert!(place.path("second/more").exists());
    run("umount", &[], &place.path("second"));
    run("umount", &[], &place.merged());
    place.expect_end();
}

/// A read-only mount shows the upper all the same, as the kernel's overlayfs does.
#[test]
fn a_read_only_mount_shows_its_upper() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    fs::write(place.path("upper/written"), "").unwrap();
    let options = format!("{},ro", place.writable());
    place.mount(&["-o", &options, &merged]);
    assert_eq!(support::names(place.merged()), ["from-lower", "written"]);
    let refused = fs::write(place.path("merged/new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    run("umount", &[], &place.merged());
    place.expect_end();

    // Also where the upper's own filesystem is read-only.
    let base = place.base.path().to_path_buf();
    let inner = tempfile::tempdir().unwrap();
    rustix::mount::mount_bind(&base, inner.path()).unwrap();
    run("mount", &["-o", "remount,bind,ro"], inner.path());
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| inner.path().join(name));
    let (lower, upper, work) = (lower.display(), upper.display(), work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},ro");
    place.mount(&["-o", &options, &merged]);
    assert_eq!(support::names(place.merged()), ["from-lower", "written"]);
    run("umount", &[], &place.merged());
    place.expect_end();
    support::unmount_patiently(inner.path()).unwrap();
}

/// A mount of another source is not what was meant, whoever has the upper.
#[test]
fn a_mount_of_another_source_is_not_joined() {
    let Some(mut place) = Place::new() else { return };
    fs::create_dir(place.path("second")).unwrap();
    let merged = place.merged().into_os_string().into_string().unwrap();
    let options = format!("{},join", place.writable());
    place.mount(&["one", &merged, "-o", &options]);
    let output = place.program(&["other", "second", "-o", &options]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("in use"), "{words}");
    let output = place.program(&["second", "-o", &options]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("option join: "), "{words}");
    run("umount", &[], &place.merged());
    place.expect_end();
}

/// A lazy unmount leaves those who have files open to finish; the daemon ends after them.
#[test]
fn a_lazy_unmount_waits_for_open_files() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["-o", &place.writable(), &merged]);
    let path = place.path("merged/open");
    let mut file = fs::File::create(&path).unwrap();
    run("umount", &["-l"], &place.merged());
    std::io::Write::write_all(&mut file, b"afterwards").unwrap();
    assert!(!has_ended(place.daemon.unwrap()));
    drop(file);
    place.expect_end();
    assert_eq!(fs::read(place.path("upper/open")).unwrap(), b"afterwards");
}

#[test]
fn each_signal_unmounts_and_ends_the_daemon() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        place.mount(&["-o", &place.writable(), &merged]);
        fs::write(place.path("merged/new"), "written").unwrap();
        let pid = Pid::from_raw(place.daemon.unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        place.expect_end();
        assert_eq!(fs::read(place.path("upper/new")).unwrap(), b"written");
    }
}

/// Somebody who keeps a file open cannot keep a daemon alive that was told to end.
#[test]
fn a_signal_ends_it_in_spite_of_open_files() {
    let Some(mut place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    place.mount(&["-o", &place.writable(), &merged]);
    let file = fs::File::create(place.path("merged/open")).unwrap();
    let pid = Pid::from_raw(place.daemon.unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    place.expect_end();
    assert!(file.metadata().is_err(), "nobody can answer for it any more");
}

/// In the foreground the exit code is that of the whole life of the mount.
#[test]
fn in_the_foreground_it_stays_until_it_is_unmounted() {
    let Some(place) = Place::new() else { return };
    let merged = place.merged().into_os_string().into_string().unwrap();
    let before = fs::metadata(place.merged()).unwrap().dev();
    for signal in [None, Some(Signal::TERM)] {
        let mut daemon: Child = place
            .program(&["-f", "-o", &place.writable(), &merged])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mounted = || fs::metadata(place.merged()).is_ok_and(|now| now.dev() != before);
        wait_until("the mount", mounted);
        match signal {
            None => run("umount", &[], &place.merged()),
            Some(signal) => {
                let pid = Pid::from_raw(daemon.id().cast_signed()).unwrap();
                rustix::process::kill_process(pid, signal).unwrap();
            }
        }
        let status = daemon.wait().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(place.mount_line(), None);
        place.expect_empty_workdir();
    }
}
