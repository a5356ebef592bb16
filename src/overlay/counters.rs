//! What a mount did so far, in numbers.
//!
//! Counted with relaxed additions: a reader may see one number a moment before another that
//! changed together with it, and no operation ever waits for a count.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::Overlay;

/// One number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something was known already, and how often it had to be found out.
#[derive(Debug, Default)]
pub(super) struct Cache {
    hits: Counter,
    misses: Counter,
}

impl Cache {
    pub fn note(&self, hit: bool) {
        if hit { self.hits.add(1) } else { self.misses.add(1) }
    }

    fn figures(&self) -> CacheFigures {
        CacheFigures { hits: self.hits.get(), misses: self.misses.get() }
    }
}

/// The counts of one mount.
#[derive(Debug, Default)]
pub(super) struct Counters {
    copied_files: Counter,
    copied_attributes: Counter,
    copied_directories: Counter,
    copied_others: Counter,
    copied_bytes: Counter,
    pub lookups: Cache,
    pub listings: Cache,
    pub xattrs: Cache,
}

impl Counters {
    /// One copy-up that succeeded; `attributes_only` says that a file's data stayed below.
    pub fn copied_up(&self, kind: FileType, attributes_only: bool) {
        match kind {
            FileType::RegularFile if attributes_only => self.copied_attributes.add(1),
            FileType::RegularFile => self.copied_files.add(1),
            FileType::Directory => self.copied_directories.add(1),
            _ => self.copied_others.add(1),
        }
    }

    /// Data that a copy-up brought to the upper.
    pub fn copied_data(&self, bytes: u64) {
        self.copied_bytes.add(bytes);
    }
}

/// How often a cache could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheFigures {
    /// Answered from memory.
    pub hits: u64,
    /// Asked of a layer.
    pub misses: u64,
}

/// What was brought to the upper before its first change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CopyUpFigures {
    /// Files with their data, also where only the data was missing still.
    pub files: u64,
    /// Files whose attributes alone were copied (metacopy).
    pub attributes: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks, devices, pipes and sockets.
    pub others: u64,
    /// Length of the copied data in bytes; holes, and blocks that are shared by cloning, count
    /// as well.
    pub bytes: u64,
}

/// What an overlay did so far and holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Nodes that the kernel holds now.
    pub live_nodes: u64,
    /// Files that are open now.
    pub open_files: u64,
    /// Files that are kept open where the kernel tells of none that it opens.
    #[serde(default)]
    pub implied_files: u64,
    /// Descriptors of directories that are kept open now.
    pub directory_descriptors: u64,
    /// Directories whose merged entries are kept now.
    #[serde(default)]
    pub kept_listings: u64,
    /// Copy-ups.
    pub copy_ups: CopyUpFigures,
    /// Lookups: in a merged listing that is kept, or layer by layer.
    pub lookups: CacheFigures,
    /// Reads of directories: from a listing that is kept, or built for it.
    pub listings: CacheFigures,
    /// Uses of a layer's directory: with its descriptor open, or opened again.
    pub directories: CacheFigures,
    /// Reads of xattrs: of nodes known to have none, or of the layer.
    pub xattrs: CacheFigures,
    /// Names that were found before they were asked for: asked for then, or not (yet).
    #[serde(default)]
    pub found_ahead: CacheFigures,
}

impl Overlay {
    /// The figures as of now.
    pub fn figures(&self) -> Figures {
        let counters = &self.counters;
        let (directory_descriptors, hits, misses) = self.dir_fds.figures();
        Figures {
            live_nodes: self.nodes.live(),
            open_files: self.handles.len(),
            implied_files: self.implied.len() as u64,
            directory_descriptors,
            kept_listings: self.listings.len(),
            copy_ups: CopyUpFigures {
                files: counters.copied_files.get(),
                attributes: counters.copied_attributes.get(),
                directories: counters.copied_directories.get(),
                others: counters.copied_others.get(),
                bytes: counters.copied_bytes.get(),
            },
            lookups: counters.lookups.figures(),
            listings: counters.listings.figures(),
            directories: CacheFigures { hits, misses },
            xattrs: counters.xattrs.figures(),
            found_ahead: self.foresight.figures(),
        }
    }
}
