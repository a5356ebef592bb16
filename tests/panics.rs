//! A mistake of ours that ends a request in a panic: its caller gets EIO, the mount goes on, and
//! the end of the daemon says how often it happened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as expected"
)]

mod support;

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use plyfs::fuse::Session;
use plyfs::overlay::Overlay;
use plyfs::overlay::options::UpperOption;
use plyfs::sys::fault::{self, Action};
use rustix::io::Errno;
use support::{Scene, refused, require};

/// What was logged so far.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_is_answered_with_eio_and_the_mount_goes_on() {
    if !(require("root") && require("fuse")) {
        return;
    }
    let log = Log::default();
    let sink = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone()).init();
    let scene = Scene::new("[lower]\nfile a content\nfile b other\n");
    let upper = UpperOption { upperdir: scene.upper.clone(), workdir: scene.work.clone() };
    let lowerdirs = scene.lowers.clone();
    let options = plyfs::overlay::Options { lowerdirs, upper: Some(upper), ..Default::default() };
    let overlay = Arc::new(Overlay::new(&options).unwrap());
    // In this process, so that the seam of the test is the daemon's; its threads give up rights of
    // their own alone.
    let (sender, ready) = std::sync::mpsc::channel();
    let (served, place) = (Arc::clone(&overlay), scene.mountpoint.clone());
    let daemon = std::thread::spawn(move || {
        let session = Session::mount(served, &options, &place).unwrap();
        sender.send((session.stopper(), session.observer())).unwrap();
        session.serve()
    });
    let (stopper, observer) = ready.recv().unwrap();

    for (n, name) in ["a", "b"].into_iter().enumerate() {
        fault::arm(0, Action::Panic);
        let answer = fs::OpenOptions::new().append(true).open(scene.merged(name));
        fault::disarm();
        assert_eq!(refused(answer), Errno::IO);
        assert_eq!(observer.snapshot().panics, n as u64 + 1);
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let told = logged.lines().filter(|line| line.contains("a request ended in a panic"));
    assert_eq!(told.filter(|line| line.contains("operation=\"open\"")).count(), 2, "{logged}");
    assert_eq!(fs::read_to_string(scene.merged("a")).unwrap(), "content");
    fs::write(scene.merged("a"), "changed").unwrap();
    assert_eq!(fs::read_to_string(scene.merged("a")).unwrap(), "changed");

    stopper.stop();
    let said = daemon.join().unwrap().unwrap_err().to_string();
    assert!(said.contains("2 requests ended in a panic"), "{said}");
    overlay.shutdown();
    assert!(!scene.work.join("work").exists());
}
