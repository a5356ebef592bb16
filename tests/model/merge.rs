//! The merged view of a stack, from the texts of its layers: the reference for the merge rule.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::tree::{Ino, Inode, Model, Node, ROOT};
use crate::support::{Attributes, DEFAULT_MTIME, EntrySpec, LayerSpec, SceneSpec, What};

/// One name in one layer.
#[derive(Debug, Clone)]
struct LayerNode {
    what: What,
    attributes: Attributes,
    /// Names that are hard links of each other share a number.
    group: usize,
    children: BTreeMap<OsString, LayerNode>,
}

impl LayerNode {
    fn dir() -> LayerNode {
        let (attributes, children) = (Attributes::default(), BTreeMap::new());
        LayerNode { what: What::Dir, attributes, group: 0, children }
    }

    fn is_dir(&self) -> bool {
        matches!(self.what, What::Dir | What::Opaque)
    }

    fn at(&mut self, path: &Path) -> &mut LayerNode {
        path.iter().filter(|name| *name != OsStr::new(".")).fold(self, |dir, name| {
            dir.children.entry(name.to_owned()).or_insert_with(LayerNode::dir)
        })
    }
}

/// What the stack shows.
pub(crate) fn merged(scene: &SceneSpec) -> Model {
    let layers: Vec<LayerNode> =
        std::iter::once(&scene.upper).chain(&scene.lowers).map(layer_tree).collect();
    let root: Vec<(usize, &LayerNode)> = layers.iter().enumerate().collect();
    let mut merge = Merge { model: Model::new(inode_of(&layers[0])), groups: HashMap::new() };
    merge.fill(ROOT, &root);
    merge.mark_hidden_links(&layers);
    merge.model
}

fn layer_tree(layer: &LayerSpec) -> LayerNode {
    let mut root = LayerNode::dir();
    for (number, EntrySpec { path, what, attributes }) in layer.entries.iter().enumerate() {
        let new = match what {
            What::HardLink(other) => root.at(other).clone(),
            _ => {
                let (what, attributes) = (what.clone(), attributes.clone());
                LayerNode { what, attributes, group: number, children: BTreeMap::new() }
            }
        };
        let place = root.at(path);
        let children = std::mem::take(&mut place.children);
        *place = LayerNode { children, ..new };
    }
    root
}

struct Merge {
    model: Model,
    /// The inode of each layer's group of hard links.
    groups: HashMap<(usize, usize), Ino>,
}

impl Merge {
    /// Fills the directory `ino`, whose parts are `parts`, topmost first.
    fn fill(&mut self, ino: Ino, parts: &[(usize, &LayerNode)]) {
        let mut names: Vec<&OsString> = parts.iter().flat_map(|(_, p)| p.children.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let found = visible(parts, name);
            let Some((layer, top)) = found.first().copied() else { continue };
            let child = self.inode(layer, top);
            let mtime = self.model.inodes[ino].mtime;
            self.model.names_mut(ino).insert(name.clone(), child);
            self.model.inodes[ino].mtime = mtime;
            if top.is_dir() {
                self.fill(child, &found);
            }
        }
    }

    fn inode(&mut self, layer: usize, node: &LayerNode) -> Ino {
        if node.is_dir() {
            return self.model.add(inode_of(node));
        }
        if let Some(known) = self.groups.get(&(layer, node.group)) {
            self.model.inodes[*known].nlink += 1;
            return *known;
        }
        let ino = self.model.add(inode_of(node));
        self.groups.insert((layer, node.group), ino);
        ino
    }

    /// A layer counts names that the merged tree does not show; which count is then seen is not
    /// the model's business.
    fn mark_hidden_links(&mut self, layers: &[LayerNode]) {
        for (number, layer) in layers.iter().enumerate() {
            let mut counts = HashMap::new();
            count_names(layer, &mut counts);
            for (group, count) in counts {
                if let Some(ino) = self.groups.get(&(number, group)) {
                    let inode = &mut self.model.inodes[*ino];
                    inode.nlink_known = inode.nlink == count;
                }
            }
        }
    }
}

fn count_names(dir: &LayerNode, counts: &mut HashMap<usize, u32>) {
    for child in dir.children.values() {
        match child.is_dir() {
            true => count_names(child, counts),
            false => *counts.entry(child.group).or_default() += 1,
        }
    }
}

/// What `name` is in the directory made of `parts`: nothing, one entry, or the directories that
/// merge, topmost first.
fn visible<'a>(parts: &[(usize, &'a LayerNode)], name: &OsStr) -> Vec<(usize, &'a LayerNode)> {
    let mut found: Vec<(usize, &LayerNode)> = Vec::new();
    for (layer, part) in parts {
        let Some(node) = part.children.get(name) else { continue };
        match &node.what {
            What::Whiteout => break,
            What::Dir => found.push((*layer, node)),
            What::Opaque => {
                found.push((*layer, node));
                break;
            }
            _ if found.is_empty() => return vec![(*layer, node)],
            _ => break,
        }
    }
    found
}

fn inode_of(node: &LayerNode) -> Inode {
    let (kind, default_mode) = match &node.what {
        What::Dir | What::Opaque => (Node::Dir(BTreeMap::new()), 0o755),
        What::File(content) => (Node::File(content.clone()), 0o644),
        What::Symlink(target) => (Node::Symlink(target.clone()), 0o777),
        What::Fifo => (Node::Fifo, 0o644),
        What::Char(major, minor) => (Node::Char(*major, *minor), 0o644),
        other => panic!("the model has no {other:?}"),
    };
    let attributes = &node.attributes;
    let mut inode = Inode::new(kind, attributes.mode.unwrap_or(default_mode));
    inode.uid = attributes.uid;
    inode.gid = attributes.gid;
    inode.mtime = Some(attributes.mtime.unwrap_or(DEFAULT_MTIME));
    inode.xattrs = attributes.xattrs.iter().cloned().collect();
    inode
}
