//! Nodes whose attributes a copy-up changed, beside what the request that caused it was about.
//!
//! A copy is another inode: its time of attributes and its blocks are new, and those of the directory
//! that it comes to change as well. Who keeps attributes (the kernel) must be told, or a directory seems
//! to change while it is read, which tar reports.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::Node;
use super::sync::Mutex;
use super::sync::atomic::{AtomicUsize, Ordering};
use super::{NodeId, Overlay};

/// Those that nobody was told of yet.
#[derive(Debug)]
pub(super) struct Outdated {
    nodes: Mutex<HashSet<NodeId>>,
    /// How many; none is the usual.
    count: AtomicUsize,
}

impl Outdated {
    pub fn new() -> Outdated {
        Outdated { nodes: Mutex::default(), count: AtomicUsize::new(0) }
    }

    fn note(&self, node: NodeId) {
        let mut nodes = self.nodes.lock();
        nodes.insert(node);
        self.count.store(nodes.len(), Ordering::Release);
    }
}

impl Overlay {
    /// `node` was copied up.
    pub(super) fn note_copied(&self, node: &Arc<Node>) {
        self.outdated.note(node.id);
        if let Ok(alias) = node.alias() {
            self.outdated.note(alias.parent.id);
        }
    }

    /// Gives `tell` each node whose attributes were changed by a copy-up. When this returns, all
    /// that was changed before the call has been told, by this thread or another.
    pub fn tell_outdated(&self, mut tell: impl FnMut(NodeId)) {
        if self.outdated.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut nodes = self.outdated.nodes.lock();
        for node in nodes.drain() {
            tell(node);
        }
        self.outdated.count.store(0, Ordering::Release);
    }
}
