//! What may change of a node.

use std::sync::Arc;

use super::Name;
use super::layer_dir::LayerDir;
use super::node::{Alias, Node, RealKey};
use crate::sys::OwnedFd;

/// The changing part of a node. What most nodes have stands here: one name, and the directory
/// of a lower in which the file has the same name. Anything else stands in [`Rare`].
#[derive(Debug)]
pub struct NodeState {
    /// The inode number that users see.
    pub ino: u64,
    /// The first of its names; none only where it has none.
    first: Option<Alias>,
    /// For anything but a directory: where its data lies as long as that is not in the upper;
    /// under its first name, unless `Rare::lower_name` gives another.
    lower: Option<Arc<LayerDir>>,
    rare: Option<Box<Rare>>,
}

/// What few nodes have.
#[derive(Debug, Default)]
struct Rare {
    /// Further names of a hard link.
    names: Vec<Alias>,
    /// The name of its data in the lower, if it is not the first one in the merged tree.
    lower_name: Option<Name>,
    /// Where its attributes lie while that is a lower file that has them alone.
    attributes: Option<(Arc<LayerDir>, Name)>,
    /// Holds an upper inode that no name leads to any more.
    pinned: Option<Arc<OwnedFd>>,
    /// Its name in the index, which leads to it whatever its other names are.
    index: Option<Name>,
    /// Keys beside the node's own, the present place last.
    keys: Vec<RealKey>,
    /// The node that took over its names, held so that it stays while this one does.
    successor: Option<Arc<Node>>,
}

impl NodeState {
    /// With this inode number and, as yet, no name; all that it has lies in the upper.
    pub fn new(ino: u64) -> NodeState {
        NodeState { ino, first: None, lower: None, rare: None }
    }

    /// The same with data in a lower.
    pub fn with_lower(mut self, (dir, name): (Arc<LayerDir>, Name)) -> NodeState {
        self.lower = Some(dir);
        if self.first.as_ref().is_none_or(|first| first.name != name) {
            self.rare().lower_name = Some(name);
        }
        self
    }

    /// The same with a name.
    pub fn with_name(mut self, parent: &Arc<Node>, name: &Name) -> NodeState {
        self.add_name(Alias { parent: parent.clone(), name: name.clone() });
        self
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// One of its names, always the same as long as that exists.
    pub fn first_name(&self) -> Option<&Alias> {
        self.first.as_ref()
    }

    /// Its names, as far as they were looked up; a directory has one at most.
    pub fn names(&self) -> impl Iterator<Item = &Alias> {
        self.first.iter().chain(self.rare.iter().flat_map(|rare| rare.names.iter()))
    }

    /// Whether it has this name.
    pub fn has_name(&self, parent: &Arc<Node>, name: &Name) -> bool {
        self.names().any(|alias| alias.is(parent, name))
    }

    /// Adds a name.
    pub fn add_name(&mut self, alias: Alias) {
        match self.first {
            None => self.first = Some(alias),
            Some(_) => self.rare().names.push(alias),
        }
    }

    /// Forgets a name.
    pub fn remove_name(&mut self, parent: &Arc<Node>, name: &Name) {
        if self.first.as_ref().is_some_and(|first| first.is(parent, name)) {
            self.keep_lower_name();
            let next = self.rare.as_mut().filter(|rare| !rare.names.is_empty());
            self.first = next.map(|rare| rare.names.remove(0));
        } else if let Some(rare) = &mut self.rare {
            rare.names.retain(|alias| !alias.is(parent, name));
        }
    }

    /// Forgets all names and returns them.
    pub fn take_names(&mut self) -> Vec<Alias> {
        self.keep_lower_name();
        let first = self.first.take();
        let more = self.rare.as_mut().map(|rare| std::mem::take(&mut rare.names));
        first.into_iter().chain(more.into_iter().flatten()).collect()
    }

    /// Before the first name goes: the one in the lower stays what it was.
    fn keep_lower_name(&mut self) {
        if self.lower.is_some()
            && let Some(name) = self.first.as_ref().map(|first| first.name.clone())
        {
            self.rare().lower_name.get_or_insert(name);
        }
    }

    /// Whether its data lies in a lower.
    pub fn has_lower_data(&self) -> bool {
        self.lower.is_some()
    }

    /// Where its data lies, if that is a lower.
    pub fn lower(&self) -> Option<(Arc<LayerDir>, Name)> {
        let dir = self.lower.clone()?;
        let other = self.rare.as_ref().and_then(|rare| rare.lower_name.as_ref());
        let name = other.or(self.first.as_ref().map(|first| &first.name))?;
        Some((dir, name.clone()))
    }

    /// Its data lies in the upper now.
    pub fn drop_lower(&mut self) {
        self.lower = None;
        if let Some(rare) = &mut self.rare {
            rare.lower_name = None;
        }
    }

    /// The lower file that has its attributes, as long as it is not in the upper.
    pub fn lower_attributes(&self) -> Option<(Arc<LayerDir>, Name)> {
        let own = self.rare.as_ref().and_then(|rare| rare.attributes.clone());
        own.or_else(|| self.lower())
    }

    /// Its attributes lie there, and not with its data; or, with `None`, no more.
    pub fn set_attributes(&mut self, place: Option<(Arc<LayerDir>, Name)>) {
        if place.is_some() || self.rare.is_some() {
            self.rare().attributes = place;
        }
    }

    /// What holds an upper inode that no name leads to any more.
    pub fn pinned(&self) -> Option<&Arc<OwnedFd>> {
        self.rare.as_ref()?.pinned.as_ref()
    }

    /// Holds the file itself, or, with `None`, no more.
    pub fn pin(&mut self, held: Option<Arc<OwnedFd>>) {
        if held.is_some() || self.rare.is_some() {
            self.rare().pinned = held;
        }
    }

    /// Its name in the index.
    pub fn index(&self) -> Option<&Name> {
        self.rare.as_ref()?.index.as_ref()
    }

    /// From now on this name in the index leads to it, or, with `None`, none.
    pub fn set_index(&mut self, entry: Option<Name>) {
        if entry.is_some() || self.rare.is_some() {
            self.rare().index = entry;
        }
    }

    /// Keys beside the node's own, the present place last.
    pub fn more_keys(&self) -> &[RealKey] {
        self.rare.as_ref().map_or(&[], |rare| &rare.keys)
    }

    pub(super) fn add_key(&mut self, key: RealKey) {
        self.rare().keys.push(key);
    }

    pub(super) fn take_keys(&mut self) -> Vec<RealKey> {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.keys)).unwrap_or_default()
    }

    /// Parts with the node that took over its names.
    pub(super) fn take_successor(&mut self) -> Option<Arc<Node>> {
        self.rare.as_mut()?.successor.take()
    }

    pub(super) fn set_successor(&mut self, fresh: Arc<Node>) {
        self.rare().successor = Some(fresh);
    }

    /// Moves names, keys and the place of the data to the state of a node that takes over; this
    /// one keeps the file itself, as `held`.
    pub(super) fn hand_over(&mut self, held: Arc<OwnedFd>) -> NodeState {
        let lower = self.lower();
        let mut fresh = NodeState::new(self.ino);
        for alias in self.take_names() {
            fresh.add_name(alias);
        }
        let old = self.rare();
        old.pinned = Some(held);
        let (index, keys) = (old.index.take(), std::mem::take(&mut old.keys));
        fresh.set_index(index);
        for key in keys {
            fresh.add_key(key);
        }
        match lower {
            Some(place) => fresh.with_lower(place),
            None => fresh,
        }
    }
}

impl Alias {
    /// Whether it is this name.
    pub fn is(&self, parent: &Arc<Node>, name: &Name) -> bool {
        self.name == *name && Arc::ptr_eq(&self.parent, parent)
    }
}
