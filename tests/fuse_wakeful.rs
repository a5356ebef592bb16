//! Processors are kept awake while requests come one after the other, and only then.
//!
//! One test, in a file of its own: what is asked for holds for the whole machine, so that no mount of
//! another test may be at work beside it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use plyfs::fuse::control::Control;
use support::{Driver, Options, Scene, ready};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// What all processes together ask for now, in microseconds.
fn asked() -> i32 {
    let mut number = [0; 4];
    fs::File::open(DEVICE).unwrap().read_exact(&mut number).unwrap();
    i32::from_ne_bytes(number)
}

fn times(mount: &Path) -> u64 {
    Control::open(mount).unwrap().snapshot().unwrap().kept_awake
}

/// Makes requests one after the other until `enough`, or for so long.
fn busy(path: &Path, longest: Duration, mut enough: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < longest {
        for _ in 0..50 {
            // Each is a request: the kernel keeps no xattrs.
            rustix::fs::getxattr(path, c"user.none", &mut [0; 8]).unwrap_err();
        }
        if enough() {
            return true;
        }
    }
    false
}

#[test]
fn processors_are_kept_awake_while_requests_come_and_no_longer() {
    if !ready() || Driver::under_test() != Driver::Plyfs {
        return;
    }
    let scene = Scene::new("[lower]\nfile f x\n");
    let by = |option: &str| scene.mount_by(Driver::Plyfs, &Options::with(&[option]));
    let moment = Duration::from_millis(50);

    let mount = by("cpu_latency=off");
    busy(&mount.path("f"), moment, || false);
    assert_eq!(times(mount.root()), 0);
    drop(mount);

    let mount = by("cpu_latency=1");
    // Rootless, and in a container without it, nothing can be decided for the whole machine.
    if fs::File::options().write(true).open(DEVICE).is_err() {
        assert!(!busy(&mount.path("f"), moment, || times(mount.root()) > 0));
        return;
    }
    let longest = Duration::from_secs(20);
    assert!(busy(&mount.path("f"), longest, || asked() <= 1), "never asked for");
    assert!(times(mount.root()) >= 1);
    let start = Instant::now();
    while asked() <= 1 {
        assert!(start.elapsed() < longest, "still asked for, although nothing is done");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(busy(&mount.path("f"), longest, || asked() <= 1), "not asked for again");
}
