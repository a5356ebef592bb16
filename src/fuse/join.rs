//! `-o join`: a second mount of an upper that is mounted already.
//!
//! containerd mounts the layers of a running container once more, to tell what changed. Two
//! daemons on one upper would damage it, and would show each other's changes late or never. So
//! the second mount is the first one, bound to a second place; the filesystem ends with the last.

use std::path::Path;

use crate::error::{Errno, Error, Result};
use crate::overlay::options::Options;
use crate::sys::{creds, mount, mountinfo};

/// Binds the live mount that has the same source as `options` names to `target`; `false` where
/// there is none in this mount namespace.
///
/// # Errors
/// Where `join` was asked for without a source to look for, or the bind mount fails.
pub(crate) fn join(options: &Options, target: &Path) -> Result<bool> {
    let Some(source) = options.mount.fsname.as_deref() else {
        return Err(Error::option("join", "needs a source or fsname=, the same for each mount"));
    };
    let mounts = mountinfo::read()
        .map_err(|errno| Error::io("read", Path::new("/proc/self/mountinfo"), errno))?;
    // Whoever may use fusermount3 can give his mount any source, but not another owner.
    let owner = format!("user_id={}", creds::own_ids().0);
    let live = mounts.into_iter().find(|mount| {
        mount.source == source
            && mount.kind.to_string_lossy().starts_with("fuse.")
            && mount.root == Path::new("/")
            && mount.options.split(',').any(|option| option == owner)
    });
    let Some(live) = live else { return Ok(false) };
    match mount::bind(&live.path, target) {
        Ok(()) if options.read_only => match mount::make_place_read_only(target) {
            Ok(()) => Ok(true),
            Err(errno) => {
                mount::detach(target).map_err(|errno| Error::io("unmount", target, errno))?;
                Err(Error::io("make read-only the mount on", target, errno))
            }
        },
        Ok(()) => Ok(true),
        // It ended meanwhile; its upper is free, or will be.
        Err(Errno::NOENT | Errno::NOTCONN) => Ok(false),
        Err(errno) => Err(Error::io("bind the live mount to", target, errno)),
    }
}
