//! `fuse-plyfs` without root's rights: root of a user namespace mounts by itself, an ordinary
//! user through `fusermount3`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use support::{as_host_root, require};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fuse-plyfs");
const NESTED: &str = "it makes its own user namespace from the outside";
const NOBODY: u32 = 65534;

/// Layers and a mountpoint that belong to nobody, and the program where nobody can run it.
fn place() -> tempfile::TempDir {
    let base = support::scratch();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(base.path().join(name)).unwrap();
    }
    fs::write(base.path().join("lower/file"), "lower\n").unwrap();
    fs::write(base.path().join("lower/unwanted"), "").unwrap();
    fs::copy(PROGRAM, base.path().join("fuse-plyfs")).unwrap();
    for name in ["lower/file", "lower/unwanted", "lower", "upper", "work", "merged"] {
        chown(base.path().join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    base
}

/// What is done as somebody else, in the directory of [`place`]; each step must succeed.
const SCRIPT: &str = r#"
set -e
./fuse-plyfs -o lowerdir=lower,upperdir=upper,workdir=work merged
test -f merged/unwanted
echo upper >> merged/file
rm merged/unwanted
mkdir merged/unwanted
cp /bin/true merged/program
merged/program
grep " $PWD/merged fuse.plyfs " /proc/self/mounts
"#;

fn run(base: &Path, wrapper: &[&str], script: &str) -> String {
    let mut command = Command::new(wrapper.first().unwrap());
    command.args(wrapper.iter().skip(1)).args(["sh", "-c", script]).current_dir(base);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wrapper:?} {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn expect_changes(base: &Path) {
    let upper = base.join("upper");
    assert_eq!(fs::read(upper.join("file")).unwrap(), b"lower\nupper\n");
    assert!(upper.join("unwanted").is_dir());
    assert_eq!(fs::metadata(upper.join("program")).unwrap().uid(), NOBODY);
    assert_eq!(fs::read(base.join("lower/file")).unwrap(), b"lower\n");
    assert!(base.join("lower/unwanted").is_file());
}

/// As rootless podman mounts: in a user and mount namespace of its own. Passthrough is refused
/// there, and everything works without.
#[test]
fn root_of_a_user_namespace_mounts_by_itself() {
    if !(require("root") && require("fuse") && require("tool:unshare") && as_host_root(NESTED)) {
        return;
    }
    let base = place();
    // The device is root's; in the new mount namespace there is one that everybody may open.
    let script = format!("{SCRIPT}\n umount merged");
    let inner = format!("exec unshare -Urm sh -c '{}'", script.replace('\'', r"'\''"));
    let table = as_nobody(base.path(), &inner);
    assert!(table.contains("allow_other"), "{table}");
    expect_changes(base.path());
}

#[test]
fn an_ordinary_user_mounts_through_fusermount() {
    if !(require("root") && require("fuse") && require("tool:fusermount3") && as_host_root(NESTED))
    {
        return;
    }
    let base = place();
    let script = format!("{SCRIPT}\n fusermount3 -u merged\n");
    let table = as_nobody(base.path(), &script);
    assert!(table.contains("nosuid,nodev"), "{table}");
    assert!(!table.contains("allow_other"), "{table}");
    expect_changes(base.path());
}

/// Runs a script as nobody, in a mount namespace that ends with it.
fn as_nobody(base: &Path, script: &str) -> String {
    let quoted = script.replace('\'', r"'\''");
    let outer = format!(
        "set -e\n mknod -m 666 fuse c 10 229\n mount --bind fuse /dev/fuse\n \
         setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups sh -c '{quoted}'"
    );
    run(base, &["unshare", "-m"], &outer)
}
