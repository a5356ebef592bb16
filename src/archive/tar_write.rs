//! From layers on disk to archives: a whole merged tree, or what one layer changed.

use std::collections::{HashMap, btree_set};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::holes;
use super::oci_whiteout::whiteout_of;
use super::tar_sink::{Head, TarSink, carries_xattr, source_date_epoch};
use super::tar_stream::Kind;
use crate::changeset::tree::{Directory, File, Node};
use crate::changeset::{Change, ChangeKind, FileKind, Tree, UpperDir, changes_to_carry};
use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::stat::{Stat, Time};
use crate::sys::{OwnedFd, file};

/// Bytes read and written at once.
const BUFFER: usize = 256 * 1024;

/// Writes the merged tree of `upper`, where there is one, over `lowers` (topmost first) to `out`
/// as a tar archive, as `docker export` does: names without a leading `./`, directories with a trailing slash, parents before
/// children and these sorted by the bytes of their names, PAX records for nanoseconds, long
/// names and xattrs. A file with several names is written once and linked. Sockets, which no
/// archive can hold, are left out.
///
/// Equal trees give equal bytes; `SOURCE_DATE_EPOCH` limits their times.
///
/// # Errors
/// Names the layer or file that cannot be read; a failed write.
pub fn export(lowers: &[PathBuf], upper: Option<UpperDir>, out: &mut dyn Write) -> Result<()> {
    let (tree, top) = open(lowers, upper)?;
    let mut export = Archiver::new(out, top, source_date_epoch()?);
    export.tree(&tree)?;
    export.sink.finish()
}

/// Writes what `upper` changed of the tree of `lowers` (topmost first) to `out` as a layer
/// archive (OCI changeset): whatever was added or changed with its parents, and `.wh.NAME` for
/// what is gone. The inverse of [`super::tar_read::unpack_layer`].
///
/// # Errors
/// As [`export`].
pub fn layer_tar(
    upper: impl Into<UpperDir>,
    lowers: &[PathBuf],
    out: &mut dyn Write,
) -> Result<()> {
    let upper = upper.into();
    let changes = changes_to_carry(lowers, upper.clone())?;
    changes_tar(&changes, upper, lowers, source_date_epoch()?, out)
}

/// As [`layer_tar`], of `changes` that were found already; times after `latest` become that
/// time.
///
/// # Errors
/// As [`export`].
pub fn changes_tar(
    changes: &[Change],
    upper: impl Into<UpperDir>,
    lowers: &[PathBuf],
    latest: Option<Time>,
    out: &mut dyn Write,
) -> Result<()> {
    let (tree, top) = open(lowers, Some(upper.into()))?;
    let mut archiver = Archiver::new(out, top, latest);
    archiver.root(&tree)?;
    let mut cursor = Cursor { tree: &tree, above: Vec::new() };
    for change in changes {
        archiver.change(&mut cursor, change)?;
    }
    archiver.sink.finish()
}

/// Writes the merged tree of `upper` over `lowers` (topmost first) to `out` as one layer archive:
/// as [`export`], with the root; times after `latest` become that time.
///
/// # Errors
/// As [`export`].
pub fn squashed_tar(
    lowers: &[PathBuf],
    upper: impl Into<UpperDir>,
    latest: Option<Time>,
    out: &mut dyn Write,
) -> Result<()> {
    let (tree, top) = open(lowers, Some(upper.into()))?;
    let mut archiver = Archiver::new(out, top, latest);
    archiver.root(&tree)?;
    archiver.tree(&tree)?;
    archiver.sink.finish()
}

/// Writes what `name` in the directory `dir` is, or the directory itself where there is none, to
/// `out` as a tar archive in which it is called `shown`; a directory that is shown as nothing
/// gives what is in it. Times stay as they are. Messages call it `source`.
///
/// # Errors
/// As [`export`].
pub fn subtree(
    (dir, name): (&Path, Option<&OsStr>),
    source: &Path,
    shown: &OsStr,
    out: &mut dyn Write,
) -> Result<()> {
    let tree = Tree::plain(dir)?;
    let mut archiver = Archiver::new(out, source.to_path_buf(), None);
    archiver.own_name = shown.len();
    let node = match name {
        None => Some(Node::Dir(tree.root().clone())),
        Some(name) => tree.lookup(tree.root(), name).map_err(|e| archiver.failed("read", e))?,
    };
    let node = node.ok_or_else(|| archiver.failed("read", Errno::NOENT))?;
    archiver.path = shown.as_bytes().to_vec();
    if !archiver.path.is_empty() {
        archiver.node(&node)?;
    }
    if let Node::Dir(dir) = node {
        archiver.below(&tree, dir)?;
    }
    archiver.sink.finish()
}

/// Opens the layers; with them comes the path of the topmost.
fn open(lowers: &[PathBuf], upper: Option<UpperDir>) -> Result<(Tree, PathBuf)> {
    match upper {
        Some(upper) => {
            let path = upper.path.clone();
            Ok((Tree::open_with_upper(lowers, upper)?, path))
        }
        None => Ok((Tree::open(lowers)?, lowers.first().cloned().unwrap_or_default())),
    }
}

struct Archiver<'a> {
    sink: TarSink<'a>,
    /// For messages: where the topmost layer is, or what is copied.
    layer: PathBuf,
    /// The path of the entry under way, without a leading slash.
    path: Vec<u8>,
    /// How much of it is what `layer` itself is called.
    own_name: usize,
    /// The first name of each inode that has several.
    first_names: HashMap<(usize, u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// A directory being written.
struct Level {
    dir: Directory,
    /// The names still to be written.
    names: btree_set::IntoIter<OsString>,
    /// The length of its path.
    path: usize,
}

impl<'a> Archiver<'a> {
    fn new(out: &'a mut dyn Write, layer: PathBuf, latest: Option<Time>) -> Self {
        Archiver {
            sink: TarSink::until(out, latest),
            layer,
            path: Vec::new(),
            own_name: 0,
            first_names: HashMap::new(),
            buffer: vec![0; BUFFER],
        }
    }

    fn failed(&self, action: &'static str, errno: Errno) -> Error {
        let below = self.path.get(self.own_name..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        match below {
            b"" => Error::io(action, &self.layer, errno),
            below => Error::io(action, self.layer.join(OsStr::from_bytes(below)), errno),
        }
    }

    /// Writes everything below the root. Works without recursion, and holds open no more than
    /// the directories above the present one: a tree can be deep, and a directory can be wide.
    fn tree(&mut self, tree: &Tree) -> Result<()> {
        self.below(tree, tree.root().clone())
    }

    /// As [`Archiver::tree`], of what is below `dir`, whose path is the present one.
    fn below(&mut self, tree: &Tree, dir: Directory) -> Result<()> {
        let mut levels = vec![self.enter(dir)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let found = tree.lookup(&level.dir, &name).map_err(|e| self.failed("read", e))?;
            let Some(node) = found else { continue };
            self.node(&node)?;
            if let Node::Dir(dir) = node {
                levels.push(self.enter(dir)?);
            }
        }
        Ok(())
    }

    fn enter(&self, dir: Directory) -> Result<Level> {
        let names = dir.names().map_err(|e| self.failed("read directory", e))?;
        Ok(Level { dir, names: names.into_iter(), path: self.path.len() })
    }

    fn root(&mut self, tree: &Tree) -> Result<()> {
        let stat = tree.root().stat().map_err(|e| self.failed("stat", e))?;
        self.directory(tree.root(), &stat)
    }

    fn change(&mut self, cursor: &mut Cursor<'_>, change: &Change) -> Result<()> {
        self.path = change.path.strip_prefix(b"/").unwrap_or(&change.path).to_vec();
        if change.kind == ChangeKind::Deleted {
            return self.whiteout();
        }
        match cursor.find(&self.path) {
            Ok(Some(node)) => self.node(&node),
            Ok(None) => Err(self.failed("read", Errno::STALE)),
            Err(errno) => Err(self.failed("read", errno)),
        }
    }

    /// The file that hides the present path; it has nothing of its own that could differ.
    fn whiteout(&mut self) -> Result<()> {
        let name_at = self.path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = self.path.split_at(name_at);
        let path = [parent, whiteout_of(name).as_slice()].concat();
        self.sink.begin(&Head {
            path: &path,
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            rdev: 0,
            size: 0,
            xattrs: &[],
        })
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        match node {
            Node::Dir(dir) => {
                let stat = dir.stat().map_err(|e| self.failed("stat", e))?;
                self.directory(dir, &stat)
            }
            Node::File(file) => self.file(file),
        }
    }

    fn directory(&mut self, dir: &Directory, stat: &Stat) -> Result<()> {
        let xattrs = dir.xattrs().map_err(|e| self.failed("read the xattrs of", e))?;
        let path = match self.path.as_slice() {
            b"" => b"./".to_vec(),
            path => [path, b"/"].concat(),
        };
        self.begin(&path, Kind::Directory, stat, 0, xattrs)
    }

    fn file(&mut self, file: &File) -> Result<()> {
        let stat = file.stat;
        let path = self.path.clone();
        if file.may_have_other_names() {
            if let Some(first) = self.first_names.get(&file.inode()) {
                let kind = Kind::HardLink(first.clone());
                return self.begin(&path, kind, &stat, 0, Vec::new());
            }
            if FileKind::of(&stat) != FileKind::Socket {
                self.first_names.insert(file.inode(), path.clone());
            }
        }
        let kind = match FileKind::of(&stat) {
            FileKind::File => Kind::File,
            FileKind::Symlink => {
                let target = file.link_target().map_err(|e| self.failed("read symlink", e))?;
                Kind::Symlink(target.as_bytes().to_vec())
            }
            FileKind::CharDevice => Kind::CharDevice,
            FileKind::BlockDevice => Kind::BlockDevice,
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => {
                tracing::debug!("left out, a socket: {}", String::from_utf8_lossy(&path));
                return Ok(());
            }
            FileKind::Directory => return Err(self.failed("read", Errno::ISDIR)),
        };
        let xattrs = file.xattrs().map_err(|e| self.failed("read the xattrs of", e))?;
        if kind != Kind::File {
            return self.begin(&path, kind, &stat, 0, xattrs);
        }
        // Opened first: what cannot be read must not leave a header without data.
        let content = file.open().map_err(|e| self.failed("open", e))?;
        self.begin(&path, kind, &stat, stat.size, xattrs)?;
        let has_holes = stat.blocks.saturating_mul(512) < stat.size;
        self.content(&content, stat.size, has_holes)?;
        self.sink.end()
    }

    fn begin(
        &mut self,
        path: &[u8],
        kind: Kind,
        stat: &Stat,
        size: u64,
        mut xattrs: Vec<(OsString, Vec<u8>)>,
    ) -> Result<()> {
        xattrs.retain(|(name, _)| carries_xattr(name));
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        self.sink.begin(&Head {
            path,
            kind,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            rdev: if is_device { stat.rdev } else { 0 },
            size,
            xattrs: &xattrs,
        })
    }

    /// Writes `size` bytes of the file: holes without reading them, and zeros for what a file
    /// that is being truncated lost since its size was taken.
    fn content(&mut self, fd: &OwnedFd, size: u64, has_holes: bool) -> Result<()> {
        let mut position = 0;
        while position < size {
            let run =
                if has_holes { holes::next_run(fd, position, size) } else { Ok((position, size)) };
            let (data, hole) = run.map_err(|e| self.failed("read", e))?;
            self.sink.zeros(data - position)?;
            position = data;
            while position < hole {
                let want = usize::try_from(hole - position).unwrap_or(BUFFER).min(BUFFER);
                let part = self.buffer.get_mut(..want).unwrap_or_default();
                let n = match file::read_at(fd, part, position) {
                    Ok(n) => n,
                    Err(errno) => return Err(self.failed("read", errno)),
                };
                if n == 0 {
                    tracing::warn!("{} became shorter", String::from_utf8_lossy(&self.path));
                    return self.sink.zeros(size - position);
                }
                self.sink.data(self.buffer.get(..n).unwrap_or_default())?;
                position += n as u64;
            }
        }
        Ok(())
    }
}

/// Finds sorted paths in a tree, one after another, without starting from the root each time.
struct Cursor<'a> {
    tree: &'a Tree,
    /// The directories above the path found last, with their names.
    above: Vec<(OsString, Directory)>,
}

impl Cursor<'_> {
    fn find(&mut self, path: &[u8]) -> FsResult<Option<Node>> {
        let mut names: Vec<&OsStr> = path.split(|b| *b == b'/').map(OsStr::from_bytes).collect();
        let Some(last) = names.pop() else { return Ok(None) };
        let shared = self.above.iter().zip(&names).take_while(|((own, _), name)| own == *name);
        let shared = shared.count();
        self.above.truncate(shared);
        for name in names.into_iter().skip(shared) {
            match self.lookup(name)? {
                Some(Node::Dir(dir)) => self.above.push((name.to_owned(), dir)),
                _ => return Ok(None),
            }
        }
        self.lookup(last)
    }

    fn lookup(&self, name: &OsStr) -> FsResult<Option<Node>> {
        let dir = self.above.last().map_or(self.tree.root(), |(_, dir)| dir);
        self.tree.lookup(dir, name)
    }
}
