//! Content that is asked for by node alone, as on a mount whose kernel tells of no open file, and
//! writes that are to be durable at once. Without a mount.

#![expect(clippy::unwrap_used, reason = "a test stops at what is not so")]

mod support;

use std::ffi::OsStr;

use parking_lot::{Mutex, MutexGuard};
use plyfs::overlay::options::UpperOption;
use plyfs::overlay::{Entry, FileRef, NodeId, Options, Overlay};
use plyfs::sys::{OFlags, fault};
use support::Scene;

/// Steps are counted for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn open(scene: &Scene) -> (Overlay, MutexGuard<'static, ()>) {
    let upper = UpperOption { upperdir: scene.upper.clone(), workdir: scene.work.clone() };
    let options =
        Options { lowerdirs: scene.lowers.clone(), upper: Some(upper), ..Options::default() };
    (Overlay::new(&options).unwrap(), ALONE.lock())
}

fn lookup(fs: &Overlay, name: &str) -> Entry {
    fs.lookup(NodeId::ROOT, OsStr::new(name)).unwrap()
}

/// Steps that `work` took: calls that change something or make it durable.
fn steps(work: impl FnOnce()) -> u64 {
    fault::arm(u32::MAX, fault::Action::Stop);
    work();
    fault::disarm()
}

/// What one write asks for (`RWF_DSYNC`), the descriptor that it is made through need not have
/// been opened for; and a kernel that opens none says it with each write.
#[test]
fn a_write_that_is_to_be_durable_is_synced() {
    let scene = Scene::new("[lower]\nfile f content\n[upper]\nfile g content\n");
    let (fs, _alone) = open(&scene);
    for name in ["f", "g"] {
        let node = lookup(&fs, name).node;
        let opened = fs.open(node, OFlags::WRONLY, false).unwrap();
        let durable = fs.open(node, OFlags::WRONLY | OFlags::DSYNC, false).unwrap();
        for file in [opened.handle.into(), FileRef::Of(node)] {
            let write = |sync| steps(|| assert_eq!(fs.write(file, 0, b"x", sync).unwrap(), 1));
            let plain = write(OFlags::empty());
            for sync in [OFlags::DSYNC, OFlags::SYNC] {
                assert_eq!(write(sync), plain + 1, "{name}");
            }
        }
        let sync = OFlags::DSYNC;
        let written = steps(|| assert_eq!(fs.write(durable.handle.into(), 0, b"x", sync), Ok(1)));
        assert_eq!(written, 1, "its descriptor does it");
        fs.release(opened.handle);
        fs.release(durable.handle);
    }
}

/// On a mount whose kernel tells of no open file.
#[test]
fn content_is_served_by_the_node_alone() {
    let scene = Scene::new("[lower]\nfile f lower\nfile g lower\n");
    let (fs, _alone) = open(&scene);
    let entry = lookup(&fs, "f");
    let file = FileRef::Of(entry.node);
    let read = || {
        let mut buffer = [0; 64];
        let length = fs.read(file, 0, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(read(), "lower");
    assert!(!scene.upper.join("f").exists());
    assert_eq!(fs.write(file, 0, b"UP", OFlags::empty()), Ok(2));
    assert_eq!(read(), "UPwer");
    assert_eq!(std::fs::read(scene.lowers[0].join("f")).unwrap(), b"lower");

    // Without its last name it goes on, and is held no longer than the kernel knows it.
    fs.unlink(NodeId::ROOT, OsStr::new("f")).unwrap();
    assert_eq!(fs.write(file, 2, b"PER", OFlags::empty()), Ok(3));
    assert_eq!(read(), "UPPER");
    assert_eq!(fs.figures().implied_files, 1);
    fs.forget(entry.node, 1);
    assert_eq!((fs.figures().implied_files, fs.live_nodes()), (0, 1));

    // One of a lower that was never copied up, too.
    let entry = lookup(&fs, "g");
    let file = FileRef::Of(entry.node);
    fs.unlink(NodeId::ROOT, OsStr::new("g")).unwrap();
    assert_eq!(fs.write(file, 0, b"UPPER", OFlags::empty()), Ok(5));
    assert_eq!(std::fs::read(scene.lowers[0].join("g")).unwrap(), b"lower");
    fs.forget(entry.node, 1);
    assert_eq!(fs.live_nodes(), 1);
}

#[test]
fn descriptors_of_nodes_alone_are_bounded() {
    let scene = Scene::new("[lower]\n");
    (0..2000).for_each(|n| std::fs::write(scene.lowers[0].join(format!("f{n}")), "x").unwrap());
    let (fs, _alone) = open(&scene);
    let mut nodes = Vec::new();
    for n in 0..2000 {
        let node = lookup(&fs, &format!("f{n}")).node;
        assert_eq!(fs.read(FileRef::Of(node), 0, &mut [0; 4]), Ok(1));
        nodes.push(node);
    }
    assert!((1..=1024).contains(&fs.figures().implied_files), "{}", fs.figures().implied_files);
    nodes.into_iter().for_each(|node| fs.forget(node, 1));
    assert_eq!((fs.figures().implied_files, fs.live_nodes()), (0, 1));
}
