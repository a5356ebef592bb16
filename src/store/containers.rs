//! Containers: a writable layer on the layers of an image.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::changeset::UpperDir;
use crate::error::{Errno, Error, Result};
use crate::image::hex32::Hex32;
use crate::image::{ChainId, ImageId, Timestamp};
use crate::sys::mountinfo;

use super::lock::{Hold, POLL, hold_patiently, try_hold};
use super::transaction::entries;
use super::{Store, durable};

/// How long a command waits for another one that has the container.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a daemon whose mount is gone may take to end.
pub(super) const ENDING: Duration = Duration::from_secs(1);

/// Names a container: 32 random bytes, written as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(Hex32);

impl ContainerId {
    /// A new one.
    pub(super) fn random() -> Result<ContainerId> {
        let mut bytes = [0; 32];
        crate::sys::random::fill(&mut bytes)
            .map_err(|errno| Error::io("read", "random bytes", errno))?;
        Ok(ContainerId(Hex32(bytes)))
    }

    /// Its 64 hex digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// Its first twelve hex digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }

    /// The id whose 64 hex digits are `hex`.
    pub(super) fn parse(hex: &str) -> Option<ContainerId> {
        Hex32::parse(hex).map(ContainerId)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A container, as its record has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its name, which no other container has.
    pub name: String,
    /// Its image.
    pub image: ImageId,
    /// What the image was called when the container was made from it.
    pub image_name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The layers below the writable one, lowest first.
    pub layers: Vec<ChainId>,
    /// The command that it was made for, in the place of the image's; an image of it gets it, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Whether a container is mounted, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is not.
    Unmounted,
    /// It is, at these places of this process's mount namespace; at none where it was mounted
    /// in another one.
    Mounted(Vec<PathBuf>),
    /// A command is mounting or removing it.
    Busy,
}

impl Store {
    /// All containers, those made last first.
    ///
    /// # Errors
    /// Where a record is damaged or cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let _shared = self.lock_shared()?;
        let mut containers = self.read_containers()?;
        containers.sort_by_key(|container| std::cmp::Reverse((container.created, container.id)));
        Ok(containers)
    }

    /// The container that `text` names: by name, id or start of an id.
    ///
    /// # Errors
    /// Where there is none, or several could be meant.
    pub fn container(&self, text: &str) -> Result<Container> {
        let _shared = self.lock_shared()?;
        self.find_container(text)
    }

    /// As [`Store::container`]. The store must be locked.
    pub(super) fn find_container(&self, text: &str) -> Result<Container> {
        if let Some(named) = self.named(text)? {
            return Ok(named);
        }
        let missing = || Error::NotFound { kind: "container", name: text.to_owned() };
        if let Some(id) = ContainerId::parse(text) {
            return self.read_container(&id)?.ok_or_else(missing);
        }
        let mut ids = self.container_ids()?;
        ids.retain(|id| !text.is_empty() && id.hex().starts_with(text));
        match ids.as_slice() {
            [id] => self.read_container(id)?.ok_or_else(missing),
            [] => Err(missing()),
            _ => Err(Error::Refused(format!(
                "more than one container has an id that starts with {text}: give more of it"
            ))),
        }
    }

    /// All containers, in no order. The store must be locked.
    pub(super) fn read_containers(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in self.container_ids()? {
            let lost = || Error::io("read", self.layout.container_record(&id), Errno::NOENT);
            containers.push(self.read_container(&id)?.ok_or_else(lost)?);
        }
        Ok(containers)
    }

    /// The ids of all containers, in no order.
    fn container_ids(&self) -> Result<Vec<ContainerId>> {
        let dirs = entries(&self.layout.containers())?.into_iter();
        let id =
            |dir: PathBuf| dir.file_name().and_then(OsStr::to_str).and_then(ContainerId::parse);
        Ok(dirs.filter_map(id).collect())
    }

    /// The record of a container; `None` where there is none. The store must be locked.
    pub(super) fn read_container(&self, id: &ContainerId) -> Result<Option<Container>> {
        let path = self.layout.container_record(id);
        let record: Option<Container> = durable::read_record(&path)?;
        if record.as_ref().is_some_and(|record| record.id != *id) {
            let why = "damaged record: it names another container";
            return Err(Error::invalid(path.display().to_string(), why));
        }
        Ok(record)
    }

    /// Whether the container is mounted.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn state(&self, container: &Container) -> Result<State> {
        match hold_patiently(&self.layout.container(&container.id), Hold::Shared, PATIENCE)? {
            Some(held) => self.state_held(container, &held),
            None => Ok(State::Busy),
        }
    }

    /// Whether a container that this process holds is mounted. The daemon that serves it holds a
    /// lock on its workdir as long as it lives, in whatever mount namespace; the kernel holds none,
    /// so its mounts are looked for. To look at the lock is
    /// to take it for a moment, and a daemon that starts just then would fail; so nobody looks
    /// while a container is being mounted, which is why it must be held.
    pub(super) fn state_held(&self, container: &Container, _: &File) -> Result<State> {
        let mounts = self.mount_points(container)?;
        let work = self.layout.work(&container.id);
        if mounts.is_empty()
            && try_hold(&work, Hold::Shared)?.is_some()
            && !self.is_mounted_elsewhere(container)?
        {
            return Ok(State::Unmounted);
        }
        Ok(State::Mounted(mounts))
    }

    /// As [`Store::state_held`]; where the container is mounted out of reach, after a moment: the
    /// mount of a copy that was killed is gone before its daemon has ended.
    pub(super) fn settled_state(&self, container: &Container, held: &File) -> Result<State> {
        let start = Instant::now();
        loop {
            match self.state_held(container, held)? {
                State::Mounted(places) if places.is_empty() && start.elapsed() < ENDING => {
                    std::thread::sleep(POLL);
                }
                state => return Ok(state),
            }
        }
    }

    /// Whether the kernel has the container mounted in another mount namespace, as far as this
    /// process may look.
    pub(super) fn is_mounted_elsewhere(&self, container: &Container) -> Result<bool> {
        // The kernel makes this directory when it mounts, and leaves it.
        if !self.layout.work(&container.id).join("work").exists() {
            return Ok(false);
        }
        let mounts =
            mountinfo::read_elsewhere().map_err(|errno| Error::io("read", "/proc", errno))?;
        let source = mount_source(&container.id);
        Ok(mounts.iter().any(|mount| mount.source == source.as_str()))
    }

    /// Where the container is mounted in this mount namespace.
    pub(super) fn mount_points(&self, container: &Container) -> Result<Vec<PathBuf>> {
        let mounts =
            mountinfo::read().map_err(|errno| Error::io("read", "/proc/self/mountinfo", errno))?;
        let source = mount_source(&container.id);
        let own = mounts.into_iter().filter(|mount| mount.source == source.as_str());
        Ok(own.map(|mount| mount.path).collect())
    }

    /// Takes the container for this process: alone to mount or remove it, beside others to read
    /// it. Whoever holds it finds it as it is until the end.
    ///
    /// # Errors
    /// [`Error::InUse`] where another command has it.
    pub(super) fn hold(&self, container: &Container, hold: Hold) -> Result<File> {
        match hold_patiently(&self.layout.container(&container.id), hold, PATIENCE) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(in_use(container, "another plyfs command is working on it")),
            Err(Error::Io { source: Errno::NOENT, .. }) => {
                Err(Error::NotFound { kind: "container", name: container.name.clone() })
            }
            Err(error) => Err(error),
        }
    }

    /// The writable layer of a container.
    pub fn upper(&self, container: &Container) -> PathBuf {
        self.layout.upper(&container.id)
    }

    /// The writable layer of a container with the workdir that it is mounted with, to be read.
    pub(super) fn upper_dir(&self, container: &Container) -> UpperDir {
        UpperDir::with_workdir(self.upper(container), self.layout.work(&container.id))
    }

    /// Where a container is mounted when no other place is asked for.
    pub fn default_mount_point(&self, container: &Container) -> PathBuf {
        self.layout.merged(&container.id)
    }
}

/// The source that a container's mount shows in the mount table, by which it is known again.
pub(super) fn mount_source(id: &ContainerId) -> String {
    format!("{SOURCE}{id}")
}

/// The container whose mount shows this source.
pub(super) fn mounted_id(source: &OsStr) -> Option<ContainerId> {
    source.to_str()?.strip_prefix(SOURCE).and_then(ContainerId::parse)
}

const SOURCE: &str = "plyfs-";

/// That a container is in use.
pub(super) fn in_use(container: &Container, by: impl Into<String>) -> Error {
    Error::InUse { what: format!("container {}", container.name), by: by.into() }
}

/// That a container is mounted, and where.
pub(super) fn mounted(container: &Container, places: &[PathBuf]) -> Error {
    match places.first() {
        Some(place) => {
            let name = &container.name;
            in_use(container, format!("mounted on {}: plyfs umount {name} frees it", shown(place)))
        }
        None => in_use(container, "mounted in another mount namespace"),
    }
}

fn shown(path: &Path) -> impl fmt::Display + '_ {
    path.display()
}
