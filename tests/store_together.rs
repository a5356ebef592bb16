//! Commands at once: a long one keeps no other waiting, and one that died keeps nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod shell;

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use shell::Shell;

/// What a command prints, which must succeed while others are at work; `timeout` ends one that
/// waits for them.
fn meanwhile(shell: &Shell, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_plyfs")).args(arguments);
    command.env("PLYFS_ROOT", shell.dir.path().join("root")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A `load` that has a part of its archive, and waits for the rest.
fn half_loaded(shell: &Shell, archive: &[u8]) -> (Child, ChildStdin) {
    let mut command = shell.command(&["load"]);
    let mut load = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut rest = load.stdin.take().unwrap();
    rest.write_all(&archive[..archive.len() / 2]).unwrap();
    let staging = shell.dir.path().join("root/staging");
    while fs::read_dir(&staging).unwrap().next().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    (load, rest)
}

fn two_images() -> (Shell, Vec<u8>) {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    // Longer than a pipe holds, so that the half of it has been read.
    let content = "x".repeat(1 << 20);
    let image = images::image("late:1", &[&[("file", &content)], &[("more", &content)]]);
    (shell, images::archive(&images::docker_files(&[image])))
}

#[test]
fn a_long_load_keeps_nobody_waiting() {
    let (shell, archive) = two_images();
    let (mut load, mut rest) = half_loaded(&shell, &archive);
    for reader in [
        &["images"][..],
        &["ps", "-a", "-s"],
        &["diff", "box"],
        &["inspect", "box"],
        &["history", "busybox:1.35"],
        &["df", "-v"],
        &["verify", "-q"],
        &["check"],
        &["export", "-o", "/dev/null", "box"],
        &["save", "-q", "-o", "/dev/null", "busybox:1.35"],
    ] {
        meanwhile(&shell, reader);
    }
    // Nor those that change something; none of them sweeps what the load has made so far.
    meanwhile(&shell, &["tag", "busybox:1.35", "other:1"]);
    meanwhile(&shell, &["create", "--name", "second", "other:1"]);
    meanwhile(&shell, &["commit", "-q", "box", "made:1"]);
    meanwhile(&shell, &["rename", "second", "third"]);
    meanwhile(&shell, &["rm", "third"]);
    meanwhile(&shell, &["rmi", "made:1"]);
    meanwhile(&shell, &["gc"]);
    rest.write_all(&archive[archive.len() / 2..]).unwrap();
    drop(rest);
    let mut said = String::new();
    load.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(load.wait().unwrap().success());
    assert_eq!(said, "Loaded image: late:1\n");
    assert!(shell.ok(&["check"]).is_empty());
}

#[test]
fn what_a_killed_load_held_is_free_at_once() {
    let (shell, archive) = two_images();
    let (mut load, rest) = half_loaded(&shell, &archive);
    load.kill().unwrap();
    load.wait().unwrap();
    drop(rest);
    let staging = shell.dir.path().join("root/staging");
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 1, "it had begun");
    meanwhile(&shell, &["create", "--name", "next", "busybox:1.35"]);
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0, "the next change sweeps it");
    assert!(shell.ok(&["check"]).is_empty());
}

/// A `save` or `export` whose reader does not read.
#[test]
fn who_reads_for_long_keeps_nobody_waiting() {
    let (shell, _) = two_images();
    for slow in [&["save", "-q", "busybox:1.35"][..], &["export", "box"]] {
        let mut child = shell.command(slow).stdout(Stdio::piped()).spawn().unwrap();
        let mut out: ChildStdout = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 512]).unwrap();
        meanwhile(&shell, &["tag", "busybox:1.35", "other:1"]);
        meanwhile(&shell, &["create", "--name", "second", "other:1"]);
        meanwhile(&shell, &["rm", "second"]);
        meanwhile(&shell, &["rmi", "other:1"]);
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        assert!(child.wait().unwrap().success() && rest.len() > 1 << 20);
    }
}
