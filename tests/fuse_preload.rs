//! Small files of a lower come along with their first opening; what is written later counts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::Path;

use plyfs::fuse::control::Control;
use support::{Driver, Scene, ready};

fn able() -> bool {
    ready() && Driver::under_test() == Driver::Plyfs
}

/// A content of which every byte depends on its place and on `seed`.
fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|i| (i / 251) as u8 ^ (i % 251) as u8 ^ seed).collect()
}

fn reads(mount: &Path) -> u64 {
    Control::open(mount).unwrap().snapshot().unwrap().count("read")
}

#[expect(unsafe_code, reason = "truncate(2) by path has no safe wrapper")]
fn truncate(path: &Path, size: i64) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the path is a NUL-terminated string that lives over the call.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), size) }, 0);
}

#[test]
fn small_files_are_read_without_a_request_to_read() {
    if !able() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\n");
    let sizes = [0, 1, 4095, 4096, 4097, 40_000, 65_536];
    for size in sizes.into_iter().chain([65_537]) {
        fs::write(scene.lowers[0].join(format!("f{size}")), content(size, 0)).unwrap();
    }
    let mount = scene.mount();
    for size in sizes {
        assert!(fs::read(mount.path(format!("f{size}"))).unwrap() == content(size, 0), "{size}");
    }
    // An empty file has nothing to give, and the kernel asks whether that is so. Where it opens
    // files without asking, nothing comes with an opening, and one READ does.
    let asked = reads(mount.root());
    let most = if support::rootless() { sizes.len() as u64 } else { 1 };
    assert!(asked <= most, "{asked} READs for files that fit");
    assert!(fs::read(mount.path("f65537")).unwrap() == content(65_537, 0));
    assert!(reads(mount.root()) > asked, "the large one is read");
}

#[test]
fn what_is_written_later_counts() {
    if !able() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\n");
    fs::write(scene.lowers[0].join("f"), content(9000, 1)).unwrap();
    let mount = scene.mount();
    let path = mount.path("f");
    let mut before = File::open(&path).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let mut seen = Vec::new();
    before.read_to_end(&mut seen).unwrap();
    assert!(seen == content(9000, 1)[..100], "{} bytes", seen.len());
    fs::write(&path, content(5000, 2)).unwrap();
    assert!(fs::read(&path).unwrap() == content(5000, 2));
    assert!(fs::read(scene.lowers[0].join("f")).unwrap() == content(9000, 1));
}

#[test]
fn an_opening_that_races_with_a_change_leaves_the_change() {
    if !able() {
        return;
    }
    let scene = Scene::new("[lower]\ndir d\n");
    const FILES: usize = 300;
    for i in 0..FILES {
        fs::write(scene.lowers[0].join(format!("f{i}")), content(9000, 1)).unwrap();
    }
    let mount = scene.mount();
    for i in 0..FILES {
        let path = mount.path(format!("f{i}"));
        std::thread::scope(|scope| {
            scope.spawn(|| fs::read(&path).unwrap());
            scope.spawn(|| match i % 2 {
                // By path: no descriptor of its own is open before.
                0 => truncate(&path, 100),
                _ => fs::write(&path, content(5000, 2)).unwrap(),
            });
        });
        let wanted = if i % 2 == 0 { content(9000, 1)[..100].to_vec() } else { content(5000, 2) };
        assert!(fs::metadata(&path).unwrap().len() == wanted.len() as u64, "size of f{i}");
        assert!(fs::read(&path).unwrap() == wanted, "content of f{i}");
    }
}
