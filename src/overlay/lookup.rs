//! Looking a name up: what the merge rule finds becomes a node.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FileType;

use super::directory::Directory;
use super::layer_dir::{LayerDir, name_of};
use super::listing::{Listed, Occupant, Part};
use super::lower_path::LowerPath;
use super::merge::Merged;
use super::node::{Node, RealKey};
use super::node_state::NodeState;
use super::{Entry, Name, NodeId, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::upper::Present;
use crate::layer::{Probe, whiteout};

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
        let name = name_of(name);
        let listed = dir.listing.read().is_some();
        let found = if listed { self.found_ahead(dir, &name) } else { None };
        let entry = self.lookup_in(&parent, dir, &name, found);
        drop(state);
        if !listed {
            self.count_listing(&parent, dir);
        }
        entry
    }

    /// As [`Overlay::lookup`], for a caller that holds the lock on the directory's entries and has
    /// what was `found` ahead, if it was.
    pub(super) fn lookup_in(
        &self,
        parent: &Arc<Node>,
        dir: &Directory,
        name: &Name,
        mut found: Option<Merged>,
    ) -> FsResult<Entry> {
        loop {
            let as_of = self.nodes.copy_ups();
            let merged = match found.take() {
                Some(merged) => merged,
                None => self.find(dir, name)?.ok_or(Errno::NOENT)?,
            };
            if let Some(entry) = self.intern(parent, name, merged, as_of)? {
                return Ok(entry);
            }
        }
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

    /// The node of what was found, with one lookup counted. None where there is no node yet and
    /// something was copied up since it was looked for (`as_of`): the file may lie elsewhere now,
    /// and who brought it there may have gone already. It must be looked for again then.
    fn intern(
        &self,
        parent: &Arc<Node>,
        name: &Name,
        merged: Merged,
        as_of: u64,
    ) -> FsResult<Option<Entry>> {
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
        let index = indexed.map(|indexed| indexed.name);
        let found = Found { parent, name, merged, key, ino, is_upper, data, index };
        let mut outdated = false;
        let node = self.nodes.intern(key, |id| {
            outdated = self.nodes.copy_ups() != as_of;
            if outdated { Err(Errno::AGAIN) } else { found.into_node(id) }
        });
        if outdated {
            return Ok(None);
        }
        let node = node?;
        if node.kind() != stat.file_type() {
            // A number used again while its old node lives would mix two files.
            self.give_back(node);
            return Err(Errno::STALE);
        }
        node.add_name(parent, name);
        let shown = if node.is_upper() == is_upper {
            self.shown(&node, stat)
        } else {
            self.stat_node(&node)
        };
        match shown {
            Ok(stat) => Ok(Some(Entry { node: node.id, stat })),
            Err(errno) => {
                self.give_back(node);
                Err(errno)
            }
        }
    }

    /// Takes a lookup back that the kernel is not told of.
    fn give_back(&self, node: Arc<Node>) {
        let id = node.id;
        // A reference of ours would keep it.
        drop(node);
        self.listings.forget(&self.nodes.forget(id, 1));
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
        let only_upper = merged.parts.iter().all(|dir| dir.layer.is_upper());
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

/// What a node is made of.
struct Found<'a> {
    parent: &'a Arc<Node>,
    name: &'a Name,
    merged: Merged,
    key: RealKey,
    ino: u64,
    /// It lies in the upper, if by its index entry alone.
    is_upper: bool,
    /// Where its data lies, if not with its attributes.
    data: Option<(Arc<LayerDir>, Name)>,
    /// Its name in the index.
    index: Option<Name>,
}

impl Found<'_> {
    fn into_node(self, id: NodeId) -> FsResult<Node> {
        let kind = self.merged.stat.file_type();
        let state = NodeState::new(self.ino).with_name(self.parent, self.name);
        if kind == FileType::Directory {
            let dir = self.merged.into_directory(self.is_upper, self.parent, self.name)?;
            return Ok(Node::new(id, self.key, kind, self.is_upper, state, Some(dir)));
        }
        let attributes = (!self.is_upper && self.data.is_some()).then(|| self.merged.place.clone());
        let lower = if self.is_upper { self.data } else { self.data.or(Some(self.merged.place)) };
        let mut state = match lower {
            Some(place) => state.with_lower(place),
            None => state,
        };
        state.set_attributes(attributes);
        state.set_index(self.index);
        Ok(Node::new(id, self.key, kind, self.is_upper, state, None))
    }
}

impl Merged {
    fn into_directory(self, is_upper: bool, parent: &Node, name: &Name) -> FsResult<Directory> {
        let mut parts = self.parts.into_iter();
        let upper = if is_upper { parts.next() } else { None };
        let mut dir = Directory::new(upper, parts.collect());
        if !dir.lowers.is_empty() {
            let above = parent.directory()?.lower_path.as_ref();
            dir.lower_path = LowerPath::child(above, name, self.redirect.as_ref());
        }
        Ok(dir)
    }
}

/// The positions among the directory's parts that have what is listed.
pub(super) fn part_numbers(dir: &Directory, listed: &Listed) -> Vec<usize> {
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
        if many { self.list_small(dir, SMALL) } else { Ok(()) }
    }

    /// Builds the listing of a directory that has none, if it has no more than `most` names.
    pub(super) fn list_small(&self, dir: &Directory, most: usize) -> FsResult<()> {
        if dir.listing.read().is_some() {
            return Ok(());
        }
        let mut slot = dir.listing.write();
        if slot.is_none() {
            *slot = self.build_listing(dir, most)?;
            if slot.is_none() {
                // Too large to be read for lookups alone: do not try again soon.
                dir.direct_lookups.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
