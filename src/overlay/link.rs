//! Hard links.

use std::ffi::OsStr;
use std::sync::Arc;

use super::copy_up::Data;
use super::frozen::Change;
use super::layer_dir::name_of;
use super::listing::Listed;
use super::node::{Node, RealKey};
use super::place::At;
use super::{Entry, Name, NodeId, Overlay};
use crate::error::{Errno, FsResult, check_name};
use crate::layer::LayerIndex;
use crate::layer::upper::{Present, Upper};
use crate::layer::whiteout;
use crate::sys::stat::stat_at;
use crate::sys::xattr::Target;
use crate::sys::{OwnedFd, node};

impl Overlay {
    /// Gives a file the further name `name` in `parent`; a lower file is copied up first.
    pub fn link(&self, file: NodeId, parent: NodeId, name: &OsStr) -> FsResult<Entry> {
        check_name(name)?;
        if whiteout::is_reserved_name(name) {
            return Err(Errno::INVAL);
        }
        let file = self.nodes.get(file)?;
        let parent = self.nodes.get(parent)?;
        if file.dir.is_some() {
            return Err(Errno::PERM);
        }
        let dir = parent.directory()?;
        let upper = self.upper()?;
        let name = name_of(name);
        self.copy_up_to(Change::Adds, &parent, Data::Attributes)?;
        self.copy_up_to(Change::Alters, &file, Data::Attributes)?;
        // Linking goes through a descriptor, so that no lock on the source's directory is
        // needed beside the one on the target's.
        let source = self.at(&file, At::path_fd)?;

        let state = dir.state.write();
        if state.dead {
            return Err(Errno::NOENT);
        }
        let occupant = self.occupant(dir, &name)?;
        if occupant.is_visible() {
            return Err(Errno::EXIST);
        }
        let fd = self.dir_fds.get(dir.upper()?)?;
        if self.has_origin(&file) {
            self.mark_impure(upper, dir, &fd)?;
        }
        self.redirect_data(upper, &file, &source)?;
        if file.state.lock().index().is_some() {
            self.settle_link_count(upper, &source)?;
        }
        if upper.reorders() {
            file.set_place_unsynced();
        }
        place_link(upper, &source, &fd, &name, occupant.present)?;
        let mut stat = stat_at(&fd, &name)?;
        self.add_stored(LayerIndex::UPPER, Target::at(&fd, &name), &mut stat)?;
        self.gained_name(&file, &parent, &name, RealKey { dev: stat.dev, ino: stat.ino })?;
        let ino = file.state.lock().ino;
        let listed = Listed::in_upper(&name, stat.file_type(), ino, occupant.below);
        self.relist(&parent, |listing| listing.put(listed));
        file.count_lookup();
        Ok(Entry { node: file.id, stat: self.shown(&file, stat)? })
    }

    fn gained_name(
        &self,
        file: &Arc<Node>,
        parent: &Arc<Node>,
        name: &Name,
        key: RealKey,
    ) -> FsResult<()> {
        file.add_name(parent, name);
        file.set_dead(false);
        file.state.lock().pin(None);
        // A file made without a name had nothing that leads to it.
        self.nodes.add_key(file, key)
    }
}

fn place_link(
    upper: &Upper,
    source: &OwnedFd,
    dir: &OwnedFd,
    name: &Name,
    present: Present,
) -> FsResult<()> {
    if present == Present::Nothing {
        return node::link_fd(source, dir, name);
    }
    let staged = upper.work.fresh_name();
    node::link_fd(source, upper.work.staging(), &staged)?;
    upper.publish_over(&staged, dir, name, present, false)
}
