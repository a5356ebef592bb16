//! Opening the layers of a mount, and refusing what cannot work.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::counters::Counters;
use super::directory::Directory;
use super::handle::HandleTable;
use super::implied::ImpliedHandles;
use super::inode_number::InodeNumbers;
use super::layer_dir::{DirFds, LayerDir};
use super::node::RealKey;
use super::node_state::NodeState;
use super::node_table::NodeTable;
use super::options::{MountOptions, Options, RedirectDir, UpperOption};
use super::outdated::Outdated;
use super::readdir::ListingBudget;
use super::sync::Mutex;
use super::sync::atomic::AtomicU64;
use super::{Overlay, Policy};
use crate::error::{Errno, Error, Result};
use crate::layer::ids::{IdMap, IdRange};
use crate::layer::origin::Origin;
use crate::layer::upper::Wanted;
use crate::layer::{Layer, LayerIndex, Namespace, StatXattr, Upper, entry};
use crate::sys::OFlags;
use crate::sys::file_handle::open_handle;
use crate::sys::mount_clone::{AccessTimes, Kept};
use crate::sys::stat::Stat;

/// The most layers that a directory's parts can be numbered for.
const MOST_LOWERS: usize = u16::MAX as usize;

/// From this size on a change of attributes alone copies no data, unless the options decide.
/// Smaller files are copied whole, because a kernel mount without `metacopy=on` (the default of
/// most distributions) refuses a file whose data is elsewhere.
const METACOPY_FROM: u64 = 1 << 20;

/// From which size on attributes are copied alone where the options leave it to us. Never where
/// marks are `user.overlay.*`: no mount believes such a mark in a lower, so that the file would
/// show zeros once this upper is a lower of another mount (podman makes such layers for users).
/// Nor where the filesystem does not keep the order of names: data that follows later was seen to
/// take the attributes back at a power cut, and btrfs copies data by a clone anyway.
fn metacopy_from(upper: &Upper) -> Option<u64> {
    (upper.namespace == Namespace::Trusted && !upper.reorders()).then_some(METACOPY_FROM)
}

impl Overlay {
    /// Opens the layers that `options` name, takes the workdir, and cleans what a crash left.
    ///
    /// # Errors
    /// Names the option or path: a layer that is missing or unreadable, an upper or workdir in
    /// use by another live mount, a workdir on another filesystem or inside the upper.
    pub fn new(options: &Options) -> Result<Overlay> {
        if options.lowerdirs.is_empty() || options.lowerdirs.len() > MOST_LOWERS {
            let reason = format!("between 1 and {MOST_LOWERS} layers are needed");
            return Err(Error::option("lowerdir", reason));
        }
        let (upper, lowers) = open_stack(options)?;
        let policy = Policy {
            make_redirects: options.redirect_dir == RedirectDir::On
                && upper.as_ref().is_some_and(|upper| upper.has_xattrs),
            follow_redirects: options.redirect_dir != RedirectDir::NoFollow,
            static_nlink: options.static_nlink,
            // Where modes are kept in an xattr an ACL would change that of the real file.
            acls: !options.noacl
                && !options.noxattrs
                && upper.as_ref().is_none_or(|upper| upper.stat_xattr.is_none()),
            metacopy_from: match options.metacopy {
                Some(true) => Some(0),
                Some(false) => None,
                None => upper.as_ref().and_then(metacopy_from),
            },
        };
        let devices = lowers.iter().rev().map(|lower| lower.stat.dev);
        let inode_numbers = InodeNumbers::new(devices.chain(upper.as_ref().map(|u| u.stat.dev)));
        let dir_fds = Arc::new(DirFds::new(descriptor_budget()));
        let (lower_roots, nodes) = root_of(upper.as_ref(), &lowers, &inode_numbers, &dir_fds)?;
        if let Some(upper) = upper.as_ref().filter(|upper| upper.volatile) {
            let failed = |errno| Error::io("mark as volatile", &upper.path, errno);
            upper.work.mark_volatile().map_err(failed)?;
        }
        Ok(Overlay {
            lower_roots,
            policy,
            uids: id_map(&options.uid_map, options.squash_to_uid, options),
            gids: id_map(&options.gid_map, options.squash_to_gid, options),
            inode_numbers,
            nodes,
            handles: HandleTable::new(),
            implied: ImpliedHandles::new(descriptor_budget() / 4),
            outdated: Outdated::new(),
            dir_fds,
            listings: ListingBudget::new(),
            foresight: super::foresight::Foresight::default(),
            counters: Counters::default(),
            xattrs_set: AtomicU64::new(0),
            new_files_are_bare: OnceLock::new(),
            moves: Mutex::new(()),
            upper,
            lowers,
        })
    }

    /// Refuses a mountpoint inside a directory that this mount walks itself: it would wait for
    /// its own answer. Lowers that could be cloned do not show what is mounted in them.
    ///
    /// # Errors
    /// Names the directory.
    pub fn refuse_mountpoint(&self, mountpoint: &Path) -> Result<()> {
        let refuse_inside = |option, real: &Path| {
            if mountpoint != real && mountpoint.starts_with(real) {
                let reason = format!("the mountpoint {} lies inside it", mountpoint.display());
                return Err(Error::option(option, reason));
            }
            Ok(())
        };
        if let Some(upper) = &self.upper {
            refuse_inside("upperdir", &upper.real_path)?;
        }
        for layer in self.lowers.iter().filter(|lower| !lower.sealed).map(|lower| &lower.path) {
            let real = std::fs::canonicalize(layer);
            let real = real.map_err(|error| Error::std_io("open", layer, &error))?;
            refuse_inside("lowerdir", &real)?;
        }
        Ok(())
    }

    /// The UUID of the filesystem of a lower.
    pub(super) fn layer_uuid(&self, layer: LayerIndex) -> [u8; 16] {
        let lower = (layer.0 as usize).checked_sub(1).and_then(|i| self.lowers.get(i));
        lower.map(|lower| lower.uuid).unwrap_or_default()
    }

    /// The device that an origin is on: that of the lowers whose filesystem has its UUID, or may
    /// have it. Where several do (a tmpfs has none), the one that knows its handle.
    pub(super) fn origin_device(&self, origin: &Origin) -> Option<u64> {
        let fits = |lower: &&Layer| lower.uuid == origin.uuid || lower.uuid == [0; 16];
        let mut devices: Vec<(u64, &Layer)> = Vec::new();
        for lower in self.lowers.iter().filter(fits) {
            if !devices.iter().any(|(dev, _)| *dev == lower.stat.dev) {
                devices.push((lower.stat.dev, lower));
            }
        }
        if let [(only, _)] = devices.as_slice() {
            return Some(*only);
        }
        let knows = |lower: &Layer| {
            let root = crate::sys::dir::open_dir(&lower.root, ".".as_ref())?;
            open_handle(root, &origin.handle, OFlags::PATH)
        };
        devices.into_iter().find(|(_, lower)| knows(lower).is_ok()).map(|(dev, _)| dev)
    }

    /// The device of a layer.
    pub(super) fn layer_dev(&self, layer: LayerIndex) -> u64 {
        let lower = (layer.0 as usize).checked_sub(1).and_then(|i| self.lowers.get(i));
        match (lower, &self.upper) {
            (Some(lower), _) => lower.stat.dev,
            (None, Some(upper)) => upper.stat.dev,
            (None, None) => 0,
        }
    }
}

/// Opens all layers. Also where nothing may be written the upper is the topmost of them, and
/// taken; it is the kernel that refuses then. An upper on a read-only filesystem is one more lower.
fn open_stack(options: &Options) -> Result<(Option<Upper>, Vec<Layer>)> {
    let lowers = Layer::open_all(&options.lowerdirs)?;
    let Some(upper) = &options.upper else { return Ok((None, lowers)) };
    match open_upper(upper, options, &lowers) {
        Err(error) if options.read_only && error.errno() == Errno::ROFS => {
            let all: Vec<_> =
                std::iter::once(&upper.upperdir).chain(&options.lowerdirs).cloned().collect();
            Ok((None, Layer::open_all(&all)?))
        }
        opened => Ok((Some(opened?), lowers)),
    }
}

/// What the kernel reads by itself leaves access times as the mount of the upper has it, so that
/// must have it as ours.
fn access_times(asked: &MountOptions) -> AccessTimes {
    let kept = match (asked.noatime, asked.strictatime, asked.relatime) {
        (true, ..) => Some(Kept::Never),
        (_, true, _) => Some(Kept::Always),
        (.., true) => Some(Kept::Relative),
        _ => None,
    };
    AccessTimes { kept, not_of_directories: asked.nodiratime }
}

fn open_upper(upper: &UpperOption, options: &Options, lowers: &[Layer]) -> Result<Upper> {
    let wanted = Wanted {
        user_xattrs: options.userxattr,
        volatile: options.volatile,
        index: options.index.unwrap_or(true),
        stat_xattr: match options.xattr_permissions {
            _ if options.read_only => None,
            0 => None,
            1 => Some(StatXattr::Privileged),
            _ => Some(StatXattr::Containers),
        },
        access_times: access_times(&options.mount),
    };
    let opened = Upper::open(&upper.upperdir, &upper.workdir, wanted)?;
    let same =
        |lower: &&Layer| (lower.stat.dev, lower.stat.ino) == (opened.stat.dev, opened.stat.ino);
    match lowers.iter().find(same) {
        None => Ok(opened),
        Some(lower) => {
            let reason = format!("it is the same directory as the lower {}", lower.path.display());
            Err(Error::option("upperdir", reason))
        }
    }
}

/// The roots of the lowers, and a node table with the merged root.
fn root_of(
    upper: Option<&Upper>,
    lowers: &[Layer],
    inode_numbers: &InodeNumbers,
    fds: &Arc<DirFds>,
) -> Result<(Vec<Arc<LayerDir>>, NodeTable)> {
    let mut roots = Vec::with_capacity(lowers.len());
    let mut merged: Vec<(Arc<LayerDir>, Stat)> = Vec::with_capacity(lowers.len());
    let mut open = true;
    let mut upper_root = None;
    if let Some(upper) = upper {
        let failed = |errno| Error::io("read xattrs of layer", &upper.path, errno);
        let marks = entry::marks_of_fd(&upper.root, None).map_err(failed)?;
        open = !marks.opaque;
        let root = upper.root.clone();
        upper_root = Some(LayerDir::root(LayerIndex::UPPER, root, (&marks).into(), fds));
    }
    for lower in lowers {
        let marks = &lower.marks;
        let dir = LayerDir::root(lower.index, lower.root.clone(), marks.into(), fds);
        roots.push(dir.clone());
        if open {
            merged.push((dir, lower.stat));
            open = !marks.opaque;
        }
    }
    let own = merged.first().map(|(_, stat)| *stat).or(upper.map(|upper| upper.stat));
    let stat = own.ok_or_else(|| Error::option("lowerdir", "at least one layer is needed"))?;
    let key = RealKey { dev: stat.dev, ino: stat.ino };
    let state = NodeState::new(inode_numbers.visible(stat.dev, stat.ino));
    let dirs = merged.into_iter().map(|(dir, _)| dir).collect();
    let nodes = NodeTable::new(key, state, Directory::new(upper_root, dirs))
        .map_err(|errno| Error::io("prepare", Path::new("/"), errno))?;
    Ok((roots, nodes))
}

fn id_map(ranges: &[IdRange], squash: Option<u32>, options: &Options) -> IdMap {
    IdMap::new(ranges.to_vec(), squash.or(options.squash_to_root.then_some(0)))
}

/// How many directory descriptors to keep: a part of what this process may open, so that open
/// files always have room.
fn descriptor_budget() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(4096, |n| usize::try_from(n).unwrap_or(4096));
    (limit / 4).clamp(64, 4096)
}
