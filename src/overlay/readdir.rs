//! Reading merged directories, from a listing built by the same rule as lookups.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::{Arc, Weak};

use lru::LruCache;
use rustix::fs::FileType;

use super::directory::Directory;
use super::layer_dir::LayerDir;
use super::listing::{DOT, DOT_DOT, Listed, Listing, Part};
use super::node::Node;
use super::sync::Mutex;
use super::{DirEntry, Name, NodeId, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::whiteout;
use crate::sys::OwnedFd;
use crate::sys::dir::RawEntry;
use crate::sys::stat::stat_at;

/// Which directories have listings, so that together they stay bounded.
#[derive(Debug)]
pub(super) struct ListingBudget {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Directories with a listing and its number of entries.
    listings: LruCache<NodeId, (Weak<Node>, usize)>,
    /// Entries of all of them.
    total: usize,
}

/// Listings that are counted at most.
const LISTINGS: usize = 65_536;

/// Entries that all listings together may have, a very large directory's own aside.
const ENTRIES: usize = 200_000;

/// The listing of a new directory is counted once it has this many entries.
const COUNTED_FROM: usize = 64;

impl ListingBudget {
    pub(super) fn new() -> ListingBudget {
        // Without a bound of its own: that would be memory for so many from the start.
        ListingBudget { kept: Mutex::new(Kept { listings: LruCache::unbounded(), total: 0 }) }
    }

    /// Takes note of a listing that was just built; returns the directories whose listings have
    /// to go for it, least recently built first.
    fn note(&self, node: &Arc<Node>, entries: usize) -> Vec<Arc<Node>> {
        let mut kept = self.kept.lock();
        let Kept { listings, total } = &mut *kept;
        let mut gone = Vec::new();
        if let Some((id, (old, count))) = listings.push(node.id, (Arc::downgrade(node), entries)) {
            *total = total.saturating_sub(count);
            gone.extend(old.upgrade().filter(|_| id != node.id));
        }
        *total += entries;
        while (*total > ENTRIES || listings.len() > LISTINGS) && listings.len() > 1 {
            let Some((_, (old, count))) = listings.pop_lru() else { break };
            *total = total.saturating_sub(count);
            gone.extend(old.upgrade());
        }
        gone
    }

    /// Counts the listings of directories that nobody knows any more no longer: they would push
    /// out those that are in use, and hold memory of their nodes.
    pub(super) fn forget(&self, gone: &[Arc<Node>]) {
        for node in gone.iter().filter(|node| node.dir.is_some()) {
            let mut kept = self.kept.lock();
            if let Some((_, count)) = kept.listings.pop(&node.id) {
                kept.total = kept.total.saturating_sub(count);
            }
        }
    }

    /// How many are counted.
    pub(super) fn len(&self) -> u64 {
        self.kept.lock().listings.len() as u64
    }
}

/// Which entries of a directory come with their attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// None.
    Nothing,
    /// Directories.
    Directories,
    /// All of them.
    Everything,
}

impl With {
    pub(super) fn includes(self, kind: FileType) -> bool {
        match self {
            With::Nothing => false,
            With::Directories => kind == FileType::Directory,
            With::Everything => true,
        }
    }
}

/// Who reads a directory.
struct Reader<'a> {
    with: With,
    /// The directories that it was given.
    given: Vec<NodeId>,
    emit: &'a mut dyn FnMut(DirEntry<'_>) -> bool,
}

impl Overlay {
    /// Gives the entries of a directory after `cookie` (0: from the start) to `emit`, until it
    /// returns `false` because its room is full.
    ///
    /// What `with` names comes with its attributes and a counted lookup, `.` and `..` aside; an
    /// entry that `emit` refuses is not counted.
    pub fn readdir(
        &self,
        node: NodeId,
        cookie: u64,
        with: With,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        let node = self.nodes.get(node)?;
        let dir = node.directory()?;
        self.list(&node, dir)?;
        let mut reader = Reader { with, given: Vec::new(), emit };
        let rest = self.emit_listed(&node, dir, cookie, &mut reader)?;
        let at_end = cookie > 0 && reader.given.is_empty() && rest.is_none();
        let tells = with != With::Nothing && !dir.lowers.is_empty() && !at_end;
        if tells && self.foresight.is_on() {
            self.foresight.read(node.id, with, cookie, &reader.given, rest);
        }
        Ok(())
    }

    /// Emits entries of a listing; returns after which cookie there are more.
    fn emit_listed(
        &self,
        node: &Arc<Node>,
        dir: &Directory,
        cookie: u64,
        reader: &mut Reader<'_>,
    ) -> FsResult<Option<u64>> {
        let state = dir.state.read();
        if !self.emit_dots(node, cookie, reader.emit)? || state.dead {
            return Ok(None);
        }
        // The listing may be taken from us at any time by the budget; entries are copied in
        // small numbers so that no lookup is made under its lock.
        let mut cookie = cookie;
        loop {
            let batch: Vec<(u64, Listed)> = match dir.listing.read().as_ref() {
                Some(listing) => {
                    let batch: Vec<_> =
                        listing.after(cookie).take(64).map(|(c, e)| (c, e.clone())).collect();
                    // Who comes next begins anew.
                    listing.note_read_to(batch.last().map_or(0, |(last, _)| *last));
                    batch
                }
                None => return Ok(None),
            };
            let Some((last, _)) = batch.last() else { return Ok(None) };
            let before = std::mem::replace(&mut cookie, *last);
            let mut done = before;
            for (cookie, listed) in &batch {
                if !self.emit_one(node, dir, *cookie, listed, reader)? {
                    return Ok(Some(done));
                }
                done = *cookie;
            }
        }
    }

    fn emit_dots(
        &self,
        node: &Arc<Node>,
        cookie: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> FsResult<bool> {
        let kind = FileType::Directory.as_raw_mode() >> 12;
        let own = node.state.lock().ino;
        let parent = node.alias().map_or(own, |alias| alias.parent.state.lock().ino);
        for (at, name, ino) in [(DOT, ".", own), (DOT_DOT, "..", parent)] {
            let entry = DirEntry { name: OsStr::new(name), ino, kind, cookie: at, entry: None };
            if cookie < at && !emit(entry) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn emit_one(
        &self,
        node: &Arc<Node>,
        dir: &Directory,
        cookie: u64,
        listed: &Listed,
        reader: &mut Reader<'_>,
    ) -> FsResult<bool> {
        let Some(kind) = listed.kind else { return Ok(true) };
        let look = || {
            let found = self.found_ahead(dir, &listed.name);
            self.lookup_in(node, dir, &listed.name, found)
        };
        let entry = match reader.with.includes(kind).then(look) {
            None => None,
            Some(Ok(found)) => Some(found),
            // It went while we read, or cannot be looked at now: the name alone is given.
            Some(Err(_)) => None,
        };
        let shown = DirEntry {
            name: &listed.name,
            ino: entry.map_or(listed.ino, |entry| entry.stat.ino),
            kind: kind.as_raw_mode() >> 12,
            cookie,
            entry,
        };
        let fits = (reader.emit)(shown);
        match entry {
            Some(entry) if !fits => self.forget(entry.node, 1),
            Some(entry) if kind == FileType::Directory => reader.given.push(entry.node),
            _ => {}
        }
        Ok(fits)
    }

    /// Makes sure that the directory has a listing, for who reads it.
    fn list(&self, node: &Arc<Node>, dir: &Directory) -> FsResult<()> {
        self.counters.listings.note(dir.listing.read().is_some());
        self.make_listing(node, dir, usize::MAX)
    }

    /// Makes sure that the directory has a listing, unless there are more than `most` names.
    pub(super) fn make_listing(
        &self,
        node: &Arc<Node>,
        dir: &Directory,
        most: usize,
    ) -> FsResult<()> {
        if dir.listing.read().is_some() {
            return Ok(());
        }
        let state = dir.state.read();
        if !state.dead {
            self.list_small(dir, most)?;
        }
        drop(state);
        self.count_listing(node, dir);
        Ok(())
    }

    /// Counts the listing of a directory, if it has one now, after it had none. The caller holds no
    /// lock: other listings may have to go for it.
    pub(super) fn count_listing(&self, node: &Arc<Node>, dir: &Directory) {
        let entries = dir.listing.read().as_ref().map(Listing::len);
        if let Some(entries) = entries {
            self.keep_listing(node, entries);
        }
    }

    /// Changes the listing of a directory, where it is kept, after a change on disk.
    pub(super) fn relist(&self, node: &Arc<Node>, change: impl FnOnce(&mut Listing)) {
        let Some(dir) = &node.dir else { return };
        let mut slot = dir.listing.write();
        let Some(listing) = slot.as_mut() else { return };
        change(listing);
        let entries = listing.len();
        drop(slot);
        // One that grows is counted again each time it doubled.
        if entries >= COUNTED_FROM && entries.is_power_of_two() {
            self.keep_listing(node, entries);
        }
    }

    /// Takes note of a listing; others may have to go for it.
    fn keep_listing(&self, node: &Arc<Node>, entries: usize) {
        for old in self.listings.note(node, entries) {
            if let Some(dir) = &old.dir {
                *dir.listing.write() = None;
            }
            self.listings.forget(&self.nodes.let_go(old));
        }
    }

    /// Reads all parts of a directory and merges them; `None` where there are more than `most`
    /// entries. The caller holds the lock on its names.
    pub(super) fn build_listing(&self, dir: &Directory, most: usize) -> FsResult<Option<Listing>> {
        let mut listing = Listing::default();
        let mut decided = HashSet::new();
        for (i, part) in dir.parts().enumerate() {
            let lower = i.checked_sub(usize::from(dir.upper.get().is_some()));
            let part_number = match lower {
                None => Part::Upper,
                Some(n) => Part::Lower(u16::try_from(n).map_err(|_| Errno::OVERFLOW)?),
            };
            let fd = self.dir_fds.get(part)?;
            let complete = self.dir_fds.list(part, &fd, |raw| {
                if let Some(entry) = self.classify(dir, part, part_number, &fd, raw)? {
                    listing.put_below(entry, &mut decided);
                }
                Ok(listing.len() <= most)
            })?;
            if !complete {
                return Ok(None);
            }
        }
        listing.drop_lower_whiteouts();
        Ok(Some(listing))
    }

    /// What a raw entry of one part means; `None` for what is overlay's own.
    fn classify(
        &self,
        dir: &Directory,
        part: &LayerDir,
        number: Part,
        fd: &OwnedFd,
        raw: RawEntry<'_>,
    ) -> FsResult<Option<Listed>> {
        let listed = |name: &OsStr, kind, ino| {
            let (name, lowers) = (Name::from(name), Vec::new());
            Some(Listed { name, part: number, kind, below: false, lowers, ino })
        };
        if whiteout::is_reserved_name(raw.name) {
            return Ok(whiteout::hidden_name(raw.name).and_then(|name| listed(name, None, 0)));
        }
        let mut kind = raw.kind;
        let marked = kind == FileType::RegularFile && self.has_xattr_whiteouts(part, fd)?;
        if whiteout::may_be_whiteout(kind, marked) {
            let stat = match stat_at(fd, raw.name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            if whiteout::is_whiteout(fd, raw.name, &stat, || self.has_xattr_whiteouts(part, fd))? {
                return Ok(listed(raw.name, None, 0));
            }
            kind = stat.file_type();
        }
        if kind == FileType::RegularFile {
            kind = self.listed_kind(part.layer, fd, raw.name);
        }
        let ino = self.entry_ino(dir, part, fd, &raw, kind)?;
        Ok(listed(raw.name, Some(kind), ino))
    }

    /// The inode number of an entry, the same that stat shows.
    fn entry_ino(
        &self,
        dir: &Directory,
        part: &LayerDir,
        fd: &OwnedFd,
        raw: &RawEntry<'_>,
        kind: FileType,
    ) -> FsResult<u64> {
        let is_dir = kind == FileType::Directory;
        if part.layer.is_upper() && (is_dir || dir.is_impure()) {
            // A merged directory shows its topmost lower's, a copied-up file its origin's.
            return self.ino_by_rule(dir, raw.name, fd);
        }
        Ok(self.inode_numbers.visible(self.layer_dev(part.layer), raw.ino))
    }

    fn ino_by_rule(&self, dir: &Directory, name: &OsStr, fd: &OwnedFd) -> FsResult<u64> {
        let name = super::layer_dir::name_of(name);
        let parts: Vec<&Arc<LayerDir>> = dir.parts().collect();
        let merged = self.merge(&parts, &name, None);
        let ruled = merged.and_then(|m| m.map(|m| self.ino_of(dir, &m)).transpose());
        match ruled {
            Ok(Some(ino)) => Ok(ino),
            // A damaged mark is an error to who uses the entry, not to who lists its directory.
            Ok(None) | Err(_) => {
                stat_at(fd, &name).map(|stat| self.inode_numbers.visible(stat.dev, stat.ino))
            }
        }
    }
}
