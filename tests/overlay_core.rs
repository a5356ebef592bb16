//! The merged filesystem without a mount: each verb once, through node numbers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at what is not as expected"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use plyfs::error::Errno;
use plyfs::overlay::options::UpperOption;
use plyfs::overlay::{Caller, Entry, NodeId, Options, Overlay, SetAttr, With};
use plyfs::sys::{OFlags, RenameFlags};

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1 };

fn n(name: &str) -> &OsStr {
    OsStr::new(name)
}

struct Stack {
    dir: tempfile::TempDir,
}

impl Stack {
    fn new() -> Stack {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["l1/d/sub", "l2/d/sub", "u", "w"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("l1/d/top"), "from l1").unwrap();
        fs::write(dir.path().join("l2/d/top"), "from l2").unwrap();
        fs::write(dir.path().join("l2/d/low"), "only l2").unwrap();
        fs::write(dir.path().join("l2/d/sub/x"), "x").unwrap();
        symlink("low", dir.path().join("l2/d/link")).unwrap();
        Stack { dir }
    }

    fn path(&self, sub: &str) -> std::path::PathBuf {
        self.dir.path().join(sub)
    }

    fn open(&self) -> Overlay {
        let options = Options {
            lowerdirs: vec![self.path("l1"), self.path("l2")],
            upper: Some(UpperOption { upperdir: self.path("u"), workdir: self.path("w") }),
            // Without root's rights it is by wish alone.
            metacopy: support::rootless().then_some(true),
            ..Options::default()
        };
        Overlay::new(&options).unwrap()
    }
}

fn walk(fs: &Overlay, path: &str) -> Result<Entry, Errno> {
    let mut at = Entry { node: NodeId::ROOT, stat: fs.getattr(NodeId::ROOT, None).unwrap() };
    for part in path.split('/') {
        at = fs.lookup(at.node, n(part))?;
    }
    Ok(at)
}

fn names(fs: &Overlay, path: &str) -> Vec<String> {
    let dir = if path.is_empty() { NodeId::ROOT } else { walk(fs, path).unwrap().node };
    let mut names = Vec::new();
    fs.readdir(dir, 0, With::Nothing, &mut |entry| {
        names.push(entry.name.to_string_lossy().into_owned());
        true
    })
    .unwrap();
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

fn content(fs: &Overlay, path: &str) -> String {
    let file = walk(fs, path).unwrap();
    let opened = fs.open(file.node, OFlags::RDONLY, false).unwrap();
    let mut buffer = vec![0; 4096];
    let length = fs.read(opened.handle.into(), 0, &mut buffer).unwrap();
    fs.release(opened.handle);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[test]
fn lookup_takes_the_topmost_and_merges_directories() {
    let stack = Stack::new();
    let fs = stack.open();
    assert_eq!(content(&fs, "d/top"), "from l1");
    assert_eq!(content(&fs, "d/low"), "only l2");
    assert_eq!(names(&fs, "d"), ["link", "low", "sub", "top"]);
    assert_eq!(names(&fs, "d/sub"), ["x"]);
    assert_eq!(walk(&fs, "d/none").unwrap_err(), Errno::NOENT);
    assert_eq!(fs.readlink(walk(&fs, "d/link").unwrap().node).unwrap(), "low");
}

#[test]
fn a_write_copies_up_and_an_old_reader_sees_it() {
    let stack = Stack::new();
    let fs = stack.open();
    let low = walk(&fs, "d/low").unwrap();
    let reader = fs.open(low.node, OFlags::RDONLY, false).unwrap();
    let writer = fs.open(low.node, OFlags::RDWR, false).unwrap();
    assert_eq!(fs.write(writer.handle.into(), 0, b"ONLY", OFlags::empty()).unwrap(), 4);
    let mut buffer = [0; 7];
    assert_eq!(fs.read(reader.handle.into(), 0, &mut buffer).unwrap(), 7);
    assert_eq!(&buffer, b"ONLY l2");
    assert_eq!(fs::read(stack.path("l2/d/low")).unwrap(), b"only l2");
    assert_eq!(fs::read(stack.path("u/d/low")).unwrap(), b"ONLY l2");
    assert_eq!(walk(&fs, "d/low").unwrap().stat.ino, low.stat.ino);
    assert_eq!(walk(&fs, "d/low").unwrap().node, low.node);
    drop(fs);
    let again = stack.open();
    assert_eq!(walk(&again, "d/low").unwrap().stat.ino, low.stat.ino);
}

/// The kernel is told of another mode where there is one: each such message makes it ask again.
#[test]
fn who_cuts_a_file_off_ends_its_privileges_once() {
    let stack = Stack::new();
    let fs = stack.open();
    let low = walk(&fs, "d/low").unwrap();
    fs.setattr(&ROOT, low.node, None, &SetAttr { mode: Some(0o104_755), ..SetAttr::default() })
        .unwrap();
    let cut_off = |by_another| {
        let opened = fs.open(low.node, OFlags::WRONLY | OFlags::TRUNC, by_another).unwrap();
        fs.release(opened.handle);
        (opened.mode_changed, fs.getattr(low.node, None).unwrap().mode)
    };
    // To the kernel below, root of a user namespace is another one at any time.
    if !support::rootless() {
        assert_eq!(cut_off(false), (false, 0o104_755));
    }
    assert_eq!(cut_off(true), (true, 0o100_755));
    assert_eq!(cut_off(true), (false, 0o100_755));
}

#[test]
fn removal_leaves_whiteouts_only_where_needed() {
    let stack = Stack::new();
    let fs = stack.open();
    let d = walk(&fs, "d").unwrap().node;
    fs.unlink(d, n("low")).unwrap();
    assert!(is_whiteout(&stack.path("u/d/low")));
    let (made, opened) = fs.create(&ROOT, d, n("new"), 0o644, 0o022, OFlags::RDWR).unwrap();
    assert_eq!(made.stat.mode & 0o7777, 0o644);
    fs.release(opened.handle);
    fs.unlink(d, n("new")).unwrap();
    assert!(!stack.path("u/d/new").exists());
    assert_eq!(fs.rmdir(d, n("sub")), Err(Errno::NOTEMPTY));
    let sub = walk(&fs, "d/sub").unwrap().node;
    fs.unlink(sub, n("x")).unwrap();
    fs.rmdir(d, n("sub")).unwrap();
    assert!(is_whiteout(&stack.path("u/d/sub")));
    fs.mkdir(&ROOT, d, n("sub"), 0o755, 0).unwrap();
    assert_eq!(names(&fs, "d/sub"), [""; 0]);
    assert_eq!(names(&fs, "d"), ["link", "sub", "top"]);
    drop(fs);
    assert_eq!(names(&stack.open(), "d/sub"), [""; 0]);
}

/// The kernel asks for `security.capability` before the first write to each file.
#[test]
fn a_new_file_is_known_to_have_no_xattrs() {
    let stack = Stack::new();
    let fs = stack.open();
    let capability = n("security.capability");
    for name in ["first", "second"] {
        let flags = OFlags::WRONLY;
        let (entry, opened) = fs.create(&ROOT, NodeId::ROOT, n(name), 0o644, 0, flags).unwrap();
        fs.release(opened.handle);
        assert_eq!(fs.getxattr(entry.node, capability, &mut []), Err(Errno::NODATA));
        if name == "first" {
            let (set, none) = (n("user.a"), rustix::fs::XattrFlags::empty());
            fs.setxattr(entry.node, set, b"1", none, false).unwrap();
            assert_eq!(fs.getxattr(entry.node, set, &mut [0; 8]), Ok(1));
        }
    }
    // Unless they are labelled.
    let bare = fs.listxattr(walk(&fs, "second").unwrap().node).unwrap().is_empty();
    assert_eq!(fs.figures().xattrs.hits, if bare { 2 } else { 0 });
}

#[test]
fn a_lower_directory_is_renamed_by_redirect() {
    let stack = Stack::new();
    let fs = stack.open();
    let none = RenameFlags::empty();
    fs.rename(NodeId::ROOT, n("d"), NodeId::ROOT, n("e"), none).unwrap();
    let e = walk(&fs, "e").unwrap().node;
    fs.rename(e, n("sub"), NodeId::ROOT, n("s"), none).unwrap();
    let check = |fs: &Overlay| {
        assert_eq!(names(fs, ""), ["e", "s"]);
        assert_eq!(names(fs, "e"), ["link", "low", "top"]);
        assert_eq!(content(fs, "e/top"), "from l1");
        assert_eq!(content(fs, "s/x"), "x");
    };
    check(&fs);
    drop(fs);
    check(&stack.open());
}

#[test]
fn attributes_and_links_reach_the_upper() {
    let stack = Stack::new();
    let fs = stack.open();
    let d = walk(&fs, "d").unwrap().node;
    let top = walk(&fs, "d/top").unwrap();
    let set = SetAttr { mode: Some(0o600), size: Some(4), ..SetAttr::default() };
    let stat = fs.setattr(&ROOT, top.node, None, &set).unwrap();
    assert_eq!((stat.mode & 0o7777, stat.size, stat.ino), (0o600, 4, top.stat.ino));
    let linked = fs.link(top.node, d, n("hard")).unwrap();
    assert_eq!((linked.node, linked.stat.nlink), (top.node, 2));
    assert_eq!(content(&fs, "d/hard"), "from");
    fs.unlink(d, n("top")).unwrap();
    assert_eq!(content(&fs, "d/hard"), "from");
    fs.unlink(d, n("hard")).unwrap();
    assert_eq!(fs.getattr(top.node, None).unwrap().nlink, 0);
}

#[test]
fn names_of_a_lower_hard_link_stay_together_over_a_remount() {
    let stack = Stack::new();
    fs::hard_link(stack.path("l2/d/low"), stack.path("l2/d/other")).unwrap();
    fs::hard_link(stack.path("l2/d/low"), stack.path("l2/third")).unwrap();
    let fs = stack.open();
    fs.unlink(NodeId::ROOT, n("third")).unwrap();
    let low = walk(&fs, "d/low").unwrap();
    assert_eq!(low.stat.nlink, 2);
    let writer = fs.open(low.node, OFlags::WRONLY, false).unwrap();
    fs.write(writer.handle.into(), 0, b"BOTH", OFlags::empty()).unwrap();
    assert_eq!(content(&fs, "d/other"), "BOTH l2");
    drop(fs);

    let fs = stack.open();
    let d_again = walk(&fs, "d").unwrap().node;
    let other = walk(&fs, "d/other").unwrap();
    assert_eq!((other.stat.ino, other.stat.nlink), (low.stat.ino, 2));
    assert_eq!(content(&fs, "d/other"), "BOTH l2");
    fs.rename(d_again, n("other"), d_again, n("moved"), RenameFlags::empty()).unwrap();
    fs.unlink(d_again, n("low")).unwrap();
    let moved = walk(&fs, "d/moved").unwrap();
    assert_eq!((moved.stat.ino, moved.stat.nlink), (low.stat.ino, 1));
    assert_eq!(content(&fs, "d/moved"), "BOTH l2");
    fs.unlink(d_again, n("moved")).unwrap();
    assert_eq!(fs::read_dir(stack.path("w/index")).unwrap().count(), 0);
    assert_eq!(fs::read(stack.path("l2/d/low")).unwrap(), b"only l2");
}

#[test]
fn a_change_of_attributes_of_a_large_file_copies_no_data() {
    let stack = Stack::new();
    let large = vec![b'x'; 3 << 20];
    fs::write(stack.path("l2/d/large"), &large).unwrap();
    let fs = stack.open();
    let d = walk(&fs, "d").unwrap().node;
    let file = walk(&fs, "d/large").unwrap();
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    fs.setattr(&ROOT, file.node, None, &set).unwrap();
    let meta = fs::metadata(stack.path("u/d/large")).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o777), (3 << 20, 0o600));
    assert!(meta.blocks() <= 8, "{} blocks were copied", meta.blocks());
    fs.rename(d, n("large"), NodeId::ROOT, n("moved"), RenameFlags::empty()).unwrap();
    assert_eq!(content(&fs, "moved"), "x".repeat(4096));
    drop(fs);

    let fs = stack.open();
    assert_eq!(content(&fs, "moved"), "x".repeat(4096));
    let moved = walk(&fs, "moved").unwrap();
    assert_eq!(moved.stat.ino, file.stat.ino);
    let reader = fs.open(moved.node, OFlags::RDONLY, false).unwrap();
    let writer = fs.open(moved.node, OFlags::RDWR, false).unwrap();
    fs.write(writer.handle.into(), 1, b"Y", OFlags::empty()).unwrap();
    let mut buffer = [0; 3];
    fs.read(reader.handle.into(), 0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"xYx");
    assert_eq!(fs::read(stack.path("l2/d/large")).unwrap(), large);
    drop(fs);
    assert_eq!(walk(&stack.open(), "moved").unwrap().stat.size, 3 << 20);
}

#[test]
fn forgotten_nodes_go() {
    let stack = Stack::new();
    let fs = stack.open();
    let before = fs.live_nodes();
    let d = fs.lookup(NodeId::ROOT, n("d")).unwrap();
    let low = fs.lookup(d.node, n("low")).unwrap();
    // The parent is forgotten first; it goes with its last child.
    fs.forget(d.node, 1);
    fs.forget(low.node, 1);
    assert_eq!(fs.live_nodes(), before);
    fs.shutdown();
    assert_eq!(fs::read_dir(stack.path("w")).unwrap().count(), 0);
}
