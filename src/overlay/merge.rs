//! The merge rule: what a name in a merged directory is.
//!
//! Layers are asked topmost first. The first that has the name decides; a whiteout there means
//! that it does not exist. A directory merges with directories of the name in the layers below,
//! until one is opaque, a whiteout or no directory. A redirect makes the layers below look at
//! another name, or from their roots along another path.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::layer_dir::{LayerDir, Marks, name_of};
use super::node::RealKey;
use super::{Name, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::redirect::Redirect;
use crate::layer::whiteout::Style;
use crate::layer::xattrs::DirMarks;
use crate::layer::{LayerIndex, Probe, entry, probe};
use crate::sys::OwnedFd;
use crate::sys::stat::Stat;
use crate::sys::xattr::Target;

/// What was found under a name.
#[derive(Debug)]
pub(super) struct Merged {
    /// Where the topmost entry lies: the directory that holds it, and its name there.
    pub place: (Arc<LayerDir>, Name),
    /// The attributes of the topmost entry.
    pub stat: Stat,
    /// For a directory: its parts, topmost first.
    pub parts: Vec<Arc<LayerDir>>,
    /// For a directory: the inode of its topmost lower part.
    pub lower: Option<RealKey>,
    /// For a directory: where its upper part says that the lower ones are.
    pub redirect: Option<Redirect>,
    /// For a file whose attributes alone lie there: where its data lies.
    pub data: Option<(Arc<LayerDir>, Name)>,
}

impl Merged {
    pub(super) fn is_upper(&self) -> bool {
        self.place.0.layer.is_upper()
    }

    fn add(&mut self, part: Arc<LayerDir>, stat: &Stat) {
        if self.lower.is_none() && !part.layer.is_upper() {
            self.lower = Some(RealKey { dev: stat.dev, ino: stat.ino });
        }
        self.parts.push(part);
    }

    /// The inode that tells it apart: of a merged directory the topmost lower one, which stays
    /// the same when the directory is copied up.
    pub(super) fn key(&self) -> RealKey {
        self.lower.unwrap_or(RealKey { dev: self.stat.dev, ino: self.stat.ino })
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
            let listed = known.is_some() && !redirected;
            let (child, marks) = match self.enter_listed(part, name, listed, &mut found)? {
                Some(entered) => entered,
                None => {
                    let fd = self.dir_fds.get(part)?;
                    let last = i + 1 == parts.len() || listed;
                    match (self.probe(part, &fd, name, last)?, &mut found) {
                        (Probe::Absent, _) => continue,
                        (Probe::Whiteout, _) | (Probe::File(_), Some(_)) => return Ok(found),
                        (Probe::File(stat), None) => {
                            let below = parts.get(i + 1..).unwrap_or_default();
                            return self.merged_file(part, name, stat, below).map(Some);
                        }
                        (Probe::Dir(stat), _) => {
                            let (child, marks) = self.enter(part, &fd, name)?;
                            add_part(&mut found, part, name, child.clone(), stat);
                            (child, marks)
                        }
                    }
                }
            };
            if marks.opaque {
                return Ok(found);
            }
            redirected |= marks.redirect.is_some();
            if let (true, Some(merged)) = (child.layer.is_upper(), &mut found) {
                merged.redirect.clone_from(&marks.redirect);
            }
            search = search.redirected(marks.redirect);
        }
        if let (Search::FromRoot(path), Some(merged)) = (search, &mut found) {
            self.merge_redirected(merged, path)?;
        }
        Ok(found)
    }

    /// Adds a directory that a listing names below others: that it is one is told by opening it,
    /// and its attributes matter to nobody. `None` where it must be looked at.
    fn enter_listed(
        &self,
        part: &Arc<LayerDir>,
        name: &Name,
        listed: bool,
        found: &mut Option<Merged>,
    ) -> FsResult<Option<(Arc<LayerDir>, DirMarks)>> {
        let Some(merged) = found.as_mut().filter(|merged| listed && merged.lower.is_some()) else {
            return Ok(None);
        };
        let fd = self.dir_fds.get(part)?;
        let (child, marks) = match self.open_marked(part, &fd, name) {
            Ok(entered) => entered,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        merged.parts.push(child.clone());
        Ok(Some((child, marks)))
    }

    /// A file, or anything else but a directory, whose topmost entry lies in `part`; `below` are
    /// the layers that may have its data.
    fn merged_file(
        &self,
        part: &Arc<LayerDir>,
        name: &Name,
        stat: Stat,
        below: &[&Arc<LayerDir>],
    ) -> FsResult<Merged> {
        let place = (part.clone(), name.clone());
        let data = self.data_place(&place, &stat, below)?;
        Ok(Merged { place, stat, parts: Vec::new(), lower: None, redirect: None, data })
    }

    /// Goes on below a directory whose redirect is an absolute path.
    fn merge_redirected(&self, merged: &mut Merged, mut path: Vec<OsString>) -> FsResult<()> {
        let from = merged.parts.last().map_or(LayerIndex::UPPER, |dir| dir.layer);
        for root in self.lower_roots.iter().filter(|root| root.layer > from) {
            let step = self.walk_layer(root, &path)?;
            if let Some((dir, stat)) = step.found {
                merged.add(dir, &stat);
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
        let mut probed = probe(fd, name, || self.has_xattr_whiteouts(dir, fd), last)?;
        if let Probe::File(stat) | Probe::Dir(stat) = &mut probed {
            self.add_stored(dir.layer, Target::at(fd, name), stat)?;
        }
        Ok(probed)
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
        self.open_marked(parent, fd, name)
    }

    fn open_marked(
        &self,
        parent: &Arc<LayerDir>,
        fd: &OwnedFd,
        name: &Name,
    ) -> FsResult<(Arc<LayerDir>, DirMarks)> {
        let own = LayerDir::open(parent.layer, fd, name)?;
        let trust = || self.redirect_trust(parent.layer);
        let (marks, entries) = match parent.layer {
            layer if self.is_bottom(layer) => (None, None),
            layer if layer.is_upper() => (Some(entry::marks_of_fd(&own, trust())?), None),
            _ => {
                let (marks, entries) = entry::marks_and_entries(&own, trust())?;
                (Some(marks), entries)
            }
        };
        let shown = marks.as_ref().map(Marks::from).unwrap_or_default();
        let child = LayerDir::child(parent, name, shown);
        self.dir_fds.keep(&child, Arc::new(own), entries);
        Ok((child, marks.unwrap_or_default()))
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
    let merged = found.get_or_insert_with(|| Merged {
        place: (parent.clone(), name.clone()),
        stat,
        parts: Vec::new(),
        lower: None,
        redirect: None,
        data: None,
    });
    merged.add(child, &stat);
}
