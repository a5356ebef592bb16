//! Keeping the names of a copied-up hard link together: through the index.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::FileType;

use super::copy_up::Data;
use super::directory::Directory;
use super::layer_dir::name_of;
use super::listing::{Listed, Occupant};
use super::merge::Merged;
use super::node::{Alias, Node};
use super::stage::times_of;
use super::{Name, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::LayerIndex;
use crate::layer::index::{self, Nlink, entry_name};
use crate::layer::origin::Origin;
use crate::layer::upper::{Present, Upper};
use crate::layer::xattrs::{Mark, Namespace};
use crate::sys::stat::{Stat, stat_at, stat_fd};
use crate::sys::xattr::Target;
use crate::sys::{OwnedFd, node};

/// The index entry of a file: its directory, its name there, and the upper inode's attributes.
pub(super) struct Indexed {
    pub dir: Arc<OwnedFd>,
    pub name: Name,
    pub stat: Stat,
}

impl Overlay {
    /// The index entry that a lower hard link, or an upper name of a copied-up one, leads to.
    pub(super) fn indexed(&self, merged: &Merged) -> FsResult<Option<Indexed>> {
        let Some(upper) = &self.upper else { return Ok(None) };
        let Some(index) = upper.index.as_ref().filter(|index| index.is_used()) else {
            return Ok(None);
        };
        if merged.stat.nlink < 2 || merged.stat.is_dir() {
            return Ok(None);
        }
        let (dir, name) = &merged.place;
        let fd = self.dir_fds.get(dir)?;
        let origin = if dir.layer.is_upper() {
            let value = upper.namespace.get(Target::at(&fd, name), Mark::Origin)?;
            value.as_deref().and_then(Origin::parse)
        } else {
            Origin::of(&fd, name, self.layer_uuid(dir.layer))
        };
        let Some(origin) = origin else { return Ok(None) };
        let Some((entries, entry)) = index.find(&origin)? else { return Ok(None) };
        let mut stat = stat_at(&entries, &entry)?;
        self.add_stored(LayerIndex::UPPER, Target::at(&entries, &entry), &mut stat)?;
        // An upper file whose origin was copied along by a user is not what the index means.
        let own = (stat.dev, stat.ino) == (merged.stat.dev, merged.stat.ino);
        if stat.file_type() != merged.stat.file_type() || (dir.layer.is_upper() && !own) {
            return Ok(None);
        }
        Ok(Some(Indexed { dir: entries, name: name_of(&entry), stat }))
    }

    /// Whether the names of a hard link of this type stay together over copy-up. On a read-only
    /// mount there is none. `user.*` xattrs, and so marks in user namespaces, are for regular
    /// files and directories alone.
    pub(super) fn keeps_links(&self, kind: FileType) -> bool {
        let marked =
            |upper: &Upper| kind == FileType::RegularFile || upper.namespace == Namespace::Trusted;
        self.upper.as_ref().is_none_or(|upper| upper.index.is_some() && marked(upper))
    }

    /// The name that a file's index entry is to have, if it is to have one.
    pub(super) fn index_name(&self, stat: &Stat, origin: Option<&Origin>) -> Option<Name> {
        let wanted = stat.nlink > 1 && !stat.is_dir() && self.keeps_links(stat.file_type());
        origin.filter(|_| wanted).map(|origin| name_of(&entry_name(origin)))
    }

    /// The directory of the index.
    pub(super) fn index_dir(&self) -> FsResult<Arc<OwnedFd>> {
        let upper = self.upper()?;
        upper.index.as_ref().ok_or(Errno::STALE)?.dir(&upper.work)
    }

    /// The merged link count of an indexed file whose upper inode has the attributes `stat`.
    pub(super) fn merged_nlink(&self, fd: &OwnedFd, name: &OsStr, stat: &Stat) -> FsResult<u32> {
        let upper = self.upper()?;
        let count = index::merged_count(upper.namespace, Target::at(fd, name), stat.nlink)?;
        Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
    }

    /// Makes sure that the name `parent`/`name` of `node`, which lies in the upper, stands in
    /// the upper as well, and not in a lower only. The caller holds no lock on a directory.
    pub(super) fn ensure_upper_name(
        &self,
        node: &Arc<Node>,
        parent: &Arc<Node>,
        name: &Name,
    ) -> FsResult<()> {
        if node.dir.is_some() {
            return Ok(());
        }
        let upper = self.upper()?;
        let dir = parent.directory()?;
        if !self.is_lower_only(dir, name)? {
            return Ok(());
        }
        let held = self.at(node, |at| at.path_fd())?;
        let _names = self.write_names(dir)?;
        let occupant = self.occupant(dir, name)?;
        if !is_lower_only(occupant) {
            return Ok(());
        }
        let fd = self.dir_fds.get(dir.upper()?)?;
        self.mark_impure(upper, dir, &fd)?;
        let before = stat_fd(&fd)?;
        self.redirect_data(upper, node, &held)?;
        let indexed = node.state.lock().index().is_some();
        if indexed {
            let merged = self.merged_nlink(&held, OsStr::new(""), &stat_fd(&held)?)?;
            index::hold_count(upper.namespace, Target::fd(&held), merged.into(), None)?;
        }
        node::link_fd(&held, &fd, name)?;
        // The name is there now; what fails from here on is made up for later.
        if indexed && let Err(errno) = self.settle_link_count(upper, &held) {
            tracing::warn!(%errno, "cannot update a link count; it is held until the next change");
        }
        if let Err(errno) = node::set_times(&fd, OsStr::new(""), &times_of(&before)) {
            tracing::warn!(%errno, "cannot restore a directory's times after copy-up");
        }
        let (kind, ino) = (node.kind(), node.state.lock().ino);
        let listed = Listed::in_upper(name, kind, ino, true);
        self.relist(parent, |listing| listing.put(listed));
        Ok(())
    }

    /// Makes sure that all names of an indexed file that are known stand in the upper. Who gives a
    /// whole tree other owners, name by name, may go on with this upper as a lower, where no index
    /// is asked and a name that stands in a lower only has the old owner.
    pub(super) fn ensure_known_names(&self, node: &Arc<Node>) -> FsResult<()> {
        let names: Vec<_> = {
            let state = node.state.lock();
            if state.index().is_none() {
                return Ok(());
            }
            state.names().cloned().collect()
        };
        for Alias { parent, name } in names {
            let ensured = self
                .copy_up(&parent, Data::Attributes)
                .and_then(|()| self.ensure_upper_name(node, &parent, &name));
            match ensured {
                // Removed meanwhile.
                Ok(()) | Err(Errno::NOENT | Errno::STALE) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn is_lower_only(&self, dir: &Directory, name: &Name) -> FsResult<bool> {
        let _names_stay = dir.state.read();
        self.occupant(dir, name).map(is_lower_only)
    }

    /// Lets the merged link count of an indexed file follow the upper inode's again, after it was
    /// held while a lower name was brought up.
    pub(super) fn settle_link_count(&self, upper: &Upper, held: &OwnedFd) -> FsResult<()> {
        let own = stat_fd(held)?;
        let of = Target::fd(held);
        let value = upper.namespace.get(of, Mark::Nlink)?;
        if !matches!(value.as_deref().and_then(Nlink::parse), Some(Nlink::Lower(_))) {
            return Ok(());
        }
        let merged = self.merged_nlink(held, OsStr::new(""), &own)?;
        index::count_from_upper(upper.namespace, of, merged.into(), own.nlink)
    }

    /// As [`Overlay::settle_link_count`], of a node; before its links change by a user's hand.
    pub(super) fn settle_links_of(&self, upper: &Upper, node: &Arc<Node>) -> FsResult<()> {
        if node.state.lock().index().is_none() {
            return Ok(());
        }
        let held = self.at(node, super::place::At::path_fd)?;
        self.settle_link_count(upper, &held)
    }

    /// Before a name of a lower hard link is removed or replaced: its group comes into the
    /// index, so that the names that remain are counted right, and the name into the upper, so
    /// that removing it changes the upper inode's count. No data is copied for it.
    pub(super) fn prepare_removal(
        &self,
        node: &Arc<Node>,
        parent: &Arc<Node>,
        name: &Name,
    ) -> FsResult<()> {
        if node.dir.is_some() || !self.keeps_links(node.kind()) {
            return Ok(());
        }
        if !node.is_upper() {
            let stat = self.at(node, super::place::At::stat)?;
            if stat.nlink < 2 {
                return Ok(());
            }
            self.copy_up(parent, Data::Attributes)?;
            self.copy_up(node, Data::Attributes)?;
        }
        if node.state.lock().index().is_some() {
            self.copy_up(parent, Data::Attributes)?;
            self.ensure_upper_name(node, parent, name)?;
            self.settle_links_of(self.upper()?, node)?;
        }
        Ok(())
    }

    /// After the name of an indexed file was removed: with the last one its index entry goes.
    pub(super) fn after_index_removal(&self, node: &Arc<Node>) -> FsResult<()> {
        let Some(entry) = node.state.lock().index().cloned() else { return Ok(()) };
        let dir = self.index_dir()?;
        let held = Arc::new(crate::sys::file::open_path_at(&dir, &entry)?);
        if self.merged_nlink(&held, OsStr::new(""), &stat_fd(&held)?)? > 0 {
            return Ok(());
        }
        {
            let mut state = node.state.lock();
            state.pin(Some(held));
            state.set_index(None);
            node.set_dead(true);
        }
        // The name is gone, which was asked for; the next mount removes such an entry.
        if let Err(errno) = node::unlink(&dir, &entry) {
            tracing::warn!(%errno, "cannot remove an entry of the index; the next mount will");
        }
        self.nodes.drop_keys(node);
        Ok(())
    }
}

/// Whether a name stands in a lower and not in the upper.
fn is_lower_only(occupant: Occupant) -> bool {
    occupant.present == Present::Nothing && occupant.below
}
