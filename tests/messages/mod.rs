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
/// engines know; `nobody` is `fuse-plyfs` run by a user without rights or fusermount3.
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
