//! `history`, `inspect`, `tag`, `import`, `prune`, `df`, `rename`, `rm -f`, `ps -s`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shell::Shell;

const ID: &str = "sha256:bfd2404a434a3a2f502fd7356bb680663d1e4cc6a0444b47b2064d4e6a85a8bf";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The writable layer of a container.
fn upper(shell: &Shell, name: &str) -> PathBuf {
    let details = shell.json(&["inspect", name]);
    PathBuf::from(details[0]["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap())
}

#[test]
fn history_is_told_as_docker_does() {
    let shell = Shell::with_busybox();
    let table = shell.ok(&["history", "busybox:1.35"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("IMAGE          CREATED"), "{table}");
    assert!(lines[0].ends_with("CREATED BY   SIZE     COMMENT") || lines[0].contains("SIZE"));
    assert!(lines[1].starts_with("bfd2404a434a   "), "{table}");
    assert!(lines[2].starts_with("<missing>      "), "{table}");
    let steps = shell.json(&["history", "--format", "json", "busybox:1.35"]);
    let steps = steps.as_array().unwrap();
    assert_eq!(steps[0]["id"], ID);
    let images = shell.json(&["images", "--format", "json"]);
    let layers: Vec<_> = steps.iter().rev().filter(|s| !s["layer"].is_null()).collect();
    let expected = images[0]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), expected.len());
    for (step, chain) in layers.iter().zip(expected) {
        assert_eq!(step["layer"], *chain);
    }
    let sum: u64 = steps.iter().map(|step| step["size"].as_u64().unwrap()).sum();
    assert_eq!(sum, images[0]["size"].as_u64().unwrap());
    assert_eq!(shell.fails(&["history", "nope"]), "no such image: nope");
}

#[test]
fn inspect_finds_containers_first_and_images() {
    let shell = Shell::with_busybox();
    let id = shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let both = shell.json(&["inspect", "-s", "box", "busybox:1.35"]);
    assert_eq!(both[0]["Id"], id.trim());
    assert_eq!(both[0]["Image"], ID);
    assert_eq!(both[0]["State"]["Status"], "unmounted");
    assert_eq!(both[0]["SizeRw"], 0);
    let data = &both[0]["GraphDriver"]["Data"];
    assert!(Path::new(data["UpperDir"].as_str().unwrap()).is_dir());
    assert_eq!(data["LowerDir"].as_str().unwrap().split(':').count(), 3);
    assert_eq!(both[1]["Id"], ID);
    assert_eq!(both[1]["RepoTags"][0], "localhost/plyfs/busybox:1.35");
    assert_eq!(both[1]["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    assert_eq!(both[1]["Os"], "linux");

    shell.ok(&["tag", "busybox:1.35", "box"]);
    assert_eq!(shell.json(&["inspect", "box"])[0]["Name"], "box");
    assert_eq!(shell.json(&["inspect", "--type", "image", "box"])[0]["Id"], ID);
    let output = shell.run(&["inspect", "box", "nope"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "plyfs: no such container or image: nope\n");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1);
}

#[test]
fn a_tag_moves_and_a_container_is_renamed() {
    let shell = Shell::with_busybox();
    shell.ok(&["tag", "busybox:1.35", "example.com:5000/base:2"]);
    shell.ok(&["tag", "bfd2404a434a", "base"]);
    let names = shell.json(&["images", "--json"])[0]["references"].clone();
    let expected = [
        "docker.io/library/base:latest",
        "example.com:5000/base:2",
        "localhost/plyfs/busybox:1.35",
    ];
    assert_eq!(names, serde_json::json!(expected));
    assert_eq!(shell.fails(&["tag", "nope", "x"]), "no such image: nope");
    assert!(shell.fails(&["tag", "base", "No"]).contains("is not an image name"));

    shell.ok(&["create", "--name", "box", "base"]);
    shell.ok(&["create", "--name", "other", "base"]);
    shell.ok(&["rename", "box", "new"]);
    assert_eq!(shell.fails(&["inspect", "--type", "container", "box"]), "no such container: box");
    assert!(shell.fails(&["rename", "new", "other"]).starts_with("the name other is in use"));
    assert!(shell.fails(&["rename", "new", "a/b"]).contains("is not a container name"));
    shell.ok(&["rename", "new", "new"]);
}

#[test]
fn rm_by_force_unmounts_first_and_ps_shows_sizes() {
    if !(support::require("root") && support::require("fuse")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let place = PathBuf::from(shell.ok(&["mount", "box"]).trim_end());
    fs::write(place.join("file"), vec![1; 100_000]).unwrap();
    fs::hard_link(place.join("file"), place.join("again")).unwrap();
    let table = shell.ok(&["ps", "-s"]);
    assert!(table.lines().next().unwrap().ends_with("NAMES   SIZE"), "{table}");
    assert!(table.contains("100kB (virtual "), "{table}");
    let listed = shell.json(&["ps", "-s", "--json"]);
    assert_eq!(listed[0]["size_rw"], 100_000);
    let image = shell.json(&["images", "--json"])[0]["size"].as_u64().unwrap();
    assert_eq!(listed[0]["size_root_fs"], image + 100_000);
    assert!(shell.fails(&["rm", "box"]).contains("is in use: mounted on"));
    assert_eq!(shell.ok(&["rm", "-f", "box"]), "box\n");
    assert_eq!(shell.json(&["ps", "-a", "--json"]), serde_json::json!([]));
    assert!(!place.exists());
}

#[test]
fn an_imported_tree_is_an_image_as_podman_makes_it() {
    if !(support::require("root") && support::require("tool:podman")) {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let tar = shell.dir.path().join("rootfs.tar");
    shell.ok(&["export", "-o", text(&tar), "box"]);
    let status = Command::new("gzip").args(["-k", text(&tar)]).status().unwrap();
    assert!(status.success());
    let packed = tar.with_extension("tar.gz");
    let flags = ["-c", "CMD [\"sh\"]", "-m", "from a tar", "--timestamp", "0"];
    let id = shell.ok(&[&["import"], &flags[..], &[text(&packed), "tree:1"]].concat());
    assert_eq!(shell.ok(&[&["import"], &flags[..], &[text(&tar)]].concat()), id);
    let details = shell.json(&["inspect", "tree:1"]);
    assert_eq!(details[0]["Config"]["Cmd"][0], "sh");
    assert_eq!(details[0]["History"][0]["comment"], "from a tar");

    let storage = tempfile::tempdir().unwrap();
    let podman = |arguments: &[&str]| {
        let output = Command::new("podman")
            .args(["--root", text(&storage.path().join("root"))])
            .args(["--runroot", text(&storage.path().join("run")), "--storage-driver", "vfs"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "podman {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    podman(&["import", "-q", text(&tar), "tree:1"]);
    let layers = podman(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", "tree:1"]);
    let layers: serde_json::Value = serde_json::from_str(&layers).unwrap();
    assert_eq!(details[0]["RootFS"]["Layers"], layers);

    // The tree is the one that was exported.
    shell.ok(&["create", "--name", "copy", "tree:1"]);
    let again = shell.dir.path().join("again.tar");
    shell.ok(&["export", "-o", text(&again), "copy"]);
    assert!(fs::read(&tar).unwrap() == fs::read(&again).unwrap());
    let said = shell.fails(&["import", text(&shell.dir.path().join("none.tar"))]);
    assert!(said.starts_with("cannot open "), "{said}");
    fs::write(&again, "no tar").unwrap();
    shell.fails(&["import", text(&again)]);
}

#[test]
fn df_counts_shared_layers_once_and_prune_frees_what_it_says() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    fs::write(upper(&shell, "box").join("file"), vec![1; 50_000]).unwrap();
    shell.ok(&["commit", "box", "more:1"]);
    let usage = shell.json(&["df", "--format", "json"]);
    let base = usage["by_image"].as_array().unwrap().iter();
    let [base] = base.filter(|u| u["image"]["id"] == ID).collect::<Vec<_>>()[..] else {
        unreachable!("the base is there once")
    };
    let size = base["image"]["size"].as_u64().unwrap();
    assert_eq!(usage["images"]["total"], 2);
    assert_eq!(usage["images"]["active"], 1);
    assert_eq!(usage["images"]["size"], size + 50_000);
    assert_eq!(usage["images"]["reclaimable"], 50_000);
    assert_eq!((&base["shared"], &base["unique"]), (&size.into(), &0.into()));
    assert_eq!(usage["containers"]["reclaimable"], 50_000);
    assert_eq!(usage["archives"]["total"], 4);
    let table = shell.ok(&["df"]);
    assert!(table.starts_with("TYPE             TOTAL   ACTIVE   SIZE"), "{table}");
    assert!(shell.ok(&["df", "-v"]).contains("UNIQUE SIZE"));

    assert!(shell.fails(&["prune"]).starts_with("option --force:"));
    assert_eq!(shell.ok(&["prune", "-f"]), "Total reclaimed space: 0B\n");
    shell.ok(&["tag", "busybox:1.35", "more:1"]);
    let before = blobs(&shell);
    let said = shell.ok(&["prune", "-f"]);
    assert!(said.starts_with("Deleted: sha256:"), "{said}");
    let freed = before - blobs(&shell);
    assert!(said.contains(&format!("space: {}kB\n", (freed + 50_000) / 1000)), "{said} {freed}");
    let said = shell.ok(&["prune", "--all", "-f"]);
    assert_eq!(said, "Total reclaimed space: 0B\n", "a container uses it");
    let said = shell.ok(&["prune", "--all", "--containers", "-f"]);
    assert!(said.starts_with("box\nUntagged: more:1\nUntagged: localhost/plyfs/"), "{said}");
    assert_eq!(blobs(&shell), 0);
    assert_eq!(shell.json(&["images", "--json"]), serde_json::json!([]));
}

/// Bytes of all blobs of the store.
fn blobs(shell: &Shell) -> u64 {
    let dir = fs::read_dir(shell.dir.path().join("root/blobs/sha256")).unwrap();
    dir.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}
