//! Extended attributes.
//!
//! Overlay's own are neither shown nor set nor removed; what a nested overlay keeps under such a
//! name is stored under an escaped one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::copy_up::Data;
use super::create::acl_changed;
use super::frozen::Change;
use super::node::Node;
use super::stage::is_acl;
use super::sync::atomic::Ordering;
use super::{NodeId, Overlay};
use crate::error::{Errno, FsResult};
use crate::layer::xattrs::{escape, unescape};
use crate::sys::{node, xattr};

const CAPABILITY: &str = "security.capability";
const SGID: u32 = 0o2000;

impl Overlay {
    /// Reads an xattr into `buffer`; with an empty one, tells its length.
    ///
    /// # Errors
    /// `ENODATA`, `ERANGE`, `EOPNOTSUPP` as the layer's filesystem gives them.
    pub fn getxattr(&self, node: NodeId, name: &OsStr, buffer: &mut [u8]) -> FsResult<usize> {
        let node = self.nodes.get(node)?;
        self.refuse_acl(name)?;
        if is_ordinary(name) {
            self.counters.xattrs.note(node.has_no_xattrs());
            if self.has_no_xattrs(&node)? {
                return Err(Errno::NODATA);
            }
        }
        let kept = escape(name);
        self.at(&node, |at| xattr::get_into(at.xattrs(), &kept, buffer))
    }

    /// Without ACLs their names are as on a filesystem that has none.
    fn refuse_acl(&self, name: &OsStr) -> FsResult<()> {
        if !self.policy.acls && is_acl(name) { Err(Errno::OPNOTSUPP) } else { Ok(()) }
    }

    /// Whether a node has no xattr at all that users see. Asked of the layer until it is so
    /// once, because the kernel keeps no xattrs and asks for each one of each file anew.
    fn has_no_xattrs(&self, node: &Arc<Node>) -> FsResult<bool> {
        if node.has_no_xattrs() {
            return Ok(true);
        }
        let before = self.xattrs_set.load(Ordering::Acquire);
        let names = self.at(node, |at| xattr::list(at.xattrs()))?;
        let none = !names.iter().any(|name| unescape(name).is_some());
        if none {
            let _nobody_notes_another = node.state.lock();
            // One may have been set after we looked, of this node or of another.
            if self.xattrs_set.load(Ordering::Acquire) == before {
                node.set_no_xattrs(true);
            }
        }
        Ok(none)
    }

    /// Takes note that xattrs of `node` are about to be set, or were: whoever looked before does not
    /// remember that there are none, and what was remembered is forgotten. To be called before
    /// and after, since one who looks in between may see neither change.
    fn note_xattrs_set(&self, node: &Node) {
        let _nobody_notes_another = node.state.lock();
        self.xattrs_set.fetch_add(1, Ordering::AcqRel);
        node.set_no_xattrs(false);
    }

    /// The names of all xattrs, each ended by NUL.
    pub fn listxattr(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let node = self.nodes.get(node)?;
        if node.has_no_xattrs() {
            return Ok(Vec::new());
        }
        let names = self.at(&node, |at| xattr::list(at.xattrs()))?;
        let mut list = Vec::new();
        let shown = names.iter().filter_map(|name| unescape(name));
        for name in shown.filter(|name| self.policy.acls || !is_acl(name)) {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        Ok(list)
    }

    /// Sets an xattr. With `kill_sgid`, setting an access ACL takes the sgid bit away.
    pub fn setxattr(
        &self,
        node: NodeId,
        name: &OsStr,
        value: &[u8],
        flags: XattrFlags,
        kill_sgid: bool,
    ) -> FsResult<()> {
        let node = self.nodes.get(node)?;
        let kept = escape(name);
        self.refuse_acl(name)?;
        self.copy_up_to(Change::Alters, &node, Data::Attributes)?;
        self.note_xattrs_set(&node);
        let set = self.at(&node, |at| {
            xattr::set(at.xattrs(), &kept, value, flags)?;
            let mode = if kill_sgid { at.stat()?.mode } else { 0 };
            if mode & SGID != 0 { node::set_mode(at.path_fd()?, mode & !SGID) } else { Ok(()) }
        });
        self.note_xattrs_set(&node);
        set?;
        acl_changed(&node, name);
        Ok(())
    }

    /// Removes an xattr; what is not there is not copied up for it.
    pub fn removexattr(&self, node: NodeId, name: &OsStr) -> FsResult<()> {
        let node = self.nodes.get(node)?;
        let kept = escape(name);
        match self.at(&node, |at| xattr::get_into(at.xattrs(), &kept, &mut [])) {
            Ok(_) | Err(Errno::RANGE) => {}
            // Damaged ones cannot be read, and must be removed all the same.
            Err(Errno::INVAL) if name == OsStr::new(CAPABILITY) => {}
            // An ACL is not removed but set to none.
            Err(Errno::NODATA) if is_acl(name) => return Ok(()),
            // Who may not remove it is told so even where it is not there.
            Err(Errno::NODATA) if node.is_upper() => {}
            Err(errno) => return Err(errno),
        }
        self.copy_up_to(Change::Alters, &node, Data::Attributes)?;
        self.at(&node, |at| xattr::remove(at.xattrs(), &kept))?;
        acl_changed(&node, name);
        Ok(())
    }
}

/// Whether a filesystem answers for names of this kind with "not set", if anything.
fn is_ordinary(name: &OsStr) -> bool {
    let prefixes = [&b"user."[..], b"security.", b"trusted.", b"system.posix_acl_"];
    // A prefix alone is no name, and refused as such.
    let rest = |prefix: &&[u8]| name.as_bytes().strip_prefix(*prefix);
    prefixes.iter().find_map(rest).is_some_and(|rest| !rest.is_empty())
}
