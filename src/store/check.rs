//! `check` and `gc`: whether the store leads to everything that it says it has, and nothing else
//! lies in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error, Result};
use crate::image::{ChainId, ImageId};

use super::catalog::Catalog;
use super::containers::Container;
use super::lock::{Hold, try_hold};
use super::transaction::entries;
use super::{Store, durable, usage};

/// Something that is not as it should be.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What it is with.
    pub what: String,
    /// What is wrong.
    pub why: String,
    /// What a repair does about it.
    pub repair: Repair,
}

/// What a repair does about a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Removes it: nothing leads to it. The next change of the store does so, too, where a dead
    /// command left it.
    Sweep,
    /// Forgets the image, so that it can be loaded again.
    Forget(ImageId),
    /// Makes the container's name lead to it again.
    Link,
    /// Nothing: what it holds is nowhere else.
    ByHand,
}

/// What a `gc` freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files and directories at the top of where they lay.
    pub objects: usize,
    /// Bytes of files in them.
    pub space: u64,
}

impl Store {
    /// Looks for what is broken and what is left over, and changes nothing. Contents are not
    /// read; that is [`Store::verify`].
    ///
    /// # Errors
    /// Where the catalog cannot be read.
    pub fn check(&self) -> Result<Vec<Problem>> {
        let _shared = self.lock_shared()?;
        self.problems(&self.catalog()?)
    }

    /// Repairs what [`Store::check`] finds, and returns what that was.
    ///
    /// # Errors
    /// Where the store cannot be written, or is too damaged to know what is left over.
    pub fn repair(&self) -> Result<Vec<Problem>> {
        let transaction = self.begin_without_sweep()?;
        let exclusive = self.lock_exclusive()?;
        let before = self.catalog()?;
        let problems = self.problems(&before)?;
        let mut catalog = before.clone();
        for problem in &problems {
            if let Repair::Forget(id) = problem.repair {
                catalog.remove(&id);
            }
        }
        transaction.may_leave_orphans();
        if catalog != before {
            self.commit_catalog(&catalog, &transaction, &exclusive)?;
        }
        self.bury_orphans(&transaction, &exclusive)?;
        self.link_names(&self.containers_with_problems(&mut Vec::new())?, &exclusive)?;
        for work in self.left_snapshot_work()? {
            transaction.bury(&work, &exclusive)?;
        }
        drop(exclusive);
        self.sweep(&transaction)?;
        transaction.end()?;
        Ok(problems)
    }

    /// Removes what nothing leads to, and says how much that was.
    ///
    /// # Errors
    /// As [`Store::repair`].
    pub fn collect_garbage(&self) -> Result<Collected> {
        let mut collected = Collected::default();
        {
            let _shared = self.lock_shared()?;
            let catalog = self.catalog()?;
            let mut garbage = self.dead_staging()?;
            garbage.extend(self.orphans(&catalog, &BTreeSet::new())?);
            garbage.extend(self.idle_downloads()?);
            garbage.extend(self.left_snapshot_work()?);
            garbage.extend(self.stale_names()?);
            for path in garbage {
                collected.objects += 1;
                collected.space += usage::size_of(&path)?;
            }
        }
        let transaction = self.begin()?;
        for download in self.idle_downloads()? {
            durable::remove_all(&download)?;
        }
        let exclusive = self.lock_exclusive()?;
        self.bury_orphans(&transaction, &exclusive)?;
        for work in self.left_snapshot_work()? {
            transaction.bury(&work, &exclusive)?;
        }
        drop(exclusive);
        transaction.end()?;
        Ok(collected)
    }

    fn problems(&self, catalog: &Catalog) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let containers = self.containers_with_problems(&mut problems)?;
        let mut broken = BTreeSet::new();
        for id in catalog.ids() {
            let Err(error) = self.check_image(id) else { continue };
            broken.insert(*id);
            let user = containers.iter().find(|container| container.image == *id);
            let (why, repair) = match user {
                None => (error.to_string(), Repair::Forget(*id)),
                Some(user) => (format!("{error}; container {} uses it", user.name), Repair::ByHand),
            };
            problems.push(Problem { what: format!("image {id}"), why, repair });
        }
        for container in &containers {
            if let Err(error) = self.check_container(container) {
                let what = format!("container {}", container.name);
                problems.push(Problem { what, why: error.to_string(), repair: Repair::ByHand });
            }
        }
        for container in &containers {
            if !self.is_linked(container)? {
                let what = format!("container {}", container.name);
                let why = "its name does not lead to it".to_owned();
                problems.push(Problem { what, why, repair: Repair::Link });
            }
        }
        let left = |why: &str, path: PathBuf| {
            let (what, why) = (path.display().to_string(), why.to_owned());
            Problem { what, why, repair: Repair::Sweep }
        };
        problems.extend(self.snapshot_problems()?);
        let dead = self.dead_staging()?.into_iter();
        problems.extend(dead.map(|path| left("left by a command that died", path)));
        let stale = self.stale_names()?.into_iter();
        problems.extend(stale.map(|path| left("it leads to no container of this name", path)));
        match self.orphans(catalog, &broken) {
            Ok(orphans) => {
                let orphans = orphans.into_iter();
                problems.extend(orphans.map(|path| left("nothing leads to it", path)));
            }
            Err(error) => {
                let why = format!("cannot tell what is left over: {error}");
                let what = self.layout.root().display().to_string();
                problems.push(Problem { what, why, repair: Repair::ByHand });
            }
        }
        Ok(problems)
    }

    /// The containers whose records can be read; the others are problems.
    pub(super) fn containers_with_problems(
        &self,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for dir in entries(&self.layout.containers())? {
            match durable::read_record(&dir.join("container.json")) {
                Ok(Some(container)) => containers.push(container),
                Ok(None) => problems.push(lost(&dir, "it has no record")),
                Err(error) => problems.push(lost(&dir, &error.to_string())),
            }
        }
        Ok(containers)
    }

    fn check_image(&self, id: &ImageId) -> Result<()> {
        let chain = self.image_config(id)?.chain();
        chain.iter().try_for_each(|chain| self.check_layer(chain))
    }

    /// Whether a layer is there in full, as far as that shows without reading it.
    fn check_layer(&self, chain: &ChainId) -> Result<()> {
        let kept = self.kept_layer(chain)?;
        let tree = self.layout.layer_tree(chain);
        if !tree.is_dir() {
            return Err(Error::invalid(tree.display().to_string(), "the layer's tree is missing"));
        }
        let found = std::fs::metadata(&kept.file)
            .map_err(|error| Error::std_io("open", &kept.file, &error))?;
        if found.len() != kept.blob.size {
            let what = kept.file.display().to_string();
            let (expected, found) = (format!("{} bytes", kept.blob.size), found.len().to_string());
            return Err(Error::Mismatch { what, expected, found });
        }
        Ok(())
    }

    fn check_container(&self, container: &Container) -> Result<()> {
        for dir in [self.upper(container), self.layout.work(&container.id)] {
            if !dir.is_dir() {
                return Err(Error::invalid(dir.display().to_string(), "the directory is missing"));
            }
        }
        for chain in &container.layers {
            let tree = self.layout.layer_tree(chain);
            if !tree.is_dir() {
                return Err(Error::NotFound { kind: "layer", name: chain.to_string() });
            }
        }
        Ok(())
    }

    /// Transactions whose processes are gone.
    fn dead_staging(&self) -> Result<Vec<PathBuf>> {
        let mut dead = Vec::new();
        for path in entries(&self.layout.staging())? {
            match try_hold(&path, Hold::Exclusive) {
                Ok(Some(_)) => dead.push(path),
                Ok(None) | Err(Error::Io { source: Errno::NOENT, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(dead)
    }

    /// What neither the catalog, but for the `broken` images, nor a container leads to. Where
    /// the config of a broken image cannot be read nobody knows its layers: they count as left
    /// over, once it is forgotten.
    fn orphans(&self, catalog: &Catalog, broken: &BTreeSet<ImageId>) -> Result<Vec<PathBuf>> {
        let mut sound = catalog.clone();
        broken.iter().for_each(|id| sound.remove(id));
        let (mut orphans, live) = (Vec::new(), self.live_paths(&sound, catalog)?);
        for dir in [self.layout.images(), self.layout.layers(), self.layout.blobs()] {
            orphans.extend(entries(&dir)?.into_iter().filter(|path| !live.contains(path)));
        }
        Ok(orphans)
    }

    fn live_paths(&self, sound: &Catalog, all: &Catalog) -> Result<BTreeSet<PathBuf>> {
        let layers = self.live_layers(sound)?;
        let mut live: BTreeSet<_> = all.ids().map(|id| self.layout.image(id)).collect();
        live.extend(all.all_manifests().map(|digest| self.layout.blob(digest)));
        for chain in &layers {
            live.insert(self.layout.layer(chain));
            if let Ok(record) = self.layer(chain) {
                live.insert(self.layout.blob(&record.blob.digest));
            }
        }
        Ok(live)
    }
}

fn lost(dir: &Path, why: &str) -> Problem {
    let (what, why) = (dir.display().to_string(), why.to_owned());
    Problem { what, why, repair: Repair::ByHand }
}
