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

use support::{Driver, MountedOverlay, Options, Scene, Snapshot, names, require};

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

/// Nor is anything else that the daemon makes, even where its directories were there before and open
/// to all: staging, index, the socket, and whatever it might leave where it was started.
#[test]
fn nothing_that_the_daemon_makes_is_anybody_elses_to_read() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let scene = Scene::new("[lower]\nfile a x\nhardlink b a\ndir d\nfile d/gone\n");
    let run = scene.place("run");
    let open = |dir: &std::path::Path| {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    };
    for dir in [run.clone(), scene.work.join("work"), scene.work.join("index")] {
        fs::create_dir(&dir).unwrap();
        open(&dir);
    }
    open(&scene.work);
    open(run.parent().unwrap());
    let sh = |script: &str| {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&run)
            .envs([("TMPDIR", &run), ("HOME", &run), ("WORK", &scene.work)])
            .envs([("LOWER", scene.lowerdir()), ("UPPER", scene.upper.clone().into())])
            .envs([("MNT", &scene.mountpoint)])
            .env("DAEMON", env!("CARGO_BIN_EXE_fuse-plyfs"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    sh("umask 0; $DAEMON -o lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK,stats_socket=s $MNT");
    sh("echo more >>$MNT/a; mkdir $MNT/d/new; rm $MNT/d/gone; mv $MNT/d $MNT/e; ls -R $MNT");
    // Somebody else finds the directories that we made, and nothing in them.
    let seen = "setpriv --reuid=65534 --regid=65534 --clear-groups find . $WORK -readable";
    let mut seen: Vec<String> =
        sh(&format!("{seen} 2>/dev/null || true")).lines().map(str::to_owned).collect();
    let made = sh("find . $WORK");
    sh("umount $MNT");
    seen.sort();
    assert_eq!(seen, [".".to_owned(), scene.work.display().to_string()]);
    for what in ["./s", "/work", "/index", "/index/"] {
        assert!(made.contains(what), "{what} in {made}");
    }
    // The socket goes with the daemon, which ends after its mount.
    sh("for i in $(seq 600); do [ -n \"$(ls -A)\" ] || exit 0; sleep 0.1; done; ls -A >&2; exit 1");
}

/// Where PlyFS and overlayfs differ, in lines.
fn differing<T: std::fmt::Debug + PartialEq>(results: &[Vec<T>; 2]) -> Vec<String> {
    let pairs = results[0].iter().zip(&results[1]).filter(|(ours, theirs)| ours != theirs);
    pairs.map(|(ours, theirs)| format!("PlyFS {ours:?}, overlayfs {theirs:?}")).collect()
}

/// Every operation that changes or tells something, in the words of a shell.
const OPERATIONS: &[&str] = &[
    "cat open/secret",
    "ls closed",
    "stat -c %n closed/x",
    "cat closed/x",
    "echo >open/new",
    "echo >>open/read",
    "echo >>open/shared",
    ": >open/secret",
    "rm -f open/read",
    "rm -f closed/x",
    "mv open/read open/other",
    "mv open/read sticky/other",
    "mv sticky/mine open/mine",
    "mv -T sticky/mine sticky/theirs",
    "ln open/secret sticky/stolen",
    "ln open/read sticky/stolen",
    "ln sticky/mine open/linked",
    "mkdir open/d",
    "mkdir closed/d",
    "rmdir closed",
    "rmdir open/empty",
    "ln -s x open/l",
    "readlink closed/l",
    "mkfifo open/fifo",
    "mknod open/fifo p",
    "mknod sticky/dev c 1 3",
    "mknod sticky/whiteout c 0 0",
    "chmod 777 open/read",
    "chmod 4755 sticky/theirs",
    "chown 4242 open/read",
    "chown 0 sticky/mine",
    "chgrp 0 sticky/mine",
    "touch open/read",
    "touch open/secret",
    "touch -d 2001-01-01 open/read",
    "touch -d 2001-01-01 open/shared",
    "truncate -s 0 open/read",
    "truncate -s 0 open/secret",
    "fallocate -l 10 open/read",
    "setfattr -n user.x -v y open/read",
    "setfattr -n user.x -v y open",
    "setfattr -n security.x -v y sticky/mine",
    "setfattr -n trusted.x -v y sticky/mine",
    "setfattr -n trusted.overlay.opaque -v y sticky",
    "setfattr -x user.x open/read",
    "getfattr -n user.kept open/secret",
    "lsattr -d closed >/dev/null",
    "setfacl -m u:4242:rwx open/secret",
    "chattr +i open/read",
    "rm -f sticky/theirs",
    "mv sticky/theirs sticky/gone",
    "mv open sticky/",
    "mv sticky/theirdir open/",
    "rmdir sticky/theirdir",
    "cd closed",
    "open/read",
    "find closed -name x",
    "dd if=/dev/zero of=open/read count=1 status=none",
    // renameat2(2) with RENAME_EXCHANGE, RENAME_NOREPLACE and RENAME_WHITEOUT.
    "perl -e 'syscall(316, -100, \"open/read\", -100, \"sticky/mine\", 2) == 0 or die $!'",
    "perl -e 'syscall(316, -100, \"sticky/mine\", -100, \"sticky/theirs\", 2) == 0 or die $!'",
    "perl -e 'syscall(316, -100, \"open/read\", -100, \"sticky/new\", 1) == 0 or die $!'",
    "perl -e 'syscall(316, -100, \"sticky/mine\", -100, \"sticky/moved\", 4) == 0 or die $!'",
    // O_TMPFILE | O_RDWR
    "perl -e 'sysopen(my $f, \"open\", 020200002, 0600) or die $!'",
    "perl -e 'sysopen(my $f, \"closed\", 020200002, 0600) or die $!'",
];

/// What each of [`OPERATIONS`] says to user 4242 of the mount, and whether it was done.
fn attempts(mount: &MountedOverlay<'_>) -> Vec<(&'static str, bool, String)> {
    let attempt = |operation: &&'static str| {
        let output = Command::new("setpriv")
            .args(["--reuid=4242", "--regid=4242", "--clear-groups", "sh", "-c", operation])
            .env("LC_ALL", "C")
            .current_dir(mount.root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (*operation, output.status.success(), said)
    };
    OPERATIONS.iter().map(attempt).collect()
}

/// A user without rights goes through directories of somebody else's: every operation is refused
/// with the errno that overlayfs gives, and nothing was copied up for it.
#[test]
fn a_caller_without_rights_gets_nowhere() {
    let tools = ["setpriv", "setfattr", "setfacl", "chattr", "fallocate", "perl"];
    let tools = tools.iter().all(|tool| require(&format!("tool:{tool}")));
    if !(require("root") && require("fuse") && require("overlayfs") && tools) {
        return;
    }
    let layers = "[lower]\ndir open\nfile open/secret hidden mode=0600\nfile open/read only\n\
         dir open/empty\nfile open/shared s mode=0666\n\
         dir closed mode=0700\nfile closed/x x\nsymlink closed/l x\n\
         dir sticky mode=1777\nfile sticky/theirs t uid=5\nfile sticky/mine m uid=4242 gid=4242\n\
         dir sticky/theirdir uid=5\n";
    let said = [Driver::Plyfs, Driver::Kernel].map(|driver| {
        let scene = Scene::new(layers);
        let mount = scene.mount_by(driver, &Options::default());
        let said = attempts(&mount);
        // What belongs to them, or what all may write, is theirs to change, and nothing else.
        let changed = Snapshot::of(&scene.upper);
        let allowed = ["open", "open/shared", "sticky", "sticky/mine"];
        for path in changed.entries.keys().filter(|path| !path.as_os_str().is_empty()) {
            assert!(
                allowed.iter().any(|allowed| path == std::path::Path::new(allowed)),
                "{path:?} was copied up by {}",
                driver.name()
            );
        }
        said
    });
    assert_eq!(differing(&said), [""; 0]);
    let done: Vec<_> =
        said[0].iter().filter(|(_, done, _)| *done).map(|(what, ..)| *what).collect();
    assert_eq!(done, ["echo >>open/shared"]);
}

/// Who may write to a set-user-id program, or gets it by chown, does not keep what it could do: the
/// same bits and capabilities go as in overlayfs, before and after a copy-up, of a file that comes up
/// whole and of one whose attributes come up alone.
#[test]
fn privileges_of_a_file_go_as_in_overlayfs() {
    let tools = ["setpriv", "setcap", "getcap", "fallocate", "dd"];
    let tools = tools.iter().all(|tool| require(&format!("tool:{tool}")));
    if !(require("root") && require("fuse") && require("overlayfs") && tools) {
        return;
    }
    const CHANGES: &[&str] = &[
        "echo x >>FILE",
        "truncate -s 1 FILE",
        ": >FILE",
        "fallocate -l 2000000 FILE",
        "fallocate -p -o 0 -l 4096 FILE",
        "dd if=/dev/zero of=FILE bs=1 count=1 conv=notrunc oflag=direct,append status=none; :",
        "touch FILE",
        "setfattr -n user.x -v y FILE",
        "chgrp 4343 FILE",
        "chmod g-w FILE",
        "chmod 6755 FILE",
    ];
    let cached = Options::with(&["passthrough=off"]);
    let mounts = [
        (Driver::Plyfs, Options::default()),
        (Driver::Plyfs, cached),
        (Driver::Kernel, Options::default()),
    ];
    let [passed, cached, kernel] = mounts.map(|(driver, options)| {
        let scene = Scene::empty(1);
        let mut names = Vec::new();
        for (n, _) in CHANGES.iter().enumerate() {
            for who in ["0", "4242", "5"] {
                for size in ["10", "1500000"] {
                    let name = format!("{n}-{who}-{size}");
                    let path = scene.lowers[0].join(&name);
                    let make = format!(
                        "head -c {size} /dev/zero >{0} && chown 4242:4343 {0} && chmod 6777 {0} && \
                         setcap cap_net_raw+ep {0}",
                        path.display()
                    );
                    assert!(Command::new("sh").args(["-ec", &make]).status().unwrap().success());
                    names.push((name, n, who));
                }
            }
        }
        let mount = scene.mount_by(driver, &options);
        let mut seen = Vec::new();
        for (name, n, who) in names {
            // User 4242 owns it, is in its group or not; another may only write.
            let group = if who == "4242" { "--groups=4343" } else { "--clear-groups" };
            for round in 0..2 {
                let change = CHANGES[n].replace("FILE", &name);
                let script = format!("{change}; echo $?");
                let output = Command::new("setpriv")
                    .args([&format!("--reuid={who}"), "--regid=4242", group, "sh", "-c", &script])
                    .current_dir(mount.root())
                    .output()
                    .unwrap();
                let look = format!("stat -c '%a %u %g' {name}; getcap {name}");
                let look = Command::new("sh")
                    .args(["-c", &look])
                    .current_dir(mount.root())
                    .output()
                    .unwrap();
                let said = [output.stdout, look.stdout].concat();
                let said = String::from_utf8_lossy(&said).replace('\n', "; ");
                seen.push(format!("{change} by {who}, round {round}: {said}"));
                // Once more on what is in the upper by now.
                let again = format!("chmod 6777 {name} && setcap cap_net_raw+ep {name}");
                let again = Command::new("sh")
                    .args(["-ec", &again])
                    .current_dir(mount.root())
                    .status()
                    .unwrap();
                assert!(again.success());
            }
        }
        seen
    });
    assert_eq!(differing(&[passed, kernel.clone()]), [""; 0]);
    assert_eq!(differing(&[cached, kernel]), [""; 0]);
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
