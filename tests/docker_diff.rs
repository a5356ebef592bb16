//! `diff --format docker` lists what docker's overlay2 driver was observed to list, whoever
//! mounted the container meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at once")]

mod shell;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use shell::Shell;
use support::require;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/docker-diff").join(name)
}

fn script(name: &str, dir: &Path) {
    let mut command = Command::new(fixture(name));
    let status = command.current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C.UTF-8").status();
    assert!(status.unwrap().success(), "{name}");
}

fn listed_by_docker() -> BTreeMap<String, String> {
    let table = std::fs::read_to_string(fixture("overlay2.tsv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let rows = rows.map(|line| line.split_once('\t').unwrap());
    let listed = rows.filter(|(_, kind)| *kind != "-");
    listed.map(|(path, kind)| (path.to_owned(), kind.to_owned())).collect()
}

fn same_list_with(driver: &str) {
    let shell = Shell::new();
    let base = shell.dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    script("base.sh", &base);
    let tar = shell.dir.path().join("base.tar");
    let status = Command::new("tar")
        .args(["--xattrs", "--format=posix", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(&base)
        .arg("t")
        .status();
    assert!(status.unwrap().success());
    shell.ok(&["import", "-q", tar.to_str().unwrap(), "base:1"]);
    shell.ok(&["create", "--name", "box", "base:1"]);
    let place = shell.ok(&["mount", "--driver", driver, "box"]);
    script("changes.sh", Path::new(place.trim_end()));
    shell.ok(&["umount", "box"]);
    let said = shell.ok(&["diff", "--format", "docker", "box"]);
    let found: BTreeMap<String, String> = said
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(kind, path)| (path.to_owned(), kind.to_owned()))
        .collect();
    let expected = listed_by_docker();
    let differences: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| format!("{path}: docker {:?}, plyfs {:?}", expected.get(path), found.get(path)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(expected.len(), 53);
}

#[test]
fn the_daemons_containers_are_listed_as_docker_does() {
    if require("root") && require("fuse") {
        same_list_with("fuse");
    }
}

#[test]
fn the_kernels_containers_are_listed_as_docker_does() {
    if require("root") && require("overlayfs") {
        same_list_with("kernel");
    }
}
