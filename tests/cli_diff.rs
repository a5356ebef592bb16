//! `diff` of a container and of layers in directories.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;
use shell::Shell;

#[test]
fn what_was_changed_through_a_mount_is_listed() {
    if !(support::require("root") && support::require("fuse")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    assert_eq!(shell.ok(&["diff", "box"]), "");
    let place = shell.ok(&["mount", "box"]);
    let place = std::path::Path::new(place.trim_end());
    fs::write(place.join("etc/new"), "new").unwrap();
    fs::write(place.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::remove_file(place.join("etc/hosts")).unwrap();
    let said = shell.ok(&["diff", "box"]);
    let expected = "C /etc\nD /etc/hosts\nA /etc/new\nC /etc/passwd\n";
    assert_eq!(said, expected, "while it is mounted");
    shell.ok(&["umount", "box"]);
    assert_eq!(shell.ok(&["diff", "box"]), expected);

    let json = shell.json(&["diff", "box", "--json"]);
    assert_eq!((&json[2]["kind"], &json[2]["path"]), (&json!("A"), &json!("/etc/new")));
    assert_eq!(json[2]["old"], json!(null));
    assert_eq!((&json[2]["new"]["type"], &json[2]["new"]["size"]), (&json!("file"), &json!(3)));
    assert_eq!(json[1]["new"], json!(null));
    assert_eq!(json[3]["new"]["mode"], "0644");
}

#[test]
fn layers_are_compared_without_a_store() {
    let shell = Shell::new();
    let dir = shell.dir.path();
    for (path, content) in [
        ("base/kept", "1"),
        ("base/changed", "1"),
        ("top:one/changed", "2"),
        ("upper/changed", "3"),
        ("upper/added", "x"),
        ("upper/kept", "1"),
    ] {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    fs::write(dir.join("upper").join(OsStr::from_bytes(b"\xff\n")), "").unwrap();
    let lowers = format!("{0}/top\\:one:{0}/base", dir.display());
    let upper = dir.join("upper");
    let arguments = ["diff", "--lowerdir", &lowers, "--upperdir", upper.to_str().unwrap()];
    let output = shell.run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let lines = output.stdout.split(|b| *b == b'\n').filter(|line| line.get(1) == Some(&b' '));
    let lines: Vec<_> = lines.filter(|line| *line != b"C /").collect();
    // Raw in a pipe: the name with its own newline and all.
    assert_eq!(lines, [b"A /added".as_slice(), b"C /changed", b"A /\xff"]);
    let json = shell.json(&[&arguments[..], &["--json"]].concat());
    let odd = json.as_array().unwrap().iter().find(|change| change["path_bytes"] == "2fff0a");
    assert_eq!(odd.unwrap()["path"], "/\u{fffd}\n");
    // No store is made for that.
    assert!(!dir.join("root").exists());
}

#[test]
fn a_hard_link_that_was_changed_is_listed_and_committed_under_all_names() {
    if !(support::require("root") && support::require("fuse")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = shell.ok(&["mount", "box"]);
    let place = std::path::Path::new(place.trim_end());
    fs::set_permissions(place.join("bin/ls"), fs::Permissions::from_mode(0o700)).unwrap();
    let names = support::names(place.join("bin"));
    shell.ok(&["umount", "box"]);
    let said = shell.ok(&["diff", "box"]);
    let lines: Vec<_> = said.lines().collect();
    assert!(names.len() > 100);
    let expected: Vec<_> = names.iter().map(|name| format!("C /bin/{name}")).collect();
    assert_eq!(lines, [&["C /bin".to_owned()][..], &expected].concat());

    for (squash, image) in [(None, "layered"), (Some("--squash"), "squashed")] {
        let arguments = [&["commit"][..], squash.as_slice(), &["box", image]].concat();
        shell.ok(&arguments);
        shell.ok(&["create", "--name", image, image]);
        let file = shell.dir.path().join(image);
        shell.ok(&["export", image, "-o", file.to_str().unwrap()]);
        let tree = shell.dir.path().join(format!("{image}.tree"));
        fs::create_dir(&tree).unwrap();
        let done = std::process::Command::new("tar")
            .args(["-xf", file.to_str().unwrap(), "-C", tree.to_str().unwrap()])
            .status();
        assert!(done.unwrap().success());
        let meta = fs::metadata(tree.join("bin/cat")).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.nlink() as usize), (0o700, names.len()), "{image}");
    }
}

#[test]
fn hard_links_of_layers_need_the_workdir() {
    if !support::ready() {
        return;
    }
    let scene = support::Scene::new("[lower]\nfile a \"x\"\nhardlink d/b a");
    let mut mount = scene.mount();
    fs::write(mount.path("a"), "changed").unwrap();
    mount.unmount();
    let shell = Shell::new();
    let lowers = scene.lowers[0].to_str().unwrap();
    let (upper, work) = (scene.upper.to_str().unwrap(), scene.work.to_str().unwrap());
    let layers = ["--lowerdir", lowers, "--upperdir", upper];
    assert_eq!(shell.ok(&[&["diff"][..], &layers].concat()), "C /a\n");
    let with = [&layers[..], &["--workdir", work]].concat();
    assert_eq!(shell.ok(&[&["diff"], &with[..]].concat()), "C /a\nC /d\nC /d/b\n");
    let file = shell.dir.path().join("tree.tar");
    shell.ok(&[&["export", "-o", file.to_str().unwrap()], &with[..]].concat());
    let tar = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    assert_eq!(tar.matches("changed").count(), 1);
    let missing = [&layers[..], &["--workdir", "/no/work"]].concat();
    let said = shell.fails(&[&["diff"], &missing[..]].concat());
    assert!(said.contains("/no/work"), "{said}");
}

#[test]
fn deep_trees_need_no_higher_limit_of_the_caller() {
    let shell = Shell::new();
    let dir = shell.dir.path();
    let deep = "d/".repeat(200);
    for layer in ["upper", "lower"] {
        fs::create_dir_all(dir.join(layer).join(&deep)).unwrap();
    }
    fs::write(dir.join("upper").join(&deep).join("f"), "").unwrap();
    let output = std::process::Command::new("bash")
        .args(["-c", "ulimit -S -n 64; exec \"$0\" diff --lowerdir lower --upperdir upper"])
        .arg(env!("CARGO_BIN_EXE_plyfs"))
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.ends_with("/f\n"), "{output:?}");
}

#[test]
fn what_is_missing_is_named() {
    let shell = Shell::new();
    assert_eq!(shell.fails(&["diff", "nope"]), "no such container: nope");
    let said = shell.fails(&["diff", "--lowerdir", "/no/lower", "--upperdir", "/no/upper"]);
    assert!(said.contains("/no/"), "{said}");
    let said = shell.fails(&["diff", "--lowerdir", "/"]);
    assert_eq!(said, "option --upperdir: must be given beside --lowerdir");
    for arguments in [&["diff"][..], &["diff", "box", "--lowerdir", "/"]] {
        assert_eq!(shell.run(arguments).status.code(), Some(125), "{arguments:?}");
    }
}
