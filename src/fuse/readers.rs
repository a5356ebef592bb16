//! What those who read directories go on to ask, so that they are given that and no more.
//!
//! READDIRPLUS brings the attributes of every entry along. Who goes on to ask for them (`ls -l`,
//! `du`, `tar`, `rm -r`) is spared one request for each entry; for who wants names alone (`find`
//! without a test, a shell's `*`) all that work is for nothing. The kernel cannot tell the two
//! apart, but each gives itself away: one who is given the names of files alone and wants more
//! asks for them one by one.
//!
//! So each reader (a thread) gets everything first. After a few directories one is given without
//! the attributes of files: if it asks for them, it gets everything again, for ever longer; if
//! not, it gets names alone from then on, until it does ask. Directories always come with their
//! attributes: a walk enters them.

use parking_lot::Mutex;

use crate::overlay::{NodeId, With};

/// Directories that a reader gets with everything before it is tried.
const FIRST: u32 = 4;
/// The most until it is tried again.
const MOST: u32 = 4096;
/// Lookups of files by which a reader shows that it wants their attributes.
const ENOUGH: u32 = 2;

/// Readers that are told apart; two that share a place disturb each other, nothing worse.
const PLACES: usize = 64;

/// What is known of those who read directories.
#[derive(Debug)]
pub(super) struct Readers {
    places: Vec<Mutex<Reader>>,
}

/// One reader.
#[derive(Debug, Default)]
struct Reader {
    thread: u32,
    /// Directories that it still gets with everything.
    full: u32,
    /// How many that are to be when it showed once more that it wants everything.
    next_full: u32,
    /// The last directory that it got without the attributes of files.
    names_of: Option<NodeId>,
    /// Files that it looked up where it had got their names alone.
    asked: u32,
}

impl Reader {
    fn new(thread: u32) -> Reader {
        Reader { thread, full: FIRST, next_full: 4 * FIRST, ..Reader::default() }
    }

    fn begins(&mut self, dir: NodeId) -> With {
        if self.full > 0 {
            self.full -= 1;
            return With::Everything;
        }
        self.names_of = Some(dir);
        With::Directories
    }

    fn looked_up(&mut self, dir: NodeId) {
        if self.names_of != Some(dir) {
            return;
        }
        self.asked += 1;
        if self.asked >= ENOUGH {
            (self.names_of, self.asked) = (None, 0);
            self.full = self.next_full;
            self.next_full = (4 * self.next_full).min(MOST);
        }
    }
}

impl Readers {
    pub(super) fn new() -> Readers {
        Readers { places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }

    fn place(&self, thread: u32) -> Option<&Mutex<Reader>> {
        self.places.get(thread as usize % PLACES)
    }

    /// What `thread`, which reads `dir` from `cookie` on, is to be given.
    pub(super) fn gets(&self, thread: u32, dir: NodeId, cookie: u64) -> With {
        let Some(place) = self.place(thread) else { return With::Everything };
        let mut reader = place.lock();
        if reader.thread != thread {
            *reader = Reader::new(thread);
        }
        match cookie {
            0 => reader.begins(dir),
            _ if reader.names_of == Some(dir) => With::Directories,
            _ => With::Everything,
        }
    }

    /// `thread` found something that is no directory in `dir`.
    pub(super) fn found_file(&self, thread: u32, dir: NodeId) {
        if let Some(place) = self.place(thread) {
            let mut reader = place.lock();
            if reader.thread == thread {
                reader.looked_up(dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks `dirs` directories as one that looks up `files` files in each that it was not
    /// given; returns how many directories came with everything, and how many lookups it made.
    fn walk(readers: &Readers, thread: u32, dirs: u64, files: u32) -> (u32, u32) {
        let (mut full, mut lookups) = (0, 0);
        for dir in (1000..).map(NodeId).take(dirs as usize) {
            if readers.gets(thread, dir, 0) == With::Everything {
                full += 1;
                continue;
            }
            for _ in 0..files {
                readers.found_file(thread, dir);
                lookups += 1;
            }
        }
        (full, lookups)
    }

    #[test]
    fn who_wants_names_alone_gets_them() {
        assert_eq!(walk(&Readers::new(), 7, 1000, 0), (FIRST, 0));
    }

    #[test]
    fn who_wants_attributes_asks_for_few_of_them_one_by_one() {
        // Miri, which is slow, finds no more in many than in few.
        let dirs = if cfg!(miri) { 100 } else { 10_000 };
        let (full, lookups) = walk(&Readers::new(), 7, dirs, 10);
        assert!(full as u64 >= dirs - 10, "{full} of {dirs} directories came with everything");
        assert!(lookups <= 100, "{lookups} lookups");
        let (full, _) = walk(&Readers::new(), 7, dirs, 1);
        assert!(full as u64 >= dirs - 20, "{full} of {dirs} of one file came with everything");
    }

    #[test]
    fn readers_are_told_apart() {
        let readers = Readers::new();
        walk(&readers, 7, 100, 0);
        assert_eq!(readers.gets(7, NodeId(9), 0), With::Directories);
        assert_eq!(readers.gets(8, NodeId(9), 0), With::Everything);
        assert_eq!(readers.gets(7, NodeId(9), 50), With::Directories, "the same directory goes on");
    }
}
