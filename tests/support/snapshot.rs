//! Everything that can be seen of a tree, taken at one moment.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use sha2::{Digest, Sha256};

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    pub(crate) sec: i64,
    pub(crate) nsec: u32,
}

impl Time {
    /// Reads `SECONDS[.FRACTION]`; the fraction of a negative time counts upwards, too.
    pub(crate) fn parse(text: &str) -> Time {
        let (sec, fraction) = text.split_once('.').unwrap_or((text, ""));
        let nsec = format!("{fraction:0<9}").parse().unwrap();
        Time { sec: sec.parse().unwrap(), nsec }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.sec, self.nsec)
    }
}

/// What a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir,
    File { size: u64, digest: String },
    Symlink(OsString),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// Everything about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first name, in the tree's order, of the same inode; only where it is another one.
    pub(crate) same_as: Option<PathBuf>,
    pub(crate) ino: u64,
}

/// A whole tree; the root is the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

impl Snapshot {
    /// Looks at all of `root`. What `stat` and the directory say of a name (type, inode) must
    /// agree; that a directory gives no name twice is held here, too.
    pub(crate) fn of(root: &Path) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut first_names = HashMap::new();
        snapshot.visit(root, PathBuf::new(), &mut first_names);
        snapshot
    }

    /// The entries below and at `path` alone.
    pub(crate) fn below(&self, path: &str) -> Snapshot {
        let inside = |name: &&PathBuf| name.starts_with(path);
        let names = self.entries.keys().filter(inside).cloned();
        Snapshot { entries: names.map(|n| (n.clone(), self.entries[&n].clone())).collect() }
    }

    /// The paths, as text.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.entries.keys().map(|path| path.display().to_string()).collect()
    }

    fn visit(&mut self, root: &Path, path: PathBuf, first_names: &mut HashMap<u64, PathBuf>) {
        let full = if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(&path) };
        let entry = look_at(&full, &path, first_names);
        let is_dir = entry.kind == Kind::Dir;
        assert!(
            self.entries.insert(path.clone(), entry).is_none(),
            "{} is listed twice",
            full.display()
        );
        if is_dir {
            for name in list(&full) {
                self.visit(root, path.join(name), first_names);
            }
        }
    }
}

fn look_at(full: &Path, path: &Path, first_names: &mut HashMap<u64, PathBuf>) -> Entry {
    let stat = rustix::fs::statx(CWD, full, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .unwrap_or_else(|error| panic!("{} is listed, but stat says {error}", full.display()));
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::Directory => Kind::Dir,
        FileType::RegularFile => Kind::File { size: stat.stx_size, digest: digest(full) },
        FileType::Symlink => Kind::Symlink(std::fs::read_link(full).unwrap().into_os_string()),
        FileType::CharacterDevice => Kind::Char(major, minor),
        FileType::BlockDevice => Kind::Block(major, minor),
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => panic!("{} has no known type", full.display()),
    };
    let first = match kind {
        Kind::Dir => None,
        _ => first_names.get(&stat.stx_ino).cloned(),
    };
    if first.is_none() {
        first_names.insert(stat.stx_ino, path.to_path_buf());
    }
    Entry {
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        nlink: stat.stx_nlink,
        mtime: Time { sec: stat.stx_mtime.tv_sec, nsec: stat.stx_mtime.tv_nsec },
        xattrs: xattrs(full),
        same_as: first,
        ino: stat.stx_ino,
    }
}

/// The names in a directory, in order.
fn list(dir: &Path) -> Vec<OsString> {
    let opened = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
    let mut names: Vec<OsString> = opened.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// The first bytes of a file's SHA-256; holes of a sparse file are read, too.
pub(crate) fn digest(path: &Path) -> String {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    let mut file = std::fs::File::from(fd);
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) => panic!("cannot read {}: {error}", path.display()),
        }
    }
    hex::encode(&hash.finalize()[..12])
}

/// All xattrs that a tree shows, without what a security module adds by itself.
fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0u8; 1 << 16];
    let n = match rustix::fs::llistxattr(path, &mut names) {
        Ok(n) => n,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("cannot list the xattrs of {}: {error}", path.display()),
    };
    let names = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .filter(|name| *name != b"security.selinux")
        .map(|name| {
            let name = OsStr::from_bytes(name);
            let mut value = vec![0u8; 1 << 16];
            let n = rustix::fs::lgetxattr(path, name, &mut value)
                .unwrap_or_else(|error| panic!("xattr {name:?} of {}: {error}", path.display()));
            value.truncate(n);
            (name.to_owned(), value)
        })
        .collect()
}
