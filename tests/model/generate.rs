//! Random stacks of layers and random operations.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::merge;
use super::op::{AllocateHow, Data, Op, RenameHow, XattrHow};
use super::rng::Rng;
use super::tree::{Ino, Model, Node};
use crate::support::{Attributes, EntrySpec, LayerSpec, SceneSpec, Time, What, rootless};

/// Few, so that layers and operations meet; some that only bytes can name.
const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"e", b"two words", b"\xff\n:,\\"];
// Not 1777: what the kernel itself refuses in such directories depends on sysctls.
const MODES: &[u32] = &[0o644, 0o600, 0o755, 0o000, 0o4755, 0o2755, 0o1755, 0o640];
const XATTRS: &[&str] = &["user.a", "user.b", "trusted.t"];
/// As nobody may set others in a user namespace.
const USER_XATTRS: &[&str] = &["user.a", "user.b", "user.t"];
/// Files are kept open in so many places.
const SLOTS: usize = 3;
const DEPTH: usize = 4;

/// What a stack may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Breadth {
    /// One layer alone that hides nothing, as a plain directory can hold it.
    pub(crate) plain: bool,
    /// Executable files in the layers.
    pub(crate) executables: bool,
    /// What overlayfs is known to get wrong: it lists a whiteout that hides nothing where a
    /// directory exists in one layer alone, gives EEXIST to fchmod of a file that had several names
    /// in a lower layer and has lost the last, and shows one link of a lower file that has none.
    pub(crate) beyond_the_kernel: bool,
}

impl Breadth {
    /// Everything.
    pub(crate) const ALL: Breadth =
        Breadth { plain: false, executables: true, beyond_the_kernel: true };
}

/// A stack of one to four lowers and an upper that is often empty.
pub(crate) fn scene(rng: &mut Rng, breadth: Breadth) -> SceneSpec {
    let mut scene = SceneSpec::default();
    if breadth.plain {
        scene.upper = layer(rng, &scene, breadth);
        return scene;
    }
    for _ in 0..1 + rng.below(4) {
        let layer = layer(rng, &scene, breadth);
        scene.lowers.insert(0, layer);
    }
    if rng.chance(50) {
        scene.upper = layer(rng, &scene, breadth);
    }
    scene
}

/// A layer that goes on top of `below`.
fn layer(rng: &mut Rng, below: &SceneSpec, breadth: Breadth) -> LayerSpec {
    let view = merge::merged(below);
    let mut made: BTreeMap<PathBuf, What> = BTreeMap::new();
    let mut layer = LayerSpec::default();
    for _ in 0..2 + rng.below(14) {
        let Some(dir) = layer_dir(rng, &made, &view) else { continue };
        let path = dir.join(name(rng));
        if made.contains_key(&path) {
            continue;
        }
        let what = layer_entry(rng, &made, &view, &path, breadth);
        for parent in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            made.entry(parent.to_path_buf()).or_insert(What::Dir);
        }
        made.insert(path.clone(), what.clone());
        let attributes = layer_attributes(rng, &what, breadth);
        layer.entries.push(EntrySpec { path, what, attributes });
    }
    layer
}

/// A directory of this layer, or of the layers below it that this one does not hide.
fn layer_dir(rng: &mut Rng, made: &BTreeMap<PathBuf, What>, view: &Model) -> Option<PathBuf> {
    let is_dir = |what: &What| matches!(what, What::Dir | What::Opaque);
    let mut dirs = vec![PathBuf::new()];
    dirs.extend(made.iter().filter(|(_, what)| is_dir(what)).map(|(path, _)| path.clone()));
    for (path, ino) in view.paths() {
        let hidden = path.ancestors().any(|p| made.get(p).is_some_and(|what| !is_dir(what)));
        if view.inodes[ino].is_dir() && !hidden {
            dirs.push(path);
        }
    }
    let dir = dirs.swap_remove(rng.below(dirs.len()));
    (dir.iter().count() < DEPTH).then_some(dir)
}

fn layer_entry(
    rng: &mut Rng,
    made: &BTreeMap<PathBuf, What>,
    view: &Model,
    path: &Path,
    breadth: Breadth,
) -> What {
    let opaque_above = path.ancestors().skip(1).any(|p| matches!(made.get(p), Some(What::Opaque)));
    let below = view.walk(path).ok().filter(|_| !opaque_above);
    if rng.chance(if below.is_some() { 25 } else { 3 })
        && (below.is_some() || breadth.beyond_the_kernel)
    {
        return What::Whiteout;
    }
    let files: Vec<&PathBuf> =
        made.iter().filter(|(_, what)| matches!(what, What::File(_))).map(|(p, _)| p).collect();
    match rng.below(100) {
        0..30 => What::Dir,
        30..40 if !breadth.plain => What::Opaque,
        40..75 => What::File(rng.bytes(300)),
        75..85 if !files.is_empty() => What::HardLink(rng.pick(&files).clone()),
        85..93 => What::Symlink("nowhere/at all".into()),
        93..96 => What::Fifo,
        96..98 if !rootless() => What::Char(1, 3),
        _ => What::File(rng.bytes(20_000)),
    }
}

fn layer_attributes(rng: &mut Rng, what: &What, breadth: Breadth) -> Attributes {
    let mut attributes = Attributes::default();
    if matches!(what, What::Whiteout | What::HardLink(_)) || !rng.chance(50) {
        return attributes;
    }
    let symlink = matches!(what, What::Symlink(_));
    attributes.mode = Some(rng.pick(MODES)).filter(|_| !symlink);
    if matches!(what, What::File(_)) && !breadth.executables {
        attributes.mode = attributes.mode.map(|mode| mode & !0o111);
    }
    attributes.uid = rng.below(3) as u32;
    attributes.gid = rng.below(3) as u32;
    attributes.mtime = Some(time(rng));
    if matches!(what, What::Dir | What::Opaque | What::File(_)) && rng.chance(40) {
        attributes.xattrs.push((xattr(rng).into(), rng.bytes(30)));
    }
    attributes
}

fn name(rng: &mut Rng) -> &'static OsStr {
    OsStr::from_bytes(rng.pick(NAMES))
}

fn xattr(rng: &mut Rng) -> &'static str {
    rng.pick(if rootless() { USER_XATTRS } else { XATTRS })
}

/// Before 1970 and after 2038, too.
fn time(rng: &mut Rng) -> Time {
    let seconds = [-86_400, 0, 951_826_154, 1_700_000_000, 4_200_000_000];
    Time { sec: rng.pick(&seconds), nsec: rng.below(1_000_000_000) as u32 }
}

/// Operations for a model in its present state.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    rng: &'a mut Rng,
    breadth: Breadth,
    paths: Vec<(PathBuf, Ino)>,
    model: &'a Model,
}

/// The next operation: mostly one that makes sense.
pub(crate) fn operation(rng: &mut Rng, model: &Model, breadth: Breadth) -> Op {
    let mut chooser = Chooser { rng, breadth, paths: model.paths(), model };
    loop {
        let op = chooser.any();
        if !chooser.is_pointless(&op) {
            return op;
        }
    }
}

impl Chooser<'_> {
    fn any(&mut self) -> Op {
        match self.rng.below(100) {
            0..30 => self.content_op(),
            30..60 => self.name_op(),
            60..75 => self.attribute_op(),
            75..88 => self.looking_op(),
            _ => self.held_op(),
        }
    }

    fn content_op(&mut self) -> Op {
        let path = self.file();
        match self.rng.below(9) {
            5 => Op::Allocate {
                path,
                how: self.rng.pick(&[
                    AllocateHow::Extend,
                    AllocateHow::KeepSize,
                    AllocateHow::Punch,
                ]),
                offset: self.rng.below(9000) as u64,
                length: 1 + self.rng.below(9000) as u64,
            },
            6 => Op::MapWrite {
                path,
                offset: self.rng.below(5000) as u64,
                data: Data(self.rng.bytes(3000)),
            },
            7 => Op::Unnamed {
                path: self.fresh(),
                mode: self.mode(),
                data: Data(self.rng.bytes(500)),
            },
            0 => Op::Write {
                path,
                offset: self.rng.below(9000) as u64,
                data: Data(self.rng.bytes(5000)),
            },
            1 => Op::Append { path, data: Data(self.rng.bytes(500)) },
            2 => Op::Replace { path: self.mixed(), data: Data(self.rng.bytes(500)) },
            3 => Op::Truncate { path, size: self.size() },
            _ => Op::Create { path: self.fresh(), mode: self.mode() },
        }
    }

    fn name_op(&mut self) -> Op {
        match self.rng.below(13) {
            0..2 => Op::Mkdir { path: self.fresh(), mode: self.mode() },
            2..4 => Op::Rmdir { path: self.dir() },
            4..6 => Op::Unlink { path: self.existing() },
            6..10 => {
                let how = match self.rng.below(10) {
                    0..2 => RenameHow::NoReplace,
                    2..5 => RenameHow::Exchange,
                    _ => RenameHow::Replace,
                };
                let to = if self.rng.chance(50) { self.fresh() } else { self.existing() };
                Op::Rename { from: self.existing(), to, how }
            }
            10 => Op::Link { from: self.existing(), to: self.fresh() },
            11 => Op::Symlink { target: "nowhere/else".into(), path: self.fresh() },
            _ => Op::Fifo { path: self.fresh(), mode: self.mode() },
        }
    }

    fn attribute_op(&mut self) -> Op {
        let path = self.existing();
        let how = self.rng.pick(&[
            XattrHow::Either,
            XattrHow::Either,
            XattrHow::Create,
            XattrHow::Replace,
        ]);
        let id = |n: usize| (n < 3).then_some(n as u32);
        match self.rng.below(6) {
            0 => Op::Chmod { path, mode: self.mode() },
            1 => match (id(self.rng.below(4)), id(self.rng.below(4))) {
                (None, None) => Op::Chown { path, uid: Some(0), gid: None },
                (uid, gid) => Op::Chown { path, uid, gid },
            },
            2 => Op::SetTimes { path, time: time(self.rng) },
            3..5 => {
                let (name, value) = (xattr(self.rng), Data(self.rng.bytes(40)));
                Op::SetXattr { path, name, value, how }
            }
            _ => Op::RemoveXattr { path, name: xattr(self.rng) },
        }
    }

    fn looking_op(&mut self) -> Op {
        let path = self.mixed();
        match self.rng.below(6) {
            0 => Op::GetXattr { path, name: xattr(self.rng) },
            1 => Op::Stat { path },
            2 | 3 => Op::Read { path },
            4 => Op::List { path },
            _ => Op::ReadLink { path },
        }
    }

    fn held_op(&mut self) -> Op {
        let slot = self.rng.below(SLOTS);
        if !self.model.held.contains_key(&slot) {
            return Op::Hold { slot, path: self.file(), write: self.rng.chance(50) };
        }
        match self.rng.below(12) {
            0..4 => Op::HeldRead { slot },
            4..7 => {
                let (offset, data) = (self.rng.below(3000) as u64, Data(self.rng.bytes(2000)));
                Op::HeldWrite { slot, offset, data }
            }
            7 => Op::HeldTruncate { slot, size: self.size() },
            8 | 9 if self.breadth.beyond_the_kernel => Op::HeldStat { slot },
            10 if self.breadth.beyond_the_kernel => Op::HeldChmod { slot, mode: self.mode() },
            8..11 => Op::HeldRead { slot },
            _ => Op::Release { slot },
        }
    }

    fn mode(&mut self) -> u32 {
        self.rng.pick(MODES)
    }

    fn size(&mut self) -> u64 {
        if self.rng.chance(40) { 0 } else { self.rng.below(30_000) as u64 }
    }

    fn existing(&mut self) -> PathBuf {
        // The root is rarely what an operation is about.
        let start = usize::from(self.paths.len() > 1 && !self.rng.chance(2));
        let at = start + self.rng.below(self.paths.len() - start);
        self.paths[at].0.clone()
    }

    fn of_kind(&mut self, wanted: fn(&Node) -> bool) -> PathBuf {
        let model = self.model;
        let fit: Vec<usize> = (1..self.paths.len())
            .filter(|n| wanted(&model.inodes[self.paths[*n].1].node))
            .collect();
        match fit.is_empty() || self.rng.chance(8) {
            true => self.mixed(),
            false => self.paths[self.rng.pick(&fit)].0.clone(),
        }
    }

    fn file(&mut self) -> PathBuf {
        self.of_kind(|node| matches!(node, Node::File(_)))
    }

    fn dir(&mut self) -> PathBuf {
        self.of_kind(|node| matches!(node, Node::Dir(_)))
    }

    /// A name in a directory that may or may not be there already.
    fn fresh(&mut self) -> PathBuf {
        let dir = if self.rng.chance(95) { self.dir_or_root() } else { self.existing() };
        dir.join(name(self.rng))
    }

    fn dir_or_root(&mut self) -> PathBuf {
        let model = self.model;
        let shallow = |(path, ino): &&(PathBuf, Ino)| {
            model.inodes[*ino].is_dir() && path.iter().count() < DEPTH
        };
        let dirs: Vec<&PathBuf> = self.paths.iter().filter(shallow).map(|(path, _)| path).collect();
        self.rng.pick(&dirs).clone()
    }

    fn mixed(&mut self) -> PathBuf {
        if self.rng.chance(70) { self.existing() } else { self.fresh() }
    }

    /// Opening a device says nothing about the filesystem; keeping a directory open nothing about
    /// files; opening a fifo to keep it changes what its next writer sees; which errno the removal
    /// of a root gives is the kernel's affair.
    fn is_pointless(&self, op: &Op) -> bool {
        let (path, held) = match op {
            Op::Write { path, .. } | Op::Append { path, .. } => (path, false),
            Op::Allocate { path, .. } => (path, false),
            // Its file loses suid with the pages' way to the disk, at no known time.
            Op::MapWrite { path, .. } => match self.model.walk(path) {
                Ok(ino) if self.model.inodes[ino].mode & 0o6000 != 0 => return true,
                _ => (path, true),
            },
            Op::Replace { path, .. } | Op::Read { path } => (path, false),
            Op::Hold { path, .. } => (path, true),
            Op::Rename { from, to, .. } => {
                return from.as_os_str().is_empty() || to.as_os_str().is_empty();
            }
            Op::Rmdir { path } | Op::Unlink { path } => return path.as_os_str().is_empty(),
            _ => return false,
        };
        let node = self.model.walk(path).map(|ino| &self.model.inodes[ino].node);
        match node {
            Ok(Node::Char(..)) => true,
            Ok(Node::Fifo | Node::Dir(_)) => held,
            _ => false,
        }
    }
}
