//! Files and directories that `chattr` froze: where they lie in a lower, and a log in the upper.
//! Statement 45.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::IFlags;
use support::{Driver, MountedOverlay, Options, Scene, as_host_root, ready};

const LAYERS: &str = "
[lower]
file immutable \"old\\n\"
file log \"old\\n\"
dir  closed
file closed/f \"old\\n\"
dir  growing
file growing/f \"old\\n\"
";

/// Thaws at the end, so that the layers can be removed.
struct Frozen(Vec<PathBuf>);

impl Frozen {
    fn new(files: &[(PathBuf, IFlags)]) -> Frozen {
        for (path, flags) in files {
            set_flags(path, *flags);
        }
        Frozen(files.iter().map(|(path, _)| path.clone()).collect())
    }

    /// Also what may come to be there.
    fn and(mut self, path: PathBuf) -> Frozen {
        self.0.push(path);
        self
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for path in self.0.iter().filter(|path| path.is_file() || path.is_dir()) {
            set_flags(path, IFlags::empty());
        }
    }
}

fn set_flags(path: &Path, flags: IFlags) {
    let file = File::open(path).unwrap();
    let others = rustix::fs::ioctl_getflags(&file).unwrap() - IFlags::IMMUTABLE - IFlags::APPEND;
    rustix::fs::ioctl_setflags(&file, others | flags).unwrap();
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_at(b"NEW", 0).map(drop)
}

fn truncate(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path).map(drop)
}

fn set_xattr(path: &Path) -> std::io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::setxattr(path, "user.a", b"1", flags)?)
}

fn refused(what: &str, result: std::io::Result<()>) {
    let kind = result.map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::PermissionDenied), "{what}");
}

/// What neither of the flags lets be done to a file.
fn nothing_alters(mount: &MountedOverlay<'_>, name: &str) {
    let (path, other) = (mount.path(name), mount.path("other"));
    refused("write", overwrite(&path));
    refused("truncate", truncate(&path));
    refused("chmod", fs::set_permissions(&path, fs::Permissions::from_mode(0o600)));
    refused("chown", std::os::unix::fs::chown(&path, Some(1), None));
    refused("setxattr", set_xattr(&path));
    refused("link", fs::hard_link(&path, &other));
    refused("rename", fs::rename(&path, &other));
    fs::write(&other, "new").unwrap();
    refused("replace", fs::rename(&other, &path));
    refused("unlink", fs::remove_file(&path));
    fs::remove_file(&other).unwrap();
}

fn on_each_mount(test: impl Fn(&MountedOverlay<'_>)) {
    if !(ready() && as_host_root("CAP_LINUX_IMMUTABLE")) {
        return;
    }
    for options in [Options::default(), Options::with(&["passthrough=off"])] {
        let scene = Scene::new(LAYERS);
        let lower = |name: &str| scene.lowers[0].join(name);
        let _frozen = Frozen::new(&[
            (lower("immutable"), IFlags::IMMUTABLE),
            (lower("closed"), IFlags::IMMUTABLE),
            (lower("log"), IFlags::APPEND),
            (lower("growing"), IFlags::APPEND),
        ])
        .and(scene.upper.join("log"));
        let kernel = Driver::under_test() == Driver::Kernel;
        test(&if kernel { scene.mount() } else { scene.mount_by(Driver::Plyfs, &options) });
    }
}

#[test]
fn what_a_lower_keeps_from_change_is_not_changed() {
    on_each_mount(|mount| {
        nothing_alters(mount, "immutable");
        refused("append", append(&mount.path("immutable"), "new"));
        let touched = Command::new("touch").arg(mount.path("immutable")).output().unwrap();
        assert!(!touched.status.success());
        let closed = |name: &str| mount.path(format!("closed/{name}"));
        refused("create", File::create_new(closed("new")).map(drop));
        refused("mkdir", fs::create_dir(closed("new")));
        refused("symlink", std::os::unix::fs::symlink("x", closed("new")));
        refused("unlink", fs::remove_file(closed("f")));
        refused("rename", fs::rename(closed("f"), mount.path("other")));
        refused("chmod", fs::set_permissions(closed(""), fs::Permissions::from_mode(0o700)));
        refused("rmdir", fs::remove_dir(closed("")));
        // The file in it is free.
        fs::write(closed("f"), "new\n").unwrap();
        assert_eq!(fs::read_to_string(mount.path("immutable")).unwrap(), "old\n");

        set_flags(&mount.path("immutable"), IFlags::empty());
        overwrite(&mount.path("immutable")).unwrap();
        assert_eq!(fs::read_to_string(mount.path("immutable")).unwrap(), "NEW\n");
    });
}

#[test]
fn what_a_lower_lets_grow_grows_and_no_more() {
    on_each_mount(|mount| {
        let log = mount.path("log");
        nothing_alters(mount, "log");
        for line in ["one\n", "two\n"] {
            append(&log, line).unwrap();
            // In the upper, too.
            nothing_alters(mount, "log");
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "old\none\ntwo\n");
        let growing = |name: &str| mount.path(format!("growing/{name}"));
        refused("unlink", fs::remove_file(growing("f")));
        refused("rename", fs::rename(growing("f"), growing("g")));
        fs::write(growing("new"), "new").unwrap();
        set_flags(&log, IFlags::empty());
        fs::remove_file(&log).unwrap();
    });
}
