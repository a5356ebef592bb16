//! The operations on a tree that the kernel shows: a mount, or any directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::Subject;
use super::op::{Data, Op, Outcome, RenameHow, Seen, XattrHow};
use crate::support::{Driver, Mapping, MountedOverlay, Snapshot, Time};

type Answer = Result<Outcome, Errno>;

/// A tree under a path.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    held: BTreeMap<usize, File>,
}

/// A mounted overlay as a subject.
#[derive(Debug)]
pub(crate) struct Mountpoint<'a> {
    // Dropped first: files that are held keep a mount busy.
    tree: Tree,
    mount: MountedOverlay<'a>,
}

impl<'a> Mountpoint<'a> {
    pub(crate) fn new(mount: MountedOverlay<'a>) -> Self {
        let tree = Tree::new(mount.root());
        Mountpoint { tree, mount }
    }
}

impl Subject for Mountpoint<'_> {
    fn name(&self) -> String {
        self.mount.driver().name().to_owned()
    }

    fn failed_rename_shows(&self) -> bool {
        self.mount.driver() == Driver::Kernel
    }

    fn apply(&mut self, op: &Op) -> Answer {
        self.tree.apply(op)
    }

    fn remount(&mut self) {
        self.tree.held.clear();
        self.mount.remount();
    }

    fn snapshot(&mut self) -> Snapshot {
        self.mount.snapshot()
    }
}

impl Subject for Tree {
    fn name(&self) -> String {
        "a plain directory".to_owned()
    }

    fn apply(&mut self, op: &Op) -> Answer {
        self.call(op)
    }

    fn remount(&mut self) {
        self.held.clear();
    }

    fn snapshot(&mut self) -> Snapshot {
        Snapshot::of(&self.root)
    }
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Tree {
        // The modes of the operations are to arrive as they are.
        rustix::process::umask(Mode::empty());
        Tree { root: root.to_path_buf(), held: BTreeMap::new() }
    }

    fn full(&self, path: &Path) -> PathBuf {
        match path.as_os_str().is_empty() {
            true => self.root.clone(),
            false => self.root.join(path),
        }
    }

    fn call(&mut self, op: &Op) -> Answer {
        match op {
            Op::Create { path, mode } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
                self.open(path, flags, *mode).map(|_| Outcome::Done)
            }
            Op::Write { path, offset, data } => {
                write_at(&self.open(path, OFlags::WRONLY, 0)?, data, *offset)
            }
            Op::Append { path, data } => {
                write_at(&self.open(path, OFlags::WRONLY | OFlags::APPEND, 0)?, data, 0)
            }
            Op::Replace { path, data } => {
                let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
                write_at(&self.open(path, flags, 0o644)?, data, 0)
            }
            Op::Allocate { path, how, offset, length } => {
                let file = self.open(path, OFlags::WRONLY, 0)?;
                rustix::fs::fallocate(&file, how.flags(), *offset, *length).map(|()| Outcome::Done)
            }
            Op::MapWrite { path, offset, data } => {
                map_write(&self.open(path, OFlags::RDWR, 0)?, *offset as usize, &data.0)
            }
            Op::Unnamed { path, mode, data } => self.make_unnamed(path, *mode, data),
            Op::Truncate { path, size } => truncate(&self.full(path), *size),
            Op::Read { path } => read_all(&self.open(path, OFlags::RDONLY, 0)?),
            Op::List { path } => list(&self.full(path)),
            Op::Hold { slot, path, write } => {
                let flags = if *write { OFlags::RDWR } else { OFlags::RDONLY };
                let file = self.open(path, flags, 0)?;
                self.held.insert(*slot, file);
                Ok(Outcome::Done)
            }
            Op::HeldRead { .. }
            | Op::HeldWrite { .. }
            | Op::HeldTruncate { .. }
            | Op::HeldStat { .. }
            | Op::HeldChmod { .. }
            | Op::Release { .. } => self.call_held(op),
            _ => self.call_on_names(op),
        }
    }

    fn open(&self, path: &Path, flags: OFlags, mode: u32) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.full(path), flags, Mode::from_raw_mode(mode)).map(File::from)
    }

    fn make_unnamed(&self, path: &Path, mode: u32, data: &Data) -> Answer {
        let dir = path.parent().unwrap_or(Path::new(""));
        // A symlink to nowhere says so where it is on the way, not where it is the end.
        let mut dir = self.full(dir).into_os_string();
        dir.push("/.");
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(dir, flags, Mode::from_raw_mode(mode))?);
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let written = write_at(&file, data, 0);
        rustix::fs::linkat(CWD, own, CWD, self.full(path), AtFlags::SYMLINK_FOLLOW)?;
        written
    }

    fn call_on_names(&self, op: &Op) -> Answer {
        let done = match op {
            Op::Mkdir { path, mode } => {
                rustix::fs::mkdir(self.full(path), Mode::from_raw_mode(*mode))
            }
            Op::Rmdir { path } => rustix::fs::rmdir(self.full(path)),
            Op::Unlink { path } => rustix::fs::unlink(self.full(path)),
            Op::Rename { from, to, how } => {
                let flags = match how {
                    RenameHow::Replace => RenameFlags::empty(),
                    RenameHow::NoReplace => RenameFlags::NOREPLACE,
                    RenameHow::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.full(from), CWD, self.full(to), flags)
            }
            Op::Link { from, to } => {
                let flags = AtFlags::empty();
                rustix::fs::linkat(CWD, self.full(from), CWD, self.full(to), flags)
            }
            Op::Symlink { target, path } => rustix::fs::symlink(target, self.full(path)),
            Op::Fifo { path, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::mknodat(CWD, self.full(path), FileType::Fifo, mode, 0)
            }
            _ => return self.call_on_attributes(op),
        };
        done.map(|()| Outcome::Done)
    }

    fn call_on_attributes(&self, op: &Op) -> Answer {
        let done = match op {
            Op::Chmod { path, mode } => {
                rustix::fs::chmod(self.full(path), Mode::from_raw_mode(*mode))
            }
            Op::Chown { path, uid, gid } => {
                let uid = uid.map(rustix::fs::Uid::from_raw);
                let gid = gid.map(rustix::fs::Gid::from_raw);
                rustix::fs::chownat(CWD, self.full(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Op::SetTimes { path, time } => set_times(&self.full(path), *time),
            Op::SetXattr { path, name, value, how } => {
                let flags = match how {
                    XattrHow::Either => XattrFlags::empty(),
                    XattrHow::Create => XattrFlags::CREATE,
                    XattrHow::Replace => XattrFlags::REPLACE,
                };
                rustix::fs::lsetxattr(self.full(path), *name, &value.0, flags)
            }
            Op::RemoveXattr { path, name } => rustix::fs::lremovexattr(self.full(path), *name),
            Op::GetXattr { path, name } => {
                let mut value = vec![0u8; 4096];
                let n = rustix::fs::lgetxattr(self.full(path), *name, &mut value)?;
                value.truncate(n);
                return Ok(Outcome::Bytes(Data(value)));
            }
            Op::Stat { path } => {
                let stat = rustix::fs::lstat(self.full(path))?;
                return Ok(Outcome::Stat(seen(&stat)));
            }
            Op::ReadLink { path } => {
                let target = rustix::fs::readlink(self.full(path), Vec::new())?;
                return Ok(Outcome::Bytes(Data(target.into_bytes())));
            }
            _ => panic!("an operation without a call: {op:?}"),
        };
        done.map(|()| Outcome::Done)
    }

    fn call_held(&mut self, op: &Op) -> Answer {
        let held = |slot: &usize| self.held.get(slot).ok_or(Errno::BADF);
        match op {
            Op::HeldRead { slot } => read_all(held(slot)?),
            Op::HeldWrite { slot, offset, data } => write_at(held(slot)?, data, *offset),
            Op::HeldTruncate { slot, size } => {
                rustix::fs::ftruncate(held(slot)?, *size).map(|()| Outcome::Done)
            }
            Op::HeldStat { slot } => Ok(Outcome::Stat(seen(&rustix::fs::fstat(held(slot)?)?))),
            Op::HeldChmod { slot, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::fchmod(held(slot)?, mode).map(|()| Outcome::Done)
            }
            Op::Release { slot } => {
                self.held.remove(slot).map(|_| Outcome::Done).ok_or(Errno::BADF)
            }
            _ => panic!("not an operation on a held file: {op:?}"),
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}

fn write_at(file: &File, data: &Data, offset: u64) -> Answer {
    let mut done = 0;
    loop {
        // An empty write is made, too: it must be refused where a longer one would be.
        done += rustix::io::pwrite(file, &data.0[done..], offset + done as u64)?;
        if done == data.0.len() {
            return Ok(Outcome::Done);
        }
    }
}

fn map_write(file: &File, offset: usize, data: &[u8]) -> Answer {
    let size = rustix::fs::fstat(file)?.st_size as usize;
    let length = data.len().min(size.saturating_sub(offset));
    if length > 0 {
        let mut mapping = Mapping::new(file, size, true);
        mapping.write_at(offset, &data[..length]);
        mapping.sync();
    }
    Ok(Outcome::Done)
}

fn read_all(file: &File) -> Answer {
    let mut content = Vec::new();
    let mut part = [0u8; 8192];
    loop {
        match rustix::io::pread(file, &mut part, content.len() as u64) {
            Ok(0) => return Ok(Outcome::Bytes(Data(content))),
            Ok(n) => content.extend_from_slice(&part[..n]),
            // A fifo has no positions; it is empty, as nobody writes to it.
            Err(Errno::SPIPE) => return Ok(Outcome::Bytes(Data(content))),
            Err(errno) => return Err(errno),
        }
    }
}

fn truncate(path: &Path, size: u64) -> Answer {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // truncate(2) itself, which opens nothing: rustix has only the form that takes a descriptor.
    #[expect(unsafe_code, reason = "no safe wrapper for truncate(2)")]
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    match unsafe { libc::truncate(path.as_ptr(), size as libc::off_t) } {
        0 => Ok(Outcome::Done),
        _ => Err(errno(std::io::Error::last_os_error())),
    }
}

fn set_times(path: &Path, time: Time) -> Result<(), Errno> {
    let spec = rustix::fs::Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) };
    let times = rustix::fs::Timestamps { last_access: spec, last_modification: spec };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn list(path: &Path) -> Answer {
    let mut names: Vec<OsString> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let listed = entry.file_type().map_err(errno)?;
        let stat = entry.metadata().map_err(errno)?.file_type();
        assert_eq!(listed, stat, "d_type of {}", entry.path().display());
        names.push(entry.file_name());
    }
    names.sort();
    Ok(Outcome::Names(names))
}

fn seen(stat: &Stat) -> Seen {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 'd',
        FileType::RegularFile => 'f',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::CharacterDevice => 'c',
        _ => '?',
    };
    Seen {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: matches!(kind, 'f' | 'l').then_some(stat.st_size as u64),
        nlink: (kind != 'd').then_some(stat.st_nlink as u32),
        mtime: Some(Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 }),
    }
}
