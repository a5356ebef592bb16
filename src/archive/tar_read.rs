//! From a layer's tar to the directory that holds the layer.

use std::ffi::OsStr;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use super::attributes::Attributes;
use super::contained::{Contained, Target};
use super::entry_path::{self, Place};
use super::holes;
use super::oci_whiteout::{Meaning, meaning};
use super::tar_stream::{Entry, Failure, Kind, TarStream};
use crate::error::{Errno, Error, FsResult, Result};
use crate::layer::LayerMarks;
use crate::sys::stat::stat_at;
use crate::sys::{OFlags, OwnedFd, creds, file, node};

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive, whiteouts included.
    pub entries: u64,
    /// Bytes of file content that the archive held.
    pub bytes: u64,
    /// Whether the archive says what the root is like.
    pub root: bool,
    /// What the marks that its deletions became ask of readers.
    pub marks: LayerMarks,
}

/// What the names of an entry and of its parents mean that is nothing but a file.
const PLAIN: (Meaning<'_>, Meaning<'_>) = (Meaning::File, Meaning::File);

/// Bytes read and written at once.
const BUFFER: usize = 256 * 1024;
/// Unpacks the uncompressed layer archive `tar`, read to its very end, into the empty directory
/// `into`; `what` names the archive in errors. Whiteouts become those of kernel overlayfs.
///
/// Nothing outside `into` is touched, whatever the archive says: paths are resolved with `into`
/// as their root, `..` is refused. A later entry of a name replaces an earlier one. Owners are
/// set where this process is root. Nothing is synced: the caller makes the whole tree durable.
///
/// # Errors
/// An archive that is broken, truncated or hostile, and failed writes; `into` then holds a part
/// and must be thrown away.
pub fn unpack_layer(tar: &mut dyn Read, into: &Path, what: &str) -> Result<Unpacked> {
    unpack(tar, Contained::open(into, Target::Layer)?, what)
}

/// Applies the layer archive `tar` to the tree `onto`: as [`unpack_layer`], but what it deletes
/// is removed. Applied to the tree that it was made against, it gives the tree it was made of.
///
/// # Errors
/// As [`unpack_layer`]; `onto` is then changed in part.
pub fn apply_layer(tar: &mut dyn Read, onto: &Path, what: &str) -> Result<Unpacked> {
    unpack(tar, Contained::open(onto, Target::Tree)?, what)
}

/// Copies the files of the archive `tar`, which is no layer, into the directory `onto`, which
/// messages call `shown`: as [`apply_layer`], but whiteouts are refused, and where there is a
/// directory already anything else is, and the other way round. They get `owner`, user and group,
/// or without one the owners that the archive gives them.
///
/// # Errors
/// As [`apply_layer`].
pub fn copy_into(
    tar: &mut dyn Read,
    (onto, shown): (OwnedFd, &Path),
    owner: Option<(u32, u32)>,
    what: &str,
) -> Result<Unpacked> {
    unpack_as(tar, Contained::of(onto, shown, Target::Files)?, what, Purpose::Copy { owner })
}

/// What an archive is read for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// It is a layer.
    Layer,
    /// It holds files, whose owner may be another than it says.
    Copy { owner: Option<(u32, u32)> },
}

fn unpack(tar: &mut dyn Read, directory: Contained, what: &str) -> Result<Unpacked> {
    unpack_as(tar, directory, what, Purpose::Layer)
}

fn unpack_as(
    tar: &mut dyn Read,
    directory: Contained,
    what: &str,
    purpose: Purpose,
) -> Result<Unpacked> {
    let mut tar = BufReader::with_capacity(BUFFER, tar);
    let mut stream = TarStream::new(&mut tar);
    let mut layer = Layer {
        directory,
        what,
        purpose,
        privileged: creds::own_ids().0 == 0,
        buffer: vec![0; BUFFER],
        unpacked: Unpacked::default(),
    };
    while let Some(entry) = stream.next_entry().map_err(|f| layer.unreadable(&f))? {
        layer.unpacked.entries += 1;
        layer.unpack(entry, &mut stream)?;
    }
    stream.drain().map_err(|f| layer.unreadable(&f))?;
    layer.directory.finish(layer.privileged)?;
    layer.unpacked.marks = layer.directory.marks();
    Ok(layer.unpacked)
}

struct Layer<'a> {
    directory: Contained,
    what: &'a str,
    purpose: Purpose,
    privileged: bool,
    buffer: Vec<u8>,
    unpacked: Unpacked,
}

impl Layer<'_> {
    fn unreadable(&self, failure: &Failure) -> Error {
        let entries = self.unpacked.entries;
        Error::invalid(self.what, format!("{failure} (after {entries} entries)"))
    }

    fn refused(&self, path: &[u8], reason: impl std::fmt::Display) -> Error {
        let path = String::from_utf8_lossy(path);
        Error::invalid(self.what, format!("entry {path:?} is refused: {reason}"))
    }

    fn unpack(&mut self, mut entry: Entry, stream: &mut TarStream<'_>) -> Result<()> {
        let path = entry_path::normalize(&entry.path).map_err(|r| self.refused(&entry.path, r))?;
        if let Purpose::Copy { owner: Some((uid, gid)) } = self.purpose {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let (attributes, left_out) = Attributes::of_entry(&mut entry);
        if left_out > 0 {
            let path = String::from_utf8_lossy(&path);
            tracing::warn!("{}: {path}: {left_out} overlay xattrs left out", self.what);
        }
        let Some(place) = entry_path::split(&path) else {
            if entry.kind != Kind::Directory {
                return Err(self.refused(&entry.path, "the root must be a directory"));
            }
            self.unpacked.root = true;
            return self.directory.root_attributes(attributes);
        };
        let below = entry_path::parent_meaning(place.parent).map_err(|r| self.refused(&path, r))?;
        let own = meaning(place.name.as_bytes()).map_err(|r| self.refused(&path, r))?;
        if matches!(self.purpose, Purpose::Copy { .. }) && (own, below) != PLAIN {
            return Err(self.refused(&path, "names that begin with .wh. are those of whiteouts"));
        }
        if below == Meaning::Bookkeeping {
            return Ok(());
        }
        match own {
            Meaning::Bookkeeping => Ok(()),
            Meaning::Opaque => self.unpack_opaque(place, &entry, &path),
            Meaning::Whiteout(name) => {
                let dir = self.directory.parent(place.parent, entry.mtime)?;
                self.directory.hide(&dir, OsStr::from_bytes(name), &path)
            }
            Meaning::File => self.unpack_file(place, &entry, &path, attributes, stream),
        }
    }

    fn unpack_opaque(&mut self, place: Place<'_>, entry: &Entry, path: &[u8]) -> Result<()> {
        let dir = self.directory.parent(place.parent, entry.mtime)?;
        self.directory.make_opaque(&dir, OsStr::new("."), path)
    }

    fn unpack_file(
        &mut self,
        place: Place<'_>,
        entry: &Entry,
        path: &[u8],
        attributes: Attributes,
        stream: &mut TarStream<'_>,
    ) -> Result<()> {
        let dir = self.directory.parent(place.parent, entry.mtime)?;
        let name = place.name;
        match &entry.kind {
            Kind::Directory => self.directory.make_directory(&dir, name, path, attributes),
            Kind::HardLink(target) => self.link(&dir, name, path, target),
            Kind::File => {
                let fd = self.make(&dir, name, path, "create", || {
                    file::create_at(&dir, name, OFlags::WRONLY, 0o600)
                })?;
                self.write(&fd, entry, path, stream)?;
                let set = attributes.set_on_file(&fd, self.privileged);
                set.map_err(|e| self.directory.failed("set attributes of", path, e))
            }
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.make(&dir, name, path, "create symlink", || {
                    node::make_symlink(&dir, name, target)
                })?;
                self.finish_node(&dir, name, path, &attributes, true)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.unpack_node(&dir, name, entry, path, &attributes)
            }
        }
    }

    fn unpack_node(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let (kind, action) = match entry.kind {
            Kind::CharDevice if entry.rdev == 0 => {
                let reason = "character device 0:0 is a whiteout on disk, which an archive \
                              spells .wh.NAME";
                return Err(self.refused(path, reason));
            }
            Kind::CharDevice => (FileType::CharacterDevice, "create character device"),
            Kind::BlockDevice => (FileType::BlockDevice, "create block device"),
            _ => (FileType::Fifo, "create fifo"),
        };
        self.make(dir, name, path, action, || {
            node::make_node(dir, name, kind.as_raw_mode() | 0o600, entry.rdev)
        })?;
        self.finish_node(dir, name, path, attributes, false)
    }

    /// Makes `dir`/`name` by `create`, in the place of whatever an earlier entry left there.
    fn make<T>(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        action: &'static str,
        create: impl Fn() -> FsResult<T>,
    ) -> Result<T> {
        let made = self.put(dir, name, path, action, create)?;
        self.directory.made(dir, name).map_err(|e| self.directory.failed("stat", path, e))?;
        Ok(made)
    }

    /// As [`Layer::make`], for a name of a file that may have been there before.
    fn put<T>(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        action: &'static str,
        create: impl Fn() -> FsResult<T>,
    ) -> Result<T> {
        let put = match create() {
            Err(Errno::EXIST) => {
                self.directory.remove(dir, name, path)?;
                create()
            }
            other => other,
        };
        put.map_err(|e| self.directory.failed(action, path, e))
    }

    fn finish_node(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        attributes: &Attributes,
        is_symlink: bool,
    ) -> Result<()> {
        let set = attributes.set_on_node(dir, name, is_symlink, self.privileged);
        set.map_err(|e| self.directory.failed("set attributes of", path, e))
    }

    /// Gives an earlier file of the archive, and only such a one, a further name.
    fn link(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8], target: &[u8]) -> Result<()> {
        let missing = || {
            let target = String::from_utf8_lossy(target);
            self.refused(path, format!("it links to {target:?}, which is no file of this layer"))
        };
        let normal = entry_path::normalize(target)
            .map_err(|reason| self.refused(path, format!("it links to {reason}")))?;
        let place = entry_path::split(&normal).ok_or_else(missing)?;
        let found = self.directory.open_directory(place.parent).and_then(|from| {
            let stat = self.directory.file_at(&from, place.name)?;
            Ok(stat.map(|stat| (from, stat)))
        });
        let (from, stat) = match found {
            Ok(Some((from, stat))) if !stat.is_dir() => (from, stat),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            Err(errno) => return Err(self.directory.failed("stat", &normal, errno)),
        };
        // Linking a file to itself would first remove it.
        if stat_at(dir, name).is_ok_and(|own| (own.dev, own.ino) == (stat.dev, stat.ino)) {
            return Ok(());
        }
        self.put(dir, name, path, "link", || node::link(&from, place.name, dir, name))
    }

    fn write(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        path: &[u8],
        stream: &mut TarStream<'_>,
    ) -> Result<()> {
        let mut written_to = 0;
        for extent in &entry.map.extents {
            let (mut position, end) = (extent.offset, extent.offset + extent.length);
            while position < end {
                let n = self.fill(end - position, stream)?;
                let data = self.buffer.get(..n).unwrap_or_default();
                let done = holes::write(fd, data, position, written_to);
                written_to = done.map_err(|e| self.directory.failed("write", path, e))?;
                position += n as u64;
                self.unpacked.bytes += n as u64;
            }
        }
        if written_to < entry.map.size {
            let set = file::truncate(fd, entry.map.size);
            set.map_err(|e| self.directory.failed("set the size of", path, e))?;
        }
        Ok(())
    }

    /// Reads up to `want` bytes into the buffer, which is full afterwards or holds all of them.
    fn fill(&mut self, want: u64, stream: &mut TarStream<'_>) -> Result<usize> {
        let want = usize::try_from(want).unwrap_or(BUFFER).min(BUFFER);
        let mut done = 0;
        while let Some(rest) = self.buffer.get_mut(done..want).filter(|rest| !rest.is_empty()) {
            match stream.read_data(rest) {
                Ok(0) => return Err(self.unreadable(&"an entry shorter than its size".into())),
                Ok(n) => done += n,
                Err(failure) => return Err(self.unreadable(&failure)),
            }
        }
        Ok(done)
    }
}
