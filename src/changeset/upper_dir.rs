//! Where the upper of a stack lies, and what one must know of how it was mounted.

use std::path::{Path, PathBuf};

use crate::layer::Namespace;
use crate::sys::process;

/// The writable layer of a stack, to be read. A path alone is one without a workdir.
#[derive(Debug, Clone)]
pub struct UpperDir {
    /// The directory of the layer.
    pub path: PathBuf,
    /// The workdir that it was mounted with. Its index says which upper inode the lower names of
    /// a hard link lead to; without it these names show what they were before.
    pub workdir: Option<PathBuf>,
    /// It was mounted with the option `userxattr`. Only who mounted it can know: `user.overlay.*`
    /// in the upper of any other mount may have been written by whoever used that mount.
    pub userxattr: bool,
}

impl UpperDir {
    /// The layer at `path`, mounted with the workdir at `workdir`.
    pub fn with_workdir(path: impl Into<PathBuf>, workdir: impl Into<PathBuf>) -> UpperDir {
        UpperDir { path: path.into(), workdir: Some(workdir.into()), userxattr: false }
    }

    /// The namespace in which a mount of it by this process keeps overlay's xattrs.
    pub(super) fn namespace(&self) -> Namespace {
        match !self.userxattr && process::may_use_trusted_xattrs() {
            true => Namespace::Trusted,
            false => Namespace::User,
        }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for UpperDir {
    fn from(path: &P) -> UpperDir {
        UpperDir { path: path.as_ref().to_path_buf(), workdir: None, userxattr: false }
    }
}
