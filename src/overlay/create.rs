//! Making files, directories, symlinks and nodes.
//!
//! Where the upper holds nothing under the name, it is made in place: one atomic call, as the
//! caller, so that the filesystem itself sees to group inheritance, default ACLs and quotas.
//! Over a whiteout it is staged complete and then changes places with it, so that no observer
//! finds the name missing and no crash brings the lower entry back.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use rustix::fs::{FileType, XattrFlags};

use super::directory::Directory;
use super::frozen::Change;
use super::layer_dir::{LayerDir, Marks, name_of};
use super::listing::{Listed, Occupant};
use super::node::{Node, RealKey};
use super::node_state::NodeState;
use super::{Caller, Entry, Name, NodeId, Opened, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::LayerIndex;
use crate::layer::upper::{Present, Upper};
use crate::layer::whiteout;
use crate::layer::xattrs::Mark;
use crate::sys::creds::{ActAs, own_ids};
use crate::sys::stat::{Stat, stat_at, stat_fd};
use crate::sys::xattr::{self, Target};
use crate::sys::{OFlags, OwnedFd, RenameFlags, file, node};

const SGID: u32 = 0o2000;
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// What is to be made.
#[derive(Debug, Clone, Copy)]
enum What<'a> {
    File(OFlags),
    Dir,
    Symlink(&'a OsStr),
    Node { mode: u32, rdev: u32 },
}

/// The owner and mode of what is to be made, as they go to disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Birth {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Overlay {
    /// Makes a fifo, socket, device or empty regular file; `mode` carries the type.
    ///
    /// # Errors
    /// `EPERM` for the character device 0:0, which is a whiteout on disk.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> FsResult<Entry> {
        if FileType::from_raw_mode(mode) == FileType::CharacterDevice && rdev == 0 {
            return Err(Errno::PERM);
        }
        let what = What::Node { mode, rdev };
        self.make(caller, parent, name, what, mode, umask).map(|(entry, _)| entry)
    }

    /// Makes a directory.
    pub fn mkdir(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        umask: u32,
    ) -> FsResult<Entry> {
        self.make(caller, parent, name, What::Dir, mode, umask).map(|(entry, _)| entry)
    }

    /// Makes a symlink.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &OsStr,
        target: &OsStr,
    ) -> FsResult<Entry> {
        self.make(caller, parent, name, What::Symlink(target), 0o777, 0).map(|(entry, _)| entry)
    }

    /// Makes a regular file and opens it.
    pub fn create(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: OFlags,
    ) -> FsResult<(Entry, Opened)> {
        let what = What::File(flags);
        let (entry, fd) = self.make(caller, parent, name, what, mode, umask)?;
        let opened = fd.ok_or(Errno::IO).and_then(|fd| self.open_created(&entry, fd, flags));
        if opened.is_err() {
            self.forget(entry.node, 1);
        }
        Ok((entry, opened?))
    }

    fn open_created(&self, entry: &Entry, fd: Arc<OwnedFd>, flags: OFlags) -> FsResult<Opened> {
        let node = self.nodes.get(entry.node)?;
        self.handles.insert(node, fd, flags, true, entry.stat.mode)
    }

    fn make(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &OsStr,
        what: What<'_>,
        mode: u32,
        umask: u32,
    ) -> FsResult<(Entry, Option<Arc<OwnedFd>>)> {
        check_name(name)?;
        if whiteout::is_reserved_name(name) {
            return Err(Errno::INVAL);
        }
        let parent = self.nodes.get(parent)?;
        let dir = parent.directory()?;
        let upper = self.upper()?;
        let name = name_of(name);
        self.copy_up_to(Change::Adds, &parent, super::copy_up::Data::Attributes)?;

        let mut state = dir.state.write();
        if state.dead {
            return Err(Errno::NOENT);
        }
        let occupant = self.occupant(dir, &name)?;
        if occupant.is_visible() {
            return Err(Errno::EXIST);
        }
        let dir_fd = self.dir_fds.get(dir.upper()?)?;
        let inherits = inherits_acl(&mut state.default_acl, &dir_fd)?;
        let birth = self.birth(caller, if inherits { mode } else { mode & !umask });
        let fd = self.place(upper, &dir_fd, &name, what, birth, occupant, inherits)?;
        let mut stat = match &fd {
            Some(fd) => stat_fd(fd)?,
            None => stat_at(&dir_fd, &name)?,
        };
        self.add_stored(LayerIndex::UPPER, Target::at(&dir_fd, &name), &mut stat)?;
        let node = self.adopt(&parent, dir, &name, &stat)?;
        if let (Some(file), false) = (&fd, inherits)
            && self.is_bare(file)
        {
            node.set_no_xattrs(true);
        }
        let ino = node.state.lock().ino;
        let listed = Listed::in_upper(&name, stat.file_type(), ino, occupant.below);
        self.relist(&parent, |listing| listing.put(listed));
        Ok((Entry { node: node.id, stat: self.shown(&node, stat)? }, fd.map(Arc::new)))
    }

    /// Whether a new file has no xattrs, so that the first write need not ask for them. Asked of the
    /// first one: where a label is given to it, it is to all.
    fn is_bare(&self, file: &OwnedFd) -> bool {
        let none = || xattr::list(Target::fd(file)).is_ok_and(|names| names.is_empty());
        *self.new_files_are_bare.get_or_init(none)
    }

    pub(super) fn birth(&self, caller: &Caller, mode: u32) -> Birth {
        let (uid, gid) = (self.uids.maker(caller.uid), self.gids.maker(caller.gid));
        Birth { uid, gid, mode: mode & 0o7777 }
    }

    /// Makes it on disk.
    #[expect(clippy::too_many_arguments, reason = "what, where and as whom, of one call")]
    fn place(
        &self,
        upper: &Upper,
        dir: &OwnedFd,
        name: &Name,
        what: What<'_>,
        birth: Birth,
        occupant: Occupant,
        inherits: bool,
    ) -> FsResult<Option<OwnedFd>> {
        if occupant.present == Present::Nothing && upper.stat_xattr.is_none() {
            let acting = ActAs::user(birth.uid, birth.gid);
            let made = make_at(dir, name, what, birth.mode);
            drop(acting);
            match made {
                // As that user we may lack what the mount grants (a device, an id map): make it
                // as ourselves and give it away before anybody sees it.
                Err(Errno::PERM | Errno::ACCESS) if (birth.uid, birth.gid) != own_ids() => {}
                other => return other,
            }
        }
        let opaque = matches!(what, What::Dir) && occupant.below;
        let staged = upper.work.fresh_name();
        let made = match upper.stat_xattr {
            None => stage(upper, dir, &staged, what, birth, inherits, opaque),
            Some(_) => self.stage_stored(upper, dir, &staged, what, birth, opaque),
        };
        let fd = match made {
            Ok(fd) => fd,
            Err(errno) => {
                upper.work.discard(&staged);
                return Err(errno);
            }
        };
        let is_dir = matches!(what, What::Dir);
        upper.publish_over(&staged, dir, name, occupant.present, is_dir)?;
        Ok(fd)
    }

    /// The node of what was just made in the upper.
    fn adopt(
        &self,
        parent: &Arc<Node>,
        dir: &Directory,
        name: &Name,
        stat: &Stat,
    ) -> FsResult<Arc<Node>> {
        let key = RealKey { dev: stat.dev, ino: stat.ino };
        let kind = stat.file_type();
        let upper_dir = dir.upper()?;
        let node = self.nodes.intern(key, |id| {
            let part = LayerDir::child(upper_dir, name, Marks::default());
            let own = (kind == FileType::Directory).then(|| Directory::new_empty(part));
            let state = self.upper_state(stat).with_name(parent, name);
            Ok(Node::new(id, key, kind, true, state, own))
        })?;
        node.add_name(parent, name);
        Ok(node)
    }

    pub(super) fn upper_state(&self, stat: &Stat) -> NodeState {
        NodeState::new(self.inode_numbers.visible(stat.dev, stat.ino))
    }
}

/// Making things in an upper that keeps owner, mode and device in an xattr.
impl Overlay {
    /// As [`stage`]; the file is our own, and a regular one for a device, fifo or socket.
    fn stage_stored(
        &self,
        upper: &Upper,
        dir: &OwnedFd,
        staged: &OsStr,
        what: What<'_>,
        birth: Birth,
        opaque: bool,
    ) -> FsResult<Option<OwnedFd>> {
        let staging = upper.work.staging();
        let (kind, rdev) = match what {
            What::File(_) => (FileType::RegularFile, 0),
            What::Dir => (FileType::Directory, 0),
            What::Symlink(_) => (FileType::Symlink, 0),
            What::Node { mode, rdev } => (FileType::from_raw_mode(mode), rdev),
        };
        let fd = match what {
            What::Node { .. } => {
                make_at(staging, staged, What::File(OFlags::WRONLY), 0o600)?;
                None
            }
            What::Dir => make_at(staging, staged, what, 0o700)?,
            What::File(_) | What::Symlink(_) => make_at(staging, staged, what, 0o600)?,
        };
        let made = file::open_path_at(staging, staged)?;
        let stat = Stat { rdev, ..self.born(dir, kind, birth, stat_fd(&made)?)? };
        upper.store_stat(&made, &stat)?;
        if opaque {
            upper.set_mark(Target::fd(&made), Mark::Opaque, b"y")?;
        }
        Ok(fd)
    }

    /// The attributes of what is made in `dir`, a filesystem's rules for group and SGID applied.
    pub(super) fn born(
        &self,
        dir: &OwnedFd,
        kind: FileType,
        birth: Birth,
        own: Stat,
    ) -> FsResult<Stat> {
        let mut parent = stat_fd(dir)?;
        self.add_stored(LayerIndex::UPPER, Target::dir(dir), &mut parent)?;
        let inherits = parent.mode & SGID != 0;
        let gid = if inherits { parent.gid } else { birth.gid };
        let sgid = if inherits && kind == FileType::Directory { SGID } else { 0 };
        let mode = kind.as_raw_mode() | birth.mode | sgid;
        Ok(Stat { uid: birth.uid, gid, mode, ..own })
    }
}

/// Whether new entries of the directory inherit an ACL; asked once.
pub(super) fn inherits_acl(known: &mut Option<bool>, dir: &OwnedFd) -> FsResult<bool> {
    if let Some(known) = *known {
        return Ok(known);
    }
    let inherits = match xattr::get_into(Target::dir(dir), OsStr::new(DEFAULT_ACL), &mut []) {
        Ok(_) | Err(Errno::RANGE) => true,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
        Err(errno) => return Err(errno),
    };
    *known = Some(inherits);
    Ok(inherits)
}

fn make_at(dir: &OwnedFd, name: &OsStr, what: What<'_>, mode: u32) -> FsResult<Option<OwnedFd>> {
    match what {
        What::File(flags) => {
            let flags = super::file::backing_flags(flags) - OFlags::TRUNC;
            file::create_at(dir, name, flags, mode).map(Some)
        }
        What::Dir => node::make_dir(dir, name, mode).map(|()| None),
        What::Symlink(target) => node::make_symlink(dir, name, target).map(|()| None),
        What::Node { mode: kind, rdev } => {
            node::make_node(dir, name, (kind & !0o7777) | mode, rdev).map(|()| None)
        }
    }
}

/// Makes it complete in staging, as it would have come to be in `dir`.
fn stage(
    upper: &Upper,
    dir: &OwnedFd,
    staged: &OsStr,
    what: What<'_>,
    birth: Birth,
    inherits: bool,
    opaque: bool,
) -> FsResult<Option<OwnedFd>> {
    let staging = upper.work.staging();
    let fd = if inherits {
        make_inheriting(upper, dir, staged, what, birth.mode)?
    } else {
        make_at(staging, staged, what, birth.mode)?
    };
    let parent = stat_fd(dir)?;
    let inherits_group = parent.mode & SGID != 0;
    let gid = if inherits_group { parent.gid } else { birth.gid };
    let mut mode = birth.mode;
    if inherits_group && matches!(what, What::Dir) {
        mode |= SGID;
    }
    let made = file::open_path_at(staging, staged)?;
    let own = stat_fd(&made)?;
    if (own.uid, own.gid) != (birth.uid, gid) {
        node::set_owner(&made, "".as_ref(), Some(birth.uid), Some(gid))?;
    }
    let now = stat_fd(&made)?.mode & 0o7777;
    // With an inherited ACL the permission bits come from it; only suid and the like are ours.
    let wanted = if inherits { (now & 0o777) | (mode & 0o7000) } else { mode };
    if now != wanted && !matches!(what, What::Symlink(_)) {
        node::set_mode(&made, wanted)?;
    }
    if opaque {
        upper.set_mark(Target::fd(&made), Mark::Opaque, b"y")?;
    }
    Ok(fd)
}

/// Makes it in a directory of staging that has the default ACL of `dir`, so that the filesystem
/// computes what is inherited, and moves it out of there.
fn make_inheriting(
    upper: &Upper,
    dir: &OwnedFd,
    staged: &OsStr,
    what: What<'_>,
    mode: u32,
) -> FsResult<Option<OwnedFd>> {
    let staging = upper.work.staging();
    let nest: OsString = upper.work.fresh_name();
    node::make_dir(staging, &nest, 0o700)?;
    let made = (|| {
        let nest_fd = file::open_at(staging, &nest, OFlags::PATH | OFlags::DIRECTORY)?;
        if let Some(acl) = xattr::get(Target::fd(dir), OsStr::new(DEFAULT_ACL))? {
            let name = OsStr::new(DEFAULT_ACL);
            xattr::set(Target::fd(&nest_fd), name, &acl, XattrFlags::empty())?;
        }
        let fd = make_at(&nest_fd, staged, what, mode)?;
        node::rename(&nest_fd, staged, staging, staged, RenameFlags::NOREPLACE)?;
        Ok(fd)
    })();
    upper.work.discard(&nest);
    made
}

/// Takes note that ACLs were changed by a user.
pub(super) fn acl_changed(node: &Node, name: &OsStr) {
    if name == OsStr::new(DEFAULT_ACL)
        && let Some(dir) = &node.dir
    {
        dir.state.write().default_acl = None;
    }
}
