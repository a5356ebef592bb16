//! Uppers on filesystems that take no whiteout devices: statement 9. What a filesystem refuses is
//! refused here by PlyFS itself, as the filesystem that the upper lies on (containers in containers),
//! and by a seccomp filter of the daemon.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use support::{
    Driver, Options, Policy, Scene, Snapshot, as_host_root, assert_same, names, require,
};

const LAYERS: &str = r#"
[lower]
file removed "r\n"
file moved "m\n"
file over "over\n"
file under "under\n"
file replacer "new\n"
file d/a "a\n"
file d/b "b\n"
file tree/sub/leaf "l\n"
file again/old "o\n"
dir  gone
"#;

/// Every way in which a name goes.
fn change(m: &Path) {
    let mv = |from: &str, to: &str| fs::rename(m.join(from), m.join(to)).unwrap();
    fs::remove_file(m.join("removed")).unwrap();
    fs::remove_dir(m.join("gone")).unwrap();
    mv("moved", "d/moved");
    mv("d/a", "removed");
    mv("over", "under");
    fs::write(m.join("of-upper"), "u\n").unwrap();
    mv("replacer", "of-upper");
    fs::write(m.join("replacer"), "back\n").unwrap();
    mv("replacer", "d/b");
    mv("tree", "moved-tree");
    mv("moved-tree/sub", "sub");
    fs::remove_dir_all(m.join("again")).unwrap();
    fs::create_dir(m.join("again")).unwrap();
    let long = "n".repeat(255);
    mv("again", &long);
    mv(&long, "again");
}

fn expect(m: &Path) {
    assert_eq!(
        names(m),
        ["again", "d", "moved-tree", "of-upper", "removed", "sub", "under"],
        "{}",
        m.display()
    );
    assert_eq!(names(m.join("d")), ["b", "moved"]);
    assert_eq!(names(m.join("sub")), ["leaf"]);
    assert_eq!((names(m.join("moved-tree")), names(m.join("again"))), (vec![], vec![]));
    for (name, content) in [
        ("removed", "a\n"),
        ("under", "over\n"),
        ("of-upper", "new\n"),
        ("d/b", "back\n"),
        ("d/moved", "m\n"),
        ("sub/leaf", "l\n"),
    ] {
        assert_eq!(fs::read_to_string(m.join(name)).unwrap(), content, "{name}");
    }
}

/// The names of whiteout files and devices below a directory.
fn marks_by_name(upper: &Path) -> Vec<String> {
    let paths = Snapshot::of(upper);
    let odd = |path: &&String| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.starts_with(".wh.")
    };
    paths.paths().iter().filter(odd).cloned().collect()
}

/// An upper that lies on another PlyFS: no device 0:0, no `.wh.` names.
#[test]
fn an_upper_on_another_overlay_has_whiteouts_in_xattr_form() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let outer = Scene::new("[lower]\nfile f x\n");
    let outside = outer.mount_by(Driver::Plyfs, &Options::default());
    let mut inner = Scene::new(LAYERS);
    (inner.upper, inner.work) = (outside.path("upper"), outside.path("work"));
    fs::create_dir(&inner.upper).unwrap();
    fs::create_dir(&inner.work).unwrap();
    let mut mount = inner.mount_by(Driver::Plyfs, &Options::default());
    change(mount.root());
    expect(mount.root());
    let before = mount.snapshot();
    mount.remount();
    expect(mount.root());
    assert_same("before", &before, "after a remount", &mount.snapshot(), Policy::SAME_TREE);
    drop(mount);
    assert_eq!(marks_by_name(&inner.upper), [""; 0]);
}

/// A filter that has some system calls refused.
struct Refused(Vec<libc::sock_filter>);

impl Refused {
    /// `refused` gives each system call's number and errno.
    fn of(refused: &[(libc::c_long, i32)]) -> Refused {
        let code =
            |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
        let load_number = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let mut filter = vec![code(load_number, 0, 0, 0)];
        for (number, errno) in refused {
            let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            filter.push(code(equal, *number as u32, 0, 1));
            let answer = libc::SECCOMP_RET_ERRNO | *errno as u32;
            filter.push(code(libc::BPF_RET | libc::BPF_K, answer, 0, 0));
        }
        filter.push(code(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
        Refused(filter)
    }

    /// Mounts a scene by a daemon below this filter.
    fn mount(&self, scene: &Scene) {
        let [upper, work] = [&scene.upper, &scene.work].map(|path| path.display().to_string());
        let lower = scene.lowers[0].display();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuse-plyfs"));
        command.args(["-o", &format!("lowerdir={lower},upperdir={upper},workdir={work}")]);
        command.arg(&scene.mountpoint);
        let filter = self.0.clone();
        let install = move || {
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            let mode = libc::SECCOMP_MODE_FILTER;
            #[expect(unsafe_code, reason = "no safe wrapper for seccomp filters")]
            // SAFETY: `program` points to `filter`, which outlives the calls.
            let done = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0
            };
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        #[expect(unsafe_code, reason = "the filter is for the child alone")]
        // SAFETY: between fork and exec `install` makes system calls only.
        unsafe {
            command.pre_exec(install);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn unmount(scene: &Scene) {
    support::unmount_patiently(&scene.mountpoint).unwrap();
}

const MKNOD: [(libc::c_long, i32); 2] =
    [(libc::SYS_mknod, libc::EPERM), (libc::SYS_mknodat, libc::EPERM)];
const SETXATTR: [(libc::c_long, i32); 3] = [
    (libc::SYS_setxattr, libc::EOPNOTSUPP),
    (libc::SYS_lsetxattr, libc::EOPNOTSUPP),
    (libc::SYS_fsetxattr, libc::EOPNOTSUPP),
];

/// Without mknod: xattrs, which the kernel's overlayfs reads as well.
#[test]
fn without_devices_whiteouts_are_xattrs() {
    let follows = "its overlayfs follows no redirects";
    if !(require("root") && require("fuse") && require("overlayfs") && as_host_root(follows)) {
        return;
    }
    let scene = Scene::new(LAYERS);
    Refused::of(&MKNOD).mount(&scene);
    change(&scene.mountpoint);
    expect(&scene.mountpoint);
    let before = Snapshot::of(&scene.mountpoint);
    unmount(&scene);
    assert_eq!(marks_by_name(&scene.upper), [""; 0]);
    let options = Options::with(&["redirect_dir=on", "index=on", "metacopy=on"]);
    for driver in [Driver::Plyfs, Driver::Kernel] {
        let mount = scene.mount_by(driver, &options);
        expect(mount.root());
        let shown = mount.snapshot();
        assert_same("the writer", &before, driver.name(), &shown, Policy::SAME_TREE);
    }
}

/// Without either: files `.wh.NAME`; what needs a mark is refused.
#[test]
fn without_devices_and_xattrs_whiteouts_are_files() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new(LAYERS);
    Refused::of(&[&MKNOD[..], &SETXATTR[..]].concat()).mount(&scene);
    let m = &scene.mountpoint;
    fs::remove_file(m.join("removed")).unwrap();
    fs::remove_dir(m.join("gone")).unwrap();
    fs::rename(m.join("moved"), m.join("d/moved")).unwrap();
    fs::rename(m.join("over"), m.join("under")).unwrap();
    fs::write(m.join("removed"), "again\n").unwrap();
    let moved = fs::rename(m.join("tree"), m.join("moved-tree"));
    assert_eq!(support::refused(moved), rustix::io::Errno::XDEV);
    let shown = |m: &Path| {
        let all = ["again", "d", "removed", "replacer", "tree", "under"];
        assert_eq!(names(m), all);
        assert_eq!(names(m.join("d")), ["a", "b", "moved"]);
        assert_eq!(fs::read(m.join("under")).unwrap(), b"over\n");
        assert_eq!(fs::read(m.join("removed")).unwrap(), b"again\n");
    };
    shown(m);
    unmount(&scene);
    assert_eq!(marks_by_name(&scene.upper), [".wh.gone", ".wh.moved", ".wh.over"]);
    shown(scene.mount_by(Driver::Plyfs, &Options::default()).root());
}
