//! `verify`, `check`, `gc`: damage of every kind is found, named, and repaired where it can be.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod shell;

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use images::fixture;
use shell::Shell;

fn root(shell: &Shell) -> PathBuf {
    shell.dir.path().join("root")
}

/// The trees of the fixture's layers, topmost first.
fn trees(shell: &Shell) -> Vec<PathBuf> {
    let details = shell.json(&["inspect", "busybox:1.35"]);
    let lowers = details[0]["GraphDriver"]["Data"]["LowerDir"].as_str().unwrap();
    lowers.split(':').map(PathBuf::from).collect()
}

/// The lines that say what is wrong, and the exit code.
fn run(shell: &Shell, arguments: &[&str]) -> (Vec<String>, Option<i32>) {
    let output = shell.run(arguments);
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (lines, output.status.code())
}

fn load(shell: &Shell) {
    shell.ok(&["load", "-q", "-i", fixture("busybox-oci.tar").to_str().unwrap()]);
}

/// Changes one byte, and neither size nor times.
fn flip(path: &Path) {
    let meta = fs::metadata(path).unwrap();
    let times = FileTimes::new()
        .set_modified(meta.modified().unwrap())
        .set_accessed(meta.accessed().unwrap());
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn a_sound_store_passes() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    shell.ok(&["commit", "box", "same:1"]);
    assert_eq!(shell.ok(&["verify"]), "Verified 2 images, 3 layers\n");
    assert_eq!(shell.ok(&["verify", "same:1"]), "Verified 1 images, 3 layers\n");
    assert_eq!(shell.ok(&["check"]), "");
    assert_eq!(shell.ok(&["gc"]), "Removed 0 objects, 0B\n");
    assert_eq!(shell.fails(&["verify", "nope"]), "no such image: nope");
    assert_eq!(shell.json(&["verify", "--json"])["damage"], serde_json::json!([]));
}

#[test]
fn verify_names_every_file_that_differs() {
    let shell = Shell::with_busybox();
    let trees = trees(&shell);
    let base = trees.last().unwrap();
    flip(&base.join("etc/motd"));
    fs::set_permissions(base.join("srv"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(base.join("etc/hosts")).unwrap();
    fs::write(base.join("planted"), "x").unwrap();
    let (lines, code) = run(&shell, &["verify"]);
    assert_eq!(code, Some(1));
    let name = format!("layer sha256:{}", base.parent().unwrap().file_name().unwrap().display());
    let expected = [
        "/etc has another modification time",
        "/etc/hosts is missing",
        "/etc/motd has other content",
        "/planted should not be there",
        "/srv has another mode",
    ];
    let found: Vec<_> = lines.iter().filter(|line| !line.contains(": / ")).collect();
    assert_eq!(found, expected.map(|line| format!("{name}: {line}")).iter().collect::<Vec<_>>());
}

#[test]
fn verify_sees_a_rotten_archive_and_another_symlink() {
    let shell = Shell::with_busybox();
    let top = &trees(&shell)[1];
    let link = fs::read_dir(top.join("etc"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_symlink())
        .unwrap();
    fs::remove_file(&link).unwrap();
    symlink("elsewhere", &link).unwrap();
    let (lines, _) = run(&shell, &["verify"]);
    let name = link.strip_prefix(top).unwrap().display().to_string();
    assert!(lines.iter().any(|line| line.contains(&format!("/{name} has another"))), "{lines:?}");

    let shell = Shell::with_busybox();
    let blob = root(&shell).join("blobs/sha256").join(&shell_blobs(&shell)[0]);
    flip(&blob);
    let (lines, code) = run(&shell, &["verify"]);
    assert_eq!((lines.len(), code), (1, Some(1)), "{lines:?}");
    assert!(lines[0].contains(": expected sha256:"), "{lines:?}");
    // Nor is it handed on.
    let out = shell.dir.path().join("out.tar");
    for form in ["docker-archive", "oci-archive"] {
        let arguments = ["save", "--format", form, "-o", out.to_str().unwrap(), "busybox:1.35"];
        let said = shell.fails(&arguments);
        assert!(said.contains(&shell_blobs(&shell)[0]), "{said}");
        assert!(!out.exists());
    }
}

fn shell_blobs(shell: &Shell) -> Vec<String> {
    images::list(&root(shell).join("blobs/sha256"))
}

#[test]
fn what_is_left_over_is_found_and_removed() {
    let shell = Shell::with_busybox();
    for dir in ["staging/dead/x", "layers/orphan/diff", "images/orphan"] {
        fs::create_dir_all(root(&shell).join(dir)).unwrap();
    }
    fs::write(root(&shell).join("blobs/sha256/orphan"), "12345").unwrap();
    let (lines, code) = run(&shell, &["check"]);
    assert_eq!((lines.len(), code), (4, Some(1)), "{lines:?}");
    assert!(lines[0].ends_with("staging/dead: left by a command that died"), "{lines:?}");
    assert!(lines[1..].iter().all(|line| line.ends_with("/orphan: nothing leads to it")));
    let (again, _) = run(&shell, &["check"]);
    assert_eq!(lines, again, "a check changes nothing");
    assert_eq!(shell.ok(&["gc"]), "Removed 4 objects, 5B\n");
    assert_eq!(shell.ok(&["check"]), "");

    fs::create_dir_all(root(&shell).join("layers/orphan")).unwrap();
    assert!(shell.ok(&["check", "--repair"]).ends_with("nothing leads to it (removed)\n"));
    assert_eq!(shell.ok(&["check"]), "");
    assert_eq!(shell.ok(&["verify"]), "Verified 1 images, 3 layers\n");
}

#[test]
fn broken_images_are_forgotten_and_can_be_loaded_again() {
    let config = |shell: &Shell| {
        let id = &images::list(&root(shell).join("images"))[0];
        root(shell).join("images").join(id).join("config.json")
    };
    let record = |shell: &Shell| trees(shell)[0].parent().unwrap().join("layer.json");
    let damages: [&dyn Fn(&Shell); 5] = [
        &|shell| fs::write(config(shell), "{}").unwrap(),
        &|shell| fs::remove_file(config(shell)).unwrap(),
        &|shell| fs::remove_file(record(shell)).unwrap(),
        &|shell| fs::remove_dir_all(&trees(shell)[1]).unwrap(),
        &|shell| {
            let blobs = root(shell).join("blobs/sha256");
            fs::write(blobs.join(&shell_blobs(shell)[1]), "short").unwrap();
        },
    ];
    for damage in damages {
        let shell = Shell::with_busybox();
        damage(&shell);
        let (lines, code) = run(&shell, &["check"]);
        assert_eq!(code, Some(1));
        assert!(lines[0].starts_with("image sha256:bfd2404a434a"), "{lines:?}");
        let (lines, code) = run(&shell, &["check", "--repair"]);
        assert!(lines[0].ends_with("(forgotten: load it again)"), "{lines:?}");
        assert_eq!(code, Some(0));
        assert_eq!(shell.ok(&["check"]), "");
        load(&shell);
        assert_eq!(shell.ok(&["verify"]), "Verified 1 images, 3 layers\n");
    }
}

#[test]
fn what_a_container_needs_is_not_removed() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    let blobs = root(&shell).join("blobs/sha256");
    fs::remove_file(blobs.join(&shell_blobs(&shell)[0])).unwrap();
    let (lines, code) = run(&shell, &["check", "--repair"]);
    assert!(lines[0].contains("container box uses it"), "{lines:?}");
    assert_eq!(code, Some(1));
    shell.ok(&["export", "box", "-o", shell.dir.path().join("out.tar").to_str().unwrap()]);
    // A load brings back the archive that is missing.
    load(&shell);
    assert_eq!(shell.ok(&["check"]), "");
    assert_eq!(shell.ok(&["verify"]), "Verified 1 images, 3 layers\n");
}
