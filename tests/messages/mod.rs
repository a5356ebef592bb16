//! Rows of command lines and of the very lines that they fail with.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at what is not as expected; each file uses a part of it"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::require;

/// A command line, split at spaces (`~` is a space within a word), and its line on standard error.
/// `sh` prepares something, and is to say nothing; `fuse-overlayfs` is `fuse-plyfs` by the name that
/// engines know; `nodevice` is it where there is no `/dev/fuse`; `limited` is
/// it under a limit of prlimit(1); `few` is it where its user may have no more than a number of threads; `nobody` is `fuse-plyfs` run by a user without rights or fusermount3.
pub(crate) type Row = (&'static str, &'static str);

/// A directory with what the rows name.
pub(crate) fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["lower", "upper", "work", "upper2", "work2", "mnt", "other"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("lower/f"), "content").unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::write(dir.path().join("junk.tar"), "junk\n").unwrap();
    let daemon = env!("CARGO_BIN_EXE_fuse-plyfs");
    std::os::unix::fs::symlink(daemon, dir.path().join("fuse-overlayfs")).unwrap();
    dir
}

/// The limit binds nobody who is root outside of a user namespace, and counts all that a user runs:
/// it is a user that has nothing else.
const FEW: &str = "
    most=$1; shift; exec 3<$0
    mount -t tmpfs -o mode=755 none /dev
    mknod -m 666 /dev/fuse c 10 229
    mknod -m 666 /dev/null c 1 3
    exec setpriv --reuid=61234 --regid=61234 --clear-groups unshare -Urm --propagation private \\
        prlimit --nproc=$most env PLYFS_LOG=error /proc/self/fd/3 \"$@\"";

pub(crate) fn check(rows: &[Row]) {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = scene();
    let place = scene.path().canonicalize().unwrap();
    let wrong: Vec<String> = rows.iter().filter_map(|row| differs(&place, row)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How a row fails.
fn differs(place: &Path, (line, expected): &Row) -> Option<String> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/busybox-oci.tar");
    let mut words = line.split(' ').map(|word| word.replace('~', " ").replace("$FIXTURE", fixture));
    let daemon = env!("CARGO_BIN_EXE_fuse-plyfs");
    let (mut command, name) = match words.next().unwrap().as_str() {
        "plyfs" => (Command::new(env!("CARGO_BIN_EXE_plyfs")), "plyfs"),
        "fuse-plyfs" => (Command::new(daemon), "fuse-plyfs"),
        "fuse-overlayfs" => (Command::new(place.join("fuse-overlayfs")), "fuse-plyfs"),
        "sh" => (Command::new("sh"), "sh"),
        // With an empty /dev in a mount namespace of its own.
        "nodevice" => {
            let mut shell = Command::new("unshare");
            let run = "mount -t tmpfs none /dev && exec \"$@\"";
            shell.args(["-m", "--propagation", "private", "sh", "-c", run, "sh", daemon]);
            (shell, "fuse-plyfs")
        }
        "limited" => {
            let mut shell = Command::new("sh");
            // Whoever runs the tests may have left descriptors open.
            let close = "3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
            let run = format!("limit=$1; shift; exec {close} prlimit $limit $0 \"$@\"");
            shell.args(["-c", &run, daemon]);
            (shell, "fuse-plyfs")
        }
        "few" => {
            let mut shell = Command::new("unshare");
            let most = words.next().unwrap();
            shell.args(["-m", "--propagation", "private", "sh", "-c", FEW, daemon, &most]);
            (shell, "fuse-plyfs")
        }
        // By a descriptor: the program may lie where nobody else gets.
        "nobody" => {
            let mut shell = Command::new("sh");
            let drop = "setpriv --reuid=65534 --regid=65534 --clear-groups";
            let run = format!("exec 3<$0; exec {drop} env PATH=/none /proc/self/fd/3 \"$@\"");
            shell.args(["-c", &run, daemon]);
            (shell, "fuse-plyfs")
        }
        other => panic!("{other}?"),
    };
    let output = command
        .args(words)
        .current_dir(place)
        .env("PLYFS_ROOT", place.join("store"))
        .env("HOME", place)
        .env("PLYFS_LOG", "warn")
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("DOCKER_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = match *expected {
        "" => String::new(),
        words => format!("{name}: {words}\n").replace("$DIR", place.to_str().unwrap()),
    };
    let as_told = said == expected && output.status.success() == expected.is_empty();
    (!as_told).then(|| format!("{line}\n  says {said:?}\n  not  {expected:?}"))
}
