//! What a test needs from the machine; missing, it fails, unless the caller named it.

use std::io::Write;
use std::path::Path;

use super::mounted::Driver;

/// Whether `need` is there. `root`: the tests run as root. `fuse`: /dev/fuse opens.
/// `overlayfs`: the kernel can mount one. `memory-cgroup`: one can be made. `tool:NAME`: NAME is a
/// program in PATH.
///
/// A need named in `PLYFS_TEST_SKIP` (separated by commas) gives `false` and one line that says
/// so: the test returns. A need that is missing without being named fails the test.
pub(crate) fn require(need: &str) -> bool {
    let skips = std::env::var("PLYFS_TEST_SKIP").unwrap_or_default();
    if skips.split(',').any(|skip| skip.trim() == need) {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        announce(&format!("skipped by PLYFS_TEST_SKIP: {test} needs {need}\n"));
        return false;
    }
    if let Err(reason) = look_for(need) {
        panic!("this test needs {need}, but {reason}; PLYFS_TEST_SKIP={need} would skip it");
    }
    true
}

/// Whether the tests run in a user namespace (`scripts/rootless`): its root may mount, but has
/// rights over the ids of that namespace alone.
pub(crate) fn rootless() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether the test runs with the rights of the machine's own root; in a user namespace it says
/// why it cannot run there, and the test returns.
pub(crate) fn as_host_root(reason: &str) -> bool {
    let host = !rootless();
    if !host {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        announce(&format!("cannot run rootless: {test}: {reason}\n"));
    }
    host
}

/// The name of overlay's own xattr `mark`, as this process may set it.
pub(crate) fn overlay_xattr(mark: &str) -> String {
    let namespace = if rootless() { "user" } else { "trusted" };
    format!("{namespace}.overlay.{mark}")
}

/// Whether the driver under test can mount here at all.
pub(crate) fn ready() -> bool {
    let driver = match Driver::under_test() {
        Driver::Plyfs | Driver::FuseOverlayfs => "fuse",
        Driver::Kernel => "overlayfs",
    };
    require("root") && require(driver)
}

/// Says so past the test harness, which keeps the output of tests that pass to itself.
fn announce(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
    if let Some(log) = std::env::var_os("PLYFS_TEST_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}

fn look_for(need: &str) -> Result<(), String> {
    if let Some(tool) = need.strip_prefix("tool:") {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path);
        return match places.any(|place| place.join(tool).is_file()) {
            true => Ok(()),
            false => Err(format!("{tool} is not in PATH")),
        };
    }
    if let Some(name) = need.strip_prefix("filesystem:") {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let loads = || {
            let probed = std::process::Command::new("modprobe").args(["-q", name]).status();
            probed.is_ok_and(|status| status.success())
        };
        return match known.lines().any(|line| line.split_whitespace().last() == Some(name))
            || loads()
        {
            true => Ok(()),
            false => Err(format!("the kernel has no {name}")),
        };
    }
    match need {
        "root" if rustix::process::geteuid().is_root() => Ok(()),
        "root" => Err("the tests do not run as root".to_owned()),
        "fuse" => std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map(drop)
            .map_err(|error| format!("/dev/fuse does not open: {error}")),
        "overlayfs" => {
            let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
            let module = Path::new("/sys/module/overlay").exists();
            match module || known.lines().any(|line| line.ends_with("\toverlay")) {
                true => Ok(()),
                false => Err("the kernel has no overlayfs (modprobe overlay?)".to_owned()),
            }
        }
        "memory-cgroup" => match has_memory_cgroup() {
            true => Ok(()),
            false => Err("no memory cgroup can be made below /sys/fs/cgroup".to_owned()),
        },
        _ => panic!("no such need: {need}"),
    }
}

/// Whether a cgroup that limits memory can be made, in either version of the interface.
fn has_memory_cgroup() -> bool {
    let limits = [("", "memory.max"), ("memory", "memory.limit_in_bytes")];
    limits.iter().any(|(place, limit)| {
        let name = format!("plyfs-test-probe-{}", std::process::id());
        let probe = Path::new("/sys/fs/cgroup").join(place).join(name);
        let made = std::fs::create_dir(&probe).is_ok();
        let limits = probe.join(limit).exists();
        made && std::fs::remove_dir(&probe).is_ok() && limits
    })
}
