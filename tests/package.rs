//! The Debian package: made by scripts/package of the programs under test, then installed, used
//! and purged in a clean Debian.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod debian;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use debian::rootfs::{chroot, scene};
use debian::run;
use support::require;

/// The package, of the programs that cargo built for this test.
fn package(into: &Path) -> PathBuf {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/package"));
    let built = Path::new(env!("CARGO_BIN_EXE_plyfs")).parent().unwrap();
    script.arg(into).env("PLYFS_BIN", built);
    let line = run(&mut script);
    let path = PathBuf::from(line.trim());
    assert!(path.is_file(), "{line}");
    path
}

/// Every name below `dir` but those where packages keep accounts of what was done.
fn everything(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path().strip_prefix(root).unwrap().to_path_buf();
            if ["var/log", "var/lib/apt", "var/cache", "var/lib/dpkg", "proc", "sys", "dev"]
                .iter()
                .any(|account| path.starts_with(account))
            {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
            found.insert(path);
        }
    }
    found
}

#[test]
fn the_package_is_installed_used_and_purged() {
    let needs = ["root", "fuse", "tool:debootstrap", "tool:dpkg-shlibdeps"];
    if !needs.into_iter().all(require) {
        return;
    }
    let scene = scene();
    let mount = scene.mount();
    let root = scene.mountpoint.as_path();
    let deb = package(&scene.place("package"));
    fs::copy(&deb, root.join("plyfs.deb")).unwrap();
    let dev = root.join("dev");
    if !dev.join("fuse").exists() {
        run(Command::new("mknod")
            .args(["-m", "666"])
            .arg(dev.join("fuse"))
            .args(["c", "10", "229"]));
    }
    run(chroot(root).args(["mount", "-t", "proc", "proc", "/proc"]));
    run(chroot(root).args(["apt-get", "update"]));
    let fuse = ["apt-get", "install", "-y", "--no-install-recommends", "fuse3", "libgcc-s1"];
    run(chroot(root).args(fuse));
    let before = everything(root);

    run(chroot(root).args(["apt-get", "install", "-y", "--no-install-recommends", "/plyfs.deb"]));
    let status = run(chroot(root).args(["dpkg", "--verify", "plyfs"]));
    // The base excludes no documentation, so that all that was shipped is there.
    assert_eq!(status, "", "dpkg --verify");
    for file in [
        "usr/bin/plyfs",
        "usr/bin/fuse-plyfs",
        "sbin/mount.fuse.plyfs",
        "lib/systemd/system/plyfs-snapshotter.service",
        "usr/share/bash-completion/completions/plyfs",
        "usr/share/zsh/vendor-completions/_plyfs",
        "usr/share/fish/vendor_completions.d/plyfs.fish",
        "usr/share/man/man1/plyfs.1.gz",
        "usr/share/man/man1/plyfs-load.1.gz",
        "usr/share/man/man1/fuse-plyfs.1.gz",
        "usr/share/man/man8/mount.fuse.plyfs.8.gz",
    ] {
        assert!(root.join(file).symlink_metadata().is_ok(), "{file} is missing");
    }
    uses(root);
    run(chroot(root).args(["apt-get", "purge", "-y", "plyfs"]));
    let mut left: Vec<_> = everything(root).difference(&before).cloned().collect();
    left.retain(|path| !path.starts_with("usr/share/man"));
    // Images and containers are the user's.
    left.retain(|path| !path.starts_with("var/lib/plyfs") && !path.starts_with("try"));
    assert_eq!(left, Vec::<PathBuf>::new());
    run(chroot(root).args(["umount", "/proc"]));
    drop(mount);
}

/// Uses what was installed, by each of its ways in.
fn uses(root: &Path) {
    let version = concat!("plyfs ", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(chroot(root).args(["plyfs", "--version"])).trim(), version);
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/busybox-oci.tar");
    fs::create_dir(root.join("try")).unwrap();
    fs::copy(archive, root.join("try/image.tar")).unwrap();
    // The merged tree of the test is no place for an upper: that is on a tmpfs.
    let script = "
        set -eu
        mount -t tmpfs tmpfs /try/
        cd /try; mkdir lower upper work merged; echo x >lower/file
        mount -t fuse.plyfs -o lowerdir=/try/lower,upperdir=/try/upper,workdir=/try/work plyfs /try/merged
        echo y >/try/merged/new
        cat /try/merged/file /try/upper/new
        umount /try/merged
        complete=$(bash -c '. /usr/share/bash-completion/completions/plyfs; complete -p plyfs')
        echo \"$complete\" | grep -c _plyfs
        cd /; umount /try";
    let said = run(chroot(root).args(["sh", "-c", script]));
    assert_eq!(said, "x\ny\n1\n");
    let load = "plyfs load -i /try/image.tar && plyfs images --quiet | wc -l";
    assert!(run(chroot(root).args(["sh", "-c", load])).trim().ends_with('1'));
}

/// As README.md says; of the profile that is built already, because it is the way that is tried.
#[test]
fn cargo_installs_both_programs() {
    let root = tempfile::tempdir().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["install", "--locked", "--debug", "--quiet", "--path"]);
    cargo.arg(env!("CARGO_MANIFEST_DIR")).arg("--root").arg(root.path());
    // Nothing that this test was given by cargo itself is to decide how it builds.
    run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("CARGO_MANIFEST_DIR"));
    for (program, version) in [("plyfs", "plyfs "), ("fuse-plyfs", "fuse-plyfs: version ")] {
        let said = run(Command::new(root.path().join("bin").join(program)).arg("--version"));
        assert_eq!(said.trim(), format!("{version}{}", env!("CARGO_PKG_VERSION")));
    }
}
