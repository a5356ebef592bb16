//! A registry on loopback, and a line to it that can be cut.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Debian's docker-registry on a free port of its own, with a directory of its own.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
}

/// bcrypt of "secret".
const HTPASSWD: &str = "me:$2b$04$Wb8L0xQTsNnYOGwDTQ3IcuVrH6FNt8ojzCQtpxbJ8TL9bINMsTYrS\n";

impl Registry {
    pub(crate) fn start() -> Registry {
        Registry::start_with("")
    }

    /// One that lets only the user `me` with the password `secret` in.
    pub(crate) fn start_guarded() -> Registry {
        Registry::start_with("auth: { htpasswd: { realm: test, path: HTPASSWD } }\n")
    }

    fn start_with(auth: &str) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let htpasswd = dir.path().join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).unwrap();
        for _ in 0..20 {
            // Somebody else may take the port before the registry does: then another one.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
                 storage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
                 http: {{ addr: \"127.0.0.1:{port}\" }}\n{}",
                dir.path().join("storage").display(),
                auth.replace("HTPASSWD", htpasswd.to_str().unwrap()),
            );
            let path = dir.path().join("config.yml");
            fs::write(&path, config).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Registry { child, port, dir };
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("docker-registry does not start");
    }

    /// The name of a repository in it.
    pub(crate) fn name(&self, path: &str) -> String {
        format!("127.0.0.1:{}/{path}", self.port)
    }

    /// The file of a blob, by its hex digits.
    pub(crate) fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Puts a manifest or index there; returns the status line.
    pub(crate) fn put(&self, path: &str, media_type: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a [`Line`] does when it has carried so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The connection breaks.
    Break,
    /// Nothing comes any more, but the connection stays.
    Stall,
}

/// A line to a registry: carries everything, but of the answers to all connections together only
/// so many bytes, until it is repaired.
pub(crate) struct Line {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    left: AtomicU64,
    whole: AtomicBool,
    then: Then,
    stalled: AtomicBool,
    /// Bytes of answers that were carried.
    carried: AtomicU64,
    /// What was asked for with a Range.
    ranges: Mutex<Vec<String>>,
}

impl Line {
    pub(crate) fn to(registry: &Registry, bytes: u64, then: Then) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            left: AtomicU64::new(bytes),
            whole: AtomicBool::new(false),
            then,
            stalled: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            ranges: Mutex::default(),
        });
        let (shared, target) = (Arc::clone(&state), registry.port);
        thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { return };
                carry(near, far, &shared);
            }
        });
        Line { port, state }
    }

    pub(crate) fn name(&self, path: &str) -> String {
        format!("127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) fn repair(&self) {
        self.state.whole.store(true, Ordering::SeqCst);
        self.state.carried.store(0, Ordering::SeqCst);
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.state.stalled.load(Ordering::SeqCst)
    }

    pub(crate) fn carried(&self) -> u64 {
        self.state.carried.load(Ordering::SeqCst)
    }

    pub(crate) fn ranges(&self) -> Vec<String> {
        self.state.ranges.lock().unwrap().clone()
    }
}

fn carry(near: TcpStream, far: TcpStream, state: &Arc<State>) {
    let (mut asking, mut asked) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let shared = Arc::clone(state);
    thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        while let Ok(n @ 1..) = asking.read(&mut buffer) {
            for line in String::from_utf8_lossy(&buffer[..n]).lines() {
                if line.to_lowercase().starts_with("range:") {
                    shared.ranges.lock().unwrap().push(line.to_owned());
                }
            }
            if asked.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        // The other side is gone already where this fails.
        drop(asked.shutdown(Shutdown::Write));
    });
    let (mut answering, mut answered) = (far, near);
    let shared = Arc::clone(state);
    thread::spawn(move || {
        let mut buffer = [0; 8 << 10];
        while let Ok(n @ 1..) = answering.read(&mut buffer) {
            if !shared.whole.load(Ordering::SeqCst) {
                let take = |left: u64| Some(left.saturating_sub(n as u64));
                let order = Ordering::SeqCst;
                let left = shared.left.fetch_update(order, order, take).unwrap();
                if left < n as u64 {
                    match shared.then {
                        Then::Break => {
                            // Once: the next connection is whole.
                            shared.whole.store(true, Ordering::SeqCst);
                            drop(answered.shutdown(Shutdown::Both));
                            return;
                        }
                        Then::Stall => {
                            shared.stalled.store(true, Ordering::SeqCst);
                            // Until whoever waits goes away.
                            while !shared.whole.load(Ordering::SeqCst) {
                                thread::sleep(Duration::from_millis(10));
                            }
                            return;
                        }
                    }
                }
            }
            shared.carried.fetch_add(n as u64, Ordering::SeqCst);
            if answered.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        drop(answered.shutdown(Shutdown::Write));
    });
}
