//! What hands that know docker and podman expect of flags, output and exit codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod images;
mod shell;

use std::fs;

use shell::Shell;

const ID: &str = "sha256:bfd2404a434a3a2f502fd7356bb680663d1e4cc6a0444b47b2064d4e6a85a8bf\n";

/// docker and podman leave out the progress with -q, never what is read by scripts.
#[test]
fn quiet_verbs_print_what_scripts_read() {
    let shell = Shell::new();
    let archive = images::fixture("busybox-oci.tar");
    let archive = archive.to_str().unwrap();
    assert_eq!(
        shell.ok(&["load", "-q", "-i", archive]),
        "Loaded image: localhost/plyfs/busybox:1.35\n"
    );
    let tar = shell.dir.path().join("tree.tar");
    fs::write(&tar, images::layer(&[("file", "x")])).unwrap();
    let id = shell.ok(&["import", "-q", tar.to_str().unwrap(), "tree:1"]);
    assert_eq!(shell.ok(&["images", "-q", "--no-trunc", "tree"]), id);
    shell.ok(&["create", "--name", "box", "tree:1"]);
    let id = shell.ok(&["commit", "-q", "box", "again:1"]);
    assert_eq!(shell.ok(&["images", "-q", "--no-trunc", "again"]), id);
}

#[test]
fn forced_removal_of_what_is_gone_is_no_failure() {
    let shell = Shell::with_busybox();
    for (verb, kind) in [("rm", "container"), ("rmi", "image")] {
        let output = shell.run(&[verb, "-f", "nope"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("plyfs: no such {kind}: nope\n"));
        assert_eq!(shell.fails(&[verb, "nope"]), format!("no such {kind}: nope"));
    }
}

#[test]
fn images_are_listed_by_patterns() {
    let shell = Shell::with_busybox();
    for name in ["web:1", "web:2", "team/app:1"] {
        shell.ok(&["tag", "busybox:1.35", name]);
    }
    let rows = |pattern: &str| {
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}}", pattern];
        shell.ok(&format).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rows("w*"), ["web:1", "web:2"]);
    assert_eq!(rows("web:[2-9]"), ["web:2"]);
    assert_eq!(rows("team/*"), ["team/app:1"]);
    assert_eq!(rows("*"), ["web:1", "web:2"], "a slash is not what a star stands for");
    assert!(rows("nope*").is_empty());
    let filtered = shell.ok(&["images", "-q", "--filter", "reference=w?b"]);
    assert_eq!(filtered.lines().count(), 1);
}

#[test]
fn a_command_is_noted_and_committed() {
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35", "ls", "-l", "--all"]);
    let command = |name: &str| shell.ok(&["inspect", "-f", "{{json .Config.Cmd}}", name]);
    assert_eq!(command("box"), "[\"ls\",\"-l\",\"--all\"]\n");
    shell.ok(&["commit", "box", "listing:1"]);
    assert_eq!(command("listing:1"), "[\"ls\",\"-l\",\"--all\"]\n");
    shell.ok(&["commit", "-c", "CMD [\"date\"]", "box", "date:1"]);
    assert_eq!(command("date:1"), "[\"date\"]\n");
    shell.ok(&["commit", "-c", "ENTRYPOINT [\"/init\"]", "box", "init:1"]);
    assert_eq!(command("init:1"), "null\n", "it was meant for another entrypoint");
    let path = ["-c", "ENV PATH=/opt/bin:$PATH", "-c", "WORKDIR ${HERE:-/srv}"];
    shell.ok(&[&["commit"][..], &path, &["box", "path:1"]].concat());
    let said = "{{index .Config.Env 0}} {{.Config.WorkingDir}}";
    let said = shell.ok(&["inspect", "-f", said, "path:1"]);
    assert_eq!(said, "PATH=/opt/bin:/bin:/usr/local/bin /srv\n");
    shell.ok(&["create", "--name", "plain", "busybox:1.35"]);
    assert_eq!(command("plain"), command("busybox:1.35"));
}

#[test]
fn templates_take_the_functions_that_scripts_use() {
    let shell = Shell::with_busybox();
    let said = |template: &str| shell.ok(&["inspect", "-f", template, "busybox:1.35"]);
    assert_eq!(said("{{len .RootFS.Layers}}"), "3\n");
    assert_eq!(said("{{index .RepoTags 0}}"), "localhost/plyfs/busybox:1.35\n");
    assert_eq!(
        said("{{join .RepoTags \", \"}}|{{upper .Os}}"),
        "localhost/plyfs/busybox:1.35|LINUX\n"
    );
    assert_eq!(said("{{index .Config.Labels \"nope\"}}"), "\n");
    assert_eq!(said("{{.Id}}"), ID);
    let refusal = shell.fails(&["inspect", "-f", "{{range .RepoTags}}x{{end}}", "busybox:1.35"]);
    assert!(refusal.contains("join, upper and lower can be used"), "{refusal}");
}
