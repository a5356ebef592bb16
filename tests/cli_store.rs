//! The `plyfs` command on a store: what it prints, and how it fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod shell;
mod support;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use images::{docker_files, fixture, image, oci_files};
use shell::Shell;

const ID: &str = "sha256:bfd2404a434a3a2f502fd7356bb680663d1e4cc6a0444b47b2064d4e6a85a8bf";

#[test]
fn load_says_what_was_loaded() {
    let shell = Shell::new();
    for name in ["busybox-oci.tar", "busybox-docker.tar"] {
        let said = shell.ok(&["load", "-i", fixture(name).to_str().unwrap()]);
        assert_eq!(said, "Loaded image: localhost/plyfs/busybox:1.35\n");
    }
    let mut nameless = image("x", &[&[("a", "b")]]);
    nameless.name = None;
    let mut child =
        shell.command(&["load"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let archive = images::archive(&oci_files(&[nameless.clone()], images::gzip));
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said, format!("Loaded image ID: {}\n", nameless.id()));
}

#[test]
fn images_are_listed_as_docker_does() {
    let shell = Shell::with_busybox();
    let listing = shell.ok(&["images"]);
    let lines: Vec<_> = listing.lines().collect();
    assert_eq!(lines[0].split("   ").filter(|cell| !cell.is_empty()).count(), 5, "{listing}");
    assert!(lines[0].starts_with("REPOSITORY                TAG    IMAGE ID       CREATED"));
    assert!(lines[1].starts_with("localhost/plyfs/busybox   1.35   bfd2404a434a   "), "{listing}");
    assert!(lines[1].contains(" years ago   ") && lines[1].ends_with("MB"), "{listing}");
    assert_eq!(shell.ok(&["images", "-q"]), "bfd2404a434a\n");
    assert_eq!(shell.ok(&["images", "-q", "--no-trunc"]), format!("{ID}\n"));
    assert_eq!(shell.ok(&["images", "-q", "busybox"]), "bfd2404a434a\n");
    assert_eq!(shell.ok(&["images", "-q", "plyfs/busybox:1.35"]), "bfd2404a434a\n");
    assert_eq!(shell.ok(&["images", "-q", "busybox:1.36"]), "");
    let json = shell.json(&["images", "--json"]);
    assert_eq!(json[0]["id"], ID);
    assert_eq!(json[0]["references"][0], "localhost/plyfs/busybox:1.35");
    assert_eq!(json[0]["layers"].as_array().unwrap().len(), 3);
    assert!(json[0]["size"].as_u64().unwrap() > 1_000_000);
}

#[test]
fn containers_are_made_listed_and_removed() {
    let shell = Shell::with_busybox();
    let id = shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let id = id.trim();
    assert_eq!(id.len(), 64);
    assert_eq!(shell.ok(&["ps"]).lines().count(), 1, "none is mounted");
    let listing = shell.ok(&["ps", "-a"]);
    let line = listing.lines().nth(1).unwrap();
    assert!(listing.starts_with("CONTAINER ID   IMAGE "), "{listing}");
    assert!(line.starts_with(&format!("{}   localhost/plyfs/busybox:1.35   ", &id[..12])));
    assert!(line.contains(" ago   Unmounted   box"), "{listing}");
    assert_eq!(shell.ok(&["ps", "-aq", "--no-trunc"]).trim(), id);
    let json = shell.json(&["ps", "-a", "--json"]);
    assert_eq!((&json[0]["name"], &json[0]["mounted"]), (&"box".into(), &false.into()));
    assert!(Path::new(json[0]["upper"].as_str().unwrap()).is_dir());

    let refusal = shell.fails(&["rmi", "busybox:1.35"]);
    assert!(refusal.contains("in use: container box") && refusal.contains("plyfs rm box"));
    assert_eq!(shell.fails(&["umount", "box"]), "container box is not mounted");
    assert_eq!(shell.ok(&["rm", &id[..6]]), format!("{}\n", &id[..6]));
    let said = shell.ok(&["rmi", "busybox:1.35"]);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said[..2], ["Untagged: localhost/plyfs/busybox:1.35", &format!("Deleted: {ID}")]);
    assert_eq!(said.len(), 5);
    assert_eq!(shell.ok(&["images"]).lines().count(), 1);
}

#[test]
fn of_several_names_each_is_tried() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "one", "busybox:1.35"]);
    shell.ok(&["create", "--name", "two", "busybox:1.35"]);
    let output = shell.run(&["rm", "nope", "one", "never", "two"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"one\ntwo\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "plyfs: no such container: nope\nplyfs: no such container: never\n");
}

#[test]
fn failures_are_one_line_that_names_the_thing() {
    let shell = Shell::with_busybox();
    assert_eq!(shell.fails(&["create", "nope"]), "no such image: nope");
    let missing = shell.fails(&["load", "-i", "/no/such.tar"]);
    assert_eq!(missing, "cannot open /no/such.tar: no such file or directory");
    assert!(shell.fails(&["load"]).starts_with("standard input: "));
    assert!(shell.fails(&["umount", "/no/where"]).contains("/no/where"));
    // Names of hostile archives are shown, not obeyed.
    let mut files = docker_files(&[image("x", &[])]);
    files.last_mut().unwrap().1 =
        br#"[{"Config":"a\u001b[2J\nb","RepoTags":[],"Layers":[]}]"#.to_vec();
    let path = shell.dir.path().join("hostile.tar");
    std::fs::write(&path, images::archive(&files)).unwrap();
    let said = shell.fails(&["load", "-i", path.to_str().unwrap()]);
    assert!(!said.contains('\x1b') && said.contains("is missing"), "{said}");
}

#[test]
fn wrong_usage_is_exit_code_125_as_with_podman() {
    let shell = Shell::new();
    for arguments in [&["frob"][..], &["rm"], &["create"], &["images", "--frob"], &[]] {
        assert_eq!(shell.run(arguments).status.code(), Some(125), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_accident() {
    let shell = Shell::with_busybox();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = shell.command(&["images"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}

#[test]
fn the_store_is_where_it_was_asked_for() {
    let shell = Shell::new();
    let other = shell.dir.path().join("with space, comma:colon");
    shell.ok(&["--root", other.to_str().unwrap(), "images"]);
    assert!(other.join("layers").is_dir());
    assert!(!shell.dir.path().join("root").exists());
    let empty = shell.command(&["images"]).env("PLYFS_ROOT", "").output().unwrap();
    assert_eq!(empty.status.code(), Some(125));
    // A store of a later version is not touched.
    std::fs::write(other.join("format"), "4\n").unwrap();
    let refusal = shell.fails(&["--root", other.to_str().unwrap(), "images"]);
    assert!(refusal.contains("format 4"), "{refusal}");
}

#[test]
fn what_bzip2_and_xz_wrote_is_read() {
    let app = image("app:v1", &[&[("a", "1")], &[("b", "2")]]);
    for tool in ["bzip2", "xz"] {
        if !support::require(&format!("tool:{tool}")) {
            continue;
        }
        let compress = |bytes: &[u8]| {
            let mut child = std::process::Command::new(tool)
                .arg("-c")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(bytes).unwrap();
            child.wait_with_output().unwrap().stdout
        };
        // Around each layer of a docker-archive and around the whole.
        let mut files = docker_files(std::slice::from_ref(&app));
        for (name, content) in &mut files {
            if name.ends_with(".tar") {
                *content = compress(content);
            }
        }
        let shell = Shell::new();
        let path = shell.dir.path().join("app.tar");
        std::fs::write(&path, compress(&images::archive(&files))).unwrap();
        shell.ok(&["load", "-i", path.to_str().unwrap()]);
        assert_eq!(shell.ok(&["images", "-q", "--no-trunc"]).trim(), app.id(), "{tool}");
        // OCI has no media type for it: such a layer is kept uncompressed.
        for layer in &app.layers {
            let (name, _) = images::blob(layer);
            assert!(std::fs::read(shell.dir.path().join("root").join(name)).unwrap() == *layer);
        }
    }
}
