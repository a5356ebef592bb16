//! One script on kernel overlayfs and on PlyFS, from the same layers: each step's answer and the
//! merged trees are the same, and each one's upper shows the same tree when the other mounts it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

mod model;
mod support;

use std::io;
use std::os::unix::fs as unix;
use std::path::Path;

use model::Subject;
use model::generate::Breadth;
use model::mountpoint::Mountpoint;
use model::run::{Effort, cases};
use rustix::fs::{CWD, RenameFlags, XattrFlags};
use support::{
    Driver, Options, Policy, Scene, Snapshot, assert_same, require, rootless, set_mtime,
};

/// The option sets under which both must agree.
fn variants() -> &'static [&'static [&'static str]] {
    if rootless() { &[PLAIN] } else { VARIANTS }
}

/// What overlayfs can do in a user namespace.
const PLAIN: &[&str] = &["redirect_dir=off", "index=off", "metacopy=off"];

const VARIANTS: &[&[&str]] = &[
    &["redirect_dir=on", "index=on", "xino=on"],
    &["redirect_dir=on", "index=off"],
    &["redirect_dir=off", "index=on"],
    &["redirect_dir=on", "index=on", "metacopy=on"],
    PLAIN,
];

/// What an upper holds of hard links that a lower had is for each implementation to know: the
/// kernel keeps it in an index in its workdir.
const BY_THE_OTHER: Policy = Policy { nlink: false, hard_links: false, ..Policy::SAME_TREE };

type Step = (&'static str, fn(&Path) -> io::Result<()>);

/// The script. A step may fail; how it fails is part of what is compared.
const SCRIPT: &[Step] = &[
    ("append to a lower file", |m| append(&m.join("etc/plain"), "more\n")),
    ("append to a merged file", |m| append(&m.join("etc/hosts"), "more\n")),
    ("truncate a lower file", |m| truncate(&m.join("merged/sub/one"), 2)),
    ("truncate a sparse file up", |m| truncate(&m.join("sparse"), 16 << 20)),
    ("write through a hard link", |m| append(&m.join("links/b"), "through b\n")),
    ("a further name of a lower file", |m| std::fs::hard_link(m.join("etc/middle"), m.join("ml"))),
    ("unlink one of three names", |m| std::fs::remove_file(m.join("links/c"))),
    ("unlink a lower file", |m| std::fs::remove_file(m.join("empty"))),
    ("create over a whiteout", |m| std::fs::write(m.join("empty"), "no longer\n")),
    ("create where upper removed", |m| std::fs::write(m.join("etc/removed-in-upper"), "new\n")),
    ("rmdir of a full directory", |m| std::fs::remove_dir(m.join("merged"))),
    ("remove a merged tree", |m| std::fs::remove_dir_all(m.join("middle-opaque"))),
    ("mkdir where a tree was removed", |m| std::fs::create_dir(m.join("middle-opaque"))),
    ("fill it", |m| std::fs::write(m.join("middle-opaque/fresh"), "f\n")),
    ("rename a lower file", |m| std::fs::rename(m.join("back"), m.join("etc/moved-back"))),
    ("rename onto a lower file", |m| std::fs::rename(m.join("etc/hosts"), m.join("etc/plain"))),
    ("rename a merged directory", |m| std::fs::rename(m.join("merged/sub"), m.join("sub-moved"))),
    ("write in the renamed directory", |m| std::fs::write(m.join("sub-moved/new"), "n\n")),
    ("rename below it", |m| std::fs::rename(m.join("sub-moved/deep"), m.join("sub-moved/flat"))),
    ("mkdir at the old name", |m| std::fs::create_dir(m.join("merged/sub"))),
    ("rename an upper directory", |m| std::fs::rename(m.join("only-upper"), m.join("upper-moved"))),
    ("exchange file and directory", |m| exchange(&m.join("was-dir"), &m.join("was-file"))),
    ("exchange two lower files", |m| exchange(&m.join("caps/setgid"), &m.join("names/a b"))),
    ("no-replace onto something", |m| no_replace(&m.join("etc/middle"), &m.join("etc/plain"))),
    ("no-replace onto a whiteout", |m| no_replace(&m.join("ml"), &m.join("etc/removed-in-middle"))),
    ("mkdir over a whiteout", |m| std::fs::create_dir(m.join("back"))),
    ("symlink", |m| unix::symlink("etc/plain", m.join("new-link"))),
    ("fifo", |m| fifo(&m.join("new-pipe"))),
    ("chmod a lower file", |m| chmod(&m.join("names/\u{fffd}").with_file_name("new\nline"), 0o600)),
    ("chmod a lower directory", |m| chmod(&m.join("sticky"), 0o1700)),
    ("chown a lower symlink", |m| unix::lchown(m.join("links/sym"), Some(11), Some(12))),
    ("chown clears suid", |m| unix::lchown(m.join("etc/middle"), Some(5), None)),
    ("setxattr on a lower file", |m| set_xattr(&m.join("sticky/of-user"), "user.k", b"v")),
    ("setxattr on a merged directory", |m| set_xattr(&m.join("names"), "user.dir", b"d")),
    ("remove an xattr", |m| Ok(rustix::fs::lremovexattr(m.join("etc/middle"), "user.note")?)),
    ("setxattr user.* on a symlink", |m| set_xattr(&m.join("links/sym"), "user.k", b"v")),
    ("create in a set-group-id directory", |m| std::fs::write(m.join("setgid-dir/f"), "g\n")),
    ("mkdir in a set-group-id directory", |m| std::fs::create_dir(m.join("setgid-dir/d"))),
    ("set times of a lower file", |m| {
        set_mtime(&m.join("names/a b"), support::Time { sec: -5, nsec: 7 });
        Ok(())
    }),
    ("unlink a directory", |m| std::fs::remove_file(m.join("names"))),
    ("rmdir a file", |m| std::fs::remove_dir(m.join("new-link"))),
    ("rename into itself", |m| std::fs::rename(m.join("names"), m.join("names/inside"))),
    ("a stray whiteout's name", |m| std::fs::write(m.join("stray-whiteout"), "seen\n")),
    ("remove devices", |m| std::fs::remove_file(m.join("dev-null"))),
];

fn append(path: &Path, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(path)?, text.as_bytes())
}

fn truncate(path: &Path, size: u64) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.set_len(size)
}

fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, unix::PermissionsExt::from_mode(mode))
}

fn exchange(one: &Path, two: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)?)
}

fn no_replace(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn fifo(path: &Path) -> io::Result<()> {
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o640));
    Ok(rustix::fs::mknodat(CWD, path, kind, mode, 0)?)
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?)
}

/// The script's answers, one line for each step.
fn play(root: &Path) -> Vec<String> {
    let step = |(name, step): &Step| match step(root) {
        Ok(()) => format!("{name}: done"),
        Err(error) => format!("{name}: {error}"),
    };
    SCRIPT.iter().map(step).collect()
}

/// The script by one driver: the answers, and what it showed before its unmount.
fn written_by(driver: Driver, scene: &Scene, options: &Options) -> (Vec<String>, Snapshot) {
    let mount = scene.mount_by(driver, options);
    let answers = play(mount.root());
    (answers, mount.snapshot())
}

/// What a driver shows of layers that another has written.
fn shown_by(driver: Driver, scene: &Scene, options: &Options) -> Snapshot {
    scene.mount_by(driver, options).snapshot()
}

fn available() -> bool {
    require("root") && require("fuse") && require("overlayfs")
}

#[test]
fn both_show_the_same_of_the_same_layers() {
    if !available() {
        return;
    }
    let (ours, theirs) = (Scene::from_fixture("rich"), Scene::from_fixture("rich"));
    let plyfs = shown_by(Driver::Plyfs, &ours, &Options::default());
    let kernel = shown_by(Driver::Kernel, &theirs, &Options::default());
    assert_same("overlayfs", &kernel, "PlyFS", &plyfs, Policy::SAME_TREE);
}

#[test]
fn the_script_gives_the_same_answers_and_the_same_tree() {
    if !available() {
        return;
    }
    for variant in variants() {
        let options = Options::with(variant);
        let (ours, theirs) = (Scene::from_fixture("rich"), Scene::from_fixture("rich"));
        let (plyfs_answers, plyfs) = written_by(Driver::Plyfs, &ours, &options);
        let (kernel_answers, kernel) = written_by(Driver::Kernel, &theirs, &options);
        assert_eq!(kernel_answers, plyfs_answers, "with {variant:?}");
        let indexed = variant.contains(&"index=on");
        let policy = Policy { hard_links: indexed, nlink: indexed, ..Policy::SAME_CONTENT };
        assert_same("overlayfs", &kernel, "PlyFS", &plyfs, policy);
    }
}

#[test]
fn each_upper_shows_the_same_tree_when_the_other_mounts_it() {
    if !available() {
        return;
    }
    for variant in variants() {
        for (writer, reader) in [(Driver::Plyfs, Driver::Kernel), (Driver::Kernel, Driver::Plyfs)] {
            let options = Options::with(variant);
            let scene = Scene::from_fixture("rich");
            let (_, written) = written_by(writer, &scene, &options);
            let read = shown_by(reader, &scene, &options);
            assert_same(
                &format!("{} with {variant:?}", writer.name()),
                &written,
                &format!("{} afterwards", reader.name()),
                &read,
                BY_THE_OTHER,
            );
        }
    }
}

/// Random operations by one, then a look by the other.
fn random_uppers(writer: Driver, reader: Driver, variant: &[&str]) {
    let breadth = Breadth { beyond_the_kernel: false, ..Breadth::ALL };
    let options = Options::with(variant);
    cases(Effort::from_env(4).unchecked(), breadth, |spec, run| {
        let scene = Scene::from_spec(spec);
        let mut subject = Mountpoint::new(scene.mount_by(writer, &options));
        let model = run(&mut subject);
        let written = subject.snapshot();
        drop(subject);
        let read = shown_by(reader, &scene, &options);
        assert_same(writer.name(), &written, reader.name(), &read, BY_THE_OTHER);
        model
    });
}

#[test]
fn overlayfs_shows_what_plyfs_wrote_at_random() {
    if !available() {
        return;
    }
    if rootless() {
        return random_uppers(Driver::Plyfs, Driver::Kernel, PLAIN);
    }
    // Said for both: by default PlyFS copies the attributes alone of large files and of hard
    // links, which a kernel without metacopy refuses.
    for metacopy in ["metacopy=off", "metacopy=on"] {
        let variant = ["redirect_dir=on", "index=on", metacopy];
        random_uppers(Driver::Plyfs, Driver::Kernel, &variant);
    }
}

#[test]
fn plyfs_shows_what_overlayfs_wrote_at_random() {
    if !available() {
        return;
    }
    random_uppers(Driver::Kernel, Driver::Plyfs, variants()[0]);
    if !rootless() {
        let metacopy = ["redirect_dir=on", "index=on", "metacopy=on"];
        random_uppers(Driver::Kernel, Driver::Plyfs, &metacopy);
    }
}
