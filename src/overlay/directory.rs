//! What only directories have: their parts in the layers, and their merged entries.

use std::sync::{Arc, OnceLock};

use super::layer_dir::LayerDir;
use super::listing::Listing;
use super::lower_path::LowerPath;
use super::sync::RwLock;
use super::sync::atomic::AtomicU32;
use crate::error::{Errno, FsResult};

/// What only directories have.
#[derive(Debug)]
pub struct Directory {
    /// Its part in the upper, from copy-up on.
    pub upper: OnceLock<Arc<LayerDir>>,
    /// Its parts in the lowers, topmost first.
    pub lowers: Box<[Arc<LayerDir>]>,
    /// Where the lowers have it, if they do.
    pub lower_path: Option<Arc<LowerPath>>,
    /// Read by lookups, written by what adds or removes names.
    pub state: RwLock<DirState>,
    /// The merged entries, while they are kept.
    pub listing: RwLock<Option<Listing>>,
    /// Lookups that were made without a listing.
    pub direct_lookups: AtomicU32,
}

/// The entries of a directory as far as they are not on disk.
#[derive(Debug, Default)]
pub struct DirState {
    /// It was removed: nothing can be made or found in it.
    pub dead: bool,
    /// Whether new entries inherit an ACL, once that was asked.
    pub default_acl: Option<bool>,
}

impl Directory {
    /// A directory of these parts.
    pub fn new(upper: Option<Arc<LayerDir>>, lowers: Vec<Arc<LayerDir>>) -> Self {
        Directory {
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            lowers: lowers.into_boxed_slice(),
            lower_path: None,
            state: RwLock::default(),
            listing: RwLock::new(None),
            direct_lookups: AtomicU32::new(0),
        }
    }

    /// One that was just made in the upper: what is in it is known.
    pub fn new_empty(upper: Arc<LayerDir>) -> Self {
        let dir = Directory::new(Some(upper), Vec::new());
        *dir.listing.write() = Some(Listing::default());
        dir
    }

    /// Its parts, topmost first.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<LayerDir>> {
        self.upper.get().into_iter().chain(self.lowers.iter())
    }

    /// Whether upper entries may have an origin, so that their inode numbers must be asked for.
    pub fn is_impure(&self) -> bool {
        let marked = self.upper.get().is_some_and(|upper| upper.is_impure());
        marked || !self.lowers.is_empty()
    }

    /// Its topmost part.
    pub fn top(&self) -> FsResult<&Arc<LayerDir>> {
        self.parts().next().ok_or(Errno::STALE)
    }

    /// Its part in the upper.
    pub fn upper(&self) -> FsResult<&Arc<LayerDir>> {
        self.upper.get().ok_or(Errno::ROFS)
    }
}
