//! `cp`: docker's rules for names, and nothing but the container is reached.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shell::Shell;

struct Fixture {
    shell: Shell,
    dir: PathBuf,
}

/// A container `box` of the fixture, and a directory with files to copy; `None` where the test
/// is to be skipped.
fn boxed() -> Option<Fixture> {
    if !(support::require("root") && support::require("fuse")) {
        return None;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let dir = shell.dir.path().join("here");
    fs::create_dir_all(dir.join("tree/sub")).unwrap();
    fs::write(dir.join("tree/sub/file"), "below").unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    std::os::unix::fs::chown(dir.join("file"), Some(12), Some(34)).unwrap();
    Some(Fixture { shell, dir })
}

impl Fixture {
    fn cp(&self, from: &str, to: &str) {
        let output = self.command(&["cp", from, to]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "cp {from} {to}: {said}");
    }

    fn refused(&self, from: &str, to: &str) -> String {
        let output = self.command(&["cp", from, to]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "cp {from} {to}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.shell.command(arguments);
        command.current_dir(&self.dir);
        command
    }

    /// What the writable layer has, while nothing is mounted.
    fn upper(&self) -> PathBuf {
        let details = self.shell.json(&["inspect", "box"]);
        assert_eq!(details[0]["State"]["Status"], "unmounted");
        PathBuf::from(details[0]["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.upper().join(path)).unwrap_or_else(|_| "missing".to_owned())
    }
}

#[test]
fn names_follow_docker_on_the_way_in() {
    let Some(it) = boxed() else { return };
    it.cp("file", "box:/srv");
    assert_eq!(it.read("srv/file"), "content");
    it.cp("file", "box:/srv/renamed");
    assert_eq!(it.read("srv/renamed"), "content");
    it.cp("file", "box:/etc/motd2");
    it.cp("tree", "box:/srv");
    assert_eq!(it.read("srv/tree/sub/file"), "below");
    it.cp("tree", "box:/srv/new");
    assert_eq!(it.read("srv/new/sub/file"), "below");
    it.cp("tree/.", "box:/srv");
    assert_eq!(it.read("srv/sub/file"), "below");
    it.cp("tree/.", "box:/other");
    assert_eq!(it.read("other/sub/file"), "below");
    it.cp("tree/sub/..", "box:/home");
    assert_eq!(it.read("home/tree/sub/file"), "below", "a directory is known by its own name");
    it.cp("tree/", "box:opt");
    assert_eq!(it.read("opt/sub/file"), "below", "a path without / begins at the root");

    for (from, to, said) in [
        ("file", "box:/no/dir/x", "no such file"),
        ("file", "box:/missing/", "no such file"),
        ("tree", "box:/srv/file", "not a directory"),
        ("file/", "box:/srv", "not a directory"),
        ("none", "box:/srv", "cannot copy"),
        ("file", "nope:/srv", "no such container: nope"),
        ("box:/srv", "box:/x", "from container to container"),
        ("file", "tree", "must be in a container"),
        ("file", "box:", "a path must follow box:, such as box:/"),
        ("box:", "here", "a path must follow box:, such as box:/"),
    ] {
        let line = it.refused(from, to);
        assert!(line.contains(said), "{from} {to}: {line}");
    }
}

#[test]
fn owners_modes_and_times_are_as_asked_for() {
    let Some(it) = boxed() else { return };
    it.cp("file", "box:/plain");
    let output = it.command(&["cp", "-a", "file", "box:/kept"]).output().unwrap();
    assert!(output.status.success());
    let source = fs::metadata(it.dir.join("file")).unwrap();
    for (name, owner) in [("plain", (0, 0)), ("kept", (12, 34))] {
        let found = fs::metadata(it.upper().join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{name}");
        assert_eq!(found.mode(), source.mode());
        assert_eq!((found.mtime(), found.mtime_nsec()), (source.mtime(), source.mtime_nsec()));
    }
    it.cp("box:/kept", "back");
    assert_eq!(fs::metadata(it.dir.join("back")).unwrap().uid(), 0, "the caller's");
}

#[test]
fn names_follow_docker_on_the_way_out_from_a_mounted_container_too() {
    let Some(it) = boxed() else { return };
    it.cp("tree", "box:/srv");
    for mounted in [false, true] {
        if mounted {
            it.shell.ok(&["mount", "box"]);
        }
        it.cp("box:/srv/tree", ".");
        assert_eq!(fs::read_to_string(it.dir.join("tree/sub/file")).unwrap(), "below");
        let out = format!("out{mounted}");
        it.cp("box:/srv/tree", &out);
        assert!(it.dir.join(&out).join("sub/file").is_file());
        it.cp("box:/srv/tree/.", ".");
        assert!(it.dir.join("sub/file").is_file());
        it.cp("box:/bin/busybox", "busybox");
        let size = fs::metadata(it.dir.join("busybox")).unwrap().len();
        assert!(size > 500_000, "{size}");
        fs::remove_dir_all(it.dir.join("sub")).unwrap();
    }
    it.shell.ok(&["umount", "box"]);
    assert!(it.refused("box:/none", ".").contains("no such file"));
}

#[test]
fn archives_go_through_dash() {
    let Some(it) = boxed() else { return };
    it.cp("tree", "box:/srv");
    let tar = it.command(&["cp", "box:/srv/tree", "-"]).output().unwrap().stdout;
    let mut list =
        Command::new("tar").arg("t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    list.stdin.take().unwrap().write_all(&tar).unwrap();
    let listing = String::from_utf8(list.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(listing, "tree/\ntree/sub/\ntree/sub/file\n");

    let tar = it.command(&["cp", "box:/srv/tree/.", "-"]).output().unwrap().stdout;
    let mut list = tar::Archive::new(tar.as_slice());
    let first = list.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(first.path().unwrap(), Path::new("./"), "the directory is told of, too");
    let tar = it.command(&["cp", "box:/srv/tree", "-"]).output().unwrap().stdout;

    let feed = |to: &str, tar: &[u8]| {
        let mut child = it
            .command(&["cp", "-", to])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may refuse before it has read everything.
        child.stdin.take().unwrap().write_all(tar).ok();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, said) = feed("box:/etc", &tar);
    assert!(done, "{said}");
    assert_eq!(it.read("etc/tree/sub/file"), "below");
    assert!(!feed("box:/none", &tar).0);
    // No archive of files deletes anything.
    let mut wicked = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    wicked.append_data(&mut header, ".wh.hosts", io::empty()).unwrap();
    let (done, said) = feed("box:/etc", &wicked.into_inner().unwrap());
    assert!(!done && said.contains("whiteouts"), "{said}");
}

#[test]
fn symlinks_of_the_container_never_lead_out_of_it() {
    let Some(it) = boxed() else { return };
    let outside = it.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, it.upper().join("leak")).unwrap();
    symlink(outside.join("secret"), it.upper().join("leak-file")).unwrap();
    symlink("../../../../../../../../etc", it.upper().join("up")).unwrap();
    assert!(it.refused("box:/leak/secret", "got").contains("no such file"));
    assert!(it.refused("file", "box:/leak/planted").contains("no such file"));
    assert!(!outside.join("planted").exists());
    // A symlink is copied as one, unless what it leads to is asked for: in the container.
    it.cp("box:/leak-file", "link");
    assert!(it.dir.join("link").is_symlink());
    let output = it.command(&["cp", "-L", "box:/leak-file", "got"]).output().unwrap();
    assert!(!output.status.success() && !it.dir.join("got").exists());
    it.cp("file", "box:/up/inside");
    assert_eq!(it.read("etc/inside"), "content");
    assert!(!Path::new("/etc/inside").exists());
    symlink("etc/inside", it.upper().join("good")).unwrap();
    let output = it.command(&["cp", "-L", "box:/good", "got"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(fs::read_to_string(it.dir.join("got")).unwrap(), "content");
}

/// What is written to a symlink is written to what it leads to, as with docker: in the container
/// seen from the container's root.
#[test]
fn a_symlink_that_is_the_destination_stays() {
    let Some(it) = boxed() else { return };
    let upper = it.upper();
    fs::create_dir(upper.join("work")).unwrap();
    fs::write(upper.join("work/file"), "old").unwrap();
    for (name, target) in [
        ("link", "file"),
        ("absolute", "/work/made"),
        ("up", "../../../../work/risen"),
        ("twice", "link"),
        ("loop", "loop"),
        ("dangling", "tree-of-its-own"),
    ] {
        symlink(target, upper.join("work").join(name)).unwrap();
    }
    for (to, written) in [("link", "file"), ("absolute", "made"), ("up", "risen")] {
        it.cp("file", &format!("box:/work/{to}"));
        assert_eq!(it.read(&format!("work/{written}")), "content", "{to}");
    }
    fs::write(it.dir.join("other"), "other").unwrap();
    it.cp("other", "box:/work/twice");
    assert_eq!(it.read("work/file"), "other");
    it.cp("tree", "box:/work/dangling");
    assert_eq!(it.read("work/tree-of-its-own/sub/file"), "below");
    assert!(it.refused("file", "box:/work/loop").contains("too many levels of symbolic links"));
    assert!(it.refused("tree", "box:/work/link").contains("not a directory"));
    for name in ["link", "absolute", "up", "twice", "loop", "dangling"] {
        assert!(upper.join("work").join(name).is_symlink(), "{name}");
    }
    symlink("there", it.dir.join("link")).unwrap();
    it.cp("box:/work/file", "link");
    assert!(it.dir.join("link").is_symlink());
    assert_eq!(fs::read_to_string(it.dir.join("there")).unwrap(), "other");
}

/// Whoever ends a `cp` that hangs, or the kernel for want of memory, leaves no mount behind.
#[test]
fn a_killed_cp_leaves_nothing_mounted() {
    let Some(it) = boxed() else { return };
    let mut child = it.command(&["cp", "-", "box:/srv"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut archive = tar::Builder::new(child.stdin.take().unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1 << 20);
    archive.append_data(&mut header, "whole", io::repeat(b'x').take(1 << 20)).unwrap();
    // It waits for the rest of this one.
    header.set_path("half").unwrap();
    header.set_cksum();
    archive.get_mut().write_all(header.as_bytes()).unwrap();
    archive.get_mut().write_all(&[b'x'; 512]).unwrap();
    let mounted = it.shell.dir.path().join("root/containers");
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(mounted.to_str().unwrap())
    };
    eventually("it mounts the container", is_mounted);
    // The one before it is complete by then.
    eventually("it is in the midst", || it.shell.ok(&["diff", "box"]).contains("/srv/half"));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the daemon unmounts and ends", || {
        it.shell.json(&["inspect", "box"])[0]["State"]["Status"] == "unmounted"
    });
    assert!(!is_mounted());
    assert_eq!(it.shell.ok(&["check"]), "");
    assert_eq!(it.read("srv/whole").len(), 1 << 20);
    it.cp("file", "box:/srv/half");
    assert_eq!(it.read("srv/half"), "content");
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One name in a container must not take a whole directory of this machine away, nor the other
/// way round.
#[test]
fn a_directory_and_a_file_never_replace_one_another() {
    let Some(it) = boxed() else { return };
    it.cp("tree", "box:/srv/precious");
    it.cp("file", "box:/srv/plain");
    fs::create_dir_all(it.dir.join("out/plain")).unwrap();
    fs::write(it.dir.join("out/plain/kept"), "kept").unwrap();
    fs::write(it.dir.join("out/precious"), "kept").unwrap();
    let (file, directory) = ("cannot copy a file over", "cannot copy a directory over");
    assert!(it.refused("box:/srv/plain", "out").contains(file));
    assert!(it.refused("box:/srv/precious", "out").contains(directory));
    assert!(it.refused("box:/srv/.", "out").contains("cannot copy a"));
    assert_eq!(fs::read_to_string(it.dir.join("out/plain/kept")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(it.dir.join("out/precious")).unwrap(), "kept");

    let line = it.refused("out/precious", "box:/srv");
    assert_eq!(line, "plyfs: cannot copy a file over /srv/precious: is a directory\n");
    assert!(it.refused("out/plain", "box:/srv").contains(directory));
    fs::create_dir(it.dir.join("out/link")).unwrap();
    symlink("precious", it.upper().join("srv/link")).unwrap();
    assert!(it.refused("out/link", "box:/srv").contains(directory));
    assert_eq!(it.read("srv/precious/sub/file"), "below");
    assert_eq!(it.read("srv/plain"), "content");
    assert!(it.upper().join("srv/link").is_symlink());
}

/// `/dev/null` would be a file of everybody's from then on. docker refuses it, too.
#[test]
fn a_device_is_never_replaced_by_a_copy() {
    if !support::as_host_root("it makes a device") {
        return;
    }
    let Some(it) = boxed() else { return };
    it.cp("file", "box:/srv/file");
    let null = |path: &Path| {
        let made = Command::new("mknod").arg(path).args(["c", "1", "3"]).status().unwrap();
        assert!(made.success());
    };
    null(&it.dir.join("null"));
    symlink("null", it.dir.join("link")).unwrap();
    null(&it.upper().join("srv/null"));
    for (from, to, shown) in [
        ("box:/srv/file", "null", it.dir.join("null")),
        ("box:/srv/file", "link", it.dir.join("link")),
        ("box:/srv/null", "null", it.dir.join("null")),
        ("file", "box:/srv/null", PathBuf::from("/srv/null")),
    ] {
        let why = "it is a device, and would be replaced";
        assert_eq!(
            it.refused(from, to),
            format!("plyfs: cannot copy to {}: {why}\n", shown.display())
        );
    }
    for place in [it.dir.join("null"), it.upper().join("srv/null")] {
        assert_eq!(fs::symlink_metadata(place).unwrap().rdev(), rustix::fs::makedev(1, 3));
    }
}
