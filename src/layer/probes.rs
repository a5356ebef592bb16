//! What the filesystem of an upper can do, found by trying in staging.

use std::path::Path;

use super::workdir::Workdir;
use super::xattrs::{Mark, Namespace};
use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::xattr::Target;
use crate::sys::{OwnedFd, RenameFlags, node};

/// Finds the namespace that takes overlay's xattrs: trusted, else user, else none.
pub(super) fn xattrs(work: &Workdir, user_only: bool) -> FsResult<(Namespace, bool)> {
    let order: &[Namespace] =
        if user_only { &[Namespace::User] } else { &[Namespace::Trusted, Namespace::User] };
    for namespace in order {
        match namespace.set(Target::fd(work.staging()), Mark::Opaque, b"y") {
            Ok(()) => {
                namespace.remove(Target::fd(work.staging()), Mark::Opaque)?;
                return Ok((*namespace, true));
            }
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok((Namespace::User, false))
}

/// Makes sure that a rename from staging into the upper works: both must be on one mount. It is
/// tried with a name that is not there: mounts are compared before names, and nothing changes,
/// the time of the upper's root neither.
pub(super) fn rename(work: &Workdir, root: &OwnedFd, upper: &Path, path: &Path) -> Result<()> {
    let name = work.fresh_name();
    match node::rename(work.staging(), &name, root, &name, RenameFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::XDEV) => {
            let reason = format!("{} is not on the mount of upperdir", path.display());
            Err(Error::option("workdir", reason))
        }
        Err(errno) => Err(Error::io("write to upperdir", upper, errno)),
    }
}
