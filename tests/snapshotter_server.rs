//! The snapshotter as a server: its socket, its end, its restart, many clients at once.

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
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::sync::Barrier;
use std::time::Duration;

use plyfs::snapshotter::api::Info;
use snapshots::{Client, Mounted, Server, code};
use support::{names, require};
use tonic::Code;

fn server() -> Option<Server> {
    (require("root") && require("fuse")).then(|| Server::start("fuse"))
}

fn everything(client: &Client) -> Vec<Info> {
    client.list(&[]).unwrap().into_iter().flatten().collect()
}

#[test]
fn only_its_owner_reaches_it() {
    let Some(server) = server() else { return };
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.socket()), 0o600);
    assert_eq!(mode(server.dir.path().join("run")), 0o700);
    assert_eq!(mode(server.root().join("snapshots")), 0o700);
}

/// `Type=notify` of systemd: who is started after it can connect.
#[test]
fn the_service_manager_is_told_when_clients_can_connect() {
    let Some(mut server) = server() else { return };
    let place = server.dir.path().join("notify");
    let abstract_name = format!("plyfs-test-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    for (manager, named) in [
        (UnixDatagram::bind(&place).unwrap(), place.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{abstract_name}")),
    ] {
        assert_eq!(server.down(), Some(0));
        manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let hear = || {
            let mut text = [0; 64];
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        };
        server.child = Some(server.program().env("NOTIFY_SOCKET", named).spawn().unwrap());
        assert_eq!(hear(), "READY=1");
        UnixStream::connect(server.socket()).unwrap();
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(hear(), "STOPPING=1");
        assert_eq!(server.child.take().unwrap().wait().unwrap().code(), Some(0));
        server.up();
    }
}

/// systemd says by JOURNAL_STREAM that standard error is the journal, which has the time and the
/// name itself.
#[test]
fn in_the_journal_each_line_begins_with_its_priority() {
    let Some(mut server) = server() else { return };
    assert_eq!(server.down(), Some(0));
    let log = fs::File::create(server.log()).unwrap();
    let file = log.metadata().unwrap();
    let stream = format!("{}:{}", file.dev(), file.ino());
    server.child =
        Some(server.program().env("JOURNAL_STREAM", stream).stderr(log).spawn().unwrap());
    snapshots::wait_until("the socket", || UnixStream::connect(server.socket()).is_ok());
    assert_eq!(server.down(), Some(0));
    let text = fs::read_to_string(server.log()).unwrap();
    assert!(text.lines().count() >= 2, "{text}");
    assert!(text.lines().all(|line| line.starts_with("<6> INFO ")), "{text}");
}

#[test]
fn it_ends_on_request_and_leaves_no_socket() {
    let Some(mut server) = server() else { return };
    // With a client that keeps its connection.
    let client = server.client();
    client.view("view", "").unwrap();
    assert_eq!(server.down(), Some(0));
    assert!(!server.socket().exists());
    assert!(client.stat("view").is_err());
    server.up();
    // The same client finds the new one, as containerd does.
    snapshots::wait_until("the connection", || client.stat("view").is_ok());
}

#[test]
fn a_socket_that_a_dead_one_left_is_replaced() {
    let Some(mut server) = server() else { return };
    server.client().view("view", "").unwrap();
    server.kill();
    assert!(server.socket().exists());
    server.up();
    assert_eq!(server.client().names(&[]), ["view"]);
}

#[test]
fn a_second_one_is_refused() {
    let Some(mut server) = server() else { return };
    let output = server.program().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("another snapshotter serves them"), "{said}");
    assert!(server.client().names(&[]).is_empty(), "the first one goes on");

    // Another store at the same socket, and a file in its place.
    let mut other = Server::start("fuse");
    assert_eq!(other.down(), Some(0));
    let mut program = other.program();
    program.arg("--address").arg(server.socket());
    let said = String::from_utf8(program.output().unwrap().stderr).unwrap();
    assert!(
        said.contains("another process listens there") || said.contains("cannot be used"),
        "{said}"
    );
    assert_eq!(server.down(), Some(0));
    fs::write(server.socket(), "precious").unwrap();
    let output = server.program().output().unwrap();
    assert!(!output.status.success());
    assert_eq!(fs::read_to_string(server.socket()).unwrap(), "precious");
}

#[test]
fn a_restart_forgets_nothing_and_disturbs_no_mount() {
    let Some(mut server) = server() else { return };
    let client = server.client();
    client.layer(&server, "base", "", |place| fs::write(place.join("file"), "x").unwrap());
    client.prepare_with("box", "base", &[("label", "value")]).unwrap();
    client.view("view", "base").unwrap();
    let (before, mounts) = (everything(&client), client.mounts("box").unwrap());
    let place = server.place("merged");
    let mounted = Mounted::new(&mounts, &place);
    for crash in [false, true] {
        if crash {
            server.kill();
        } else {
            assert_eq!(server.down(), Some(0));
        }
        fs::write(place.join(format!("written {crash}")), "").unwrap();
        server.up();
        let client = server.client();
        assert_eq!(everything(&client), before);
        assert_eq!(client.mounts("box").unwrap(), mounts);
        let second = server.place("second");
        let joined = Mounted::new(&mounts, &second);
        assert_eq!(names(&second), names(&place));
        drop(joined);
    }
    drop(mounted);
    server.client().commit("done", "box").unwrap();
}

/// Killed at random moments while clients work: each answered change is there afterwards.
#[test]
fn what_was_answered_survives_a_kill() {
    let Some(mut server) = server() else { return };
    let mut sure: Vec<String> = Vec::new();
    for round in 0..6 {
        let answered = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (client, answered) = (server.client(), &answered);
                scope.spawn(move || {
                    for n in 0.. {
                        let name = format!("{round}-{worker}-{n}");
                        let key = format!("key {name}");
                        if client.prepare(&key, "").is_err() || client.commit(&name, &key).is_err()
                        {
                            return;
                        }
                        answered.lock().unwrap().push(name);
                    }
                });
            }
            snapshots::wait_until("some answers", || answered.lock().unwrap().len() > 5);
            server.kill();
        });
        sure.extend(answered.into_inner().unwrap());
        server.up();
        let there = server.client().names(&["kind==committed"]);
        assert!(sure.iter().all(|name| there.contains(name)));
    }
    let client = server.client();
    for name in client.names(&[]) {
        client.remove(&name).unwrap();
    }
    client.cleanup().unwrap();
    assert!(server.listing("snapshots").is_empty() && server.listing("staging").is_empty());
}

#[test]
fn of_many_who_want_one_name_one_gets_it() {
    let Some(server) = server() else { return };
    let client = server.client();
    client.layer(&server, "base", "", |_| ());
    let workers = 8;
    for round in 0..10 {
        let barrier = Barrier::new(workers);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|_| {
                    let (client, barrier) = (server.client(), &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        client.prepare(&format!("key {round}"), "base").map_err(|e| e.code())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let refused = outcomes.into_iter().filter_map(Result::err);
        assert!(refused.into_iter().all(|code| code == Code::AlreadyExists));
        // Commits of it race with its removal: one of all wins, the others find nothing.
        let barrier = Barrier::new(workers);
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|n| {
                    let (client, barrier) = (server.client(), &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let key = format!("key {round}");
                        let outcome = match n {
                            0 => client.remove(&key),
                            n => client.commit(&format!("done {round}-{n}"), &key),
                        };
                        match outcome {
                            Ok(()) => 1,
                            Err(status) => {
                                assert_eq!(status.code(), Code::NotFound, "{status}");
                                0
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
        });
        assert_eq!(won, 1);
    }
}

/// A parent that is being removed never gets a child, and one that got a child stays.
#[test]
fn no_child_is_left_without_its_parent() {
    let Some(server) = server() else { return };
    for round in 0..20 {
        let client = server.client();
        client.layer(&server, "parent", "", |_| ());
        let barrier = Barrier::new(2);
        let (born, gone) = std::thread::scope(|scope| {
            let (one, two, barrier) = (server.client(), server.client(), &barrier);
            let birth = scope.spawn(move || {
                barrier.wait();
                one.prepare("child", "parent")
            });
            let removal = scope.spawn(move || {
                barrier.wait();
                two.remove("parent")
            });
            (birth.join().unwrap(), removal.join().unwrap())
        });
        assert_ne!(born.is_ok(), gone.is_ok(), "round {round}");
        match born {
            Ok(_) => {
                assert_eq!(code(gone), Code::FailedPrecondition);
                client.remove("child").unwrap();
                client.remove("parent").unwrap();
            }
            Err(status) => assert_eq!(status.code(), Code::NotFound),
        }
    }
}
