//! The steps of a rename on disk: marks that keep a meaning, and the one call that moves.

use super::directory::Directory;
use super::listing::Occupant;
use super::node::Node;
use super::rename::End;
use super::{Name, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::LayerIndex;
use crate::layer::upper::{Present, Upper};
use crate::layer::whiteout::{self, Style};
use crate::layer::xattrs::Mark;
use crate::sys::xattr::Target;
use crate::sys::{OwnedFd, RenameFlags, dir as sys_dir, node as sys_node};

/// How the source's name is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// With nothing: no lower has the name.
    Nothing,
    /// With a whiteout.
    Whiteout,
}

impl Overlay {
    /// Runs a rename; that of a directory so that no walk through it goes astray.
    pub(super) fn moving(
        &self,
        node: &Node,
        to: &End,
        rename: impl FnOnce() -> FsResult<()>,
    ) -> FsResult<()> {
        match &node.dir {
            None => rename(),
            Some(dir) => {
                let parent = to.parent.directory()?.upper()?;
                self.dir_fds.moving(dir.upper()?, parent, &to.name, rename)
            }
        }
    }

    /// Marks an upper file or directory so that it means the same under its new name. A crash
    /// after this and before the rename leaves the view as it was.
    pub(super) fn mark_for_move(
        &self,
        upper: &Upper,
        node: &Node,
        to_dir: &Directory,
        to_fd: &OwnedFd,
        lower_at_target: bool,
    ) -> FsResult<()> {
        if self.has_origin(node) {
            self.mark_impure(upper, to_dir, to_fd)?;
        }
        let Some(dir) = &node.dir else { return Ok(()) };
        let own = self.dir_fds.get(dir.upper()?)?;
        if let Some(path) = &dir.lower_path {
            let value = path.redirect().to_bytes();
            return match upper.set_mark(Target::fd(&own), Mark::Redirect, &value) {
                // The path does not fit into an xattr here: let the caller copy the tree.
                Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::OPNOTSUPP) => {
                    Err(Errno::XDEV)
                }
                other => other,
            };
        }
        if lower_at_target && upper.namespace.get(Target::fd(&own), Mark::Opaque)?.is_none() {
            return upper.set_mark(Target::fd(&own), Mark::Opaque, b"y");
        }
        Ok(())
    }

    /// Replaces an upper directory that holds only whiteouts by one that holds nothing, which a
    /// rename can replace. Users see an empty directory before and after.
    pub(super) fn clear_target(
        &self,
        upper: &Upper,
        dir: &OwnedFd,
        name: &Name,
        met: Occupant,
    ) -> FsResult<()> {
        let fd = crate::sys::file::open_path_at(dir, name)?;
        if sys_dir::list_dir(&fd, |_| Ok(false))? {
            return Ok(());
        }
        let mut stat = crate::sys::stat::stat_fd(&fd)?;
        self.add_stored(LayerIndex::UPPER, Target::fd(&fd), &mut stat)?;
        let staged = upper.work.fresh_name();
        let staging = upper.work.staging();
        let mode = if self.stores_stat() { 0o700 } else { stat.mode & 0o7777 };
        sys_node::make_dir(staging, &staged, mode)?;
        let prepared = (|| {
            let made = crate::sys::file::open_path_at(staging, &staged)?;
            if !upper.store_stat(&made, &stat)? {
                sys_node::set_owner(staging, &staged, Some(stat.uid), Some(stat.gid))?;
            }
            if met.below {
                upper.set_mark(Target::fd(&made), Mark::Opaque, b"y")?;
            }
            Ok(())
        })();
        if let Err(errno) = prepared {
            upper.work.discard(&staged);
            return Err(errno);
        }
        upper.publish(&staged, dir, name, RenameFlags::EXCHANGE)?;
        upper.work.discard(&staged);
        Ok(())
    }
}

/// Moves the source over what is `present` at the target and leaves its name as it must be left.
pub(super) fn move_over(
    upper: &Upper,
    (from_fd, from): (&OwnedFd, &End),
    (to_fd, to): (&OwnedFd, &End),
    is_dir: bool,
    present: Present,
    leave: Leave,
) -> FsResult<()> {
    let rename = |flags| sys_node::rename(from_fd, &from.name, to_fd, &to.name, flags);
    let hidden_by_file = present == Present::Whiteout && upper.is_file_whiteout(to_fd, &to.name)?;
    if leave == Leave::Whiteout && (upper.style != Style::Device || hidden_by_file) {
        return move_and_hide(upper, (from_fd, from), (to_fd, to), present);
    }
    match (present, leave) {
        (Present::Whiteout, _) if hidden_by_file => {
            rename(RenameFlags::empty())?;
            upper.remove_whiteout(to_fd, &to.name)
        }
        // A directory cannot replace the whiteout, but it can change places with it; at the
        // source it then hides a lower name, or nothing and is removed.
        (Present::Whiteout, Leave::Whiteout) if is_dir => rename(RenameFlags::EXCHANGE),
        (Present::Whiteout, Leave::Nothing) if is_dir => {
            rename(RenameFlags::EXCHANGE)?;
            upper.remove_whiteout(from_fd, &from.name)
        }
        (_, Leave::Whiteout) => rename(RenameFlags::WHITEOUT),
        (_, Leave::Nothing) => rename(RenameFlags::empty()),
    }
}

/// As [`move_over`] where whiteouts are no devices.
fn move_and_hide(
    upper: &Upper,
    (from_fd, from): (&OwnedFd, &End),
    (to_fd, to): (&OwnedFd, &End),
    present: Present,
) -> FsResult<()> {
    if upper.style == Style::Xattr && to.node.is_none() {
        match exchange_with_whiteout(upper, (from_fd, from), (to_fd, to), present) {
            // A filesystem that exchanges nothing.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            other => return other,
        }
    }
    // The whiteout of the source is made first, in the form of a file beside it, which hides
    // nothing while the source is there.
    let beside = match whiteout::make(from_fd, &from.name, Style::File, upper.namespace) {
        Ok(()) => true,
        // No such names here: another overlay lies below. A crash after the next step, and before
        // the whiteout is made, shows the lower's source again, beside the target.
        Err(Errno::INVAL | Errno::NAMETOOLONG) if upper.style == Style::Xattr => false,
        Err(errno) => return Err(errno),
    };
    if present == Present::Whiteout && !upper.is_file_whiteout(to_fd, &to.name)? {
        upper.remove_whiteout(to_fd, &to.name)?;
    }
    sys_node::rename(from_fd, &from.name, to_fd, &to.name, RenameFlags::empty())?;
    if upper.style == Style::Xattr {
        // The kernel, too, is to understand what is left.
        upper.whiteout(from_fd, &from.name, Present::Nothing)?;
    }
    let leftovers = [
        (from_fd, &from.name, beside && upper.style == Style::Xattr),
        (to_fd, &to.name, present == Present::Whiteout),
    ];
    for (dir, name, _) in leftovers.into_iter().filter(|(.., there)| *there) {
        match whiteout::file_name(name).map(|file| sys_node::unlink(dir, &file)) {
            None | Some(Ok(()) | Err(Errno::NOENT)) => {}
            Some(Err(errno)) => return Err(errno),
        }
    }
    Ok(())
}

/// Moves the source to a name under which nothing is seen, in one step: it changes places with a
/// whiteout there.
fn exchange_with_whiteout(
    upper: &Upper,
    (from_fd, from): (&OwnedFd, &End),
    (to_fd, to): (&OwnedFd, &End),
    present: Present,
) -> FsResult<()> {
    if present == Present::Whiteout && upper.is_file_whiteout(to_fd, &to.name)? {
        return Err(Errno::INVAL);
    }
    upper.expect_whiteouts(from_fd)?;
    upper.whiteout(to_fd, &to.name, present)?;
    let flags = RenameFlags::EXCHANGE;
    let done = sys_node::rename(from_fd, &from.name, to_fd, &to.name, flags);
    if done.is_err() && present == Present::Nothing {
        upper.remove_whiteout(to_fd, &to.name)?;
    }
    done
}
