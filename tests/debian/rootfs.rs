//! The root filesystem: made once by debootstrap, kept outside the repository, split over layers.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;
use crate::support::Scene;

const LAYERS: usize = 3;

/// A stack of three lowers that together are Debian's (or Ubuntu's) minbase.
///
/// All directories are in all layers, so each one is merged; files are spread by inode number,
/// which keeps hard links in one layer.
pub(crate) fn scene() -> Scene {
    let archive = archive();
    let scene = Scene::empty(LAYERS);
    let whole = scene.place("whole");
    fs::create_dir(&whole).unwrap();
    run(tar("--extract", &archive).arg("--directory").arg(&whole));
    let mut dirs = vec![PathBuf::from(".")];
    spread(&whole, Path::new("."), &scene.lowers, &mut dirs);
    let list = scene.place("dirs");
    let names: Vec<&[u8]> = dirs.iter().map(|dir| dir.as_os_str().as_bytes()).collect();
    fs::write(&list, names.join(&0)).unwrap();
    // The directories' attributes come last: moving files into them has changed their times.
    let attributes = scene.place("dirs.tar");
    let mut pack = tar("--create", &attributes);
    run(pack.arg("--directory").arg(&whole).args(["--no-recursion", "--null", "-T"]).arg(&list));
    for lower in &scene.lowers {
        run(tar("--extract", &attributes).arg("--directory").arg(lower));
    }
    fs::remove_dir_all(&whole).unwrap();
    scene
}

fn spread(whole: &Path, dir: &Path, lowers: &[PathBuf], dirs: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(whole.join(dir)).unwrap().map(Result::unwrap) {
        let path = dir.join(entry.file_name());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            for lower in lowers {
                fs::create_dir(lower.join(&path)).unwrap();
            }
            dirs.push(path.clone());
            spread(whole, &path, lowers, dirs);
        } else {
            let lower = &lowers[metadata.ino() as usize % lowers.len()];
            fs::rename(entry.path(), lower.join(&path)).unwrap();
        }
    }
}

fn tar(mode: &str, archive: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.args([mode, "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-p", "--file"]);
    tar.arg(archive);
    tar
}

/// The archive of the root filesystem, in `PLYFS_TEST_CACHE` or /var/cache/plyfs-tests.
fn archive() -> PathBuf {
    let cache = std::env::var_os("PLYFS_TEST_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/plyfs-tests"), PathBuf::from);
    fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
    let (mirror, suite) = mirror();
    let archive = cache.join(format!("{suite}-minbase-{}.tar", std::env::consts::ARCH));
    if archive.exists() {
        return archive;
    }
    let place = tempfile::tempdir_in(&cache).unwrap();
    let root = place.path().join("root");
    println!("debootstrap of {suite} from {mirror}, kept as {}", archive.display());
    let mut debootstrap = Command::new("debootstrap");
    if let Some(proxy) = apt_setting("Acquire::http::Proxy") {
        debootstrap.env("http_proxy", proxy);
    }
    run(debootstrap.args(["--variant=minbase", &suite]).arg(&root).arg(&mirror));
    configure_apt(&root);
    // What the test installs is fetched here: the network is no part of what is measured.
    run(chroot(&root).args(["apt-get", "update"]));
    run(chroot(&root).args(["apt-get", "install", "-y", "--download-only", "hello"]));
    let staged = place.path().join("staged.tar");
    run(tar("--create", &staged).arg("--directory").arg(&root).arg("."));
    fs::rename(&staged, &archive).unwrap();
    archive
}

/// A command in the root filesystem at `root`.
pub(crate) fn chroot(root: &Path) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    for (name, value) in std::env::vars_os() {
        if name.as_bytes().to_ascii_lowercase().ends_with(b"_proxy") {
            command.env(name, value);
        }
    }
    command
}

/// The mirror and the suite of this machine's own packages: where its apt gets `main` from.
fn mirror() -> (String, String) {
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.expect("/etc/os-release names the release").trim_matches('"');
    let format = "$(REPO_URI) $(CODENAME) $(COMPONENT)";
    let mut apt = Command::new("apt-get");
    let targets = run(apt.args(["indextargets", "--format", format, "Created-By: Packages"]));
    let found = targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let uri = words.next()?;
        (words.next() == Some(codename) && words.next() == Some("main")).then_some(uri)
    });
    let uri =
        found.unwrap_or_else(|| panic!("apt has no mirror for {codename} main (apt-get update?)"));
    (uri.to_owned(), codename.to_owned())
}

/// Gives the root filesystem this machine's way to the mirror.
fn configure_apt(root: &Path) {
    let dump = run(Command::new("apt-config").arg("dump"));
    let wanted = ["http", "https", "Check-", "Retries", "ForceIPv", "Proxy"];
    let settings = dump.lines().filter(|line| {
        let key = line.strip_prefix("Acquire::").unwrap_or_default();
        wanted.iter().any(|start| key.starts_with(start))
    });
    let text = settings.collect::<Vec<_>>().join("\n") + "\n";
    fs::write(root.join("etc/apt/apt.conf.d/90-of-the-host"), text).unwrap();
    for file in ["etc/resolv.conf", "etc/hosts"] {
        fs::copy(Path::new("/").join(file), root.join(file)).unwrap();
    }
}

fn apt_setting(name: &str) -> Option<String> {
    let text = run(Command::new("apt-config").args(["shell", "VALUE", name]));
    let value = text.trim().strip_prefix("VALUE='")?.strip_suffix('\'')?;
    (!value.is_empty()).then(|| value.to_owned())
}
