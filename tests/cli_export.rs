//! `export` of a container and of layers in directories, read back by tar(1).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use shell::Shell;

/// Unpacks an archive with the system's tar into a new directory.
fn unpack(archive: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("tar")
        .arg("--numeric-owner")
        .arg("-xpf")
        .arg(archive)
        .arg("-C")
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    dir
}

#[test]
fn an_exported_container_is_the_tree_that_was_mounted() {
    if !(support::require("root") && support::require("fuse") && support::require("tool:tar")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = shell.ok(&["mount", "box"]);
    let place = Path::new(place.trim_end());
    fs::write(place.join("etc/new"), "new").unwrap();
    fs::remove_file(place.join("etc/hosts")).unwrap();
    let file = shell.dir.path().join("box.tar");
    assert_eq!(shell.ok(&["export", "box", "-o", file.to_str().unwrap()]), "");

    let unpacked = unpack(&file);
    let compared = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .args([place, unpacked.path()])
        .output()
        .unwrap();
    shell.ok(&["umount", "box"]);
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
    let busybox = fs::metadata(unpacked.path().join("bin/busybox")).unwrap();
    assert!(busybox.nlink() > 1, "hard links stay hard links");

    // Equal trees give equal bytes, to a file, to standard output and to `-`.
    let bytes = fs::read(&file).unwrap();
    assert_eq!(shell.run(&["export", "box"]).stdout, bytes);
    assert_eq!(shell.run(&["export", "box", "-o", "-"]).stdout, bytes);
    shell.ok(&["export", "box", "-o", file.to_str().unwrap()]);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let left: Vec<_> = fs::read_dir(shell.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "the store and the archive: {left:?}");
}

#[test]
fn layers_are_exported_without_a_store() {
    if !support::require("tool:tar") {
        return;
    }
    let shell = Shell::new();
    let dir = shell.dir.path();
    for (path, content) in [("base/a", "1"), ("base/b", "1"), ("top/b", "2"), ("upper/c", "3")] {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let lowers = format!("{0}/top:{0}/base", dir.display());
    let (file, upper) = (dir.join("out.tar"), dir.join("upper"));
    let (file, upper) = (file.to_str().unwrap(), upper.to_str().unwrap());
    for (arguments, expected) in [
        (&["--lowerdir", &lowers][..], &["a 1", "b 2"][..]),
        (&["--lowerdir", &lowers, "--upperdir", upper], &["a 1", "b 2", "c 3"]),
    ] {
        shell.ok(&[&["export", "-o", file], arguments].concat());
        let unpacked = unpack(Path::new(file));
        let entries = fs::read_dir(unpacked.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                format!("{name} {}", fs::read_to_string(&path).unwrap())
            })
            .collect();
        found.sort();
        assert_eq!(found, expected);
    }
    assert!(!dir.join("root").exists(), "no store is made for that");
}

#[test]
fn what_fails_leaves_no_file() {
    let shell = Shell::with_busybox();
    let file = shell.dir.path().join("out.tar");
    let name = file.to_str().unwrap();
    assert_eq!(shell.fails(&["export", "nope", "-o", name]), "no such container: nope");
    let said = shell.fails(&["export", "--lowerdir", "/no/where", "-o", name]);
    assert!(said.contains("/no/where"), "{said}");
    assert!(!file.exists());
    let said = shell.fails(&["export", "--lowerdir", "/no/where", "-o", "/no/dir/out.tar"]);
    assert!(said.starts_with("cannot write /no/dir/out.tar"), "{said}");
    let left: Vec<_> = fs::read_dir(shell.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the store: {left:?}");
}

/// As long as it is not complete it has no name.
#[test]
fn a_killed_export_leaves_no_file() {
    let shell = Shell::new();
    let [lower, out] = ["lower", "out"].map(|name| shell.dir.path().join(name));
    fs::create_dir_all(&lower).unwrap();
    fs::create_dir(&out).unwrap();
    for number in 0..3000 {
        fs::write(lower.join(number.to_string()), [7; 20_000]).unwrap();
    }
    let file = out.join("e.tar");
    let killed_at_work = || {
        let mut command = shell.command(&["export", "--lowerdir", lower.to_str().unwrap(), "-o"]);
        let mut child = command.arg(&file).spawn().unwrap();
        let descriptors = format!("/proc/{}/fd", child.id());
        let writes = |fd: fs::DirEntry| {
            fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(&out) && path != out)
        };
        while child.try_wait().unwrap().is_none()
            && !fs::read_dir(&descriptors).unwrap().flatten().any(writes)
        {}
        child.kill().unwrap();
        !child.wait().unwrap().success()
    };
    // One that had ended by then is tried again.
    let mut tries = 0;
    while !killed_at_work() {
        fs::remove_file(&file).unwrap();
        tries += 1;
        assert!(tries < 20, "it always ended first");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "nothing is left");
    fs::write(&file, "before").unwrap();
    assert!((0..20).any(|_| killed_at_work()));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_reader_that_leaves_early_ends_it_quietly() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let mut child = shell
        .command(&["export", "box"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 512];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
