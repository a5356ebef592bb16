//! Every mutating verb in every situation that takes another path through the code.

use std::ffi::OsStr;
use std::path::Path;

use plyfs::error::{Errno, FsResult};
use plyfs::overlay::{Caller, Entry, NodeId, Overlay, SetAttr, SetTime};
use plyfs::sys::stat::Time;
use plyfs::sys::{OFlags, RenameFlags};
use rustix::fs::XattrFlags;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const FIFO: u32 = 0o010_000;
const CHAR: u32 = 0o020_000;

/// One verb in one situation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What goes before, unharmed.
    pub(crate) before: fn(&Overlay) -> FsResult<()>,
    pub(crate) act: fn(&Overlay) -> FsResult<()>,
}

impl Case {
    /// Whether data comes into a file whose attributes are in the upper already.
    pub(crate) fn comes_later(&self) -> bool {
        self.name.contains("after attributes")
    }
}

fn nothing(_: &Overlay) -> FsResult<()> {
    Ok(())
}

fn walk(fs: &Overlay, path: &str) -> FsResult<Entry> {
    let mut at = Entry { node: NodeId::ROOT, stat: fs.getattr(NodeId::ROOT, None)? };
    for part in Path::new(path) {
        at = fs.lookup(at.node, part)?;
    }
    Ok(at)
}

fn place(path: &str) -> (&str, &OsStr) {
    let path = Path::new(path);
    (path.parent().unwrap().to_str().unwrap(), path.file_name().unwrap())
}

fn open_to_write(fs: &Overlay, path: &str) -> FsResult<()> {
    let opened = fs.open(walk(fs, path)?.node, OFlags::RDWR, false)?;
    fs.release(opened.handle);
    Ok(())
}

fn write(fs: &Overlay, path: &str, offset: u64) -> FsResult<()> {
    let opened = fs.open(walk(fs, path)?.node, OFlags::RDWR, false)?;
    let written = fs.write(opened.handle.into(), offset, b"written", OFlags::empty());
    fs.release(opened.handle);
    written.map(drop)
}

fn set(fs: &Overlay, path: &str, set: &SetAttr) -> FsResult<()> {
    fs.setattr(&ROOT, walk(fs, path)?.node, None, set).map(drop)
}

fn chmod(fs: &Overlay, path: &str) -> FsResult<()> {
    set(fs, path, &SetAttr { mode: Some(0o700), ..SetAttr::default() })
}

fn truncate(fs: &Overlay, path: &str, size: u64) -> FsResult<()> {
    set(fs, path, &SetAttr { size: Some(size), ..SetAttr::default() })
}

fn unlink(fs: &Overlay, path: &str) -> FsResult<()> {
    let (dir, name) = place(path);
    fs.unlink(walk(fs, dir)?.node, name)
}

fn rmdir(fs: &Overlay, path: &str) -> FsResult<()> {
    let (dir, name) = place(path);
    fs.rmdir(walk(fs, dir)?.node, name)
}

fn rename_with(fs: &Overlay, from: &str, to: &str, flags: RenameFlags) -> FsResult<()> {
    let ((from_dir, from), (to_dir, to)) = (place(from), place(to));
    let (from_dir, to_dir) = (walk(fs, from_dir)?.node, walk(fs, to_dir)?.node);
    fs.rename(from_dir, from, to_dir, to, flags)
}

fn rename(fs: &Overlay, from: &str, to: &str) -> FsResult<()> {
    rename_with(fs, from, to, RenameFlags::empty())
}

fn exchange(fs: &Overlay, from: &str, to: &str) -> FsResult<()> {
    rename_with(fs, from, to, RenameFlags::EXCHANGE)
}

fn link(fs: &Overlay, from: &str, to: &str) -> FsResult<()> {
    let (dir, name) = place(to);
    fs.link(walk(fs, from)?.node, walk(fs, dir)?.node, name).map(drop)
}

fn create_as(fs: &Overlay, caller: &Caller, path: &str) -> FsResult<()> {
    let (dir, name) = place(path);
    let flags = OFlags::CREATE | OFlags::RDWR;
    let (_, opened) = fs.create(caller, walk(fs, dir)?.node, name, 0o100_644, 0o022, flags)?;
    fs.release(opened.handle);
    Ok(())
}

fn create(fs: &Overlay, path: &str) -> FsResult<()> {
    create_as(fs, &ROOT, path)
}

fn mkdir(fs: &Overlay, path: &str) -> FsResult<()> {
    let (dir, name) = place(path);
    fs.mkdir(&ROOT, walk(fs, dir)?.node, name, 0o755, 0).map(drop)
}

fn symlink(fs: &Overlay, path: &str) -> FsResult<()> {
    let (dir, name) = place(path);
    fs.symlink(&ROOT, walk(fs, dir)?.node, name, OsStr::new("target")).map(drop)
}

fn mknod(fs: &Overlay, path: &str, mode: u32, rdev: u32) -> FsResult<()> {
    let (dir, name) = place(path);
    fs.mknod(&ROOT, walk(fs, dir)?.node, name, mode, 0, rdev).map(drop)
}

/// A file without a name, written to, gets one.
fn unnamed(fs: &Overlay, path: &str) -> FsResult<()> {
    let (dir, name) = place(path);
    let dir = walk(fs, dir)?.node;
    let (entry, opened) = fs.tmpfile(&ROOT, dir, 0o100_600, 0, OFlags::RDWR)?;
    let linked = fs
        .write(opened.handle.into(), 0, b"unnamed", OFlags::empty())
        .and_then(|_| fs.link(entry.node, dir, name).map(drop));
    fs.release(opened.handle);
    linked
}

fn set_xattr(fs: &Overlay, path: &str, name: &str) -> FsResult<()> {
    let node = walk(fs, path)?.node;
    fs.setxattr(node, OsStr::new(name), b"set", XattrFlags::empty(), false)
}

/// A default ACL that gives a further group all rights, as setfacl writes it.
fn inheriting(fs: &Overlay) -> FsResult<()> {
    const ALL: u16 = 7;
    let entries: [(u16, u16, u32); 5] =
        [(1, ALL, !0), (4, ALL, !0), (8, ALL, 44), (16, ALL, !0), (32, 5, !0)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    let node = walk(fs, "d")?.node;
    let name = OsStr::new("system.posix_acl_default");
    fs.setxattr(node, name, &acl, XattrFlags::empty(), false)
}

/// Everything in a lower directory is removed.
fn emptied(fs: &Overlay) -> FsResult<()> {
    unlink(fs, "hollow/none").or(Ok::<_, Errno>(()))?;
    for path in ["d/sub/a", "d/sub/c", "d/sub/deep/er/b"] {
        unlink(fs, path)?;
    }
    rmdir(fs, "d/sub/deep/er")?;
    rmdir(fs, "d/sub/deep")
}

fn fallocate(fs: &Overlay, path: &str) -> FsResult<()> {
    let opened = fs.open(walk(fs, path)?.node, OFlags::RDWR, false)?;
    let done = fs.fallocate(opened.handle.into(), 0, 0, 1 << 16);
    fs.release(opened.handle);
    done
}

/// Changes an open lower file that has no name any more.
fn orphan(fs: &Overlay) -> FsResult<()> {
    let file = walk(fs, "d/small")?;
    let opened = fs.open(file.node, OFlags::RDONLY, false)?;
    let changed = unlink(fs, "d/small").and_then(|()| {
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        fs.setattr(&ROOT, file.node, Some(opened.handle), &set).map(drop)
    });
    fs.release(opened.handle);
    changed
}

macro_rules! cases {
    ($($name:literal $(after $before:expr)? => $act:expr;)*) => {
        &[$(Case { name: $name, before: cases!(@before $($before)?), act: $act },)*]
    };
    (@before) => { nothing };
    (@before $before:expr) => { $before };
}

/// All of them.
#[rustfmt::skip]
pub(crate) const CASES: &[Case] = cases! {
    "open a small file to write" => |fs| open_to_write(fs, "d/small");
    "open a large file to write" => |fs| open_to_write(fs, "d/big");
    "open a sparse file to write" => |fs| open_to_write(fs, "d/sparse");
    "open an empty file to write" => |fs| open_to_write(fs, "d/empty");
    "open a file below lower directories" => |fs| open_to_write(fs, "d/sub/deep/er/b");
    "open a hard link to write" => |fs| open_to_write(fs, "d/h2");
    "write" => |fs| write(fs, "d/small", 3);
    "write to a large file" => |fs| write(fs, "d/big", 600_000);
    "data after attributes" after |fs| chmod(fs, "d/big") => |fs| open_to_write(fs, "d/big");
    "sparse data after attributes" after |fs| chmod(fs, "d/sparse")
        => |fs| open_to_write(fs, "d/sparse");
    "data of a hard link after attributes" after |fs| chmod(fs, "d/h1")
        => |fs| open_to_write(fs, "d/h2");
    "change the mode" => |fs| chmod(fs, "d/small");
    "change the mode of a large file" => |fs| chmod(fs, "d/big");
    "change the mode of a hard link" => |fs| chmod(fs, "d/h1");
    "change the mode of a directory" => |fs| chmod(fs, "d/sub");
    "change the mode of a fifo" => |fs| chmod(fs, "d/fifo");
    "change the mode of a device" => |fs| chmod(fs, "d/dev");
    "change an owner" => |fs| set(fs, "d/link", &SetAttr { uid: Some(8), ..SetAttr::default() });
    "change times" => |fs| {
        let time = Some(SetTime::At(Time { sec: 77, nsec: 5 }));
        set(fs, "d/small", &SetAttr { atime: time, mtime: time, ..SetAttr::default() })
    };
    "truncate" => |fs| truncate(fs, "d/small", 4);
    "truncate a large file" => |fs| truncate(fs, "d/big", 700_000);
    "truncate to nothing" => |fs| truncate(fs, "d/big", 0);
    "grow" => |fs| truncate(fs, "d/small", 100_000);
    "truncate after attributes" after |fs| chmod(fs, "d/big") => |fs| truncate(fs, "d/big", 5_000);
    "set an xattr" => |fs| set_xattr(fs, "d/small", "user.new");
    "set an xattr of a large file" => |fs| set_xattr(fs, "d/big", "user.new");
    "remove an xattr" => |fs| fs.removexattr(walk(fs, "d/small")?.node, OsStr::new("user.k"));
    "set a default ACL" => inheriting;
    "allocate space" => |fs| fallocate(fs, "d/small");
    "set inode flags" => |fs| fs.set_inode_flags(walk(fs, "d/small")?.node, None, 0x80);
    "change an open file without a name" => orphan;
    "unlink a lower file" => |fs| unlink(fs, "d/small");
    "unlink in a lower directory" => |fs| unlink(fs, "d/sub/deep/er/b");
    "unlink an upper file" => |fs| unlink(fs, "d/upper");
    "unlink an upper file above a lower one" => |fs| unlink(fs, "d/over");
    "unlink a copied-up file" after |fs| open_to_write(fs, "d/small") => |fs| unlink(fs, "d/small");
    "unlink one of two upper names" => |fs| unlink(fs, "d/twin");
    "unlink a hard link" => |fs| unlink(fs, "d/h1");
    "unlink a copied-up hard link" after |fs| open_to_write(fs, "d/h1") => |fs| unlink(fs, "d/h1");
    "unlink a lower name of a copied-up hard link" after |fs| open_to_write(fs, "d/h1")
        => |fs| unlink(fs, "e/h3");
    "unlink the last hard link" after |fs| unlink(fs, "d/h1").and_then(|()| unlink(fs, "d/h2"))
        => |fs| unlink(fs, "e/h3");
    "unlink a symlink" => |fs| unlink(fs, "d/link");
    "rmdir a lower directory" => |fs| rmdir(fs, "d/void");
    "rmdir a merged directory" after emptied => |fs| rmdir(fs, "d/sub");
    "rmdir a directory of whiteouts" => |fs| rmdir(fs, "hollow");
    "rmdir an upper directory" after |fs| unlink(fs, "updir/x") => |fs| rmdir(fs, "updir");
    "create" => |fs| create(fs, "d/new");
    "create in a lower directory" => |fs| create(fs, "d/sub/deep/er/new");
    "create over a whiteout" => |fs| create(fs, "d/gone");
    "create over a directory's whiteout" => |fs| create(fs, "d/gone-dir");
    "create as another" => |fs| create_as(fs, &Caller { uid: 12, gid: 13, pid: 1 }, "d/gone");
    "create over a whiteout with an ACL to inherit" after inheriting => |fs| create(fs, "d/gone");
    "mkdir" => |fs| mkdir(fs, "d/new");
    "mkdir over a whiteout" => |fs| mkdir(fs, "d/gone");
    "mkdir over a directory's whiteout" => |fs| mkdir(fs, "d/gone-dir");
    "mkdir over a whiteout with an ACL to inherit" after inheriting => |fs| mkdir(fs, "d/gone-dir");
    "symlink" => |fs| symlink(fs, "d/new");
    "symlink over a whiteout" => |fs| symlink(fs, "d/gone");
    "mknod" => |fs| mknod(fs, "d/new", FIFO | 0o600, 0);
    "mknod over a whiteout" => |fs| mknod(fs, "d/gone", CHAR | 0o600, 0x103);
    "name a file without a name" => |fs| unnamed(fs, "d/new");
    "name a file without a name over a whiteout" => |fs| unnamed(fs, "d/gone");
    "link a lower file" => |fs| link(fs, "d/small", "e/linked");
    "link a large lower file" => |fs| link(fs, "d/big", "e/linked");
    "link an upper file" => |fs| link(fs, "d/upper", "d/linked");
    "link over a whiteout" => |fs| link(fs, "e/other", "d/gone");
    "link a hard link" => |fs| link(fs, "d/h1", "d/h4");
    "link a copied-up hard link" after |fs| open_to_write(fs, "d/h1") => |fs| link(fs, "e/h3", "d/h4");
    "rename a lower file" => |fs| rename(fs, "d/small", "d/renamed");
    "rename a large lower file" => |fs| rename(fs, "d/big", "e/renamed");
    "rename an upper file" => |fs| rename(fs, "d/upper", "e/renamed");
    "rename over a lower file" => |fs| rename(fs, "d/upper", "d/small");
    "rename a lower file over a lower file" => |fs| rename(fs, "d/small", "e/other");
    "rename over an upper file" => |fs| rename(fs, "d/small", "d/upper");
    "rename over a whiteout" => |fs| rename(fs, "d/small", "d/gone");
    "rename an upper file over a whiteout" => |fs| rename(fs, "d/upper", "d/gone");
    "rename a file above a lower one" => |fs| rename(fs, "d/over", "d/renamed");
    "rename a hard link" => |fs| rename(fs, "d/h1", "d/renamed");
    "rename over a hard link" => |fs| rename(fs, "d/small", "d/h1");
    "rename over the last hard link" after |fs| unlink(fs, "d/h1").and_then(|()| unlink(fs, "d/h2"))
        => |fs| rename(fs, "d/small", "e/h3");
    "rename a lower directory" => |fs| rename(fs, "d/sub", "d/renamed");
    "rename a lower directory elsewhere" => |fs| rename(fs, "d/sub", "e/renamed");
    "rename what was renamed" after |fs| rename(fs, "d/sub", "d/once")
        => |fs| rename(fs, "d/once", "e/twice");
    "rename what was renamed back" after |fs| rename(fs, "d/sub", "d/once")
        => |fs| rename(fs, "d/once", "d/sub");
    "rename a lower directory over a whiteout" => |fs| rename(fs, "d/sub", "d/gone-dir");
    "rename an upper directory over a whiteout" => |fs| rename(fs, "updir", "d/gone-dir");
    "rename a sealed directory over a whiteout" => |fs| rename(fs, "sealed", "d/gone-dir");
    "rename a directory over an empty one" => |fs| rename(fs, "updir", "d/void");
    "rename a directory over one of whiteouts" => |fs| rename(fs, "updir", "hollow");
    "rename a lower directory over one of whiteouts" => |fs| rename(fs, "d/sub", "hollow");
    "exchange lower files" => |fs| exchange(fs, "d/small", "e/other");
    "exchange a file and a directory" => |fs| exchange(fs, "d/small", "d/sub");
    "exchange directories" => |fs| exchange(fs, "d/sub", "updir");
    "exchange lower directories" => |fs| exchange(fs, "d/sub", "e");
    "exchange hard links" => |fs| exchange(fs, "d/h1", "d/big");
};
