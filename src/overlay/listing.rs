//! The merged entries of one directory, kept in memory.
//!
//! One structure serves readdir (in the order of cookies), lookups (a name that is not in it
//! does not exist) and changes (whether a removed name needs a whiteout).
//!
//! A cookie is a hash of the name: it is the same in every listing of the directory, whether the
//! old one was thrown away in between or the daemon was restarted, so that telldir and seekdir
//! need no state in a directory handle, and an entry that stays is met exactly once however many
//! others come and go.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;

use super::Name;
use super::look_ahead::Found;
use super::merge::Merged;
use super::sync::atomic::{AtomicU64, Ordering};
use crate::layer::upper::Present;

/// Where the topmost entry of a name lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// In the upper.
    Upper,
    /// In the directory's lower of this number.
    Lower(u16),
}

/// What the layers hold under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Name,
    /// Where the topmost entry lies.
    pub part: Part,
    /// Its type; `None` for a whiteout.
    pub kind: Option<FileType>,
    /// Whether a lower entry would show if the topmost one were gone.
    pub below: bool,
    /// For a directory: the numbers of the lowers below `part` that have directories to merge.
    pub lowers: Vec<u16>,
    /// The inode number that users see.
    pub ino: u64,
}

/// What a name means to someone who wants to change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupant {
    /// What the upper holds.
    pub present: Present,
    /// Whether a lower entry shows, or would if the upper's were gone.
    pub below: bool,
}

impl Occupant {
    /// Nothing anywhere.
    pub const NONE: Occupant = Occupant { present: Present::Nothing, below: false };

    /// Whether users see the name.
    pub fn is_visible(self) -> bool {
        match self.present {
            Present::Nothing => self.below,
            Present::Whiteout => false,
            Present::File | Present::Dir => true,
        }
    }
}

impl Listed {
    /// An entry of the upper.
    pub fn in_upper(name: &Name, kind: FileType, ino: u64, below: bool) -> Listed {
        let (name, part) = (name.clone(), Part::Upper);
        Listed { name, part, kind: Some(kind), below, lowers: Vec::new(), ino }
    }

    /// A whiteout in the upper, over what a lower has.
    pub fn hidden(name: &Name) -> Listed {
        let (name, part) = (name.clone(), Part::Upper);
        Listed { name, part, kind: None, below: true, lowers: Vec::new(), ino: 0 }
    }

    /// As an [`Occupant`].
    pub fn occupant(&self) -> Occupant {
        match (self.part, self.kind) {
            (Part::Upper, None) => Occupant { present: Present::Whiteout, below: self.below },
            (Part::Upper, Some(FileType::Directory)) => {
                Occupant { present: Present::Dir, below: self.below }
            }
            (Part::Upper, Some(_)) => Occupant { present: Present::File, below: self.below },
            (Part::Lower(_), kind) => Occupant { present: Present::Nothing, below: kind.is_some() },
        }
    }
}

/// The cookie of `.`.
pub const DOT: u64 = 1;
/// The cookie of `..`.
pub const DOT_DOT: u64 = 2;
const FIRST: u64 = 3;

/// The merged entries of one directory, by cookie.
#[derive(Debug, Default)]
pub struct Listing {
    entries: BTreeMap<u64, Listed>,
    /// What names are, as found before they were asked for.
    found: Found,
    /// The cookie up to which somebody was given entries last.
    read_to: AtomicU64,
}

/// The cookie that a name has unless another one got it first: 62 bits of a hash, so that it is
/// positive in every interface and leaves room to step aside.
fn natural_cookie(name: &OsStr) -> u64 {
    (hash(name) >> 2).max(FIRST)
}

/// A hash of a name, the same in every process.
pub fn hash(name: &OsStr) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

impl Listing {
    /// The cookie at which `name` is, or else at which it would be put.
    fn place(&self, name: &OsStr) -> (u64, bool) {
        let mut cookie = natural_cookie(name);
        // Names that share a hash stand in a row without a gap (`remove` sees to that).
        while let Some(entry) = self.entries.get(&cookie) {
            if entry.name.as_os_str() == name {
                return (cookie, true);
            }
            cookie += 1;
        }
        (cookie, false)
    }

    /// What is listed under `name`, whiteouts included.
    pub fn get(&self, name: &OsStr) -> Option<&Listed> {
        let (cookie, found) = self.place(name);
        if found { self.entries.get(&cookie) } else { None }
    }

    /// Adds or replaces the entry of a name.
    pub fn put(&mut self, entry: Listed) {
        let (cookie, _) = self.place(&entry.name);
        self.entries.insert(cookie, entry);
        self.found.take(|| cookie);
    }

    /// Takes note that a lower layer has an entry (or a whiteout) for a name that a layer above
    /// already decided, or adds it. Layers are given topmost first.
    pub fn put_below(&mut self, entry: Listed, ended: &mut HashSet<u64>) {
        let (cookie, found) = self.place(&entry.name);
        if !found {
            self.entries.insert(cookie, entry);
            return;
        }
        let Some(top) = self.entries.get_mut(&cookie) else { return };
        if top.part == entry.part {
            // A `.wh.` file beside the entry it is named for hides only what lies below.
            if top.kind.is_none() {
                *top = entry;
            } else if entry.kind.is_none() {
                ended.insert(cookie);
            }
            return;
        }
        if ended.contains(&cookie) {
            return;
        }
        let first_below = top.lowers.is_empty();
        if first_below {
            top.below = entry.kind.is_some();
        }
        match (top.kind, entry.kind, entry.part) {
            (Some(FileType::Directory), Some(FileType::Directory), Part::Lower(number)) => {
                top.lowers.push(number);
            }
            // Anything else ends the name: what lies further below never shows.
            _ => {
                ended.insert(cookie);
            }
        }
    }

    /// Takes note that the directory `name` was copied up: what it was in the lowers it merges
    /// with now.
    pub fn put_copied_up(&mut self, mut entry: Listed) {
        if let Some(old) = self.get(&entry.name)
            && entry.kind == Some(FileType::Directory)
        {
            let was = match old.part {
                Part::Lower(number) => Some(number),
                Part::Upper => None,
            };
            entry.lowers = was.into_iter().chain(old.lowers.iter().copied()).collect();
        }
        self.put(entry);
    }

    /// Removes the entry of a name.
    pub fn remove(&mut self, name: &OsStr) {
        let (mut cookie, found) = self.place(name);
        if !found {
            return;
        }
        self.entries.remove(&cookie);
        self.found.take(|| cookie);
        // Those that had stepped aside for it move up, or they could not be found any more.
        while let Some(next) = self.entries.get(&(cookie + 1)) {
            if natural_cookie(&next.name) > cookie {
                break;
            }
            if let Some(next) = self.entries.remove(&(cookie + 1)) {
                self.entries.insert(cookie, next);
                self.found.take(|| cookie + 1);
            }
            cookie += 1;
        }
    }

    /// The visible entries after `cookie`, in order.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Listed)> {
        let range = (Bound::Excluded(cookie.max(FIRST - 1)), Bound::Unbounded);
        self.entries.range(range).filter(|(_, e)| e.kind.is_some()).map(|(c, e)| (*c, e))
    }

    /// What is listed under `name`, if it lies in lowers alone and is not found ahead yet.
    pub fn to_be_found(&self, name: &OsStr) -> Option<&Listed> {
        let (cookie, found) = self.place(name);
        let listed = if found { self.entries.get(&cookie) } else { None }?;
        let lower = matches!(listed.part, Part::Lower(_)) && listed.kind.is_some();
        (lower && !self.found.has(cookie)).then_some(listed)
    }

    /// Keeps what [`Listing::to_be_found`] said was to be found.
    pub fn keep_found(&self, name: &OsStr, merged: Merged) {
        self.found.keep(self.place(name).0, merged);
    }

    /// What was found of `name`, once.
    pub fn take_found(&self, name: &OsStr) -> Option<Merged> {
        self.found.take(|| self.place(name).0)
    }

    /// Forgets what was found.
    pub fn clear_found(&self) {
        self.found.clear();
    }

    /// Takes note that somebody is given the entries up to `cookie`.
    pub fn note_read_to(&self, cookie: u64) {
        self.read_to.store(cookie, Ordering::Relaxed);
    }

    /// Up to where somebody was given entries last.
    pub fn read_to(&self) -> u64 {
        self.read_to.load(Ordering::Relaxed)
    }

    /// Forgets the whiteouts of names that no upper can ever uncover: those of lowers.
    pub fn drop_lower_whiteouts(&mut self) {
        self.entries.retain(|_, e| e.kind.is_some() || e.part == Part::Upper);
    }

    /// How many names it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no visible entry.
    pub fn is_empty(&self) -> bool {
        self.after(0).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, part: Part, kind: Option<FileType>) -> Listed {
        Listed {
            name: Name::from(OsStr::new(name)),
            part,
            kind,
            below: false,
            lowers: Vec::new(),
            ino: 1,
        }
    }

    #[test]
    fn the_topmost_decides_and_the_next_tells_what_is_below() {
        let file = Some(FileType::RegularFile);
        let mut listing = Listing::default();
        let mut seen = HashSet::new();
        for (name, part, kind) in [
            ("a", Part::Upper, file),
            ("b", Part::Upper, None),
            ("a", Part::Lower(0), None),
            ("b", Part::Lower(0), file),
            ("a", Part::Lower(1), file),
            ("c", Part::Lower(1), file),
        ] {
            listing.put_below(listed(name, part, kind), &mut seen);
        }
        let occupant = |name: &str| listing.get(OsStr::new(name)).map(Listed::occupant);
        assert_eq!(occupant("a"), Some(Occupant { present: Present::File, below: false }));
        assert_eq!(occupant("b"), Some(Occupant { present: Present::Whiteout, below: true }));
        assert_eq!(occupant("c"), Some(Occupant { present: Present::Nothing, below: true }));
        assert_eq!(listing.after(0).count(), 2);
    }

    #[test]
    fn every_name_is_met_once_while_others_come_and_go() {
        let file = Some(FileType::RegularFile);
        let mut listing = Listing::default();
        // Miri, which is slow, finds no more in many than in few.
        let count = if cfg!(miri) { 60 } else { 1000 };
        for i in 0..count {
            listing.put(listed(&format!("f{i}"), Part::Upper, file));
        }
        let mut met = std::collections::HashSet::new();
        let mut cookie = 0;
        loop {
            let next = listing.after(cookie).next().map(|(next, entry)| (next, entry.name.clone()));
            let Some((next, name)) = next else { break };
            assert!(met.insert(name));
            cookie = next;
            let gone = format!("f{}", met.len() + count / 2);
            listing.remove(OsStr::new(&gone));
            listing.put(listed(&format!("new{}", met.len()), Part::Upper, file));
        }
        assert!((0..=count / 2).all(|i| met.contains(OsStr::new(&format!("f{i}")))));
    }
}
