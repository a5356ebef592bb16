//! The merge rule: what a name in a merged directory is.
//!
//! Layers are asked topmost first. The first that has the name decides; a whiteout there means
//! that it does not exist. A directory merges with directories of the name in the layers below,
//! until one is opaque, a whiteout or no directory. A redirect makes the layers below look at
//! another name, or from their roots along another path.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FileType;

use super::layer_dir::{LayerDir, Marks, name_of};
use super::listing::{Listed, Occupant, Part};
use super::lower_path::LowerPath;
use super::node::{Directory, Node, NodeState, RealKey};
use super::{Entry, Name, NodeId, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::redirect::Redirect;
use crate::layer::upper::Present;
use crate::layer::whiteout::Style;
use crate::layer::xattrs::DirMarks;
use crate::layer::{LayerIndex, Probe, entry, probe, whiteout};
use crate::sys::stat::Stat;
use crate::sys::{OFlags, OwnedFd, file};

/// What was found under a name.
#[derive(Debug)]
pub(super) struct Merged {
    /// Where the topmost entry lies: the directory that holds it, and its name there.
    pub place: (Arc<LayerDir>, Name),
    /// The attributes of the topmost entry.
    pub stat: Stat,
    /// For a directory: its parts, topmost first, with their attributes.
    pub parts: Vec<(Arc<LayerDir>, Stat)>,
    /// For a directory: where its upper part says that the lower ones are.
    pub redirect: Option<Redirect>,
    /// For a file whose attributes alone lie there: where its data lies.
    pub data: Option<(Arc<LayerDir>, Name)>,
}

impl Merged {
    fn is_upper(&self) -> bool {
        self.place.0.layer.is_upper()
    }

    /// The inode that tells it apart: of a merged directory the topmost lower one, which stays
    /// the same when the directory is copied up.
    fn key(&self) -> RealKey {
        let lower = self.parts.iter().find(|(dir, _)| !dir.layer.is_upper());
        let stat = lower.map_or(&self.stat, |(_, stat)| stat);
        RealKey { dev: stat.dev, ino: stat.ino }
    }
}

/// Where the layers below the present one look for the lower part of a directory.
pub(super) enum Search {
    /// In the same merged directory under this name.
    Here(Name),
    /// From their roots along this path.
    FromRoot(Vec<OsString>),
}

impl Search {
    pub(super) fn redirected(self, redirect: Option<Redirect>) -> Search {
        match redirect {
            None => self,
            Some(Redirect::Absolute(path)) => Search::FromRoot(path),
            Some(Redirect::Sibling(name)) => Search::Here(name_of(&name)),
        }
    }

    /// As [`Search::redirected`] for a file met on the way along a path.
    pub(super) fn redirected_file(self, redirect: Option<Redirect>) -> Search {
        match (self, redirect) {
            (Search::FromRoot(mut path), Some(Redirect::Sibling(name))) => {
                path.pop();
                path.push(name);
                Search::FromRoot(path)
            }
            (search, redirect) => search.redirected(redirect),
        }
    }
}

impl Overlay {
    /// Finds `name` in the directory `parent` and counts a lookup of what is there.
    ///
    /// # Errors
    /// `ENOENT` where there is nothing; the kernel may remember that.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> FsResult<Entry> {
        check_name(name)?;
        let parent = self.nodes.get(parent)?;
        let dir = parent.directory()?;
        let state = dir.state.read();
        if state.dead {
            return Err(Errno::NOENT);
        }
        self.lookup_in(&parent, dir, name)
    }

    /// As [`Overlay::lookup`], for a caller that holds the lock on the directory's entries.
    pub(super) fn lookup_in(
        &self,
        parent: &Arc<Node>,
        dir: &Directory,
        name: &OsStr,
    ) -> FsResult<Entry> {
        let name = name_of(name);
        let merged = self.find(dir, &name)?.ok_or(Errno::NOENT)?;
        self.intern(parent, &name, merged)
    }

    /// What `name` is in the directory, from its listing where that is kept.
    pub(super) fn find(&self, dir: &Directory, name: &Name) -> FsResult<Option<Merged>> {
        if whiteout::is_reserved_name(name) {
            return Ok(None);
        }
        self.list_if_worthwhile(dir)?;
        let parts: Vec<&Arc<LayerDir>> = dir.parts().collect();
        let listing = dir.listing.read();
        self.counters.lookups.note(listing.is_some());
        let Some(listing) = listing.as_ref() else {
            dir.direct_lookups.fetch_add(1, Ordering::Relaxed);
            return self.merge(&parts, name, None);
        };
        let Some(listed) = listing.get(name).filter(|listed| listed.kind.is_some()) else {
            return Ok(None);
        };
        let known = part_numbers(dir, listed);
        self.merge(&parts, name, Some(&known))
    }

    /// The merge rule. `known` are the positions in `parts` that have the name, where a listing
    /// told so: the others, and whiteouts, need not be asked.
    pub(super) fn merge(
        &self,
        parts: &[&Arc<LayerDir>],
        name: &Name,
        known: Option<&[usize]>,
    ) -> FsResult<Option<Merged>> {
        let mut search = Search::Here(name.clone());
        let mut found: Option<Merged> = None;
        let mut redirected = false;
        for (i, part) in parts.iter().enumerate() {
            let Search::Here(name) = &search else { break };
            if known.is_some_and(|known| !redirected && !known.contains(&i)) {
                continue;
            }
            let fd = self.dir_fds.get(part)?;
            let last = i + 1 == parts.len() || (known.is_some() && !redirected);
            match (self.probe(part, &fd, name, last)?, &mut found) {
                (Probe::Absent, _) => {}
                (Probe::Whiteout, _) | (Probe::File(_), Some(_)) => return Ok(found),
                (Probe::File(stat), None) => {
                    let place = ((*part).clone(), name.clone());
                    let below = parts.get(i + 1..).unwrap_or_default();
                    let data = self.data_place(&place, &stat, below)?;
                    return Ok(Some(Merged {
                        place,
                        stat,
                        parts: Vec::new(),
                        redirect: None,
                        data,
                    }));
                }
                (Probe::Dir(stat), _) => {
                    let (child, marks) = self.enter(part, &fd, name)?;
                    add_part(&mut found, part, name, child, stat);
                    if marks.opaque {
                        return Ok(found);
                    }
                    redirected |= marks.redirect.is_some();
                    if let (true, Some(merged)) = (part.layer.is_upper(), &mut found) {
                        merged.redirect.clone_from(&marks.redirect);
                    }
                    search = search.redirected(marks.redirect);
                }
            }
        }
        if let (Search::FromRoot(path), Some(merged)) = (search, &mut found) {
            self.merge_redirected(merged, path)?;
        }
        Ok(found)
    }

    /// Goes on below a directory whose redirect is an absolute path.
    fn merge_redirected(&self, merged: &mut Merged, mut path: Vec<OsString>) -> FsResult<()> {
        let from = merged.parts.last().map_or(LayerIndex::UPPER, |(dir, _)| dir.layer);
        for root in self.lower_roots.iter().filter(|root| root.layer > from) {
            let step = self.walk_layer(root, &path)?;
            if let Some(part) = step.found {
                merged.parts.push(part);
            }
            if step.stop {
                break;
            }
            path = step.path;
        }
        Ok(())
    }

    /// Looks up a path in one layer, from its root.
    pub(super) fn walk_layer(&self, root: &Arc<LayerDir>, path: &[OsString]) -> FsResult<Step> {
        let mut step = Step { found: None, file: None, stop: false, path: path.to_vec() };
        let mut at = root.clone();
        for (i, component) in path.iter().enumerate() {
            let fd = self.dir_fds.get(&at)?;
            let stat = match self.probe(&at, &fd, component, false)? {
                Probe::Absent => return Ok(step),
                Probe::File(_) if i + 1 == path.len() => {
                    step.file = Some((at, name_of(component)));
                    step.stop = true;
                    return Ok(step);
                }
                Probe::Whiteout | Probe::File(_) => {
                    step.stop = true;
                    return Ok(step);
                }
                Probe::Dir(stat) => stat,
            };
            let name = name_of(component);
            let (child, marks) = self.enter(&at, &fd, &name)?;
            step.stop |= marks.opaque;
            at = child;
            if let Some(redirect) = marks.redirect {
                step.redirect(redirect, path.len() - i - 1);
            }
            if i + 1 == path.len() {
                step.found = Some((at.clone(), stat));
            }
        }
        Ok(step)
    }

    /// What the directory `dir` of one layer, open as `fd`, says about `name`.
    pub(super) fn probe(
        &self,
        dir: &LayerDir,
        fd: &OwnedFd,
        name: &OsStr,
        last: bool,
    ) -> FsResult<Probe> {
        probe(fd, name, || self.has_xattr_whiteouts(dir, fd), last)
    }

    /// Whether whiteouts in xattr form may be in the directory `dir`, open as `fd`. Where we
    /// write them ourselves, that is so at any time.
    pub(super) fn has_xattr_whiteouts(&self, dir: &LayerDir, fd: &OwnedFd) -> FsResult<bool> {
        let style = self.upper.as_ref().filter(|_| dir.layer.is_upper()).map(|upper| upper.style);
        Ok(style == Some(Style::Xattr) || dir.has_xattr_whiteouts(fd)?)
    }

    /// The directory `name` in `parent` with its marks. Where nothing lies below its layer, no
    /// mark that ends or redirects the merge matters, and none is read.
    /// The descriptor that they are read through is kept: who looks it up goes on into it.
    fn enter(
        &self,
        parent: &Arc<LayerDir>,
        fd: &OwnedFd,
        name: &Name,
    ) -> FsResult<(Arc<LayerDir>, DirMarks)> {
        if self.is_bottom(parent.layer) {
            return Ok((LayerDir::child(parent, name, Marks::default()), DirMarks::default()));
        }
        let own = file::open_at(fd, name, OFlags::PATH | OFlags::DIRECTORY)?;
        let marks = entry::marks_of_fd(&own, self.redirect_trust(parent.layer))?;
        let child = LayerDir::child(parent, name, (&marks).into());
        self.dir_fds.keep(&child, Arc::new(own));
        Ok((child, marks))
    }

    /// The node of what was found, with one lookup counted.
    fn intern(&self, parent: &Arc<Node>, name: &Name, merged: Merged) -> FsResult<Entry> {
        let ino = self.ino_of(parent.directory()?, &merged)?;
        let indexed = self.indexed(&merged)?;
        let stat = indexed.as_ref().map_or(merged.stat, |indexed| indexed.stat);
        let is_upper = merged.is_upper() || indexed.is_some();
        let key = match &indexed {
            Some(indexed) => RealKey { dev: indexed.stat.dev, ino: indexed.stat.ino },
            None => self.key_of(parent, name, &merged),
        };
        let (key, ino) = self.own_directory(parent, name, &merged).unwrap_or((key, ino));
        let data = match &indexed {
            Some(indexed) if !merged.is_upper() => self.indexed_data(indexed, &merged)?,
            _ => merged.data.clone(),
        };
        let entry = indexed.map(|indexed| indexed.name);
        let above = parent.directory()?.lower_path.as_ref();
        let node = self.nodes.intern(key, |id| {
            let redirect = merged.redirect.clone();
            let mut node = new_node(id, key, ino, merged, is_upper, data, entry);
            if let Some(dir) = node.dir.as_mut().filter(|dir| !dir.lowers.is_empty()) {
                dir.lower_path = LowerPath::child(above, name, redirect.as_ref());
            }
            node
        })?;
        if node.kind != stat.file_type() {
            // A number used again while its old node lives would mix two files.
            self.nodes.forget(node.id, 1);
            return Err(Errno::STALE);
        }
        node.add_name(parent, name);
        let shown = if node.is_upper() == is_upper {
            self.shown(&node, stat)
        } else {
            self.stat_node(&node)
        };
        match shown {
            Ok(stat) => Ok(Entry { node: node.id, stat }),
            Err(errno) => {
                self.nodes.forget(node.id, 1);
                Err(errno)
            }
        }
    }

    /// For a directory whose lower part a directory elsewhere has, too (somebody copied a
    /// redirect): a key and an inode number that are not that one's.
    fn own_directory(
        &self,
        parent: &Arc<Node>,
        name: &Name,
        merged: &Merged,
    ) -> Option<(RealKey, u64)> {
        if !merged.stat.is_dir() {
            return None;
        }
        let alias = self.nodes.of_key(merged.key())?.alias().ok()?;
        if alias.name == *name && Arc::ptr_eq(&alias.parent, parent) {
            return None;
        }
        let key = match merged.is_upper() {
            true => RealKey { dev: merged.stat.dev, ino: merged.stat.ino },
            false => RealKey { dev: parent.id.0 | 1 << 63, ino: super::listing::hash(name) },
        };
        Some((key, self.inode_numbers.visible(key.dev, key.ino)))
    }

    /// What the node table knows it by. Without an index the names of a lower hard link part at
    /// copy-up, so that each has a node of its own from the start.
    fn key_of(&self, parent: &Node, name: &Name, merged: &Merged) -> RealKey {
        let keeps = self.keeps_links(merged.stat.file_type());
        let parts = !keeps && !merged.is_upper() && merged.stat.nlink > 1;
        if parts && !merged.stat.is_dir() {
            return RealKey { dev: parent.id.0 | 1 << 63, ino: super::listing::hash(name) };
        }
        merged.key()
    }

    /// The inode number to show for what was found in the directory `dir`.
    pub(super) fn ino_of(&self, dir: &Directory, merged: &Merged) -> FsResult<u64> {
        let key = merged.key();
        let impure = dir.is_impure();
        let only_upper = merged.parts.iter().all(|(dir, _)| dir.layer.is_upper());
        if merged.is_upper() && only_upper && impure {
            let fd = self.dir_fds.get(&merged.place.0)?;
            return self.upper_ino(&fd, &merged.place.1, &merged.stat);
        }
        Ok(self.inode_numbers.visible(key.dev, key.ino))
    }

    /// What the layers hold under a name that is to be changed.
    pub(super) fn occupant(&self, dir: &Directory, name: &Name) -> FsResult<Occupant> {
        if let Some(listing) = dir.listing.read().as_ref() {
            return Ok(listing.get(name).map_or(Occupant::NONE, Listed::occupant));
        }
        let mut occupant = Occupant::NONE;
        if let Some(upper) = dir.upper.get() {
            let fd = self.dir_fds.get(upper)?;
            occupant.present = match self.probe(upper, &fd, name, false)? {
                Probe::Absent => Present::Nothing,
                Probe::Whiteout => Present::Whiteout,
                Probe::File(_) => Present::File,
                Probe::Dir(_) => Present::Dir,
            };
        }
        for (i, lower) in dir.lowers.iter().enumerate() {
            let fd = self.dir_fds.get(lower)?;
            let last = i + 1 == dir.lowers.len();
            match self.probe(lower, &fd, name, last)? {
                Probe::Absent => {}
                Probe::Whiteout => break,
                Probe::File(_) | Probe::Dir(_) => {
                    occupant.below = true;
                    break;
                }
            }
        }
        Ok(occupant)
    }
}

/// What one layer adds to a redirected directory.
pub(super) struct Step {
    /// The directory that the path leads to.
    pub found: Option<(Arc<LayerDir>, Stat)>,
    /// The file that it leads to.
    pub file: Option<(Arc<LayerDir>, Name)>,
    /// The layers below are hidden.
    pub stop: bool,
    /// The path that the layers below follow.
    pub path: Vec<OsString>,
}

impl Step {
    /// Changes the path that the layers below follow: everything before its last `rest`
    /// components was redirected.
    fn redirect(&mut self, redirect: Redirect, rest: usize) {
        let split = self.path.len().saturating_sub(rest);
        let tail = self.path.split_off(split);
        match redirect {
            Redirect::Absolute(path) => self.path = path,
            Redirect::Sibling(name) => {
                self.path.pop();
                self.path.push(name);
            }
        }
        self.path.extend(tail);
    }
}

fn add_part(
    found: &mut Option<Merged>,
    parent: &Arc<LayerDir>,
    name: &Name,
    child: Arc<LayerDir>,
    stat: Stat,
) {
    match found {
        Some(merged) => merged.parts.push((child, stat)),
        None => {
            let place = (parent.clone(), name.clone());
            *found = Some(Merged {
                place,
                stat,
                parts: vec![(child, stat)],
                redirect: None,
                data: None,
            });
        }
    }
}

fn new_node(
    id: NodeId,
    key: RealKey,
    ino: u64,
    merged: Merged,
    is_upper: bool,
    data: Option<(Arc<LayerDir>, Name)>,
    index: Option<Name>,
) -> Node {
    let kind = merged.stat.file_type();
    let is_dir = kind == FileType::Directory;
    let attributes = (!is_upper && data.is_some()).then(|| Box::new(merged.place.clone()));
    let lower = if is_upper { data } else { Some(data.unwrap_or(merged.place)) };
    let state = NodeState {
        ino,
        keys: vec![key],
        names: Vec::with_capacity(1),
        lower: lower.filter(|_| !is_dir),
        attributes,
        pinned: None,
        index,
        dead: false,
    };
    let dir = is_dir.then(|| {
        let mut parts = merged.parts.into_iter().map(|(dir, _)| dir);
        let upper = if is_upper { parts.next() } else { None };
        Directory::new(upper, parts.collect())
    });
    Node::new(id, kind, is_upper, state, dir)
}

/// The positions among the directory's parts that have what is listed.
fn part_numbers(dir: &Directory, listed: &Listed) -> Vec<usize> {
    let uppers = usize::from(dir.upper.get().is_some());
    let first = match listed.part {
        Part::Upper => 0,
        Part::Lower(number) => usize::from(number) + uppers,
    };
    let rest = listed.lowers.iter().map(|number| usize::from(*number) + uppers);
    std::iter::once(first).chain(rest).collect()
}

impl Overlay {
    /// Builds the listing of a directory once enough names were looked up one by one that
    /// reading it is cheaper.
    fn list_if_worthwhile(&self, dir: &Directory) -> FsResult<()> {
        const SMALL: usize = 4096;
        // A lookup in one part costs little more than one in memory, if the name exists; in many
        // it costs as much as reading them.
        let direct = match dir.parts().count() {
            ..2 => 16,
            2..5 => 3,
            _ => 1,
        };
        let many = dir.direct_lookups.load(Ordering::Relaxed) + 1 >= direct;
        if !many || dir.listing.read().is_some() {
            return Ok(());
        }
        let mut slot = dir.listing.write();
        if slot.is_none() {
            *slot = self.build_listing(dir, SMALL)?;
            if slot.is_none() {
                // Too large to be read for lookups alone: do not try again soon.
                dir.direct_lookups.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
