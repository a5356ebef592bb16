//! Import, change, commit and save, then through the forms of others and back: the same tree, to
//! the byte of its export.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at once")]

mod shell;
mod support;

use std::path::Path;
use std::process::Command;

use plyfs::image::Digest;
use shell::Shell;
use support::require;

/// Everything that a tree can hold; the changes are made in the mounted container.
const TREE: &str = r#"
    mkdir -p d/e sticky
    echo hi >f; chown 1234:5678 f; chmod 4755 f; ln f d/hard; ln -s ../f d/sym; ln -s /no dangling
    mknod null c 1 3; mknod disk b 7 1; mkfifo fifo
    truncate -s 4M sparse; printf x | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
    cp /bin/true cap; setfattr -n security.capability \
        -v 0x0100000200200000000000000000000000000000 cap
    setfattr -n user.a -v '=b%' d/hard; setfattr -n trusted.t -v 1 d
    echo x >"$(printf 'new\nline \377')"; echo long >"$(printf 'l%.0s' $(seq 200))"
    chmod 1777 sticky; chmod 500 d/e
    touch -d '2001-02-03 04:05:06.123456789' f; touch -h -d '1969-01-01 00:00:01.5' dangling
    touch -d '2200-01-01' null; touch -d '1999-01-01' d sticky .
"#;
const CHANGES: &str = r#"
    echo more >added; rm d/sym; mv sticky moved; chmod 600 f; mknod dev2 c 5 6
    truncate -s 8M grown; printf y | dd of=grown bs=1 seek=5000000 conv=notrunc status=none
    cp -p cap cap2; setfattr -n security.capability \
        -v 0x0100000200000020000000000000000000000000 cap2
    rm -r d/e; mkdir d/e; touch -d '2010-10-10' d .
"#;

fn script(dir: &Path, script: &str) {
    let status = Command::new("bash").args(["-euc", script]).current_dir(dir).status().unwrap();
    assert!(status.success());
}

fn run(dir: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// The digest of the export of the only image in a store.
fn exported(shell: &Shell) -> Digest {
    let id = shell.ok(&["images", "-q", "--no-trunc"]);
    shell.ok(&["create", "--name", "x", id.lines().next().unwrap()]);
    let output = shell.run(&["export", "x"]);
    assert!(output.status.success());
    shell.ok(&["rm", "x"]);
    Digest::of(&output.stdout)
}

/// A store with the image, and the archives of it in every form.
fn saved() -> Shell {
    let shell = Shell::new();
    let dir = shell.dir.path();
    std::fs::create_dir(dir.join("tree")).unwrap();
    script(&dir.join("tree"), TREE);
    script(dir, "tar -C tree --xattrs --xattrs-include='*' --format=pax -cf tree.tar .");
    shell.ok(&["import", "-q", dir.join("tree.tar").to_str().unwrap(), "tree:1"]);
    shell.ok(&["create", "--name", "box", "tree:1"]);
    let place = shell.ok(&["mount", "box"]);
    script(Path::new(place.trim_end()), CHANGES);
    shell.ok(&["commit", "-q", "--timestamp", "4102444800", "box", "tree:2"]);
    shell.ok(&["umount", "box"]);
    shell.ok(&["rm", "box"]);
    for form in ["docker-archive", "oci-archive", "oci-dir"] {
        let path = dir.join(form);
        shell.ok(&["save", "--format", form, "-o", path.to_str().unwrap(), "tree:2"]);
    }
    shell.ok(&["rmi", "tree:1"]);
    shell
}

fn assert_comes_back(shell: &Shell, names: &[&str]) {
    let expected = exported(shell);
    for name in names {
        let other = Shell::new();
        let path = shell.dir.path().join(name);
        other.ok(&["load", "-q", "-i", path.to_str().unwrap()]);
        assert_eq!(exported(&other), expected, "{name}");
        assert!(other.ok(&["verify"]).contains("Verified 1 images"), "{name}");
    }
}

fn able(tool: &str) -> bool {
    require("root") && require("fuse") && require(tool)
}

#[test]
fn every_form_of_skopeo_comes_back_with_the_same_tree() {
    if !able("tool:skopeo") {
        return;
    }
    let shell = saved();
    for (from, to) in [
        ("docker-archive:docker-archive", "oci:1"),
        ("oci-archive:oci-archive", "docker-archive:2:tree:2"),
        ("oci:oci-dir", "oci-archive:3"),
        ("oci:oci-dir", "dir:4-dir"),
        ("docker-archive:docker-archive", "dir:5-dir"),
        ("dir:4-dir", "oci-archive:4"),
        ("dir:5-dir", "docker-archive:5:tree:2"),
    ] {
        run(shell.dir.path(), "skopeo", &["--insecure-policy", "copy", "-q", from, to]);
    }
    let own = ["docker-archive", "oci-archive", "oci-dir"];
    assert_comes_back(&shell, &[&own[..], &["1", "2", "3", "4", "5", "4-dir", "5-dir"]].concat());
}

#[test]
fn what_podman_loads_and_saves_comes_back_with_the_same_tree() {
    if !able("tool:podman") {
        return;
    }
    let shell = saved();
    for form in ["docker-archive", "oci-archive"] {
        let podman = |arguments: &[&str]| {
            let (root, runroot) = (format!("{form}-root"), format!("{form}-run"));
            let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
            run(shell.dir.path(), "podman", &[&own, arguments].concat());
        };
        podman(&["load", "-q", "-i", form]);
        let to = format!("podman-{form}");
        podman(&["save", "-q", "--format", form, "-o", &to, "tree:2"]);
        assert_comes_back(&shell, &[&to]);
    }
}

#[test]
fn equal_input_gives_equal_archives() {
    if !able("tool:tar") {
        return;
    }
    let bytes = |shell: &Shell, form: &str| std::fs::read(shell.dir.path().join(form)).unwrap();
    let shell = saved();
    let tree = bytes(&shell, "tree.tar");
    // Another store, another time, the date given by the environment.
    let other = Shell::new();
    let dir = other.dir.path();
    std::fs::write(dir.join("tree.tar"), &tree).unwrap();
    let epoch = |shell: &Shell, arguments: &[&str]| {
        let mut command = shell.command(arguments);
        let output = command.env("SOURCE_DATE_EPOCH", "1000000000").output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    let mut made = Vec::new();
    for shell in [&shell, &other] {
        let tar = shell.dir.path().join("tree.tar");
        epoch(shell, &["import", "-m", "tree", tar.to_str().unwrap(), "same:1"]);
        epoch(shell, &["create", "--name", "same", "same:1"]);
        let file = shell.dir.path().join("file");
        std::fs::write(&file, "copied").unwrap();
        shell.ok(&["cp", file.to_str().unwrap(), "same:/copied"]);
        epoch(shell, &["commit", "same", "same:2"]);
        epoch(shell, &["commit", "--squash", "same", "same:3"]);
        let forms = ["docker-archive", "oci-archive"];
        let save = |form: &str| epoch(shell, &["save", "--format", form, "same:2", "same:3"]);
        made.push((forms.map(save), epoch(shell, &["export", "same"])));
    }
    assert!(made.first() == made.get(1), "archives of two stores differ");
}
