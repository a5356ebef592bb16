//! A stack of layers as one read-only tree, reached by descriptors alone.
//!
//! [`Tree::lookup`] holds the only merge rule here; listing is built on it. A path is never
//! joined: each directory is the list of its parts, one descriptor for each layer that has it.
//!
//! With an upper there are two views of the lowers: through the upper, where the index of its
//! workdir leads the lower names of a copied-up hard link to their upper inode, and from below
//! it, where they are what they were. Each directory knows which one it was reached by.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::visible_xattrs;
use super::links::Links;
use super::root::{self, Root};
use super::upper_dir::UpperDir;
use crate::error::{Errno, Error, FsResult, Result};
use crate::layer::entry::marks_of_fd;
use crate::layer::redirect::Redirect;
use crate::layer::xattrs::Mark;
use crate::layer::{Namespace, Probe, probe, whiteout};
use crate::sys::stat::Stat;
use crate::sys::xattr::Target;
use crate::sys::{OFlags, OwnedFd, dir, file};

pub use super::file::File;

/// A stack of layers, topmost first.
#[derive(Debug)]
pub struct Tree {
    /// The roots of all layers.
    roots: Vec<Root>,
    root: Directory,
    /// What only an upper has.
    top: Option<Top>,
}

/// What sets an upper, layer 0, apart from lowers.
#[derive(Debug)]
struct Top {
    /// Where its redirects and metacopies are believed: the namespace that only who mounted
    /// this stack can have written, never an image's author.
    trust: Namespace,
    /// The index of its workdir, where that has entries.
    links: Option<Links>,
}

/// One layer's part of a directory.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) layer: usize,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) stat: Stat,
    pub(super) xattr_whiteouts: bool,
}

/// A merged directory: its parts, topmost first. There is at least one.
#[derive(Debug, Clone)]
pub struct Directory {
    pub(super) parts: Vec<Part>,
    /// Reached through the upper, so that its index counts.
    pub(super) through_top: bool,
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
    /// Opens the read-only layers at `paths`, topmost first; each may be a symlink to a directory.
    ///
    /// # Errors
    /// Names the layer that is missing or not readable.
    pub fn open(paths: &[PathBuf]) -> Result<Tree> {
        Tree::of_roots(Root::lowers(paths, 0)?, None)
    }

    /// The tree below one directory of any filesystem, where no xattr stands for owner and mode:
    /// users of a mount may have set what looks like one.
    ///
    /// # Errors
    /// Where it is missing or not readable.
    pub fn plain(dir: &Path) -> Result<Tree> {
        Tree::of_roots(vec![Root::plain(dir)?], None)
    }

    /// Opens `upper` above the `lowers`, topmost first.
    ///
    /// # Errors
    /// Names the layer or workdir that is missing or not readable.
    pub fn open_with_upper(lowers: &[PathBuf], upper: impl Into<UpperDir>) -> Result<Tree> {
        let upper = upper.into();
        let links = match &upper.workdir {
            Some(workdir) => Links::open(workdir)
                .map_err(|errno| Error::io("read the index of workdir", workdir, errno))?,
            None => None,
        };
        let mut roots = vec![Root::upper(&upper.path)?];
        roots.extend(Root::lowers(lowers, 1)?);
        Tree::of_roots(roots, Some(Top { trust: upper.namespace(), links }))
    }

    fn of_roots(roots: Vec<Root>, top: Option<Top>) -> Result<Tree> {
        if roots.is_empty() {
            return Err(Error::Refused("no layer is given".to_owned()));
        }
        let root = root::merged(&roots, true);
        Ok(Tree { roots, root, top })
    }

    /// The namespace whose redirects and metacopies are believed in `layer`.
    fn trust(&self, layer: usize) -> Namespace {
        let top = self.top.as_ref().filter(|_| layer == 0);
        top.map_or(Namespace::Trusted, |top| top.trust)
    }

    /// Where names in lowers may lead to; `None` where each is what it is in its layer.
    pub(super) fn links(&self) -> Option<&Links> {
        self.top.as_ref().and_then(|top| top.links.as_ref())
    }

    /// The root of the merged tree.
    pub fn root(&self) -> &Directory {
        &self.root
    }

    /// The root of what lies below the topmost layer; `None` where nothing does.
    pub fn root_below_top(&self) -> Option<Directory> {
        let below = self.roots.get(1..).filter(|roots| !roots.is_empty());
        below.map(|roots| root::merged(roots, false))
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
            match probe(&part.fd, &search.name, || Ok(part.xattr_whiteouts), last)? {
                Probe::Absent => {}
                Probe::Whiteout => break,
                Probe::File(_) if !merged.is_empty() => break,
                Probe::File(stat) => {
                    let has_data = !self.is_metacopy(part.layer, &part.fd, &search.name, &stat)?;
                    let file = file_found(&search, &part, stat, without_data.take())?;
                    if has_data {
                        let mut file = if dir.through_top { self.led(file)? } else { file };
                        let place = Target::at(&file.dir, &file.name);
                        self.add_stored(file.layer, place, &mut file.stat)?;
                        return Ok(Some(Node::File(file)));
                    }
                    without_data = Some(file);
                    let redirect = self.file_redirect(&part, &search.name)?;
                    self.follow(&mut search, redirect, part.layer)?;
                }
                Probe::Dir(_) if without_data.is_some() => break,
                Probe::Dir(mut stat) => {
                    let fd = file::open_at(&part.fd, &search.name, DIRECTORY)?;
                    self.add_stored(part.layer, Target::fd(&fd), &mut stat)?;
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
        let found = Directory { parts: merged, through_top: dir.through_top };
        Ok((!found.parts.is_empty()).then_some(Node::Dir(found)))
    }

    /// What `file`, found by its name, is seen through the upper: if it lies in a lower and its
    /// hard link group was copied up, the group's upper inode.
    fn led(&self, file: File) -> FsResult<File> {
        let Some(links) = self.links().filter(|_| file.layer > 0) else { return Ok(file) };
        let uuid = self.roots.get(file.layer).map(|root| root.uuid).unwrap_or_default();
        let Some((dir, name, stat)) = links.find(&file, uuid)? else { return Ok(file) };
        let has_data = !self.is_metacopy(0, &dir, &name, &stat)?;
        let below = file.data.unwrap_or((file.dir, file.name));
        let data = (!has_data).then_some(below);
        Ok(File { dir, name, layer: 0, stat, data, led: true })
    }

    /// Puts what `layer` keeps for `of` in place of what its filesystem says.
    fn add_stored(&self, layer: usize, of: Target<'_>, stat: &mut Stat) -> FsResult<()> {
        self.roots.get(layer).map_or(Ok(()), |root| root.add_stored(of, stat))
    }

    fn is_metacopy(
        &self,
        layer: usize,
        dir: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
    ) -> FsResult<bool> {
        let target = Target::at(dir, name);
        Ok(stat.is_file() && self.trust(layer).get(target, Mark::Metacopy)?.is_some())
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
        let mut dir = root::merged(below, false);
        for name in path {
            match self.lookup(&dir, name)? {
                Some(Node::Dir(next)) => dir = next,
                _ => return Ok(Vec::new()),
            }
        }
        Ok(dir.parts)
    }
}

/// The file of a lookup: the one found above without data keeps its attributes.
fn file_found(search: &Search<'_>, part: &Part, stat: Stat, above: Option<File>) -> FsResult<File> {
    let (dir, name) = (Arc::clone(&part.fd), search.name.clone().into_owned());
    match above {
        None => Ok(File { dir, name, layer: part.layer, stat, data: None, led: false }),
        Some(_) if !stat.is_file() => Err(Errno::IO),
        Some(file) => Ok(File { data: Some((dir, name)), ..file }),
    }
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
            dir::list_dir(&part.fd, |entry| {
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
    /// name of both where it replaced it. With `links`, moreover, the names in the lowers that
    /// may lead to them, and all directories, because such names may be below.
    pub(super) fn names_to_compare(
        &self,
        old: &Directory,
        links: Option<&Links>,
    ) -> FsResult<BTreeSet<OsString>> {
        let mut names = if self.is_same(old) {
            BTreeSet::new()
        } else if self.adds_to(old) {
            self.mentioned(1)?
        } else {
            let mut names = self.names()?;
            names.append(&mut old.names()?);
            return Ok(names);
        };
        if let Some(links) = links {
            for part in self.parts.iter().filter(|part| part.layer > 0) {
                dir::list_dir(&part.fd, |entry| {
                    if links.may_lead(&entry) && !whiteout::is_reserved_name(entry.name) {
                        names.insert(entry.name.to_owned());
                    }
                    Ok(true)
                })?;
            }
        }
        Ok(names)
    }

    /// The names under which this directory may differ from `old`, one of another stack.
    pub(super) fn names_of_either(&self, old: &Directory) -> FsResult<BTreeSet<OsString>> {
        let key = |part: &Part| (part.stat.dev, part.stat.ino);
        if self.parts.iter().map(key).eq(old.parts.iter().map(key)) {
            return Ok(BTreeSet::new());
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
