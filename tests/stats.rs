//! What a daemon tells of itself: figures, by `plyfs stats`, a socket and a signal, and its log.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod shell;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use plyfs::fuse::control::Control;
use plyfs::fuse::stats::Snapshot;
use shell::Shell;
use support::{Driver, Options, Scene, ready, require};

const LAYERS: &str = "[lower]\ndir d\nfile d/a 12345678\nfile d/b x\nsymlink s a\ndir empty\n";

/// What the kernel knows of names and inodes, of all mounts: held by tests that count what it asks
/// for, and alone by one that makes it forget.
static KERNELS_NAMES: RwLock<()> = RwLock::new(());

fn able() -> bool {
    ready() && Driver::under_test() == Driver::Plyfs
}

fn snapshot(path: &Path) -> Snapshot {
    Control::open(path).unwrap().snapshot().unwrap()
}

/// Waits for what another process does in its own time.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Some(found) => return found,
            None if start.elapsed() > Duration::from_secs(20) => panic!("never: {what}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn signal(mount: &support::MountedOverlay<'_>, name: &str) {
    let pid = mount.daemon_id().unwrap().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn what_was_done_is_counted() {
    if !able() {
        return;
    }
    let _kept = KERNELS_NAMES.read();
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    fs::metadata(mount.path("d/a")).unwrap();
    fs::metadata(mount.path("d/none")).unwrap_err();
    fs::metadata(mount.path("d/none")).unwrap_err();
    fs::OpenOptions::new().append(true).open(mount.path("d/a")).unwrap().write_all(b"9").unwrap();
    fs::write(mount.path("new"), "x").unwrap();
    fs::remove_file(mount.path("s")).unwrap();
    fs::remove_dir(mount.path("d")).unwrap_err();

    let figures = snapshot(mount.root());
    let count = |kind| figures.count(kind);
    let names = (count("lookup"), count("create"), count("unlink"), count("rmdir"));
    // d, d/a, d/none (then the kernel knows), new, s, by their names once each.
    assert_eq!(names, (5, 1, 1, 1), "{:?}", figures.requests);
    assert!(count("open") >= 1, "{:?}", figures.requests);
    let rmdir = figures.requests.iter().find(|request| request.kind == "rmdir").unwrap();
    assert_eq!(rmdir.errors, 1);
    for request in &figures.requests {
        let times = &request.latency;
        assert!(times.p50_ns <= times.p90_ns && times.p99_ns <= times.max_ns, "{request:?}");
        assert!(times.max_ns > 0 && times.total_ns >= times.max_ns, "{request:?}");
        assert!(request.errors <= request.count, "{request:?}");
    }
    let copied = figures.overlay.copy_ups;
    assert_eq!((copied.files, copied.directories, copied.bytes), (1, 1, 8));
    // The root, d, d/a and new; s is gone, but its FORGET may be on its way.
    assert!((4..=5).contains(&figures.overlay.live_nodes), "{}", figures.overlay.live_nodes);
    assert_eq!(figures.panics, 0);
    assert_eq!(figures.pid, mount.daemon_id().unwrap());
    let process = figures.process.unwrap();
    assert!(process.descriptors > 5 && process.resident_bytes > 1 << 20, "{process:?}");
    assert!(process.descriptors < process.descriptor_limit);
}

#[test]
fn caches_and_passthrough_are_counted() {
    if !able() {
        return;
    }
    let _kept = KERNELS_NAMES.read();
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    for _ in 0..2 {
        assert_eq!(support::names(mount.path("d")), ["a", "b"]);
    }
    let mut buffer = [0; 16];
    for _ in 0..3 {
        rustix::fs::getxattr(mount.path("d/a"), "user.none", &mut buffer[..]).unwrap_err();
    }
    let file = fs::File::create(mount.path("new")).unwrap();
    let data = fs::File::open(mount.path("d/a")).unwrap();
    let figures = snapshot(mount.root());
    let overlay = &figures.overlay;
    // The kernel keeps the names itself: the second reading does not come to us.
    assert_eq!(overlay.listings.misses, 1);
    assert_eq!((overlay.xattrs.hits, overlay.xattrs.misses), (2, 1));
    assert!(overlay.lookups.misses > 0 && overlay.directories.hits > 0);
    assert_eq!(overlay.open_files, 2);
    let opens = figures.passthrough;
    assert_eq!((opens.passed, opens.cached, opens.backing_files), (1, 1, 1));
    drop((file, data));
    // RELEASE is sent when close has returned.
    eventually("nothing is open", || {
        let figures = snapshot(mount.root());
        (figures.overlay.open_files == 0 && figures.passthrough.backing_files == 0).then_some(())
    });
}

/// A listing that lookups alone have built counts among those that are kept within bounds.
#[test]
fn listings_that_lookups_made_are_counted() {
    if !able() {
        return;
    }
    let _kept = KERNELS_NAMES.read();
    let scene = Scene::new("[lower]\nfile d/a\n[lower]\nfile d/b\n");
    let mount = scene.mount();
    let before = snapshot(mount.root()).overlay.kept_listings;
    for name in ["a", "b", "none", "nothing"] {
        assert_eq!(mount.path("d").join(name).exists(), name.len() == 1);
    }
    let figures = snapshot(mount.root()).overlay;
    assert_eq!((figures.kept_listings - before, figures.listings.misses), (1, 0));
}

/// However much was known: nodes, listings, descriptors and memory come back when it is gone.
#[test]
fn what_comes_and_goes_leaves_nothing_behind() {
    if !able() {
        return;
    }
    let scene = Scene::in_memory("[lower]\ndir d\n");
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["max_threads=2"]));
    let before = snapshot(mount.root()).overlay;
    let held_after_a_round = || {
        for n in 0..1000 {
            let dir = mount.path(format!("d/{n}"));
            fs::create_dir(&dir).unwrap();
            (0..4).for_each(|file| fs::write(dir.join(file.to_string()), "x").unwrap());
        }
        for n in 0..20 {
            let dir = mount.path(format!("d/large{n}"));
            fs::create_dir(&dir).unwrap();
            (0..80).for_each(|file| fs::write(dir.join(file.to_string()), "x").unwrap());
        }
        // How much of it is held still is the kernel's to say; it is more than nothing.
        let held = snapshot(mount.root()).overlay;
        assert!(held.live_nodes > before.live_nodes + 2, "{held:?}");
        fs::remove_dir_all(mount.path("d")).unwrap();
        fs::create_dir(mount.path("d")).unwrap();
        // The kernel forgets when it likes.
        eventually("all is forgotten", || {
            let now = snapshot(mount.root());
            let overlay = &now.overlay;
            let few = overlay.live_nodes <= before.live_nodes + 2
                && overlay.kept_listings <= before.kept_listings + 2
                && overlay.directory_descriptors <= before.directory_descriptors + 4;
            few.then(|| now.process.unwrap().anonymous_bytes)
        })
    };
    let first = held_after_a_round();
    let mut later = first;
    (0..3).for_each(|_| later = held_after_a_round());
    // Had only the nodes stayed, it would be more than twice as much.
    assert!(later < first + (1 << 20), "{first} bytes after a round, {later} after four");
}

/// After a look at many names little more is held than before it: what the last of them left behind
/// is given back, too, wherever it lies.
#[test]
fn what_was_looked_at_and_forgotten_is_given_back() {
    if !(able() && support::as_host_root("only root of the machine makes the kernel forget names"))
    {
        return;
    }
    let _alone = KERNELS_NAMES.write();
    let scene = Scene::empty(1);
    for n in 0..200 {
        let dir = scene.lowers[0].join(n.to_string());
        fs::create_dir(&dir).unwrap();
        let name = |file: i32| format!("{file:03}-{}", "a-long-name-of-a-file-".repeat(8));
        (0..100).for_each(|file| fs::write(dir.join(name(file)), "").unwrap());
    }
    let mount = scene.mount_by(Driver::Plyfs, &Options::with(&["max_threads=2"]));
    let held = || snapshot(mount.root()).process.unwrap().anonymous_bytes;
    let before = held();
    for dir in fs::read_dir(mount.root()).unwrap().map(|dir| dir.unwrap().path()) {
        assert_eq!(
            fs::read_dir(dir).unwrap().filter(|f| f.as_ref().unwrap().metadata().is_ok()).count(),
            100
        );
    }
    let most = held();
    assert!(most > before + (4 << 20), "{before} bytes before, {most} at most");
    eventually("all is forgotten and given back", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        let now = snapshot(mount.root());
        let held = now.process.unwrap().anonymous_bytes;
        (now.overlay.live_nodes <= 3 && held < before + (2 << 20)).then_some(())
    });
}

/// What all containers of a layer map is read by the kernel itself, whatever its mode; what is
/// only called so, or only executable, is data.
#[test]
fn programs_and_libraries_are_passed_through() {
    if !able() {
        return;
    }
    const ELF: &str = r"\x7fELF\x01\x01__________\x03\x00";
    let scene = Scene::new(&format!(
        "[lower]\nfile program \"{ELF}\" mode=0755\nfile libc.so.6 \"{ELF}\"\nfile plain \"{ELF}\"\n\
         file script \"#!/bin/sh\\n\" mode=0755\nfile libc.so \"INPUT(libc.so.6 and more)\"\n"
    ));
    let mount = scene.mount();
    for (name, passed) in
        [("program", 1), ("libc.so.6", 1), ("plain", 0), ("script", 0), ("libc.so", 0)]
    {
        let before = snapshot(mount.root()).passthrough;
        let file = fs::File::open(mount.path(name)).unwrap();
        let after = snapshot(mount.root()).passthrough;
        drop(file);
        assert_eq!(after.passed - before.passed, passed, "{name}");
        assert_eq!(after.cached - before.cached, 1 - passed, "{name}");
    }
}

/// Without an upper nothing is ever copied up: data is read by the kernel itself, too, but for what is
/// so small that it comes along with its opening.
#[test]
fn without_an_upper_large_data_is_passed_through() {
    if !able() {
        return;
    }
    let scene = Scene::new("[lower]\nfile small text\n");
    let content = vec![b'x'; 1 << 20];
    fs::write(scene.lowers[0].join("large"), &content).unwrap();
    let read_only = support::Options { read_only: true, ..support::Options::default() };
    for (options, large) in [(&read_only, 1), (&support::Options::default(), 0)] {
        let mount = scene.mount_by(support::Driver::Plyfs, options);
        let before = snapshot(mount.root()).passthrough;
        assert_eq!(fs::read(mount.path("small")).unwrap(), b"text");
        assert_eq!(fs::read(mount.path("large")).unwrap(), content);
        let after = snapshot(mount.root()).passthrough;
        assert_eq!(after.passed - before.passed, large);
        assert_eq!(after.cached - before.cached, 2 - large);
    }
}

#[test]
fn many_may_ask_at_once_and_on_any_directory() {
    if !able() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    let (first, second) = (snapshot(mount.root()), snapshot(&mount.path("d")));
    assert_eq!(first.mountpoint, second.mountpoint);
    let ioctls = |snapshot: &Snapshot| snapshot.count("ioctl");
    // An ioctl is counted when it is over.
    assert_eq!((ioctls(&first), ioctls(&second)), (0, 1));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| (0..50).map(|_| snapshot(mount.root()).pid).collect::<Vec<_>>())
            })
            .collect();
        for reader in readers {
            let pids = reader.join().unwrap();
            assert!(pids.iter().all(|pid| *pid == first.pid));
        }
    });
}

#[test]
fn only_root_and_the_daemons_user_may_ask() {
    if !able() || !require("tool:unshare") {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    fs::set_permissions(scene.place(""), fs::Permissions::from_mode(0o755)).unwrap();
    let shell = Shell::new();
    let place = mount.root().to_str().unwrap();
    let plyfs = shell.dir.path().join("plyfs");
    fs::copy(env!("CARGO_BIN_EXE_plyfs"), &plyfs).unwrap();
    fs::set_permissions(shell.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let ask = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let output = command.args(arguments).arg(&plyfs).args(["stats", place]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let refusal = "answers root and its own user only, in its own pid namespace";
    let (allowed, said) = ask("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert!(!allowed && said.contains(refusal), "{said}");
    let (allowed, said) = ask("unshare", &["--pid", "--fork"]);
    assert!(!allowed && said.contains(refusal), "{said}");
    let (allowed, said) = ask("env", &[]);
    assert!(allowed, "{said}");
}

#[test]
fn a_read_only_mount_and_one_without_xattrs_tell_as_well() {
    if !able() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let read_only = Options { read_only: true, extra: vec!["noxattrs".to_owned()] };
    let mount = scene.mount_by(Driver::Plyfs, &read_only);
    assert_eq!(snapshot(mount.root()).overlay.copy_ups.files, 0);
}

#[test]
fn the_verb_prints_tables_json_and_prometheus_text() {
    if !able() {
        return;
    }
    let shell = Shell::with_busybox();
    shell.ok(&["create", "--name", "box", "busybox:1.35"]);
    assert_eq!(shell.fails(&["stats", "box"]), "container box is not mounted");
    let place = shell.ok(&["mount", "box"]).trim_end().to_owned();
    fs::write(Path::new(&place).join("etc/new"), "x").unwrap();

    let table = shell.ok(&["stats", "box"]);
    assert!(table.starts_with(&format!("{place}: pid ")), "{table}");
    for word in ["REQUEST", "\ncreate ", "\ncopy-ups ", "\ncache hits ", "\nheld "] {
        assert!(table.contains(word), "no {word:?} in {table}");
    }
    let json = shell.json(&["stats", "--json", "box"]);
    assert_eq!(json[0]["mountpoint"], place.as_str());
    assert_eq!(json[0]["overlay"]["copy_ups"]["directories"], 1);
    let text = shell.ok(&["stats", "--prometheus", "box"]);
    check_prometheus(&text, &place);
    // Other mounts of the machine, which may go just now, are no concern of this test.
    let all = shell.run(&["stats", "--json"]).stdout;
    let all: serde_json::Value = serde_json::from_slice(&all).unwrap();
    assert!(all.as_array().unwrap().iter().any(|one| one["mountpoint"] == place.as_str()));

    assert_eq!(shell.ok(&["log-level", "box"]), "warn\n");
    shell.ok(&["log-level", "box", "info,plyfs::overlay=debug"]);
    assert_eq!(shell.ok(&["log-level", &place]), "plyfs::overlay=debug,info\n");
    assert!(shell.fails(&["log-level", "box", "loud"]).contains("must be error, warn, info"));
    let elsewhere = shell.dir.path().to_str().unwrap();
    let refusal = shell.fails(&["stats", elsewhere]);
    assert!(refusal.ends_with("is no mount of a PlyFS daemon"), "{refusal}");
    shell.ok(&["umount", "box"]);
}

/// Each metric has its help and type before its samples, each sample a number and the mount; a
/// histogram's buckets grow and end with the count.
fn check_prometheus(text: &str, place: &str) {
    let mut declared = std::collections::HashMap::new();
    let mut buckets: Vec<f64> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(declared.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let name = series.split('{').next().unwrap();
        assert!(series.contains(&format!("mount=\"{place}\"")), "{line}");
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        assert!(declared.contains_key(base), "{line}");
        match name.strip_prefix(base) {
            Some("_bucket") => {
                assert!(buckets.last().is_none_or(|last| *last <= value), "{line}");
                buckets.push(value);
            }
            Some("_count") => {
                assert_eq!(buckets.pop(), Some(value), "{line}");
                buckets.clear();
            }
            _ => {}
        }
    }
    for name in ["request_duration_seconds", "copy_ups_total", "live_nodes", "panics_total"] {
        assert!(declared.contains_key(&format!("plyfs_{name}")), "no {name} in {text}");
    }
}

#[test]
fn a_socket_gives_the_text_with_and_without_http() {
    if !able() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let socket = scene.place("stats.sock");
    let options = Options::with(&[&format!("stats_socket={}", socket.display())]);
    let mut mount = scene.mount_by(Driver::Plyfs, &options);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let place = mount.root().to_str().unwrap().to_owned();
    let read = |request: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    check_prometheus(&read(b""), &place);
    let answer = read(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    check_prometheus(body, &place);

    // What a killed daemon leaves behind is in nobody's way.
    mount.kill();
    assert!(socket.exists());
    drop(mount);
    let mut mount = scene.mount_by(Driver::Plyfs, &options);
    check_prometheus(&read(b""), &place);
    mount.unmount();
    assert!(!socket.exists());
}

#[test]
fn a_signal_logs_the_figures_and_another_the_level() {
    if !able() {
        return;
    }
    let scene = Scene::new(LAYERS);
    let mount = scene.mount();
    let log = || fs::read_to_string(scene.place("daemon.log")).unwrap();
    fs::metadata(mount.path("d/a")).unwrap();
    signal(&mount, "-USR1");
    let said = eventually("the figures are logged", || {
        let said = log();
        said.contains("process ").then_some(said)
    });
    assert!(said.contains("lookup ") && said.contains("held "), "{said}");
    assert!(!said.contains('\x1b'), "colours in a file: {said}");
    for level in ["info", "debug", "trace", "warn"] {
        signal(&mount, "-USR2");
        eventually(level, || log().contains(&format!("the log is now at {level}\n")).then_some(()));
        assert_eq!(snapshot(mount.root()).log, level);
    }
    // At the level trace each request was logged, at warn none is.
    fs::metadata(mount.path("d/b")).unwrap();
    let before = log().len();
    fs::metadata(mount.path("empty")).unwrap();
    assert_eq!(log().len(), before);
    Control::open(mount.root()).unwrap().set_log("trace").unwrap();
    fs::metadata(mount.path("none")).unwrap_err();
    eventually("a request is logged", || log()[before..].contains("opcode=1 ").then_some(()));
}

/// systemd says by JOURNAL_STREAM that standard error is the journal.
#[test]
fn in_the_journal_each_line_of_a_daemon_begins_with_its_priority() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for (journal, start) in [(true, "<4> WARN option unheard_of"), (false, " WARN option")] {
        let log = fs::File::create(&path).unwrap();
        let file = log.metadata().unwrap();
        let stream = if journal { format!("{}:{}", file.dev(), file.ino()) } else { "1:2".into() };
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_fuse-plyfs"));
        daemon.args(["-f", "-o", "unheard_of,lowerdir=/absent", "/absent"]);
        assert!(!daemon.env("JOURNAL_STREAM", stream).stderr(log).status().unwrap().success());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(start), "{text}");
    }
}
