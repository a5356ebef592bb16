//! Reaching an upper and its workdir.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::mount_clone::{self, AccessTimes};
use crate::sys::{OwnedFd, file};

/// The roots of an upper and its workdir.
pub(super) struct Both {
    pub root: OwnedFd,
    pub real_path: PathBuf,
    pub work_root: OwnedFd,
    pub clone: Option<OwnedFd>,
}

/// The upper and the workdir, through a private clone of their mount where that is permitted: when
/// umount(2) of ours returns, the daemon is not yet gone, and what lies below can be unmounted all
/// the same, as with the kernel's overlayfs.
pub(super) fn open_both(upper: &Path, work: &Path, access_times: AccessTimes) -> Result<Both> {
    let open = |action: &'static str, path: &Path| {
        let opened = file::open_root(path).and_then(|root| Ok((file::real_path(&root)?, root)));
        opened.map_err(|errno| Error::io(action, path, errno))
    };
    let (real_path, root) = open("open upperdir", upper)?;
    let (work_path, work_root) = open("open workdir", work)?;
    // Staging would show in the merged tree, or be removed with it.
    if real_path.starts_with(&work_path) || work_path.starts_with(&real_path) {
        let reason = format!("upperdir {} and it must lie beside each other", upper.display());
        return Err(Error::option("workdir", reason));
    }
    let (one, other) = ((&root, &*real_path), (&work_root, &*work_path));
    let cloned = mount_clone::clone_for_both(one, other, access_times);
    Ok(match cloned {
        Ok((root, work_root, clone)) => Both { root, real_path, work_root, clone: Some(clone) },
        Err(_) => Both { root, real_path, work_root, clone: None },
    })
}
