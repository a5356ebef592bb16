//! What takes how much space: containers' writable layers, and the store as a whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Errno, Error, FsResult, Result};
use crate::image::{ChainId, Digest, ImageId};
use crate::sys::{OwnedFd, dir, file, stat};

use super::Store;
use super::containers::{Container, State};
use super::images::Image;
use super::snapshot_health::SnapshotUsage;

/// One kind of thing, as `docker system df` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many there are.
    pub total: usize,
    /// How many of them are in use.
    pub active: usize,
    /// Their bytes.
    pub size: u64,
    /// The bytes of those that are not in use.
    pub reclaimable: u64,
}

/// What an image takes.
#[derive(Debug, Clone, Serialize)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes of the layers that other images have, too.
    pub shared: u64,
    /// Bytes of the layers that it has alone.
    pub unique: u64,
    /// How many containers were made from it.
    pub containers: usize,
}

/// What a container takes.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerUsage {
    /// The container.
    pub container: Container,
    /// Whether it is mounted.
    pub mounted: bool,
    /// Bytes of its writable layer.
    pub size: u64,
}

/// What everything takes.
#[derive(Debug, Clone, Serialize)]
pub struct DiskUsage {
    /// The trees of the images' layers, each counted once.
    pub images: Usage,
    /// The writable layers.
    pub containers: Usage,
    /// The archives that layers came in, which save and push write again.
    pub archives: Usage,
    /// containerd's snapshots.
    pub snapshots: Usage,
    /// Each image.
    pub by_image: Vec<ImageUsage>,
    /// Each container.
    pub by_container: Vec<ContainerUsage>,
    /// Each snapshot.
    pub by_snapshot: Vec<SnapshotUsage>,
}

/// What one tree takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeUsage {
    /// Bytes of the blocks of everything in it; of what has several names once.
    pub bytes: u64,
    /// Files, directories and others, its root included.
    pub inodes: u64,
}

/// Sizes of layers and of their archives.
#[derive(Default)]
struct Layers {
    sizes: BTreeMap<ChainId, u64>,
    archives: BTreeMap<ChainId, (Digest, u64)>,
}

impl Store {
    /// Bytes of the files in the writable layer of a container.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn writable_size(&self, container: &Container) -> Result<u64> {
        tree_size(&self.upper(container))
    }

    /// Bytes of the files in the image of a container.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn image_size(&self, container: &Container) -> Result<u64> {
        let size = |chain: &ChainId| Ok(self.layer(chain)?.size);
        container.layers.iter().map(size).sum()
    }

    /// What takes how much space.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let images = self.images()?;
        let by_container = self.container_usage()?;
        let mut layers = Layers::default();
        for chain in images.iter().flat_map(|image| &image.layers) {
            let record = self.layer(chain)?;
            layers.sizes.insert(*chain, record.size);
            layers.archives.insert(*chain, (record.blob.digest, record.blob.size));
        }
        let used: BTreeSet<ImageId> =
            by_container.iter().map(|usage| usage.container.image).collect();
        let active: BTreeSet<ChainId> = images
            .iter()
            .filter(|image| used.contains(&image.id))
            .flat_map(|image| image.layers.iter().copied())
            .collect();
        let (snapshots, by_snapshot) = self.snapshot_usage()?;
        Ok(DiskUsage {
            images: layers.images(&images, &used, &active),
            containers: containers(&by_container),
            archives: layers.archives(&active),
            snapshots,
            by_image: layers.by_image(images, &by_container),
            by_container,
            by_snapshot,
        })
    }

    fn container_usage(&self) -> Result<Vec<ContainerUsage>> {
        let mut usage = Vec::new();
        for container in self.containers()? {
            let mounted = matches!(self.state(&container)?, State::Mounted(_));
            let size = self.writable_size(&container)?;
            usage.push(ContainerUsage { container, mounted, size });
        }
        Ok(usage)
    }
}

fn containers(all: &[ContainerUsage]) -> Usage {
    let (mounted, idle): (Vec<_>, Vec<_>) = all.iter().partition(|usage| usage.mounted);
    Usage {
        total: all.len(),
        active: mounted.len(),
        size: all.iter().map(|usage| usage.size).sum(),
        reclaimable: idle.iter().map(|usage| usage.size).sum(),
    }
}

impl Layers {
    fn images(
        &self,
        images: &[Image],
        used: &BTreeSet<ImageId>,
        active: &BTreeSet<ChainId>,
    ) -> Usage {
        let idle = self.sizes.iter().filter(|(chain, _)| !active.contains(chain));
        Usage {
            total: images.len(),
            active: images.iter().filter(|image| used.contains(&image.id)).count(),
            size: self.sizes.values().sum(),
            reclaimable: idle.map(|(_, size)| size).sum(),
        }
    }

    fn archives(&self, active: &BTreeSet<ChainId>) -> Usage {
        let all: BTreeMap<Digest, u64> = self.archives.values().copied().collect();
        let in_use = self.archives.iter().filter(|(chain, _)| active.contains(chain));
        let in_use: BTreeMap<Digest, u64> = in_use.map(|(_, archive)| *archive).collect();
        let size = all.values().sum();
        let reclaimable = size - in_use.values().sum::<u64>();
        Usage { total: all.len(), active: in_use.len(), size, reclaimable }
    }

    fn by_image(&self, images: Vec<Image>, containers: &[ContainerUsage]) -> Vec<ImageUsage> {
        let mut users: BTreeMap<ChainId, usize> = BTreeMap::new();
        for image in &images {
            let layers: BTreeSet<_> = image.layers.iter().copied().collect();
            layers.into_iter().for_each(|chain| *users.entry(chain).or_default() += 1);
        }
        let usage = |image: Image| {
            let layers: BTreeSet<_> = image.layers.iter().collect();
            let is_shared = |chain: &&ChainId| users.get(chain).is_some_and(|users| *users > 1);
            let size = |chain: &ChainId| self.sizes.get(chain).copied().unwrap_or(0);
            let (shared, unique): (Vec<_>, Vec<_>) = layers.into_iter().partition(is_shared);
            ImageUsage {
                shared: shared.into_iter().map(size).sum(),
                unique: unique.into_iter().map(size).sum(),
                containers: containers.iter().filter(|c| c.container.image == image.id).count(),
                image,
            }
        };
        images.into_iter().map(usage).collect()
    }
}

/// As [`tree_size`], of a file or a directory.
pub(super) fn size_of(path: &Path) -> Result<u64> {
    let found = std::fs::symlink_metadata(path);
    let found = found.map_err(|error| Error::std_io("read", path, &error))?;
    if found.is_dir() { tree_size(path) } else { Ok(found.len()) }
}

/// Bytes of the regular files below `path`: those of several names once, and of files with holes
/// (which a copy of metadata alone is, too) what is really there.
fn tree_size(path: &Path) -> Result<u64> {
    Ok(walk_tree(path)?.size)
}

/// What the tree at `path` takes.
pub(super) fn tree_usage(path: &Path) -> Result<TreeUsage> {
    Ok(walk_tree(path)?.usage)
}

fn walk_tree(path: &Path) -> Result<Walk> {
    let open = || dir::open_dir(file::open_root(path)?, OsStr::new("."));
    let mut walk = Walk { seen: HashSet::new(), size: 0, usage: TreeUsage::default() };
    let sum = |walk: &mut Walk| -> FsResult<()> {
        walk.take(&stat::stat_fd(open()?)?);
        let mut above = vec![level(open()?)?];
        while let Some((fd, names)) = above.last_mut() {
            let Some(name) = names.pop() else {
                above.pop();
                continue;
            };
            if let Some(below) = walk.entry(fd, &name)? {
                above.push(level(below)?);
            }
        }
        Ok(())
    };
    sum(&mut walk).map_err(|errno| Error::io("read", path, errno))?;
    Ok(walk)
}

fn level(fd: OwnedFd) -> FsResult<(OwnedFd, Vec<OsString>)> {
    let mut names = Vec::new();
    dir::list_dir(&fd, |entry| {
        names.push(entry.name.to_owned());
        Ok(true)
    })?;
    Ok((fd, names))
}

struct Walk {
    seen: HashSet<u64>,
    /// Bytes of regular files, as people count them.
    size: u64,
    usage: TreeUsage,
}

impl Walk {
    fn take(&mut self, stat: &stat::Stat) {
        self.usage.bytes += stat.blocks.saturating_mul(512);
        self.usage.inodes += 1;
    }

    /// Counts one name; gives the directory that it is. What went meanwhile counts nothing.
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr) -> FsResult<Option<OwnedFd>> {
        let stat = match stat::stat_at(dir, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        if stat.is_dir() {
            self.take(&stat);
            return match dir::open_dir(dir, name) {
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                other => other.map(Some),
            };
        }
        if stat.nlink > 1 && !self.seen.insert(stat.ino) {
            return Ok(None);
        }
        self.take(&stat);
        if stat.is_file() {
            self.size += stat.size.min(stat.blocks.saturating_mul(512));
        }
        Ok(None)
    }
}
