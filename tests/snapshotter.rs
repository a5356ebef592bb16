//! The life of snapshots, as containerd's documentation of the interface tells it, against the
//! program over its socket, with mounts made as containerd makes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as expected"
)]

mod snapshots;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use plyfs::snapshotter::api::{self, Kind};
use snapshots::{Client, Mounted, Server, code, labels};
use support::{names, require};
use tonic::Code;

fn server() -> Option<(Server, Client)> {
    driven_by("fuse")
}

fn driven_by(driver: &str) -> Option<(Server, Client)> {
    if !(require("root") && require("fuse") && require("tool:mount.fuse3")) {
        return None;
    }
    let server = Server::start(driver);
    let client = server.client();
    Some((server, client))
}

fn write(dir: &Path, name: &str, content: &str) {
    fs::write(dir.join(name), content).unwrap();
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

/// "Importing a layer" and "the next layer" of the documentation.
#[test]
fn layers_are_imported_one_upon_the_other() {
    for driver in ["fuse", "kernel"] {
        let Some((server, client)) = driven_by(driver) else { return };
        let place = server.place("merged");
        let mounts = client.prepare("first key", "").unwrap();
        assert_eq!(mounts[0].r#type, "bind", "one layer needs no filesystem of its own");
        let mounted = Mounted::new(&mounts, &place);
        assert!(names(&place).is_empty(), "without a parent it starts empty");
        write(&place, "foo", "foo");
        fs::create_dir_all(place.join("a/b/c")).unwrap();
        drop(mounted);
        client.commit("first", "first key").unwrap();

        let mounts = client.prepare("next key", "first").unwrap();
        let mounted = Mounted::new(&mounts, &place);
        assert_eq!(names(&place), ["a", "foo"], "it starts with what its parent holds");
        write(&place, "foo", "bar");
        write(&place, "bar", "bar");
        fs::remove_dir_all(place.join("a/b")).unwrap();
        drop(mounted);
        client.commit("next", "next key").unwrap();

        let mounted = Mounted::new(&client.view("look", "next").unwrap(), &place);
        assert_eq!(names(&place), ["a", "bar", "foo"]);
        assert_eq!((read(&place, "foo"), names(place.join("a"))), ("bar".into(), vec![]));
        drop(mounted);
        let mounted = Mounted::new(&client.view("look below", "first").unwrap(), &place);
        assert_eq!((read(&place, "foo"), names(place.join("a"))), ("foo".into(), vec!["b".into()]));
        drop(mounted);
    }
}

#[test]
fn stat_tells_kind_parent_labels_and_times() {
    let Some((_server, client)) = server() else { return };
    client.prepare_with("key", "", &[("a", "1"), ("empty", "")]).unwrap();
    let active = client.stat("key").unwrap();
    assert_eq!((active.name.as_str(), active.parent.as_str()), ("key", ""));
    assert_eq!(active.kind(), Kind::Active);
    assert_eq!(active.labels, labels(&[("a", "1")]));
    assert_eq!(active.created_at, active.updated_at);
    assert!(active.created_at.unwrap().seconds > 1_700_000_000);

    client.commit_with("name", "key", &[("b", "2")]).unwrap();
    let committed = client.stat("name").unwrap();
    assert_eq!((committed.kind(), committed.parent.as_str()), (Kind::Committed, ""));
    assert_eq!(committed.labels, labels(&[("b", "2")]), "those of the key are not inherited");
    assert_eq!(code(client.stat("key")), Code::NotFound, "the key is gone after the commit");

    client.view("view", "name").unwrap();
    let view = client.stat("view").unwrap();
    assert_eq!((view.kind(), view.parent.as_str()), (Kind::View, "name"));
    assert!(view.labels.is_empty(), "those of the parent are not inherited");
}

#[test]
fn each_refusal_has_its_code() {
    let Some((_server, client)) = server() else { return };
    client.prepare("base key", "").unwrap();
    client.commit("base", "base key").unwrap();
    client.prepare("active", "base").unwrap();
    client.view("view", "base").unwrap();

    assert_eq!(code(client.stat("none")), Code::NotFound);
    assert_eq!(code(client.usage("none")), Code::NotFound);
    assert_eq!(code(client.mounts("none")), Code::NotFound);
    assert_eq!(code(client.remove("none")), Code::NotFound);
    assert_eq!(code(client.commit("new", "none")), Code::NotFound);
    assert_eq!(code(client.update("none", &[], &[])), Code::NotFound);
    assert_eq!(code(client.prepare("new", "none")), Code::NotFound);
    assert_eq!(code(client.view("new", "none")), Code::NotFound);

    for taken in ["active", "view", "base"] {
        assert_eq!(code(client.prepare(taken, "base")), Code::AlreadyExists, "{taken}");
        assert_eq!(code(client.view(taken, "")), Code::AlreadyExists, "{taken}");
        assert_eq!(code(client.commit(taken, "active")), Code::AlreadyExists, "{taken}");
    }
    for no_parent in ["active", "view"] {
        assert_eq!(code(client.prepare("new", no_parent)), Code::InvalidArgument, "{no_parent}");
    }
    assert_eq!(code(client.commit("new", "view")), Code::FailedPrecondition);
    assert_eq!(code(client.commit("new", "base")), Code::FailedPrecondition);
    assert_eq!(code(client.mounts("base")), Code::FailedPrecondition);
    assert_eq!(code(client.remove("base")), Code::FailedPrecondition);
    assert_eq!(code(client.prepare("", "base")), Code::InvalidArgument);
    assert_eq!(code(client.commit("", "active")), Code::InvalidArgument);
    let long = "x".repeat(4096);
    assert_eq!(code(client.prepare_with("new", "", &[("k", &long)])), Code::InvalidArgument);
    let unknown: Result<api::Empty, _> = client.call("Explode", api::Empty {});
    assert_eq!(code(unknown), Code::Unimplemented);
    assert_eq!(client.names(&[]), ["active", "base", "view"], "refusals changed nothing");
}

#[test]
fn a_parent_is_removed_after_its_children() {
    let Some((server, client)) = server() else { return };
    for (name, parent) in [("1", ""), ("2", "1"), ("3", "2")] {
        client.layer(&server, name, parent, |place| write(place, name, name));
    }
    client.prepare("top", "3").unwrap();
    for name in ["1", "2", "3"] {
        assert_eq!(code(client.remove(name)), Code::FailedPrecondition, "{name}");
    }
    for name in ["top", "3", "2", "1"] {
        client.remove(name).unwrap();
        assert_eq!(code(client.stat(name)), Code::NotFound);
    }
    assert!(server.listing("snapshots").is_empty() && server.listing("staging").is_empty());
    client.prepare("top", "").unwrap();
}

#[test]
fn mounts_can_be_asked_for_again() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "1", "", |place| write(place, "one", ""));
    client.layer(&server, "2", "1", |place| write(place, "two", ""));
    for parent in ["", "1", "2"] {
        let active = client.prepare(&format!("active {parent}"), parent).unwrap();
        assert_eq!(client.mounts(&format!("active {parent}")).unwrap(), active);
        let view = client.view(&format!("view {parent}"), parent).unwrap();
        assert_eq!(client.mounts(&format!("view {parent}")).unwrap(), view);
    }
}

#[test]
fn a_view_cannot_be_written_to() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "1", "", |place| write(place, "one", ""));
    client.layer(&server, "2", "1", |place| write(place, "two", ""));
    for parent in ["", "1", "2"] {
        let place = server.place("view");
        let mounts = client.view(&format!("view of {parent}"), parent).unwrap();
        let mounted = Mounted::new(&mounts, &place);
        let refused = fs::write(place.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{parent}");
        drop(mounted);
    }
}

/// Commits a snapshot whose files were just closed: a child of another test may hold them open
/// between its fork and its exec.
fn commit_once_closed(client: &Client, name: &str, key: &str) {
    let start = Instant::now();
    while let Err(status) = client.commit(name, key) {
        let held = status.message().contains("open for writing");
        assert!(held && start.elapsed() < Duration::from_secs(30), "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The documentation calls unmounting before the commit optional: what was mounted can be read
/// on, but never changes the committed snapshot.
#[test]
fn what_is_mounted_still_cannot_change_a_committed_snapshot() {
    for driver in ["fuse", "kernel"] {
        let Some((server, client)) = driven_by(driver) else { return };
        client.layer(&server, "base", "", |place| write(place, "below", ""));
        for (key, parent) in [("lone", ""), ("upon", "base")] {
            let place = server.place(key);
            let mounted = Mounted::new(&client.prepare(key, parent).unwrap(), &place);
            let open = fs::File::create(place.join("open")).unwrap();
            let refused = client.commit("never", key).unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("open for writing"), "{}", refused.message());
            drop(open);
            commit_once_closed(&client, &format!("{key} done"), key);
            let refused = fs::write(place.join("more"), "").unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            assert!(place.join("open").exists());
            let child = server.place("child");
            let on_top =
                Mounted::new(&client.prepare("child", &format!("{key} done")).unwrap(), &child);
            assert!(child.join("open").exists());
            drop((on_top, mounted));
            client.remove("child").unwrap();
        }
    }
}

/// As containerd does to tell what a running container changed.
#[test]
fn a_live_snapshot_can_be_mounted_a_second_time() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "base", "", |place| write(place, "below", ""));
    let mounts = client.prepare("box", "base").unwrap();
    let (first, second) = (server.place("first"), server.place("second"));
    let running = Mounted::new(&mounts, &first);
    write(&first, "early", "");
    let looking = Mounted::new(&client.mounts("box").unwrap(), &second);
    write(&first, "late", "");
    assert_eq!(names(&second), ["below", "early", "late"]);
    let refused = client.remove("box").unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("mounted on"), "{}", refused.message());
    drop(running);
    write(&second, "later", "");
    drop(looking);
    client.commit("done", "box").unwrap();
    let look = Mounted::new(&client.view("look", "done").unwrap(), &first);
    assert_eq!(names(&first), ["below", "early", "late", "later"]);
    drop(look);
}

#[test]
fn the_root_keeps_the_attributes_of_the_parents_root() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "base", "", |place| {
        assert_eq!(fs::metadata(place).unwrap().mode() & 0o7777, 0o755);
        fs::set_permissions(place, fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::chown(place, Some(7), Some(8)).unwrap();
    });
    let place = server.place("merged");
    let mounted = Mounted::new(&client.prepare("key", "base").unwrap(), &place);
    let root = fs::metadata(&place).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o750, 7, 8));
    drop(mounted);
}

#[test]
fn labels_are_all_that_can_be_updated() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "base", "", |_| ());
    client.prepare_with("key", "base", &[("a", "1"), ("b.c/d", "2"), ("e", "3")]).unwrap();
    let before = client.stat("key").unwrap();

    let one = client.update("key", &[("b.c/d", "changed"), ("a", "not this")], &["labels.b.c/d"]);
    let one = one.unwrap();
    assert_eq!(one.labels, labels(&[("a", "1"), ("b.c/d", "changed"), ("e", "3")]));
    assert_eq!(one.created_at, before.created_at);
    let time = |t: Option<prost_types::Timestamp>| t.map(|t| (t.seconds, t.nanos)).unwrap();
    assert!(time(one.updated_at) > time(before.updated_at));
    let gone = client.update("key", &[("new", "4")], &["labels.a", "labels.new"]).unwrap();
    assert_eq!(gone.labels, labels(&[("b.c/d", "changed"), ("e", "3"), ("new", "4")]));
    let all = client.update("key", &[("x", "y")], &["labels"]).unwrap();
    assert_eq!(all.labels, labels(&[("x", "y")]));
    let all = client.update("key", &[("z", "")], &[]).unwrap();
    assert_eq!(all.labels, labels(&[]), "no mask means all that can change");
    assert_eq!((all.parent.as_str(), all.kind()), ("base", Kind::Active));
    assert_eq!(client.stat("key").unwrap(), all);
    for path in ["name", "parent", "kind", "created_at", "label", "labels."] {
        let refused = client.update("key", &[("x", "y")], &["labels", path]);
        assert_eq!(code(refused), Code::InvalidArgument, "{path}");
    }
    assert_eq!(client.stat("key").unwrap(), all);
    assert_eq!(client.update("base", &[("x", "y")], &[]).unwrap().kind(), Kind::Committed);
}

#[test]
fn list_filters_as_containerd_does() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "base", "", |_| ());
    client
        .prepare_with("one", "base", &[("app", "web"), ("containerd.io/gc.root", "now")])
        .unwrap();
    client.prepare_with("two", "base", &[("app", "db, big")]).unwrap();
    client.view("three", "").unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["base", "one", "three", "two"]),
        (&[""], &["base", "one", "three", "two"]),
        (&["kind==active"], &["one", "two"]),
        (&["kind==committed"], &["base"]),
        (&["kind!=active"], &["base", "three"]),
        (&["parent==base"], &["one", "two"]),
        (&["name~=^t"], &["three", "two"]),
        (&["name~=/^t.o$/"], &["two"]),
        (&["labels.app"], &["one", "two"]),
        (&["labels.app==web"], &["one"]),
        (&[r#"labels.app=="db, big""#], &["two"]),
        (&[r#"labels."containerd.io/gc.root""#], &["one"]),
        (&[r#"kind==active,labels."containerd.io/gc.root"==now"#], &["one"]),
        (&["name==base", "name==three"], &["base", "three"]),
        (&["kind==view,name==one"], &[]),
        (&["nothing"], &[]),
    ];
    for (filters, expected) in cases {
        assert_eq!(client.names(filters), *expected, "{filters:?}");
    }
    for bad in ["name==", "==x", "name=x", "name==x,", r#"name=="x"#, "name~=(", "name==a b"] {
        assert_eq!(code(client.list(&[bad])), Code::InvalidArgument, "{bad}");
    }
    for n in 0..250 {
        client.view(&format!("many {n}"), "").unwrap();
    }
    let batches: Vec<usize> = client.list(&[]).unwrap().iter().map(Vec::len).collect();
    assert_eq!(batches, [100, 100, 54]);
}

#[test]
fn usage_counts_what_is_its_own() {
    let Some((server, client)) = server() else { return };
    client.layer(&server, "base", "", |place| write(place, "big", &"x".repeat(1 << 20)));
    let base = client.usage("base").unwrap();
    assert!((1 << 20..2 << 20).contains(&base.size) && base.inodes == 2, "{base:?}");
    let mounts = client.prepare("key", "base").unwrap();
    assert_eq!(client.usage("key").unwrap().inodes, 1, "its root");
    let place = server.place("merged");
    let mounted = Mounted::new(&mounts, &place);
    write(&place, "small", &"x".repeat(5000));
    fs::hard_link(place.join("small"), place.join("again")).unwrap();
    let now = client.usage("key").unwrap();
    assert!((8192..32768).contains(&now.size) && now.inodes == 2, "{now:?}");
    drop(mounted);
    client.commit("done", "key").unwrap();
    assert_eq!(client.usage("done").unwrap(), now);
    client.view("view", "done").unwrap();
    assert_eq!(client.usage("view").unwrap(), api::UsageResponse::default());
}

/// The labels say `CONTAINER:HOST:COUNT`: the layers hold the container's ids, the mount shows
/// the host's.
#[test]
fn labels_with_id_maps_are_followed() {
    for driver in ["fuse", "auto"] {
        let Some((server, client)) = driven_by(driver) else { return };
        client.layer(&server, "base", "", |place| {
            fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
            write(place, "file", "");
            std::os::unix::fs::chown(place.join("file"), Some(5), Some(6)).unwrap();
        });
        let maps = [
            ("containerd.io/snapshot/uidmapping", "0:100000:65536"),
            ("containerd.io/snapshot/gidmapping", "0:200000:65536"),
        ];
        let place = server.place("merged");
        let ids = |name: &str| {
            let data = fs::metadata(place.join(name)).unwrap();
            (data.uid(), data.gid())
        };
        for mounts in
            [client.view_with("view", "base", &maps), client.prepare_with("key", "base", &maps)]
        {
            let mounted = Mounted::new(&mounts.unwrap(), &place);
            assert_eq!((ids("file"), ids(".")), ((100_005, 200_006), (100_000, 200_000)));
            drop(mounted);
        }
        let mounted = Mounted::new(&client.mounts("key").unwrap(), &place);
        let status = std::process::Command::new("setpriv")
            .args(["--reuid=100007", "--regid=200007", "--clear-groups", "touch"])
            .arg(place.join("new"))
            .status();
        assert!(status.unwrap().success());
        drop(mounted);
        client.commit("done", "key").unwrap();
        let mounted = Mounted::new(&client.view("plain", "done").unwrap(), &place);
        assert_eq!(ids("new"), (7, 7));
        drop(mounted);
        for wrong in ["0:1", "a:b:c", "0:0:0", "0:4294967295:2", "0:1:1:2"] {
            let label = [("containerd.io/snapshot/uidmapping", wrong)];
            assert_eq!(code(client.prepare_with("bad", "base", &label)), Code::InvalidArgument);
        }
    }
    let Some((_server, client)) = driven_by("kernel") else { return };
    let label = [("containerd.io/snapshot/uidmapping", "0:100000:65536")];
    assert_eq!(code(client.prepare_with("bad", "", &label)), Code::InvalidArgument);
}

#[test]
fn layers_are_128_deep() {
    for driver in ["fuse", "kernel"] {
        let Some((server, client)) = driven_by(driver) else { return };
        let mut parent = String::new();
        for n in 0..128 {
            let name = format!("layer {n}");
            client.layer(&server, &name, &parent, |place| {
                write(place, "overwritten", &n.to_string());
                write(place, &format!("file-{n}"), &n.to_string());
                if n > 0 {
                    fs::remove_file(place.join(format!("gone-{}", n - 1))).unwrap();
                }
                write(place, &format!("gone-{n}"), "");
            });
            parent = name;
        }
        let place = server.place("merged");
        let mounted = Mounted::new(&client.prepare("top", &parent).unwrap(), &place);
        assert_eq!(names(&place).len(), 128 + 2);
        assert_eq!(read(&place, "overwritten"), "127");
        assert_eq!((read(&place, "file-0"), read(&place, "file-127")), ("0".into(), "127".into()));
        write(&place, "file-0", "changed");
        drop(mounted);
        assert_eq!(code(client.remove("layer 60")), Code::FailedPrecondition);
    }
}

/// `auto` may change its mind from one start to the next.
#[test]
fn the_kernel_mounts_what_the_daemon_committed() {
    let Some((fuse, client)) = server() else { return };
    client.layer(&fuse, "1", "", |place| {
        fs::create_dir(place.join("dir")).unwrap();
        write(&place.join("dir"), "file", &"x".repeat(2 << 20));
        write(place, "gone", "");
    });
    client.layer(&fuse, "2", "1", |place| {
        fs::rename(place.join("dir"), place.join("moved")).unwrap();
        fs::set_permissions(place.join("moved/file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(place.join("gone")).unwrap();
    });
    let mut kernel = fuse;
    assert_eq!(kernel.down(), Some(0));
    let kernel = kernel.driven_again_by("kernel");
    let client = kernel.client();
    let place = kernel.place("merged");
    let mounted = Mounted::new(&client.prepare("key", "2").unwrap(), &place);
    assert_eq!(names(&place), ["moved"]);
    let file = fs::metadata(place.join("moved/file")).unwrap();
    assert_eq!((file.len(), file.mode() & 0o777), (2 << 20, 0o600));
    assert_eq!(fs::read(place.join("moved/file")).unwrap(), "x".repeat(2 << 20).as_bytes());
    drop(mounted);
}
