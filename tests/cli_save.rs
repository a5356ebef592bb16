//! `save`, read by the tools that people read archives with, and by `load` itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod shell;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::{docker_files, fixture, image, oci_files};
use serde_json::Value;
use shell::Shell;

const ID: &str = "bfd2404a434a3a2f502fd7356bb680663d1e4cc6a0444b47b2064d4e6a85a8bf";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn saved(shell: &Shell, form: &str, names: &[&str]) -> PathBuf {
    let path = shell.dir.path().join(format!("{form}.out"));
    shell.ok(&[&["save", "--format", form, "-o", text(&path)], names].concat());
    path
}

#[test]
fn what_is_saved_loads_as_the_very_same_image() {
    let shell = Shell::with_busybox();
    for form in ["docker-archive", "oci-archive", "oci-dir"] {
        let path = saved(&shell, form, &["busybox:1.35"]);
        let other = Shell::new();
        let said = other.ok(&["load", "-i", text(&path)]);
        assert_eq!(said, "Loaded image: localhost/plyfs/busybox:1.35\n");
        assert_eq!(other.ok(&["images", "-q", "--no-trunc"]), format!("sha256:{ID}\n"));
        // And saved from there it is the same to the last byte.
        if form != "oci-dir" {
            let again = saved(&other, form, &["busybox:1.35"]);
            assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap(), "{form}");
        }
    }
    let to_stdout = shell.run(&["save", "busybox:1.35"]).stdout;
    assert!(to_stdout == fs::read(shell.dir.path().join("docker-archive.out")).unwrap());
}

#[test]
fn oci_forms_hold_the_layers_as_they_came() {
    let app = image("app:v1", &[&[("a", "1")], &[("b", "2")]]);
    for (compress, kind) in [
        (images::gzip as fn(&[u8]) -> Vec<u8>, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (images::zstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (images::plain, "application/vnd.oci.image.layer.v1.tar"),
    ] {
        let shell = Shell::new();
        let path = shell.dir.path().join("app.tar");
        fs::write(&path, images::archive(&oci_files(std::slice::from_ref(&app), compress)))
            .unwrap();
        shell.ok(&["load", "-i", text(&path)]);
        let dir = saved(&shell, "oci-dir", &["app:v1"]);
        let json = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
        };
        let blob = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest = json(&blob(&json("index.json")["manifests"][0]["digest"]));
        for (layer, descriptor) in app.layers.iter().zip(manifest["layers"].as_array().unwrap()) {
            assert_eq!(descriptor["mediaType"], kind);
            let content = fs::read(dir.join(blob(&descriptor["digest"]))).unwrap();
            assert!(content == compress(layer));
        }
        let refusal = shell.fails(&["save", "--format", "oci-dir", "-o", text(&dir), "app:v1"]);
        assert!(refusal.contains("not empty"), "{refusal}");
    }
}

#[test]
fn several_images_share_their_layers_and_keep_the_names_asked_for() {
    let shell = Shell::new();
    let base: images::Files<'_> = &[("base", "shared")];
    let apps = [image("one:1", &[base, &[("a", "1")]]), image("two:2", &[base])];
    let path = shell.dir.path().join("in.tar");
    fs::write(&path, images::archive(&docker_files(&apps))).unwrap();
    shell.ok(&["load", "-i", text(&path)]);
    let id = apps[1].id();
    for form in ["docker-archive", "oci-archive"] {
        let path = saved(&shell, form, &["one:1", &id]);
        let listing = run("tar", &["tf", text(&path)]);
        let mut names: Vec<_> = listing.lines().collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{listing}");
        let other = Shell::new();
        let mut said: Vec<_> =
            other.ok(&["load", "-i", text(&path)]).lines().map(str::to_owned).collect();
        said.sort();
        let expected = [format!("Loaded image ID: {id}"), "Loaded image: one:1".to_owned()];
        assert_eq!(said, expected, "{form}");
    }
    assert_eq!(shell.fails(&["save", "nope"]), "no such image: nope");
}

#[test]
fn podman_loads_the_archives() {
    if !(support::require("root") && support::require("tool:podman")) {
        return;
    }
    let shell = Shell::with_busybox();
    for form in ["docker-archive", "oci-archive"] {
        let path = saved(&shell, form, &["busybox:1.35"]);
        let storage = tempfile::tempdir().unwrap();
        let (root, run_root) = (storage.path().join("root"), storage.path().join("run"));
        let podman = |arguments: &[&str]| {
            let own =
                ["--root", text(&root), "--runroot", text(&run_root), "--storage-driver", "vfs"];
            run("podman", &[&own[..], arguments].concat())
        };
        podman(&["load", "-q", "-i", text(&path)]);
        let found = podman(&["images", "--no-trunc", "--format", "{{.ID}}"]);
        assert_eq!(found.trim(), format!("sha256:{ID}"), "{form}");
        let names = podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        assert_eq!(names.trim(), "localhost/plyfs/busybox:1.35", "{form}");
    }
}

#[test]
fn skopeo_and_umoci_read_it() {
    if !(support::require("root")
        && support::require("tool:skopeo")
        && support::require("tool:umoci"))
    {
        return;
    }
    let shell = Shell::with_busybox();
    let original = format!("oci-archive:{}", fixture("busybox-oci.tar").display());
    let expected: Value = serde_json::from_str(&run("skopeo", &["inspect", &original])).unwrap();
    for (form, transport) in
        [("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("oci-dir", "oci")]
    {
        let path = saved(&shell, form, &["busybox:1.35"]);
        let name = format!("{transport}:{}", path.display());
        let found: Value = serde_json::from_str(&run("skopeo", &["inspect", &name])).unwrap();
        assert_eq!(found["Created"], expected["Created"]);
        assert_eq!(found["Layers"].as_array().unwrap().len(), 3);
        if form != "docker-archive" {
            assert_eq!(found["Layers"], expected["Layers"], "the compressed layers, untouched");
        }
    }
    let bundle = shell.dir.path().join("bundle");
    let name =
        format!("{}:localhost/plyfs/busybox:1.35", shell.dir.path().join("oci-dir.out").display());
    run("umoci", &["unpack", "--image", &name, text(&bundle)]);
    assert!(bundle.join("rootfs/bin/busybox").is_file());
}
