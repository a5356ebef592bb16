//! The roots of the layers of a [`Tree`](super::Tree).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tree::{Directory, Part};
use crate::error::{Error, FsResult, Result};
use crate::layer::entry::marks_of_fd;
use crate::layer::{Layer, LayerIndex, StatXattr};
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OwnedFd, file};

/// The root of one layer.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) part: Part,
    /// The merge ends here.
    opaque: bool,
    /// The UUID of its filesystem, for origins.
    pub(super) uuid: [u8; 16],
    /// Where owner, mode and device of its files are kept, if not in their inodes.
    stat_xattr: Option<StatXattr>,
}

impl Root {
    /// Opens lowers, topmost first, of which the topmost is layer `first`.
    pub(super) fn lowers(paths: &[PathBuf], first: usize) -> Result<Vec<Root>> {
        let opened = paths.iter().zip(first..).map(|(path, number)| {
            let index = LayerIndex(u32::try_from(number).unwrap_or(u32::MAX));
            let layer = Layer::open(index, path)?;
            let root = Root::of(number, layer.root, layer.stat, path)?;
            Root { uuid: layer.uuid, ..root }.with_stored(layer.stat_xattr, path)
        });
        opened.collect()
    }

    /// Opens the upper at `path`, layer 0.
    pub(super) fn upper(path: &Path) -> Result<Root> {
        let failed = |errno| Error::io("open upper layer", path, errno);
        let fd = file::open_root(path).map_err(failed)?;
        let stored = StatXattr::of_root(Target::fd(&fd)).map_err(failed)?;
        let stat = stat_fd(&fd).map_err(failed)?;
        Root::of(0, Arc::new(fd), stat, path)?.with_stored(stored, path)
    }

    /// Opens a directory of any filesystem as the only layer.
    pub(super) fn plain(path: &Path) -> Result<Root> {
        let opened = file::open_root(path).and_then(|fd| Ok((stat_fd(&fd)?, fd)));
        let (stat, fd) = opened.map_err(|errno| Error::io("open", path, errno))?;
        Root::of(0, Arc::new(fd), stat, path)
    }

    fn of(layer: usize, fd: Arc<OwnedFd>, stat: Stat, path: &Path) -> Result<Root> {
        let marks = marks_of_fd(&fd, None)
            .map_err(|errno| Error::io("read the xattrs of layer", path, errno))?;
        let part = Part { layer, fd, stat, xattr_whiteouts: marks.xattr_whiteouts };
        Ok(Root { part, opaque: marks.opaque, uuid: [0; 16], stat_xattr: None })
    }

    fn with_stored(self, stat_xattr: Option<StatXattr>, path: &Path) -> Result<Root> {
        let mut root = Root { stat_xattr, ..self };
        let mut stat = root.part.stat;
        root.add_stored(Target::fd(&root.part.fd), &mut stat)
            .map_err(|errno| Error::io("read the owner of layer", path, errno))?;
        root.part.stat = stat;
        Ok(root)
    }

    /// Puts what this layer keeps for `of` in place of what its filesystem says.
    pub(super) fn add_stored(&self, of: Target<'_>, stat: &mut Stat) -> FsResult<()> {
        match self.stat_xattr {
            Some(xattr) => xattr.read(of, stat),
            None => Ok(()),
        }
    }
}

/// The root of a stack: the roots of its layers down to the first opaque one.
pub(super) fn merged(roots: &[Root], through_top: bool) -> Directory {
    let end = roots.iter().position(|root| root.opaque).map_or(roots.len(), |last| last + 1);
    let parts = roots.iter().take(end).map(|root| root.part.clone()).collect();
    Directory { parts, through_top }
}
