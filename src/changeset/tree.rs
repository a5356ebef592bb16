//! A stack of layers as one read-only tree, reached by descriptors alone.
//!
//! [`Tree::lookup`] holds the only merge rule here; listing is built on it. A path is never
//! joined: each directory is the list of its parts, one descriptor for each layer that has it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Errno, Error, FsResult, Result};
use crate::layer::entry::marks_of_fd;
use crate::layer::redirect::Redirect;
use crate::layer::xattrs::{Mark, unescape};
use crate::layer::{Layer, LayerIndex, Namespace, Probe, probe, whiteout};
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::xattr::{self, Target};
use crate::sys::{OFlags, OwnedFd, creds, dir, file, node};

/// A stack of layers, topmost first.
#[derive(Debug)]
pub struct Tree {
    /// The roots of all layers, and whether the merge ends at each.
    roots: Vec<(Part, bool)>,
    root: Directory,
    /// Where redirects and metacopies of the topmost layer are believed: the namespace that
    /// only who mounted this stack can have written, never an image's author.
    trust_at_top: Namespace,
}

/// One layer's part of a directory.
#[derive(Debug, Clone)]
struct Part {
    layer: usize,
    fd: Arc<OwnedFd>,
    stat: Stat,
    xattr_whiteouts: bool,
}

/// A merged directory: its parts, topmost first. There is at least one.
#[derive(Debug, Clone)]
pub struct Directory {
    parts: Vec<Part>,
}

/// A file that is no directory.
#[derive(Debug, Clone)]
pub struct File {
    dir: Arc<OwnedFd>,
    name: OsString,
    layer: usize,
    /// Its attributes.
    pub stat: Stat,
    /// Where its content is, if not here: it is the copy of a lower's metadata alone.
    data: Option<(Arc<OwnedFd>, OsString)>,
}

/// What a name in the merged tree is.
#[derive(Debug, Clone)]
pub enum Node {
    /// A directory.
    Dir(Directory),
    /// Anything else.
    File(File),
}

/// A lookup under way: where it goes on, which redirects change.
struct Search<'a> {
    parts: Cow<'a, [Part]>,
    next: usize,
    name: Cow<'a, OsStr>,
}

impl Tree {
    /// Opens the layers at `paths`, topmost first; each may be a symlink to a directory.
    ///
    /// # Errors
    /// Names the layer that is missing or not readable.
    pub fn open(paths: &[PathBuf]) -> Result<Tree> {
        let mut roots = Vec::with_capacity(paths.len());
        for (layer, path) in paths.iter().enumerate() {
            let index = LayerIndex(u32::try_from(layer).unwrap_or(u32::MAX));
            let opened = Layer::open(index, path)?;
            roots.push((opened.root, opened.stat, path.as_path()));
        }
        Tree::of_roots(roots)
    }

    /// Opens `upper` above the `lowers`, topmost first.
    pub fn open_with_upper(lowers: &[PathBuf], upper: &Path) -> Result<Tree> {
        let opened = file::open_root(upper).and_then(|fd| Ok((stat_fd(&fd)?, fd)));
        let (stat, fd) = opened.map_err(|errno| Error::io("open upper layer", upper, errno))?;
        let mut roots = vec![(Arc::new(fd), stat, upper)];
        for (layer, path) in lowers.iter().enumerate() {
            let index = LayerIndex(u32::try_from(layer + 1).unwrap_or(u32::MAX));
            let opened = Layer::open(index, path)?;
            roots.push((opened.root, opened.stat, path.as_path()));
        }
        Tree::of_roots(roots)
    }

    fn of_roots(roots: Vec<(Arc<OwnedFd>, Stat, &Path)>) -> Result<Tree> {
        let privileged = creds::own_ids().0 == 0;
        let trust_at_top = if privileged { Namespace::Trusted } else { Namespace::User };
        let mut parts = Vec::with_capacity(roots.len());
        for (layer, (fd, stat, path)) in roots.into_iter().enumerate() {
            let marks = marks_of_fd(&fd, None)
                .map_err(|errno| Error::io("read the xattrs of layer", path, errno))?;
            let xattr_whiteouts = marks.xattr_whiteouts;
            parts.push((Part { layer, fd, stat, xattr_whiteouts }, marks.opaque));
        }
        if parts.is_empty() {
            return Err(Error::Refused("no layer is given".to_owned()));
        }
        let root = merged_root(&parts);
        Ok(Tree { roots: parts, root, trust_at_top })
    }

    /// The namespace whose redirects and metacopies are believed in `layer`.
    fn trust(&self, layer: usize) -> Namespace {
        if layer == 0 { self.trust_at_top } else { Namespace::Trusted }
    }

    /// The root of the merged tree.
    pub fn root(&self) -> &Directory {
        &self.root
    }

    /// The root of what lies below the topmost layer; `None` where nothing does.
    pub fn root_below_top(&self) -> Option<Directory> {
        let below = self.roots.get(1..).filter(|roots| !roots.is_empty());
        below.map(merged_root)
    }

    /// The merge rule: what `name` in `dir` is.
    ///
    /// From the top: the first layer that has the name decides. A whiteout ends the search; so
    /// does a file. A directory merges with the directories of that name below it, until one is
    /// opaque, or a whiteout or a file stands there; a redirect tells where it goes on.
    ///
    /// # Errors
    /// `EIO` where a file's content is said to be below but is not.
    pub fn lookup(&self, dir: &Directory, name: &OsStr) -> FsResult<Option<Node>> {
        let mut search =
            Search { parts: Cow::Borrowed(&dir.parts), next: 0, name: Cow::Borrowed(name) };
        let mut merged = Vec::new();
        let mut without_data: Option<File> = None;
        while let Some((part, last)) = search.advance() {
            match probe(&part.fd, &search.name, part.xattr_whiteouts, last)? {
                Probe::Absent => {}
                Probe::Whiteout => break,
                Probe::File(_) if !merged.is_empty() => break,
                Probe::File(stat) => {
                    let has_data = !self.is_metacopy(&part, &search.name, &stat)?;
                    let file = self.file_found(&search, &part, stat, without_data.take())?;
                    if has_data {
                        return Ok(Some(Node::File(file)));
                    }
                    without_data = Some(file);
                    let redirect = self.file_redirect(&part, &search.name)?;
                    self.follow(&mut search, redirect, part.layer)?;
                }
                Probe::Dir(_) if without_data.is_some() => break,
                Probe::Dir(stat) => {
                    let fd = file::open_at(&part.fd, &search.name, DIRECTORY)?;
                    let marks = marks_of_fd(&fd, Some(self.trust(part.layer)))?;
                    let (layer, xattr_whiteouts) = (part.layer, marks.xattr_whiteouts);
                    merged.push(Part { layer, fd: Arc::new(fd), stat, xattr_whiteouts });
                    if marks.opaque {
                        break;
                    }
                    self.follow(&mut search, marks.redirect, layer)?;
                }
            }
        }
        if without_data.is_some() {
            return Err(Errno::IO);
        }
        Ok((!merged.is_empty()).then_some(Node::Dir(Directory { parts: merged })))
    }

    /// The file of a lookup: the one found above without data keeps its attributes.
    fn file_found(
        &self,
        search: &Search<'_>,
        part: &Part,
        stat: Stat,
        above: Option<File>,
    ) -> FsResult<File> {
        let (dir, name) = (Arc::clone(&part.fd), search.name.clone().into_owned());
        match above {
            None => Ok(File { dir, name, layer: part.layer, stat, data: None }),
            Some(_) if !stat.is_file() => Err(Errno::IO),
            Some(file) => Ok(File { data: Some((dir, name)), ..file }),
        }
    }

    fn is_metacopy(&self, part: &Part, name: &OsStr, stat: &Stat) -> FsResult<bool> {
        let target = Target::at(&part.fd, name);
        Ok(stat.is_file() && self.trust(part.layer).get(target, Mark::Metacopy)?.is_some())
    }

    fn file_redirect(&self, part: &Part, name: &OsStr) -> FsResult<Option<Redirect>> {
        let target = Target::at(&part.fd, name);
        let value = self.trust(part.layer).get(target, Mark::Redirect)?;
        value.map(|value| Redirect::parse(&value)).transpose()
    }

    /// Lets `search` go on where `redirect`, found in `layer`, says.
    fn follow(
        &self,
        search: &mut Search<'_>,
        redirect: Option<Redirect>,
        layer: usize,
    ) -> FsResult<()> {
        match redirect {
            None => {}
            Some(Redirect::Sibling(name)) => search.name = Cow::Owned(name),
            Some(Redirect::Absolute(mut path)) => {
                let name = path.pop().ok_or(Errno::INVAL)?;
                search.parts = Cow::Owned(self.parts_below(layer, &path)?);
                search.next = 0;
                search.name = Cow::Owned(name);
            }
        }
        Ok(())
    }

    /// The parts of the directory `path` of the tree that lies below `layer`. A redirect met on
    /// the way leads to layers lower still, so this ends.
    fn parts_below(&self, layer: usize, path: &[OsString]) -> FsResult<Vec<Part>> {
        let below = self.roots.get(layer + 1..).unwrap_or_default();
        let mut dir = merged_root(below);
        for name in path {
            match self.lookup(&dir, name)? {
                Some(Node::Dir(next)) => dir = next,
                _ => return Ok(Vec::new()),
            }
        }
        Ok(dir.parts)
    }
}

/// The root of a stack: the roots of its layers down to the first opaque one.
fn merged_root(roots: &[(Part, bool)]) -> Directory {
    let end = roots.iter().position(|(_, opaque)| *opaque).map_or(roots.len(), |last| last + 1);
    Directory { parts: roots.iter().take(end).map(|(part, _)| part.clone()).collect() }
}

impl Node {
    /// The attributes.
    pub fn stat(&self) -> FsResult<Stat> {
        match self {
            Node::Dir(dir) => dir.stat(),
            Node::File(file) => Ok(file.stat),
        }
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

impl Search<'_> {
    /// The next part to ask, and whether nothing lies below it.
    fn advance(&mut self) -> Option<(Part, bool)> {
        let part = self.parts.get(self.next)?.clone();
        self.next += 1;
        Some((part, self.next == self.parts.len()))
    }
}

impl Directory {
    /// The attributes: those of the topmost part.
    pub fn stat(&self) -> FsResult<Stat> {
        self.parts.first().map(|part| part.stat).ok_or(Errno::NOENT)
    }

    /// The xattrs that users see, with their values, sorted by name.
    pub fn xattrs(&self) -> FsResult<Vec<(OsString, Vec<u8>)>> {
        visible_xattrs(Target::fd(&self.parts.first().ok_or(Errno::NOENT)?.fd))
    }

    /// Every name that [`Tree::lookup`] may find here, in the order of their bytes. Some are only
    /// mentioned because they are hidden.
    pub fn names(&self) -> FsResult<BTreeSet<OsString>> {
        self.mentioned(self.parts.len())
    }

    /// Every name that the topmost `parts` parts mention, hidden ones included, sorted.
    fn mentioned(&self, parts: usize) -> FsResult<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        for part in self.parts.iter().take(parts) {
            dir::read_dir(dir::open_dir(&part.fd, OsStr::new("."))?, |entry| {
                if !whiteout::is_reserved_name(entry.name) {
                    names.insert(entry.name.to_owned());
                } else if let Some(hidden) = whiteout::hidden_name(entry.name) {
                    names.insert(hidden.to_owned());
                }
                Ok(true)
            })?;
        }
        Ok(names)
    }

    /// The names under which this directory may differ from `old`, the same one without the
    /// topmost layer: those that the topmost layer mentions where that only adds to `old`, every
    /// name of both where it replaced it.
    pub(super) fn names_to_compare(&self, old: &Directory) -> FsResult<BTreeSet<OsString>> {
        if self.is_same(old) {
            return Ok(BTreeSet::new());
        }
        if self.adds_to(old) {
            return self.mentioned(1);
        }
        let mut names = self.names()?;
        names.append(&mut old.names()?);
        Ok(names)
    }

    /// Whether nothing of the topmost layer is in this directory, compared with `old`.
    pub(super) fn is_same(&self, old: &Directory) -> bool {
        same_parts(&self.parts, &old.parts)
    }

    fn adds_to(&self, old: &Directory) -> bool {
        self.parts
            .split_first()
            .is_some_and(|(top, rest)| top.layer == 0 && same_parts(rest, &old.parts))
    }
}

fn same_parts(one: &[Part], two: &[Part]) -> bool {
    let key = |part: &Part| (part.layer, part.stat.dev, part.stat.ino);
    one.iter().map(key).eq(two.iter().map(key))
}

impl File {
    /// Whether this is the very same file of the same layer as `other`.
    pub(super) fn is_same(&self, other: &File) -> bool {
        let key = |file: &File| (file.layer, file.stat.dev, file.stat.ino);
        key(self) == key(other)
    }

    /// A key that the names of one inode share: hard links of one layer.
    pub fn inode(&self) -> (usize, u64, u64) {
        (self.layer, self.stat.dev, self.stat.ino)
    }

    /// The xattrs that users see, with their values, sorted by name.
    pub fn xattrs(&self) -> FsResult<Vec<(OsString, Vec<u8>)>> {
        visible_xattrs(Target::at(&self.dir, &self.name))
    }

    /// One xattr.
    pub fn xattr(&self, name: &OsStr) -> FsResult<Option<Vec<u8>>> {
        xattr::get(Target::at(&self.dir, &self.name), name)
    }

    /// A symlink's target.
    pub fn link_target(&self) -> FsResult<OsString> {
        node::read_link(&self.dir, &self.name)
    }

    /// Opens the content of a regular file for reading.
    pub fn open(&self) -> FsResult<OwnedFd> {
        match &self.data {
            Some((dir, name)) => file::open_at(dir, name, OFlags::RDONLY),
            None => file::open_at(&self.dir, &self.name, OFlags::RDONLY),
        }
    }

    /// Where the content is, on disk: equal for files whose content cannot differ.
    pub(super) fn data_inode(&self) -> FsResult<(u64, u64)> {
        let stat = match &self.data {
            Some((dir, name)) => crate::sys::stat::stat_at(dir, name)?,
            None => self.stat,
        };
        Ok((stat.dev, stat.ino))
    }
}

fn visible_xattrs(of: Target<'_>) -> FsResult<Vec<(OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list(of)? {
        let Some(shown) = unescape(&name) else { continue };
        // One that went since it was listed is none.
        if let Some(value) = xattr::get(of, &name)? {
            found.push((shown.into_owned(), value));
        }
    }
    found.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(found)
}
