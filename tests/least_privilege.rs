//! What a mounted daemon keeps of its rights, and who can read what it makes: the lines of
//! `docs/SECURITY.md` about the daemon itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use support::{Driver, MountedOverlay, Options, Scene, names, require};

/// A field of the status of each thread of the daemon.
fn of_all_threads(mount: &MountedOverlay<'_>, field: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", mount.daemon_id().unwrap());
    let of = |task: String| {
        let status = fs::read_to_string(format!("{tasks}/{task}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    names(&tasks).into_iter().map(of).collect()
}

#[test]
fn the_daemon_keeps_only_the_capabilities_that_it_needs() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    fs::write(mount.path("b"), "threads are started").unwrap();
    let kept = plyfs::sys::privileges::KEPT.bits();
    for field in ["CapEff", "CapPrm"] {
        for held in of_all_threads(&mount, field) {
            let held = u64::from_str_radix(&held, 16).unwrap();
            assert_eq!(held & !kept, 0, "{field} has {held:#x}, needed is {kept:#x}");
        }
    }
    assert!(of_all_threads(&mount, "CapInh").iter().all(|set| set.trim_matches('0').is_empty()));
    assert!(of_all_threads(&mount, "NoNewPrivs").iter().all(|set| set == "1"));
}

/// With what is left everything that takes a right still works.
#[test]
fn what_takes_rights_works_with_those_that_are_left() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a content mode=0600 uid=7 gid=8\nfile gone\ndir d\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let sh = |script: &str| {
        let output =
            Command::new("sh").args(["-ec", script]).current_dir(mount.root()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    };
    sh("chown 9:10 a && chmod 4755 a && mknod n c 1 3 && rm gone && mv d e && ln a l");
    sh("setfattr -n trusted.x -v y a && setfattr -n user.x -v y a && chattr +i a && chattr -i a");
    sh("setpriv --reuid=12 --regid=13 --clear-groups true && install -d -o 12 -g 13 theirs");
    sh("setpriv --reuid=12 --regid=13 --clear-groups touch theirs/f");
    let theirs = fs::metadata(mount.path("theirs/f")).unwrap();
    assert_eq!((theirs.uid(), theirs.gid()), (12, 13));
}

/// What lies in the workdir is for the daemon's user alone, whatever its umask was.
#[test]
fn the_workdir_is_nobody_elses_to_read() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a x\nhardlink b a\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    fs::write(mount.path("a"), "copied up, with its index").unwrap();
    for dir in ["work", "index"] {
        let mode = fs::metadata(scene.work.join(dir)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{dir}");
    }
}

/// A user without rights goes through a directory of somebody else's: every operation is refused
/// as on any filesystem, and nothing was copied up for it.
#[test]
fn a_caller_without_rights_gets_nowhere() {
    if !(require("root") && require("fuse") && require("tool:setpriv")) {
        return;
    }
    let scene = Scene::new(
        "[lower]\ndir open\nfile open/secret hidden mode=0600\nfile open/read only\n\
         dir closed mode=0700\nfile closed/x x\ndir sticky mode=1777\nfile sticky/theirs t uid=5\n",
    );
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    for attempt in [
        "cat open/secret",
        "ls closed",
        "stat closed/x",
        "echo >open/new",
        "echo >>open/read",
        "rm open/read",
        "mv open/read open/other",
        "ln open/secret sticky/stolen",
        "mkdir open/d",
        "ln -s x open/l",
        "chmod 777 open/read",
        "chown 4242 open/read",
        "touch -d 2001-01-01 open/read",
        "truncate -s 0 open/read",
        "setfattr -n user.x -v y open/read",
        "setfattr -n trusted.overlay.opaque -v y sticky",
        "rm sticky/theirs",
        "mv sticky/theirs sticky/mine",
        "mknod sticky/dev c 1 3",
        "rmdir closed",
        "mv open sticky/",
    ] {
        let output = Command::new("setpriv")
            .args(["--reuid=4242", "--regid=4242", "--clear-groups", "sh", "-c", attempt])
            .current_dir(mount.root())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{attempt} was done");
    }
    assert_eq!(names(&scene.upper), [""; 0], "something was copied up");
}

/// suid programs and devices of a layer are inert where the mount says so.
#[test]
fn suid_and_devices_are_inert_on_nosuid_and_nodev() {
    if !(require("root") && require("fuse") && require("tool:setpriv")) {
        return;
    }
    let scene = Scene::new("[lower]\nchar null 1:3 mode=0666\n");
    fs::copy("/usr/bin/id", scene.lowers[0].join("id")).unwrap();
    fs::set_permissions(scene.lowers[0].join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    for (options, effective, device) in
        [(&["nosuid", "nodev"][..], "4242", false), (&[], "0", true)]
    {
        let mount = scene.mount_by(Driver::Plyfs, &Options::with(options));
        let output = Command::new("setpriv")
            .args(["--reuid=4242", "--clear-groups"])
            .arg(mount.path("id"))
            .arg("-u")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), effective, "{options:?}");
        assert_eq!(fs::write(mount.path("null"), "x").is_ok(), device, "{options:?}");
    }
}

/// The root user of a user namespace is nobody special in a mount that is not its own.
#[test]
fn root_of_an_unshared_namespace_has_no_rights_here() {
    if !(require("root") && require("fuse") && require("tool:unshare")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile secret s mode=0600\ndir mine uid=4242 gid=4242\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::default());
    let as_their_root = |script: &str| {
        Command::new("setpriv")
            .args(["--reuid=4242", "--regid=4242", "--clear-groups"])
            .args(["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script])
            .current_dir(mount.root())
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(as_their_root("echo x >mine/f"), "user namespaces work here");
    assert!(!as_their_root("cat secret"));
    assert!(!as_their_root("mknod mine/d c 1 3"));
    assert!(!as_their_root("setfattr -n trusted.overlay.opaque -v y mine"));
    assert!(!as_their_root("chown 0:0 secret"));
    let made = fs::metadata(mount.path("mine/f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (4242, 4242));
}
