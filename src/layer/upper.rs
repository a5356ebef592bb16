//! The writable layer: every mutation of it passes here.
//!
//! Whatever replaces something is staged in the workdir and published by one rename, so that an
//! observer, and a crash, meet the old state or the new one. What adds a name where none was is
//! made in place: that is one atomic system call already.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::index::Index;
use super::probes;
use super::stored_stat::StatXattr;
use super::unsettled::Unsettled;
use super::upper_roots::{Both, open_both};
use super::whiteout::{self, Style};
use super::workdir::{self, Workdir};
use super::xattrs::{Mark, Namespace};
use crate::error::{Errno, Error, FsResult, Result};
use crate::sys::mount_clone::AccessTimes;
use crate::sys::stat::Stat;
use crate::sys::xattr::Target;
use crate::sys::{self, OwnedFd, RenameFlags, node};

/// What an upper directory holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A whiteout.
    Whiteout,
    /// Anything that is no directory.
    File,
    /// A directory.
    Dir,
}

/// What a mount asks of its upper.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Keep overlay's xattrs as `user.overlay.*` even where `trusted.` is permitted.
    pub user_xattrs: bool,
    /// No fsync reaches the disk.
    pub volatile: bool,
    /// Keep the names of hard links together over copy-up.
    pub index: bool,
    /// Keep owner, mode and device of its files in this xattr; where the upper has another already,
    /// in that.
    pub stat_xattr: Option<StatXattr>,
    /// Which access times reading its files leaves.
    pub access_times: AccessTimes,
}

/// The writable layer of a mount.
#[derive(Debug)]
pub struct Upper {
    /// Where it was found; for messages only.
    pub path: PathBuf,
    /// Where it was when it was mounted, without symlinks.
    pub real_path: PathBuf,
    /// Its root, an `O_PATH` descriptor.
    pub root: Arc<OwnedFd>,
    /// The attributes of its root when it was mounted.
    pub stat: Stat,
    /// Staging beside it.
    pub work: Workdir,
    /// Where overlay's xattrs are kept.
    pub namespace: Namespace,
    /// Whether the filesystem takes our xattrs at all.
    pub has_xattrs: bool,
    /// How whiteouts are written.
    pub style: Style,
    /// Where owner, mode and device of its files are kept, if not in their inodes.
    pub stat_xattr: Option<StatXattr>,
    /// No fsync reaches the disk.
    pub volatile: bool,
    /// Where no fsync does, a write that failed is known: no data may be taken for written any more.
    pub(super) lost_data: AtomicBool,
    /// Copied-up hard links; `None` where they are not kept together.
    pub index: Option<Index>,
    /// The name in staging of a whiteout that others are linked to, once there is one.
    shared_whiteout: Mutex<Option<std::ffi::OsString>>,
    /// Whether its filesystem shows names only with their data; found out when it first matters.
    pub(super) journal_shows_data: OnceLock<bool>,
    /// What must be made durable with what is synced in it.
    pub(super) unsettled: Unsettled,
    /// Held so that no other mount takes this upper with another workdir.
    _lock: OwnedFd,
    /// The clone of their mount that upper and workdir are reached through.
    _clone: Option<OwnedFd>,
}

impl Upper {
    /// Opens the upper at `path` with the workdir at `work`.
    ///
    /// # Errors
    /// Names the path that is missing, not writable, in use, or on another filesystem.
    pub fn open(path: &Path, work: &Path, wanted: Wanted) -> Result<Upper> {
        let failed = |errno| Error::io("open upperdir", path, errno);
        let Both { root, real_path, work_root, clone } =
            open_both(path, work, wanted.access_times)?;
        let stat = sys::stat::stat_fd(&root).map_err(failed)?;
        let workdir = Workdir::open(&work_root, work)?;
        let lock = sys::dir::open_dir(&root, OsStr::new(".")).map_err(failed)?;
        workdir::take(&lock, "upperdir", path)?;
        let work_stat = sys::stat::stat_fd(workdir.staging()).map_err(failed)?;
        if work_stat.dev != stat.dev {
            let reason = format!("{} is not on the filesystem of upperdir", work.display());
            return Err(Error::option("workdir", reason));
        }
        let probing = |errno| Error::io("probe workdir", work, errno);
        let (namespace, has_xattrs) =
            probes::xattrs(&workdir, wanted.user_xattrs).map_err(probing)?;
        let style = whiteout::probe_style(workdir.staging(), namespace).map_err(probing)?;
        probes::rename(&workdir, &root, path, work)?;
        let unsettled = Unsettled::new(&root, wanted.volatile).map_err(failed)?;
        let index = match wanted.index && has_xattrs {
            true => Some(Index::open(&workdir, namespace).map_err(probing)?),
            false => None,
        };
        let stat_xattr = take_stat_xattr(&root, &stat, wanted.stat_xattr)
            .map_err(|errno| Error::io("keep owners and modes in an xattr of", path, errno))?;
        tracing::info!(?style, ?namespace, has_xattrs, ?wanted, "upper layer opened");
        let upper = Upper {
            path: path.to_path_buf(),
            real_path,
            root: Arc::new(root),
            stat,
            work: workdir,
            namespace,
            has_xattrs,
            style,
            stat_xattr,
            volatile: wanted.volatile,
            lost_data: AtomicBool::new(false),
            index,
            shared_whiteout: Mutex::new(None),
            journal_shows_data: OnceLock::new(),
            unsettled,
            _lock: lock,
            _clone: clone,
        };
        // What an earlier mount moved into place before it was killed.
        if upper.unsettled.watches() && upper.work.was_in_use() {
            upper.sync_all().map_err(|errno| Error::io("sync upperdir", path, errno))?;
        }
        Ok(upper)
    }

    /// Sets one of overlay's marks; silently without effect on a filesystem without xattrs,
    /// where nothing that needs one is ever done.
    pub fn set_mark(&self, of: Target<'_>, mark: Mark, value: &[u8]) -> FsResult<()> {
        if !self.has_xattrs {
            return Err(Errno::OPNOTSUPP);
        }
        self.namespace.set(of, mark, value)
    }

    /// Keeps owner, mode and device of `stat` in the xattr for them; `false` where the upper has none,
    /// and nothing was done.
    ///
    /// What is neither a regular file nor a directory has no xattrs of users: it gets owner and mode
    /// itself, as far as that is permitted.
    pub fn store_stat(&self, fd: &OwnedFd, stat: &Stat) -> FsResult<bool> {
        let Some(xattr) = self.stat_xattr else { return Ok(false) };
        let stored = match xattr.write(Target::fd(fd), stat) {
            Err(Errno::PERM | Errno::OPNOTSUPP) if !(stat.is_file() || stat.is_dir()) => {
                let owner = (Some(stat.uid), Some(stat.gid));
                match node::set_owner(fd, OsStr::new(""), owner.0, owner.1) {
                    Ok(()) | Err(Errno::PERM | Errno::INVAL) if stat.is_symlink() => Ok(()),
                    Ok(()) | Err(Errno::PERM | Errno::INVAL) => node::set_mode(fd, stat.mode),
                    Err(errno) => Err(errno),
                }
            }
            other => other,
        };
        stored.map(|()| true)
    }

    /// Makes a whiteout called `name` in `dir`, in place of what is `present` there, atomically
    /// (with [`Style::File`] in two steps that never show the lower name).
    pub fn whiteout(&self, dir: &OwnedFd, name: &OsStr, present: Present) -> FsResult<()> {
        match (self.style, present) {
            (_, Present::Whiteout) => Ok(()),
            (Style::File, _) => {
                whiteout::make(dir, name, self.style, self.namespace)?;
                self.remove(dir, name, present)
            }
            (Style::Device, Present::Nothing) => self.link_whiteout(dir, name),
            (_, Present::Nothing) => {
                let staged = self.stage_whiteout(dir)?;
                self.publish_whiteout(&staged, dir, name, RenameFlags::NOREPLACE)
            }
            (_, Present::File) => {
                let staged = self.stage_whiteout(dir)?;
                self.publish_whiteout(&staged, dir, name, RenameFlags::empty())
            }
            (_, Present::Dir) => {
                let staged = self.stage_whiteout(dir)?;
                self.publish_whiteout(&staged, dir, name, RenameFlags::EXCHANGE)?;
                self.work.discard(&staged);
                Ok(())
            }
        }
    }

    /// Removes what is `present` under `name` in `dir`; a directory may hold whiteouts.
    pub fn remove(&self, dir: &OwnedFd, name: &OsStr, present: Present) -> FsResult<()> {
        match present {
            Present::Nothing => Ok(()),
            Present::File => node::unlink(dir, name),
            Present::Whiteout => self.remove_whiteout(dir, name),
            Present::Dir => match node::remove_dir(dir, name) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let aside = self.work.fresh_name();
                    let staging = self.work.staging();
                    node::rename(dir, name, staging, &aside, RenameFlags::empty())?;
                    self.work.discard(&aside);
                    Ok(())
                }
                other => other,
            },
        }
    }

    /// Removes the whiteout of `name` in `dir`.
    pub fn remove_whiteout(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<()> {
        let in_place = match whiteout::file_name(name) {
            // A foreign upper may hold whiteout files whatever our own style is.
            Some(file) => match node::unlink(dir, &file) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => name,
                Err(errno) => return Err(errno),
            },
            None => name,
        };
        node::unlink(dir, in_place)
    }

    /// Publishes what was staged as `staged` under `dir`/`name`; on failure it is discarded.
    pub fn publish(
        &self,
        staged: &OsStr,
        dir: &OwnedFd,
        name: &OsStr,
        flags: RenameFlags,
    ) -> FsResult<()> {
        self.publish_whiteout(staged, dir, name, flags)?;
        self.moved_in(dir, name);
        Ok(())
    }

    /// As [`Upper::publish`], of a whiteout: nothing is ever synced in one, so that it is as durable
    /// as any other removal, and no later promise waits for its place.
    fn publish_whiteout(
        &self,
        staged: &OsStr,
        dir: &OwnedFd,
        name: &OsStr,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let done = node::rename(self.work.staging(), staged, dir, name, flags);
        if done.is_err() {
            self.work.discard(staged);
        }
        done
    }

    /// Publishes what was staged over a whiteout, or where nothing was. A directory cannot be
    /// renamed over a file, so it changes places with the whiteout, which is then discarded.
    pub fn publish_over(
        &self,
        staged: &OsStr,
        dir: &OwnedFd,
        name: &OsStr,
        present: Present,
        is_dir: bool,
    ) -> FsResult<()> {
        match present {
            Present::Nothing => self.publish(staged, dir, name, RenameFlags::NOREPLACE),
            Present::Whiteout if self.is_file_whiteout(dir, name)? => {
                self.publish(staged, dir, name, RenameFlags::NOREPLACE)?;
                self.remove_whiteout(dir, name)
            }
            Present::Whiteout if is_dir => {
                self.publish(staged, dir, name, RenameFlags::EXCHANGE)?;
                self.work.discard(staged);
                Ok(())
            }
            _ => self.publish(staged, dir, name, RenameFlags::empty()),
        }
    }

    /// Ends its use: staging is emptied and removed.
    pub fn close(&self) -> FsResult<()> {
        if !self.unsettled.is_empty()
            && let Err(errno) = self.sync_all()
        {
            tracing::warn!(%errno, "cannot sync the upper at the end of the mount");
        }
        *self.shared_whiteout.lock() = None;
        self.work.close()
    }

    /// Whether the whiteout of `name` in `dir` is in the form of a `.wh.` file, beside which
    /// the name itself is free.
    pub fn is_file_whiteout(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<bool> {
        match sys::stat::stat_at(dir, name) {
            Ok(_) => Ok(false),
            Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// Says that whiteouts in xattr form may be in `dir`: the kernel looks for them below such a mark
    /// only.
    pub fn expect_whiteouts(&self, dir: &OwnedFd) -> FsResult<()> {
        match self.namespace.get(Target::fd(dir), Mark::Opaque)? {
            Some(_) => Ok(()),
            None => self.set_mark(Target::fd(dir), Mark::Opaque, b"x"),
        }
    }

    fn stage_whiteout(&self, dir: &OwnedFd) -> FsResult<std::ffi::OsString> {
        let staged = self.work.fresh_name();
        match self.style {
            Style::Device => self.link_whiteout(self.work.staging(), &staged)?,
            _ => {
                self.expect_whiteouts(dir)?;
                whiteout::make(self.work.staging(), &staged, self.style, self.namespace)?;
            }
        }
        Ok(staged)
    }

    /// Links a shared whiteout to `dir`/`name`: cheaper than an inode for each.
    fn link_whiteout(&self, dir: &OwnedFd, name: &OsStr) -> FsResult<()> {
        let mut shared = self.shared_whiteout.lock();
        if let Some(from) = shared.as_deref() {
            match node::link(self.work.staging(), from, dir, name) {
                // The link count is at its limit: go on with a new one.
                Err(Errno::MLINK) => {}
                other => return other,
            }
        }
        let fresh = self.work.fresh_name();
        whiteout::make(self.work.staging(), &fresh, Style::Device, self.namespace)?;
        let linked = node::link(self.work.staging(), &fresh, dir, name);
        *shared = Some(fresh);
        match linked {
            // No hard links on this filesystem, or none of devices.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {
                whiteout::make(dir, name, Style::Device, self.namespace)
            }
            other => other,
        }
    }
}

/// The xattr in which the upper keeps owners and modes: the one that it has, or else `wanted`, with
/// which its root is marked.
fn take_stat_xattr(
    root: &OwnedFd,
    stat: &Stat,
    wanted: Option<StatXattr>,
) -> FsResult<Option<StatXattr>> {
    let found = StatXattr::of_root(Target::dir(root))?;
    if let (None, Some(xattr)) = (found, wanted) {
        xattr.write(Target::fd(root), stat)?;
    }
    Ok(found.or(wanted))
}
