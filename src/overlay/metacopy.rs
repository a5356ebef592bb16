//! Files whose attributes alone are copied up: the upper inode has the lower's size but no data,
//! and a mark that says so (kernel format `metacopy`).
//!
//! The data comes up when something is about to change it: into the same inode, in place,
//! because the mark still leads readers to the lower file until it is complete and durable. A
//! crash in between leaves the mark, and at most another modification time.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::{FileType, XattrFlags};

use super::Overlay;
use super::copy_up::Data;
use super::layer_dir::LayerDir;
use super::lower_path::LowerPath;
use super::merge::Search;
use super::node::Node;
use super::place::At;
use super::stage::{open_lower, times_of};
use super::{Name, layer_dir::name_of};
use crate::error::{Errno, FsResult};
use crate::layer::redirect::Redirect;
use crate::layer::upper::Upper;
use crate::layer::xattrs::Mark;
use crate::layer::{LayerIndex, Probe};
use crate::sys::copy::How;
use crate::sys::stat::{Stat, stat_fd};
use crate::sys::xattr::{self, Target};
use crate::sys::{OFlags, OwnedFd, copy, file, node};

const CAPABILITY: &str = "security.capability";

impl Overlay {
    /// Whether a change of attributes alone copies only those of this file.
    pub(super) fn copies_attributes_only(&self, kind: FileType, stat: &Stat) -> bool {
        let Some(from) = self.policy.metacopy_from else { return false };
        let xattrs = self.upper.as_ref().is_some_and(|upper| upper.has_xattrs);
        kind == FileType::RegularFile && xattrs && stat.size > 0 && stat.size >= from
    }

    /// Where the data of the file `place` lies, if not with its attributes.
    ///
    /// # Errors
    /// `EIO` where a file says that its data is below and no layer has it: a crafted or damaged
    /// layer.
    pub(super) fn data_place(
        &self,
        place: &(Arc<LayerDir>, Name),
        stat: &Stat,
        below: &[&Arc<LayerDir>],
    ) -> FsResult<Option<(Arc<LayerDir>, Name)>> {
        let (dir, name) = place;
        // An empty file may be marked, too: what is written to it must take the mark away.
        if !dir.is_impure() || !stat.is_file() || self.is_bottom(dir.layer) {
            return Ok(None);
        }
        let fd = self.dir_fds.get(dir)?;
        let Some(redirect) = self.metacopy_mark(dir.layer, &fd, name)? else { return Ok(None) };
        let search = Search::Here(name.clone()).redirected(redirect);
        self.find_data(dir.layer, search, below).map(Some)
    }

    /// Whether the file is marked, and then where the mark leads. Marks are believed where
    /// redirects are.
    #[expect(clippy::option_option, reason = "not marked, marked, marked with a redirect")]
    fn metacopy_mark(
        &self,
        layer: LayerIndex,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> FsResult<Option<Option<Redirect>>> {
        let Some(namespace) = self.redirect_trust(layer) else { return Ok(None) };
        let target = Target::at(dir, name);
        if namespace.get(target, Mark::Metacopy)?.is_none() {
            return Ok(None);
        }
        let redirect = namespace.get(target, Mark::Redirect)?;
        redirect.map(|value| Redirect::parse(&value)).transpose().map(Some)
    }

    fn find_data(
        &self,
        from: LayerIndex,
        mut search: Search,
        below: &[&Arc<LayerDir>],
    ) -> FsResult<(Arc<LayerDir>, Name)> {
        if let Search::Here(name) = &search {
            let mut name = name.clone();
            for (i, dir) in below.iter().enumerate() {
                let fd = self.dir_fds.get(dir)?;
                match self.probe(dir, &fd, &name, i + 1 == below.len())? {
                    Probe::Absent => continue,
                    Probe::Whiteout | Probe::Dir(_) => return Err(Errno::IO),
                    Probe::File(_) if !dir.is_impure() => return Ok(((*dir).clone(), name)),
                    Probe::File(_) => {}
                }
                match self.metacopy_mark(dir.layer, &fd, &name)? {
                    None => return Ok(((*dir).clone(), name)),
                    Some(None) => {}
                    Some(Some(Redirect::Sibling(other))) => name = name_of(&other),
                    Some(Some(Redirect::Absolute(path))) => {
                        return self.find_data(dir.layer, Search::FromRoot(path), &[]);
                    }
                }
            }
            return Err(Errno::IO);
        }
        for root in self.lower_roots.iter().filter(|root| root.layer > from) {
            let Search::FromRoot(path) = &search else { break };
            let step = self.walk_layer(root, path)?;
            if let Some((dir, name)) = step.file {
                let fd = self.dir_fds.get(&dir)?;
                match self.metacopy_mark(dir.layer, &fd, &name)? {
                    None => return Ok((dir, name)),
                    Some(redirect) => {
                        search = Search::FromRoot(step.path).redirected_file(redirect);
                        continue;
                    }
                }
            }
            if step.stop {
                break;
            }
            search = Search::FromRoot(step.path);
        }
        Err(Errno::IO)
    }

    /// Where the data of a file lies that was found in a lower, and whose attributes the index
    /// holds.
    pub(super) fn indexed_data(
        &self,
        indexed: &super::hard_link::Indexed,
        merged: &super::merge::Merged,
    ) -> FsResult<Option<(Arc<LayerDir>, Name)>> {
        let mark = self.metacopy_mark(LayerIndex::UPPER, &indexed.dir, &indexed.name)?;
        let lower = || merged.data.clone().unwrap_or_else(|| merged.place.clone());
        Ok(mark.map(|_| lower()))
    }

    /// Brings the data of a file into the upper whose attributes are there already.
    pub(super) fn copy_up_data(&self, upper: &Upper, node: &Arc<Node>, data: Data) -> FsResult<()> {
        let _one_at_a_time = node.copy_up.lock();
        if node.has_upper_data() {
            return Ok(());
        }
        let lower = node.state.lock().lower();
        let (dir, name) = lower.ok_or(Errno::STALE)?;
        let source = At::Entry(self.dir_fds.get(&dir)?, name);
        let to = self.at(node, |at| at.open(OFlags::RDWR | OFlags::NONBLOCK))?;
        let stat = stat_fd(&to)?;
        let length = match data {
            Data::Upto(length) => length.min(stat.size),
            Data::All | Data::Attributes => stat.size,
        };
        if let Err(errno) = fill_in_place(upper, &source, &to, &stat, length) {
            // The mark still leads to the data: with its size and times the file is as it was.
            let times = times_of(&stat);
            let undone = file::truncate(&to, stat.size)
                .and_then(|()| keep_mode(&to, &stat))
                .and_then(|()| node::set_times(&to, OsStr::new(""), &times));
            if let Err(errno) = undone {
                tracing::warn!(%errno, "cannot undo a copy of data that failed");
            }
            return Err(errno);
        }
        self.nodes.count_copy_up();
        node.now_upper(true);
        node.state.lock().drop_lower();
        self.note_copied(node);
        self.counters.copied_up(FileType::RegularFile, false);
        self.counters.copied_data(length);
        Ok(())
    }

    /// Lets the mark of a file without data in the upper lead to the data wherever the file is
    /// moved or linked to.
    pub(super) fn redirect_data(&self, upper: &Upper, node: &Node, fd: &OwnedFd) -> FsResult<()> {
        if node.has_upper_data() || node.dir.is_some() {
            return Ok(());
        }
        let Ok(alias) = node.alias() else { return Ok(()) };
        let known = upper.namespace.get(Target::fd(fd), Mark::Redirect)?;
        let redirect = known.map(|value| Redirect::parse(&value)).transpose()?;
        if let Some(Redirect::Absolute(_)) = redirect {
            return Ok(());
        }
        // Without a redirect no name of it was ever moved: this one is the lowers' own.
        let above = alias.parent.directory()?.lower_path.as_ref();
        match LowerPath::child(above, &alias.name, redirect.as_ref()) {
            Some(path) => {
                upper.set_mark(Target::fd(fd), Mark::Redirect, &path.redirect().to_bytes())
            }
            None => Err(Errno::IO),
        }
    }
}

/// Brings the first `length` bytes into the upper file `to`, which is cut off there, and takes its
/// mark away.
///
/// The mark goes last. Until then the data is read from the lower, as far as the size of `to`
/// says: a crash leaves the old content or, once it is cut off, the new.
fn fill_in_place(
    upper: &Upper,
    source: &At,
    to: &OwnedFd,
    stat: &Stat,
    length: u64,
) -> FsResult<()> {
    // Writing takes the capabilities away, which belong to the file as it was, and suid and sgid
    // where we lack CAP_FSETID over it.
    let capability = xattr::get(Target::fd(to), OsStr::new(CAPABILITY))?;
    if length > 0 {
        let from = open_lower(source)?;
        let whole = length == stat_fd(&from)?.size;
        copy::content(&from, to, length, How { whole, write_out: !upper.volatile })?;
    } else if stat.size > 0 {
        file::truncate(to, 0)?;
    }
    keep_mode(to, stat)?;
    if let Some(value) = capability {
        xattr::set(Target::fd(to), OsStr::new(CAPABILITY), &value, XattrFlags::empty())?;
    }
    node::set_times(to, OsStr::new(""), &times_of(stat))?;
    if length > 0 {
        upper.before_published(to)?;
    }
    upper.namespace.remove(Target::fd(to), Mark::Metacopy)
}

/// Gives a file back the mode that it had in `before`, where a change of its content took bits away.
fn keep_mode(file: &OwnedFd, before: &Stat) -> FsResult<()> {
    if stat_fd(file)?.mode == before.mode {
        return Ok(());
    }
    node::set_open_mode(file, before.mode)
}
